//! What the daemon takes of a CPU, and what it does when that is too much.

use crate::daemon::{Daemon, HEAP, Heap, metric};

const QUICK: &str = "listen = \"127.0.0.1:0\"\ninterval = \"200ms\"\nbudget_over = \"2s\"\n";

fn evidence(page: &str) -> Option<&str> {
    let line = page.lines().find(|line| line.starts_with("memtrace_build_info{"))?;
    line.split("evidence=\"").nth(1)?.split('"').next()
}

fn is_told(page: &str, name: &str) -> bool {
    page.lines().any(|line| line.starts_with(name))
}

/// Waits for metrics of which something is the case.
#[track_caller]
fn page(daemon: &Daemon, what: &str, is: impl Fn(&str) -> bool) -> String {
    daemon.wait_until(what, |daemon| {
        let page = daemon.get("/metrics").1;
        is(&page).then_some(page)
    })
}

pub(crate) fn is_kept() {
    let heap = Heap::start();
    let walks = format!("walk_only = [\"{HEAP}\"]\nwalk_budget = \"20%\"\n");
    let daemon = Daemon::start(&format!("{QUICK}budget = \"0%\"\n{walks}"));
    let shed = |page: &str, what: &str| {
        metric(page, &format!("memtrace_shed{{what=\"{what}\"}}")).expect("it is told") > 0.0
    };
    let found = page(&daemon, "a walk less", |page| shed(page, "walks"));
    assert!(!shed(&found, "frames") && is_told(&found, "memtrace_machine_reclaimed_bytes_total"));
    assert_eq!(evidence(&found), Some("frames"));

    let found = page(&daemon, "no frames", |page| evidence(page) == Some("rss"));
    assert!(shed(&found, "walks") && shed(&found, "frames") && !shed(&found, "counts"));
    assert!(!is_told(&found, "memtrace_machine_reclaimed_bytes_total"), "{found}");
    let detached = |page: &str| -> f64 {
        let lines = page.lines().filter(|line| line.starts_with("memtrace_machine_detached_bytes"));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    let before = detached(&found);
    drop(heap);
    page(&daemon, "more that left", |page| detached(page) > before);

    let found = page(&daemon, "no counts", |page| evidence(page) == Some("none"));
    assert!(shed(&found, "counts") && !is_told(&found, "memtrace_machine_detached_bytes_total"));
    assert_eq!(daemon.get("/readyz").0, 200, "it is there all the same");
    let counting = &daemon.get_json("/api/v1/processes")["counting"];
    assert_eq!(counting["state"], "off");
    assert!(counting["why"].as_str().expect("text").contains("budget"), "{counting}");
}

pub(crate) fn probes_are_measured() {
    let daemon = Daemon::start(&format!("{QUICK}walk_budget = \"0%\"\nmeasure_probes = true\n"));
    let took = |page: &str, what: &str| {
        metric(page, &format!("memtrace_probe_{what}_total{{program=\"rss_tracepoint\"}}"))
    };
    let found = page(&daemon, "a measurement", |page| took(page, "runs") > Some(0.0));
    let (runs, seconds) = (took(&found, "runs"), took(&found, "run_seconds"));
    let each = seconds.expect("it is told") / runs.expect("it is told");
    assert!((1e-9..1e-3).contains(&each), "{each} s a run");
    assert!(metric(&found, "memtrace_probe_measured_seconds_total") > Some(0.1));
}
