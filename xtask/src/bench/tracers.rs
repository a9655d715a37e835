//! The tracers that are compared.

use super::tracer::{Sees, Tracer};

/// The names that the goals are about.
pub(super) const FRAMES: &str = "memtrace run --evidence frames";
pub(super) const UNTRACED_RSS: &str = "untraced, memtrace (rss) elsewhere";
pub(super) const UNTRACED_ARGS: &str = "untraced, memtrace (args) elsewhere";

/// All of them; the first is what the others are compared with.
pub(super) const TRACERS: &[Tracer] = &[
    Tracer::BARE,
    Tracer {
        name: FRAMES,
        prefix: &["MEMTRACE", "run", "--evidence", "frames", "-o", "/dev/null", "--"],
        sees: Sees::Frames,
        ..Tracer::BARE
    },
    Tracer {
        name: "memtrace run --evidence rss",
        prefix: &["MEMTRACE", "run", "--evidence", "rss", "-o", "/dev/null", "--"],
        sees: Sees::Pages,
        ..Tracer::BARE
    },
    Tracer {
        name: "memtrace run --evidence args",
        prefix: &["MEMTRACE", "run", "--evidence", "args", "-o", "/dev/null", "--"],
        sees: Sees::Calls,
        ..Tracer::BARE
    },
    Tracer {
        name: "bpftrace (frames)",
        prefix: &[
            "bpftrace",
            "-o",
            "/dev/null",
            "-e",
            concat!(
                include_str!("bpftrace/calls.bt"),
                include_str!("bpftrace/pages.bt"),
                include_str!("bpftrace/frames.bt")
            ),
            "-c",
        ],
        one_word: true,
        sees: Sees::Frames,
        ..Tracer::BARE
    },
    Tracer {
        name: "bpftrace (rss)",
        prefix: &[
            "bpftrace",
            "-o",
            "/dev/null",
            "-e",
            concat!(include_str!("bpftrace/calls.bt"), include_str!("bpftrace/pages.bt")),
            "-c",
        ],
        one_word: true,
        sees: Sees::Pages,
        ..Tracer::BARE
    },
    Tracer {
        name: "bpftrace (args)",
        prefix: &["bpftrace", "-o", "/dev/null", "-e", include_str!("bpftrace/calls.bt"), "-c"],
        one_word: true,
        sees: Sees::Calls,
        ..Tracer::BARE
    },
    Tracer {
        name: "strace -f --seccomp-bpf -e trace=%memory",
        prefix: &["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=%memory", "-o", "/dev/null"],
        sees: Sees::Calls,
        ..Tracer::BARE
    },
    Tracer {
        name: "perf trace (memory calls)",
        prefix: &[
            "perf",
            "trace",
            "-o",
            "/dev/null",
            "-e",
            "mmap,munmap,brk,mremap,madvise,mprotect",
        ],
        sees: Sees::Calls,
        ..Tracer::BARE
    },
    Tracer {
        name: "perf trace -F all (faults only)",
        prefix: &["perf", "trace", "-o", "/dev/null", "-F", "all", "--no-syscalls"],
        sees: Sees::Faults,
        ..Tracer::BARE
    },
    Tracer {
        name: "untraced, memtrace (frames) elsewhere",
        elsewhere: Some("frames"),
        ..Tracer::BARE
    },
    Tracer { name: UNTRACED_RSS, elsewhere: Some("rss"), ..Tracer::BARE },
    Tracer { name: UNTRACED_ARGS, elsewhere: Some("args"), ..Tracer::BARE },
];
