//! A real Prometheus reads the daemon.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    daemon as start,
    daemon::{Daemon, Heap},
};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn reads() {
    let heap = Heap::start();
    let daemon = start();
    let report = daemon.report_of(&heap);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let folder = daemon.folder.path();
    let config = format!(
        "global:\n  scrape_interval: 500ms\n  scrape_timeout: 400ms\nscrape_configs:\n- job_name: memtrace\n  static_configs:\n  - targets: ['{}']\n",
        daemon.address
    );
    fs::write(folder.join("prometheus.yml"), config).expect("it can be written");
    let _server = Server(
        Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts"),
    );
    let query = |query: &str| -> Option<Value> {
        let output = Command::new("promtool")
            .args(["query", "instant", "--format=json", &format!("http://{port}"), query])
            .output()
            .ok()?;
        serde_json::from_slice::<Value>(&output.stdout).ok()?.get(0).cloned()
    };
    let pid = heap.pid();
    let memory = &report["processes"][0]["memory"];
    for (name, expected) in [
        ("freed_not_reclaimed_allocator_bytes", &memory["freed_not_reclaimed"]["allocator"]),
        ("live_bytes", &memory["live"]),
    ] {
        let asked = format!("memtrace_process_{name}{{pid=\"{pid}\"}}");
        let found = daemon.wait_until("a scrape", |_| query(&asked));
        let value = found["value"][1].as_str().expect("a value").parse::<f64>().expect("a number");
        assert_eq!(Some(value), expected.as_f64(), "{name}: {found}");
    }
    // What counts up is a counter to it.
    let rate = daemon
        .wait_until("a rate", |_| query("sum(rate(memtrace_machine_detached_bytes_total[10s]))"));
    let rate = rate["value"][1].as_str().and_then(|rate| rate.parse::<f64>().ok());
    assert!(rate.is_some_and(|rate| rate >= 0.0), "{rate:?}");
}

pub(crate) fn check() {
    let heap = Heap::start();
    let daemon = start();
    daemon.report_of(&heap);
    let page = daemon.wait_until("figures of the machine", |daemon: &Daemon| {
        let page = daemon.get("/metrics").1;
        page.contains("memtrace_machine_detached_bytes_total{").then_some(page)
    });
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    promtool.stdin.take().expect("it is piped").write_all(page.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
