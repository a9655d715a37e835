//! A daemon that is tested, a program that it looks at, and who asks it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::chown, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::copied::copied;

pub(crate) const MEMTRACE: &str = env!("CARGO_BIN_EXE_memtrace");

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Name of the program that may be walked.
pub(crate) const HEAP: &str = "tested-heap";

/// A daemon that ends with the test.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) folder: TempDir,
    /// `127.0.0.1:PORT`, or the path of its socket.
    pub(crate) address: String,
    /// What it said before it listened.
    pub(crate) before: String,
    /// What it said since it listens.
    said: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts one; the configuration says where it listens: `SOCKET` and `FOLDER` are its own.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_by(Command::new(MEMTRACE), config, tempfile::tempdir().expect("a folder"))
    }

    /// Starts one as a user who may do nothing but what some capabilities allow.
    pub(crate) fn start_with(capabilities: &[&str], config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Where it was built may be nobody else's business.
        let program = copied(MEMTRACE, folder.path());
        chown(folder.path(), Some(65534), Some(65534)).expect("it is ours");
        let set = capabilities.iter().fold("-all".to_owned(), |set, name| set + ",+" + name);
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["inh-caps", "ambient-caps", "bounding-set"].map(|of| format!("--{of}={set}")))
            .arg(program);
        Self::start_by(command, config, folder)
    }

    pub(crate) fn start_by(command: Command, config: &str, folder: TempDir) -> Self {
        let socket = folder.path().join("socket");
        let config = config
            .replace("SOCKET", socket.to_str().expect("a path"))
            .replace("FOLDER", folder.path().to_str().expect("a path"));
        let file = folder.path().join("serve.toml");
        fs::write(&file, config).expect("it can be written");
        let (child, address, before, said) = spawn(command, &file);
        Self { child, folder, address, before, said }
    }

    /// Starts it again, when it has ended.
    pub(crate) fn start_again(&mut self) {
        (self.child, self.address, self.before, self.said) =
            spawn(Command::new(MEMTRACE), &self.config());
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("serve.toml")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it lives");
    }

    /// Returns its exit code, `None` when a signal ended it.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("it is ours").code()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns how often it said something.
    pub(crate) fn said(&self, what: &str) -> usize {
        self.said.lock().expect("nobody panics").matches(what).count()
    }

    /// Returns its resident bytes.
    pub(crate) fn resident(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id()));
        let pages = statm.expect("it lives").split(' ').nth(1).expect("a number").to_owned();
        pages.parse::<u64>().expect("a number") * 4096
    }

    pub(crate) fn connect(&self) -> Box<dyn ReadWrite> {
        if self.address.starts_with('/') {
            let stream = UnixStream::connect(&self.address).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            return Box::new(stream);
        }
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Box::new(stream)
    }

    /// Asks, and returns the status and the body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        self.ask(&request("GET", path))
    }

    pub(crate) fn get_json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Sends bytes as they are; the status is 0 when it answers nothing.
    pub(crate) fn ask(&self, request: &str) -> (u16, String) {
        let (status, _, body) = self.ask_bytes(request);
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// The same, with the head of the answer in lower case.
    pub(crate) fn ask_with_head(&self, request: &str) -> (u16, String, String) {
        let (status, head, body) = self.ask_bytes(request);
        (status, head, String::from_utf8_lossy(&body).into_owned())
    }

    /// Returns the body of an answer that is no text.
    pub(crate) fn get_bytes(&self, path: &str) -> Vec<u8> {
        let (status, _, body) = self.ask_bytes(&request("GET", path));
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        body
    }

    fn ask_bytes(&self, request: &str) -> (u16, String, Vec<u8>) {
        let mut stream = self.connect();
        // It may answer and close before it has read all.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
        let body = answer.get(end + 4..).unwrap_or_default().to_vec();
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let is_chunked = head.contains("transfer-encoding: chunked");
        (status, head, if is_chunked { unchunked(&body) } else { body })
    }

    /// Returns the value of a metric without labels, or with exactly these.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        metric(&self.get("/metrics").1, name)
    }

    /// Waits until something is the case.
    #[track_caller]
    pub(crate) fn wait_until<T>(&self, what: &str, is: impl Fn(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = is(self) {
                return found;
            }
            assert!(started.elapsed() < PATIENCE, "{what} never happened");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it tells of more processes than so many.
    #[track_caller]
    pub(crate) fn wait_until_there_are(&self, processes: u32) {
        self.wait_until("all of them", |daemon| {
            let told = daemon.metric("memtrace_machine_processes").expect("it is told");
            (told > processes.into()).then_some(())
        });
    }

    /// Waits until the machine was read, and what leaves processes is counted or cannot be, and returns what
    /// the daemon says of that.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) -> String {
        self.wait_until("readiness", |daemon| {
            let (status, said) = daemon.get("/readyz");
            (status == 200).then_some(said)
        })
    }

    /// Waits until the heap of a process was walked, and returns its report.
    #[track_caller]
    pub(crate) fn report_of(&self, heap: &Heap) -> Value {
        let path = format!("/api/v1/processes/{}", heap.pid());
        let body = self.wait_until("a walk", |daemon| {
            let (status, body) = daemon.get(&path);
            (status == 200).then_some(body)
        });
        serde_json::from_str(&body).expect("JSON")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Returns it, where it listens, what it said before, and what it says since.
fn spawn(mut command: Command, config: &Path) -> (Child, String, String, Arc<Mutex<String>>) {
    let mut child = command
        .args(["-v", "serve", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
    let (mut before, mut line, mut address) = (String::new(), String::new(), None);
    while address.is_none() && said.read_line(&mut line).expect("text") > 0 {
        let after = line.split("listening on ").nth(1).map(str::trim);
        address =
            after.map(|at| at.trim_start_matches("http://").trim_start_matches("unix:").to_owned());
        before.push_str(&std::mem::take(&mut line));
    }
    // What it says further must not fill the pipe.
    let kept = Arc::new(Mutex::new(String::new()));
    let keeps = kept.clone();
    std::thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            *keeps.lock().expect("nobody panics") += &format!("{line}\n");
        }
    });
    (child, address.unwrap_or_else(|| panic!("it does not listen: {before}")), before, kept)
}

/// Returns a request after which the daemon closes the connection.
pub(crate) fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// Returns the value of a line of metrics.
pub(crate) fn metric(page: &str, name: &str) -> Option<f64> {
    let line =
        page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line?.rsplit_once(' ')?.1.parse().ok()
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let len = std::str::from_utf8(&body[..end]).unwrap_or_default();
        let len = usize::from_str_radix(len.trim(), 16).unwrap_or(0);
        let chunk = &body[end + 2..];
        whole.extend_from_slice(&chunk[..len.min(chunk.len())]);
        body = chunk.get(len + 2..).unwrap_or_default();
        if len == 0 {
            break;
        }
    }
    whole
}

/// A program that freed what it had, and stands still until it is told to work.
pub(crate) struct Heap {
    child: Child,
    /// It ends when this is closed.
    input: ChildStdin,
    _folder: TempDir,
}

impl Heap {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join(HEAP);
        std::os::unix::fs::symlink("/usr/bin/python3", &program).expect("a link");
        let script = "import mmap, sys\n\
                      blocks = [bytes(1000) for _ in range(50000)]\n\
                      last = blocks[-1]\n\
                      del blocks\n\
                      print('ready', flush=True)\n\
                      for line in sys.stdin:\n\
                      \x20   for _ in range(int(line)): mmap.mmap(-1, 4096).close()\n";
        let mut child = Command::new(program)
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut line)
            .expect("text");
        assert_eq!(line, "ready\n");
        let input = child.stdin.take().expect("it is piped");
        Self { child, input, _folder: folder }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Maps and unmaps a page so many times from now on.
    pub(crate) fn work(&mut self, times: u32) {
        writeln!(self.input, "{times}").expect("it reads");
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
