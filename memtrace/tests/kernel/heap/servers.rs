//! Servers whose data was deleted: in one the memory is free and stuck, in the other it is live.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;

use super::{number, report};
use crate::driver::{scratch, trial_or_ignored};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial_or_ignored("heap::what_redis_deleted_is_stuck_in_slabs", redis),
        trial_or_ignored("heap::what_memcached_flushed_is_live", memcached),
    ]
}

/// A server that listens on a Unix socket.
struct Server {
    child: Child,
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Server {
    /// Starts it; `None` when there is no such program.
    fn start(
        program: &str,
        arguments: impl FnOnce(&Path) -> Vec<String>,
    ) -> Result<Option<Self>, Failed> {
        let socket = scratch(program);
        let mut command = Command::new(program);
        command.args(arguments(&socket)).stdin(Stdio::null()).stdout(Stdio::null());
        let Ok(mut child) = command.stderr(Stdio::null()).spawn() else { return Ok(None) };
        let deadline = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(error) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("{program} does not listen: {error}").into());
                }
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Some(Self { child, socket, stream: BufReader::new(stream) }))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    fn line(&mut self) -> Result<String, Failed> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line)
    }

    fn report(&self) -> Result<Value, Failed> {
        report(self.child.id(), &[])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn strings(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

fn has(process: &Value, id: &str) -> bool {
    process["findings"].as_array().into_iter().flatten().any(|finding| finding["id"] == id)
}

/// Of 300,000 values every sixteenth stays, on as many pages as before.
fn redis() -> Result<Completion, Failed> {
    let arguments = |socket: &Path| {
        let socket = socket.display().to_string();
        strings(&["--port", "0", "--unixsocket", &socket, "--save", "", "--appendonly", "no"])
    };
    let Some(mut server) = Server::start("redis-server", arguments)? else {
        return Ok(Completion::ignored_with("optional: there is no redis-server"));
    };
    for script in [
        "for i=1,300000 do redis.call('set','key:'..i,string.rep('x',200)) end",
        "for i=1,300000 do if i%16~=0 then redis.call('del','key:'..i) end end",
    ] {
        server.send(
            format!("*3\r\n$4\r\nEVAL\r\n${}\r\n{script}\r\n$1\r\n0\r\n", script.len()).as_bytes(),
        )?;
        let answer = server.line()?;
        if answer != "$-1\r\n" {
            return Err(format!("redis says {answer:?}").into());
        }
    }
    let process = server.report()?;
    let allocators = process["allocators"].as_array().into_iter().flatten();
    let Some(jemalloc) = allocators.clone().find(|allocator| allocator["name"] == "jemalloc")
    else {
        return Ok(Completion::ignored_with("optional: this redis-server has another malloc"));
    };
    let (free, stuck) =
        (number(&jemalloc["free_resident"]), number(&jemalloc["remains"]["partly_used"]));
    if free < 40 << 20 || stuck < free / 2 || !has(&process, "partly_used_pages") {
        return Err(format!("{stuck} of {free} are stuck: {process}").into());
    }
    Ok(Completion::Completed)
}

/// What memcached flushes it keeps for itself: no allocator knows that nothing is in it.
fn memcached() -> Result<Completion, Failed> {
    const ITEMS: usize = 40_000;
    const LEN: usize = 2000;
    let arguments = |socket: &Path| {
        strings(&["-s", &socket.display().to_string(), "-m", "256", "-u", "root", "-t", "1"])
    };
    let Some(mut server) = Server::start("memcached", arguments)? else {
        return Ok(Completion::ignored_with("optional: there is no memcached"));
    };
    let value = "x".repeat(LEN);
    for item in 0..ITEMS {
        server.send(format!("set {item} 0 0 {LEN} noreply\r\n{value}\r\n").as_bytes())?;
    }
    server.send(b"flush_all\r\n")?;
    let answer = server.line()?;
    if answer != "OK\r\n" {
        return Err(format!("memcached says {answer:?}").into());
    }
    let process = server.report()?;
    let live = number(&process["memory"]["live"]);
    if live < (ITEMS * LEN) as u64 || !has(&process, "live") || has(&process, "partly_used_pages") {
        return Err(format!("{live} are live: {process}").into());
    }
    Ok(Completion::Completed)
}
