//! What `report` says of processes that are there, and of those that are not.

use super::*;

/// A process that waits until it is dropped.
struct Sleep(std::process::Child);

impl Sleep {
    fn new() -> Self {
        let sleep = Self(Command::new("sleep").arg("1000").spawn().expect("sleep is everywhere"));
        // It waits when it is in clock_nanosleep (proc_pid_syscall(5)).
        let deadline = Instant::now() + Duration::from_secs(60);
        let call = format!("/proc/{}/syscall", sleep.pid());
        while !fs::read_to_string(&call).is_ok_and(|call| call.starts_with("230 ")) {
            assert!(Instant::now() < deadline, "sleep does not sleep");
            thread::yield_now();
        }
        sleep
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_report_tells_a_process_that_is_gone_from_those_that_are_there() {
    let sleep = Sleep::new();
    let assert = run(memtrace(["report", "--format", "json", &sleep.pid(), NO_SUCH_PID])).code(1);
    let output = assert.get_output();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let processes = report["processes"].as_array().expect("a list");
    assert_eq!(processes.len(), 1, "{report}");
    assert_eq!(processes[0]["comm"], "sleep");
    assert!(processes[0]["memory"]["cold"].is_null(), "{report}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("there is no process {NO_SUCH_PID}")), "{stderr}");
}

#[test]
fn a_report_on_cold_memory_tells_it_in_each_region() {
    let sleep = Sleep::new();
    let assert =
        run(memtrace(["report", "--format", "json", "--cold", "10ms", &sleep.pid()])).success();
    let report: serde_json::Value =
        serde_json::from_slice(&assert.get_output().stdout).expect("JSON");
    let process = &report["processes"][0];
    let regions = process["regions"].as_array().expect("a list");
    let sum: u64 = regions.iter().map(|region| region["cold"].as_u64().expect("known")).sum();
    // It sleeps, and touches nothing.
    assert_eq!(process["memory"]["cold"].as_u64(), Some(sum));
    assert!(sum > 0 && sum <= process["memory"]["resident"].as_u64().expect("known"), "{report}");
}

#[test]
fn a_report_that_is_watched_ends_with_the_process() {
    let sleep = Sleep::new();
    let mut watch = memtrace(["report", "--format", "json", "--watch", "50ms", &sleep.pid()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("memtrace starts");
    let stdout = std::io::BufReader::new(watch.stdout.take().expect("piped"));
    let mut lines = std::io::BufRead::lines(stdout);
    for _ in 0..2 {
        let line = lines.next().expect("another report").expect("text");
        assert!(line.starts_with("{\"schema\":\"memtrace.report/1\""), "{line}");
    }
    drop(sleep);
    assert!(lines.all(|line| line.is_ok()));
    assert!(watch.wait().expect("it ends").success());
}

#[test]
fn a_report_needs_processes_or_all_of_them() {
    assert!(misused(["report"]).contains("required arguments were not provided"));
    assert!(misused(["report", "--all", "1"]).contains("cannot be used with"));
    assert!(
        misused(["report", "--cold", "1s", "--watch", "1s", "1"]).contains("cannot be used with")
    );
}
