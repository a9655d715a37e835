//! A redis server that is traced and a client that is not: only the server's command is behind a
//! tracer.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// How long a server may take to start under a tracer, and to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server, has redis-benchmark send that many SETs, ends the server; returns how long the
/// requests took.
pub(crate) fn set(requests: u64, socket: &Path, server: &[String]) -> Result<Duration> {
    // what a server that was killed left behind
    let _ = fs::remove_file(socket);
    let server = Server::start(socket, server)?;
    let output = Command::new("redis-benchmark")
        .arg("-s")
        .arg(socket)
        .args(["-t", "set", "-P", "1", "-d", "100", "-r", "100000", "--csv"])
        .args(["-n", &requests.to_string()])
        .stdin(Stdio::null())
        .output()
        .context("cannot start redis-benchmark")?;
    server.end()?;
    let per_second = throughput(&String::from_utf8_lossy(&output.stdout))
        .context("redis-benchmark tells no throughput")?;
    Ok(Duration::from_secs_f64(requests as f64 / per_second))
}

/// Returns the requests a second in what `redis-benchmark --csv` prints.
fn throughput(csv: &str) -> Option<f64> {
    let line = csv.lines().find_map(|line| line.strip_prefix("\"SET\",\""))?;
    let number: f64 = line.split('"').next()?.parse().ok()?;
    (number > 0.0).then_some(number)
}

/// A server and its tracer; killed if it was not ended.
struct Server<'a> {
    socket: &'a Path,
    process: Child,
}

impl<'a> Server<'a> {
    /// Starts it and waits until it answers.
    fn start(socket: &'a Path, command: &[String]) -> Result<Self> {
        let (program, args) = command.split_first().context("no server to start")?;
        let process = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // so that it can be killed together with its tracer
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let mut server = Self { socket, process };
        let start = Instant::now();
        while !server.answers() {
            if let Some(status) = server.process.try_wait()? {
                bail!("the server has ended ({status})");
            }
            ensure!(start.elapsed() < PATIENCE, "the server does not answer");
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn answers(&self) -> bool {
        let mut answer = [0; 5];
        self.ask(b"PING\r\n")
            .and_then(|mut stream| stream.read_exact(&mut answer))
            .is_ok_and(|()| answer == *b"+PONG")
    }

    fn ask(&self, request: &[u8]) -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        Ok(stream)
    }

    /// Ends it and waits for its tracer.
    fn end(mut self) -> Result<()> {
        let _open = self.ask(b"SHUTDOWN NOSAVE\r\n").context("cannot end the server")?;
        let start = Instant::now();
        while self.process.try_wait()?.is_none() {
            ensure!(start.elapsed() < PATIENCE, "the server does not end");
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            let group = self.process.id().cast_signed();
            // SAFETY: no memory is involved. The process, not waited for, keeps its group's number.
            unsafe { libc::kill(-group, libc::SIGKILL) };
            let _ = self.process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throughput_is_found_with_and_without_a_header() {
        let line = "\"SET\",\"122774.71\",\"0.222\"\n";
        assert_eq!(throughput(line), Some(122_774.71));
        assert_eq!(throughput(&format!("\"test\",\"rps\"\n{line}")), Some(122_774.71));
        assert_eq!(throughput("\"SET\",\"122774.71\""), Some(122_774.71));
    }

    #[test]
    fn no_throughput_is_made_up() {
        assert_eq!(throughput("\"GET\",\"1.00\"\n"), None);
        assert_eq!(throughput("\"SET\",\"0.00\"\n"), None);
        assert_eq!(throughput("Could not connect"), None);
    }
}
