//! What the daemon takes where many processes are, and come and go; and where many ask.

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    churn, daemon,
    daemon::{Daemon, MEMTRACE},
    group::Group,
};

/// Processes that do nothing.
const IDLE: u32 = 2000;
/// Others begin and end so often a second.
const FORKS: u32 = 200;
/// For so long.
const TIME: Duration = Duration::from_secs(20);
/// CPU seconds that a reading may take: of the 10 s between two, by default, one per cent. Without
/// optimization it takes twice as much.
const READING: f64 = if cfg!(debug_assertions) { 0.2 } else { 0.1 };

/// Readings of new processes take more: there are many more than by default.
const CONFIG: &str =
    "listen = \"127.0.0.1:0\"\nwalk_budget = \"0%\"\ninterval = \"1s\"\nbudget = \"100%\"\n";

/// Says that this program is to be the crowd.
const ROLE: &str = "MEMTRACE_TEST_CROWD";

/// Is the crowd, where this program was started as one: until its input is closed.
pub(crate) fn play() -> bool {
    if env::var_os(ROLE).is_none() {
        return false;
    }
    let work = || drop(std::hint::black_box(vec![1_u8; 1 << 20]));
    churn::run(IDLE, FORKS, work).expect("there is room for all of them");
    true
}

/// A crowd that runs.
struct Crowd {
    child: Child,
    _input: ChildStdin,
}

impl Crowd {
    fn start() -> Self {
        let mut child = Command::new(env::current_exe().expect("it has a path"))
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let said = child.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut line).expect("text");
        assert_eq!(line, "ready\n");
        let input = child.stdin.take().expect("it is piped");
        Self { child, _input: input }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a reading of all of them takes.
pub(crate) fn is_cheap() {
    let daemon = Daemon::start(CONFIG);
    daemon.wait_until_ready();
    let crowd = Crowd::start();
    let told = |name: &str| daemon.metric(name).expect("it is told");
    daemon.wait_until_there_are(IDLE);
    let (started, before) = (Instant::now(), told("memtrace_self_cpu_seconds_total"));
    thread::sleep(TIME);
    // It tells what it took at its last reading.
    let took = told("memtrace_self_cpu_seconds_total") - before;
    let reading = took / started.elapsed().as_secs_f64();
    assert!(reading < READING, "{:.0} ms a reading", reading * 1000.0);
    let resident = daemon.resident();
    assert!(resident < 56 << 20, "{} KiB resident", resident >> 10);
    let lines = daemon.get("/metrics").1.lines().count();
    assert!(lines < 3000, "{lines} lines of metrics");
    drop(crowd);
}

/// Its cgroup has little memory: tables of the kernel count, and a file for each process.
pub(crate) fn fits() {
    let group = Group::new();
    // Each CPU has a part of some tables.
    let cpus = thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    group.limit((48 << 20) + cpus * (128 << 10));
    let mut command = Command::new(MEMTRACE);
    group.hold(&mut command);
    let folder = tempfile::tempdir().expect("a folder");
    let mut daemon = Daemon::start_by(command, CONFIG, folder);
    daemon.wait_until_ready();
    assert_eq!(daemon.said("the tables have room for 4096 processes"), 1);
    let crowd = Crowd::start();
    daemon.wait_until_there_are(IDLE);
    assert_eq!(daemon.metric("memtrace_untracked_spaces_total"), Some(0.0));
    drop(crowd);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0));
}

/// Many ask at once, each on a connection that stays.
pub(crate) fn may_ask() {
    let daemon = daemon();
    daemon.wait_until_ready();
    let before = daemon.resident();
    let until = Instant::now() + Duration::from_secs(5);
    let ask = |path: &'static str| {
        let address = daemon.address.clone();
        thread::spawn(move || {
            let mut stream = BufReader::new(TcpStream::connect(address).expect("it listens"));
            let mut answers = 0;
            while Instant::now() < until {
                let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
                stream.get_mut().write_all(request.as_bytes()).expect("it takes it");
                answer(&mut stream);
                answers += 1;
            }
            answers
        })
    };
    let asking = (0..16).map(|at| ask(["/metrics", "/api/v1/processes"][at % 2]));
    let asking: Vec<_> = asking.collect();
    let answers: Vec<u32> =
        asking.into_iter().map(|thread| thread.join().expect("it was answered")).collect();
    // Nobody waits for the others to be gone.
    assert!(answers.iter().all(|answers| *answers > 10), "{answers:?}");
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{} KiB more", grown >> 10);
    assert_eq!(daemon.get("/healthz").0, 200);
}

/// Reads an answer whole, which is a good one.
fn answer(stream: &mut BufReader<TcpStream>) {
    let mut len = None;
    let mut line = String::new();
    stream.read_line(&mut line).expect("text");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    loop {
        line.clear();
        stream.read_line(&mut line).expect("text");
        if line == "\r\n" {
            break;
        }
        let field = line.to_lowercase();
        len = field.strip_prefix("content-length: ").map_or(len, |len| len.trim().parse().ok());
    }
    let mut body = vec![0; len.expect("a length")];
    stream.read_exact(&mut body).expect("a body");
}
