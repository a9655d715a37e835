//! What a boot's end means.
//!
//! A panicking guest ends QEMU with status 0, so nothing is a success but the guest's own word:
//! the marker line *and* the status that its exit device gives.

use super::qemu::{End, Run};

/// QEMU's status after vm-init wrote 0x10 or 0x11 to the exit device.
const STATUS_PASSED: i32 = 33;
const STATUS_FAILED: i32 = 35;

/// How the program in a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Passed,
    /// It ended with this status.
    Failed(i32),
    TimedOut,
    /// The machine ended before the program did.
    Died {
        /// Had the guest got as far as starting it?
        ready: bool,
        why: String,
    },
}

/// Judges a boot.
pub(super) fn judge(run: &Run) -> Outcome {
    let Run { end, output, kernel_log, complaints } = run;
    let status = exit_marker(output);
    let died = |why: String| Outcome::Died { ready: is_ready(output), why };
    match (*end, status) {
        (End::Exited(STATUS_PASSED), Some(0)) => Outcome::Passed,
        (End::Exited(STATUS_FAILED), Some(status)) if status != 0 => Outcome::Failed(status),
        (End::TimedOut, _) => Outcome::TimedOut,
        (End::Exited(_) | End::Killed | End::Stopped, _) => {
            let last_words = fatal_line(kernel_log)
                .or_else(|| complaints.lines().last())
                .or_else(|| kernel_log.lines().last())
                .unwrap_or("no word from it");
            died(format!("{}: {}", how(*end), last_words.trim()))
        }
    }
}

/// Finds the line by which a kernel says that it will not go on.
pub(super) fn fatal_line(kernel_log: &str) -> Option<&str> {
    const FATAL: [&str; 5] = [
        "Kernel panic - not syncing",
        "end Kernel panic",
        "soft lockup",
        "rcu_preempt detected stalls",
        "rcu_sched detected stalls",
    ];
    kernel_log.lines().find(|line| FATAL.iter().any(|fatal| line.contains(fatal)))
}

fn how(end: End) -> String {
    match end {
        End::Exited(status) => format!("QEMU ended with {status}"),
        End::Killed => "QEMU was killed".into(),
        End::TimedOut => "time was up".into(),
        End::Stopped => "stopped".into(),
    }
}

fn is_ready(output: &str) -> bool {
    output.lines().any(|line| line.starts_with("@@VM ready"))
}

/// Reads `@@VM exit rc=N`; the program may have left an unfinished line before it.
fn exit_marker(output: &str) -> Option<i32> {
    let (_, rest) = output.rsplit_once("@@VM exit rc=")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSED: &str = "@@VM ready kernel=6.1\nfine\n@@VM exit rc=0 uptime=2.0\n";
    const FAILED: &str = "@@VM ready kernel=6.1\nhalf a line@@VM exit rc=101 uptime=2.0\n";
    const PANIC: &str = "[1.0] fine\n[2.0] Kernel panic - not syncing: sysrq\n[2.1] CPU: 0\n";

    fn judged(end: End, output: &str, kernel_log: &str) -> Outcome {
        judge(&Run {
            end,
            output: output.into(),
            kernel_log: kernel_log.into(),
            complaints: String::new(),
        })
    }

    #[test]
    fn marker_and_status_together_are_the_outcome() {
        assert_eq!(judged(End::Exited(33), PASSED, ""), Outcome::Passed);
        assert_eq!(judged(End::Exited(35), FAILED, ""), Outcome::Failed(101));
    }

    #[test]
    fn one_without_the_other_is_a_death() {
        for (end, output) in [
            (End::Exited(0), PASSED),
            (End::Exited(35), PASSED),
            (End::Exited(33), FAILED),
            (End::Exited(33), "@@VM ready\n"),
            (End::Killed, PASSED),
        ] {
            let outcome = judged(end, output, "");
            assert!(matches!(outcome, Outcome::Died { ready: true, .. }), "{outcome:?}");
        }
    }

    #[test]
    fn a_panic_ends_qemu_with_0_and_is_no_success() {
        let why = "QEMU ended with 0: [2.0] Kernel panic - not syncing: sysrq".to_owned();
        assert_eq!(
            judged(End::Exited(0), "", PANIC),
            Outcome::Died { ready: false, why: why.clone() }
        );
        assert_eq!(
            judged(End::Exited(0), "@@VM ready\n", PANIC),
            Outcome::Died { ready: true, why }
        );
    }

    #[test]
    fn time_out_is_its_own_outcome() {
        assert_eq!(judged(End::TimedOut, "@@VM ready\n", ""), Outcome::TimedOut);
    }

    #[test]
    fn lockups_and_stalls_are_fatal() {
        for line in [
            "[9.0] watchdog: BUG: soft lockup - CPU#1 stuck for 26s!",
            "[9.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[9.0] ---[ end Kernel panic - not syncing: oops ]---",
        ] {
            assert_eq!(fatal_line(&format!("[1.0] fine\n{line}\n")), Some(line));
        }
        assert_eq!(fatal_line("[1.0] all is well\n"), None);
    }
}
