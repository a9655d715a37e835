//! The daemon with no more rights than it needs, and with less.

use std::{collections::HashMap, fs};

use crate::{
    config,
    daemon::{Daemon, Heap, metric},
};

/// What the docs say that it takes, as setpriv(1) calls it.
pub(crate) const ENOUGH: [&str; 4] = ["bpf", "perfmon", "sys_ptrace", "dac_read_search"];

/// `CAP_DAC_READ_SEARCH`, `CAP_SYS_PTRACE` and `CAP_CHECKPOINT_RESTORE` (include/uapi/linux/capability.h).
const READ_SEARCH: u64 = 1 << 2;
const PTRACE: u64 = 1 << 19;
const RESTORE: u64 = 1 << 40;

pub(crate) fn enough() {
    let heap = Heap::start();
    let daemon = Daemon::start_with(&ENOUGH, &config());
    let report = daemon.report_of(&heap);
    let memory = &report["processes"][0]["memory"];
    let free = memory["freed_not_reclaimed"]["allocator"].as_u64();
    assert!(free.is_some_and(|free| free > 40 << 20), "{memory}");
    assert_eq!(counting(&daemon), "on");
    assert!(!daemon.before.contains("without CAP_DAC"), "{}", daemon.before);
}

pub(crate) fn lacking() {
    let heap = Heap::start();
    for lacks in ENOUGH {
        let has: Vec<&str> = ENOUGH.into_iter().filter(|&name| name != lacks).collect();
        let daemon = Daemon::start_with(&has, &config());
        let said = format!("without CAP_{} ", lacks.to_uppercase());
        assert!(daemon.before.contains(&said), "{said}: {}", daemon.before);
        let ready = daemon.wait_until_ready();
        assert!(ready.starts_with("ready\n") && ready.contains(&said), "{ready}");
        let lack = format!("memtrace_lacking{{capability=\"CAP_{}\"}}", lacks.to_uppercase());
        assert_eq!(metric(&daemon.get("/metrics").1, &lack), Some(1.0), "{lacks}");
        let may_count = lacks != "bpf" && lacks != "perfmon";
        assert_eq!(counting(&daemon), if may_count { "on" } else { "off" }, "{lacks}");
        let (status, body) = daemon.wait_until("a walk", |daemon| {
            let path = format!("/api/v1/processes/{}", heap.pid());
            Some(daemon.get(&path)).filter(|(status, _)| *status != 503)
        });
        // Counting and walking do without each other.
        assert_eq!(body.contains("CAP_SYS_PTRACE"), may_count, "{lacks}: {body}");
        assert_eq!(status, if lacks == "sys_ptrace" { 403 } else { 200 }, "{lacks}: {body}");
    }
}

/// Waits until it is known what is counted.
pub(crate) fn counting(daemon: &Daemon) -> String {
    daemon.wait_until("counting", |daemon| {
        let state = daemon.get_json("/api/v1/processes")["counting"]["state"].clone();
        state.as_str().filter(|&state| state != "starting").map(str::to_owned)
    })
}

pub(crate) fn given_up() {
    let heap = Heap::start();
    let started: [(&str, Daemon, u64); 2] = [
        ("root", Daemon::start(&config()), RESTORE),
        ("a user", Daemon::start_with(&ENOUGH, &config()), 0),
    ];
    for (who, daemon, more) in started {
        daemon.report_of(&heap);
        assert_eq!(counting(&daemon), "on", "{who}");
        let threads = daemon.wait_until("the end of attaching", |daemon| {
            Some(threads(daemon)).filter(|threads| !threads.contains_key("probes"))
        });
        assert!(threads.contains_key("gather") && threads.contains_key("walks"), "{threads:?}");
        for (thread, status) in threads {
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.expect("it is there").trim().to_owned()
            };
            let set = |name: &str| u64::from_str_radix(&field(name), 16).expect("a number");
            // Root may lack some as well, in a container.
            let kept = READ_SEARCH | PTRACE | more;
            for name in ["CapPrm:", "CapEff:"] {
                assert_eq!(set(name) & !more, kept & !more, "{who}, {thread}: {name} {status}");
                assert_eq!(set(name) & !kept, 0, "{who}, {thread}: {name} {status}");
            }
            assert_eq!((set("CapInh:"), set("CapAmb:")), (0, 0), "{who}, {thread}: {status}");
            assert_eq!(set("CapBnd:") == 0, who == "root", "{who}, {thread}: {status}");
            assert_eq!(field("NoNewPrivs:"), "1", "{who}, {thread}");
            assert_eq!(field("Seccomp:"), "2", "{who}, {thread}");
        }
        // It counts on, without what it attached the probes with.
        let operations = |daemon: &Daemon| daemon.get_json("/api/v1/processes")["time_ns"].as_u64();
        let before = operations(&daemon);
        daemon.wait_until("another reading", |daemon| {
            (operations(daemon) > before && counting(daemon) == "on").then_some(())
        });
    }
}

/// Returns the status of each thread, by its name.
pub(crate) fn threads(daemon: &Daemon) -> HashMap<String, String> {
    let folder = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it lives");
    let read = |thread: fs::DirEntry| {
        let read = |file| fs::read_to_string(thread.path().join(file)).ok();
        Some((read("comm")?.trim().to_owned(), read("status")?))
    };
    folder.flatten().filter_map(read).collect()
}
