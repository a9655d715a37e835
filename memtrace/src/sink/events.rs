//! The live stream for people: one line for each event, after the manner of strace.

use nix::errno::Errno;

use super::{exit_code, known, printable, size, words::time};
use crate::model::change::{Change, What};

/// Returns one line without its newline: seconds since `start_ns`, PID (and thread, where it is
/// another one), and what happened.
pub fn line(change: &Change, start_ns: u64) -> String {
    let Change { time_ns, tgid, tid, what } = change;
    let micros = time_ns.saturating_sub(start_ns) / 1_000;
    let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let who = if tgid == tid { tgid.to_string() } else { format!("{tgid}/{tid}") };
    format!("{seconds:>11}  {who:<9}  {}", words(what))
}

fn words(what: &What) -> String {
    match what {
        What::Call { call, start, requested, detail, ret, path, zapped, freed, duration_ns } => {
            let mut words = format!("{call:<8} {:<14}  {:>10}", hex(*start), size(*requested));
            if !detail.is_empty() {
                words += &format!("  {detail}");
            }
            if path.is_some() {
                words += &format!("  zapped {}  freed {}", known(*zapped), known(*freed));
                let rest =
                    zapped.zip(*freed).map_or(0, |(zapped, freed)| zapped.saturating_sub(freed));
                if rest > 0 {
                    words += &format!("  +{} late or kept", size(rest));
                }
            }
            if let Some(duration) = duration_ns {
                words += &format!("  in {}", time(u64::from(*duration)));
            }
            words + &result(*ret)
        }
        What::Fault { address, access, from_kernel } => {
            let by = if *from_kernel { " by the kernel" } else { "" };
            format!("{:<8} {:<14}  {access}{by}", "fault", hex(*address))
        }
        What::Fork { child, followed } => {
            let followed = if *followed { "" } else { ", not followed" };
            format!("{:<8} child {child}{followed}", "fork")
        }
        What::Exec { path } => format!("{:<8} {}", "exec", printable(path)),
        What::Exit { code } => format!("+++ exited with {} +++", exit_code(*code)),
        What::Memory { resident, live, free_resident, lazy_free, trimmable, regions: _ } => {
            let [resident, live, free, lazy, trim] =
                [resident, live, free_resident, lazy_free, trimmable].map(|bytes| known(*bytes));
            format!(
                "{:<8} resident {resident}  live {live}  free {free}  lazy free {lazy}  trimmable {trim}",
                "memory"
            )
        }
        What::MmEnd { zapped, freed } => {
            format!("{:<8} zapped {}  freed {}", "teardown", known(*zapped), known(*freed))
        }
    }
}

/// Returns how a call ended; nothing for a plain success.
fn result(ret: i64) -> String {
    if ret == 0 {
        return String::new();
    }
    if ret > 0 {
        return format!("  = {ret:#x}");
    }
    let raw = i32::try_from(-i128::from(ret)).unwrap_or(i32::MAX);
    match Errno::from_raw(raw) {
        Errno::UnknownErrno => format!("  = -1 errno {raw}"),
        errno => format!("  = -1 {errno:?}"),
    }
}

fn hex(address: u64) -> String {
    format!("{address:#x}")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    const START_NS: u64 = 5_000_000_000;

    fn at(time_ns: u64, tid: u32, what: What) -> String {
        line(&Change { time_ns: START_NS + time_ns, tgid: 4242, tid, what }, START_NS)
    }

    fn call(call: &'static str, start: u64, detail: &str, ret: i64) -> What {
        let detail = detail.into();
        What::Call {
            call,
            start,
            requested: 64 << 20,
            detail,
            ret,
            path: None,
            zapped: Some(0),
            freed: Some(0),
            duration_ns: None,
        }
    }

    #[test]
    fn calls_stand_in_columns() {
        let lines = [
            at(
                1_234_567_890,
                4242,
                call("mmap", 0x7f12_a000_0000, "PROT_READ|PROT_WRITE", 0x7f12_a000_0000),
            ),
            at(
                1_234_999_999,
                4250,
                What::Call {
                    call: "munmap",
                    start: 0x7f12_a000_0000,
                    requested: 64 << 20,
                    detail: String::new(),
                    ret: 0,
                    path: Some("munmap"),
                    zapped: Some(32 << 20),
                    freed: Some((32 << 20) - (100 << 10)),
                    duration_ns: Some(412_000),
                },
            ),
            at(2_000_000_000, 4242, call("madvise", 0x5555_0000, "MADV_FREE", 0)),
            at(100_000_000_000, 4242, call("mprotect", 0x5555_0000, "PROT_NONE", 0)),
        ];
        assert_snapshot!(lines.join("\n"), @"
          1.234567  4242       mmap     0x7f12a0000000    64.0 MiB  PROT_READ|PROT_WRITE  = 0x7f12a0000000
          1.234999  4242/4250  munmap   0x7f12a0000000    64.0 MiB  zapped 32.0 MiB  freed 31.9 MiB  +100.0 KiB late or kept  in 412.0 µs
          2.000000  4242       madvise  0x55550000        64.0 MiB  MADV_FREE
        100.000000  4242       mprotect 0x55550000        64.0 MiB  PROT_NONE
        ");
    }

    #[test]
    fn a_failed_call_ends_in_the_name_of_its_error() {
        let lines = [-12, -14, -512, i64::MIN].map(|ret| at(0, 4242, call("mmap", 0, "", ret)));
        assert_snapshot!(lines.join("\n"), @"
        0.000000  4242       mmap     0x0               64.0 MiB  = -1 ENOMEM
        0.000000  4242       mmap     0x0               64.0 MiB  = -1 EFAULT
        0.000000  4242       mmap     0x0               64.0 MiB  = -1 errno 512
        0.000000  4242       mmap     0x0               64.0 MiB  = -1 errno 2147483647
        ");
    }

    #[test]
    fn the_life_of_a_process_reads_from_fork_to_teardown() {
        let lines = [
            at(0, 4242, What::Fork { child: 4300, followed: true }),
            at(1_000, 4242, What::Fork { child: 4301, followed: false }),
            at(2_000, 4242, What::Exec { path: "/usr/bin/python3".into() }),
            at(
                3_000,
                4242,
                What::Fault { address: 0x7ffd_0000_1000, access: "write", from_kernel: false },
            ),
            at(4_000, 4242, What::Fault { address: 0x1000, access: "read", from_kernel: true }),
            at(5_000, 4242, What::Exit { code: 0 }),
            at(6_000, 4242, What::MmEnd { zapped: Some(4 << 20), freed: None }),
            at(7_000, 4242, What::Exit { code: 137 }),
        ];
        assert_snapshot!(lines.join("\n"), @"
        0.000000  4242       fork     child 4300
        0.000001  4242       fork     child 4301, not followed
        0.000002  4242       exec     /usr/bin/python3
        0.000003  4242       fault    0x7ffd00001000  write
        0.000004  4242       fault    0x1000          read by the kernel
        0.000005  4242       +++ exited with 0 +++
        0.000006  4242       teardown zapped 4.0 MiB  freed –
        0.000007  4242       +++ exited with 137 (SIGKILL) +++
        ");
    }

    #[test]
    fn an_event_from_before_the_start_is_shown_at_the_start() {
        let early = Change { time_ns: 1, tgid: 1, tid: 1, what: What::Exit { code: 0 } };
        assert_snapshot!(line(&early, START_NS), @"   0.000000  1          +++ exited with 0 +++");
    }

    #[test]
    fn a_hostile_program_name_stays_on_its_line() {
        assert_snapshot!(at(0, 4242, What::Exec { path: "/tmp/\n\x1b[2J\u{202e}".into() }), @r"   0.000000  4242       exec     /tmp/\n\u{1b}[2J\u{202e}");
    }
}
