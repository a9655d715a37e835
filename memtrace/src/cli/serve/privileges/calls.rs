//! System calls that fail from some point on (seccomp(2)). What is listed is refused, and not all that is
//! not listed: a libc or a runtime of next year makes calls that nobody knows today, and a daemon that stops
//! working for that helps nobody. Its capabilities are the first wall; this takes away what needs none of
//! them, or more than their names say.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter,
};

use super::Keep;

/// Starting other programs: none is needed but for what attaches probes.
const EXECUTION: &[libc::c_long] = &[libc::SYS_execve, libc::SYS_execveat];

/// What else the commands do that attach probes: events of tracefs, and frames taken out of the batches of
/// each CPU.
const PROBES: &[libc::c_long] = &[libc::SYS_perf_event_open, libc::SYS_move_pages];

/// What is refused whatever is kept.
const REFUSED: &[&[libc::c_long]] = &[
    // Other processes are read, never changed: CAP_SYS_PTRACE lets one do both.
    &[
        libc::SYS_ptrace,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_process_mrelease,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
        libc::SYS_migrate_pages,
    ],
    // A file by its number, wherever it lies: CAP_DAC_READ_SEARCH lets one, also out of a container.
    &[libc::SYS_open_by_handle_at],
    // What is mounted where.
    &[
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
    ],
    // Namespaces: in one of its own a process has every capability. (`clone` has rules below.)
    &[libc::SYS_setns, libc::SYS_unshare],
    // The kernel itself, and the machine.
    &[
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        libc::SYS_syslog,
        libc::SYS_quotactl,
        libc::SYS_quotactl_fd,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_adjtimex,
        libc::SYS_clock_adjtime,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
    ],
    #[cfg(target_arch = "x86_64")]
    &[libc::SYS_kexec_file_load, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt],
    // Keys of the kernel, which know no container.
    &[libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_request_key],
    // What attacks on the kernel begin with, and this program has no use for. Requests in a ring of
    // io_uring are no calls that a filter sees.
    &[
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_fanotify_init,
    ],
];

/// `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_DELETE_ELEM`, `BPF_MAP_GET_NEXT_KEY` and `BPF_OBJ_GET_INFO_BY_FD`
/// (include/uapi/linux/bpf.h): all that reading counts, taking old ones out of the way, and reading how long
/// probes ran takes.
const BPF_COUNTS: [u64; 4] = [1, 3, 4, 15];

/// `BPF_ENABLE_STATS`, which has the kernel measure how long probes run.
const BPF_MEASURE: u64 = 32;

/// Namespaces that `clone` makes.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Marks a call of the x32 ABI, which has the same numbers but for some of its own
/// (arch/x86/entry/syscalls/syscall_64.tbl).
const X32: libc::c_long = 1 << 30;
/// Its ptrace, kexec_load and process_vm_writev; execve and execveat.
const X32_REFUSED: [libc::c_long; 3] = [521, 528, 540];
const X32_EXECUTION: [libc::c_long; 2] = [520, 545];

/// Has calls of this thread, and of those that it begins, fail with `EPERM`. That cannot be undone.
///
/// Errors: a kernel, or a policy, that takes no filters.
pub(super) fn refuse(keep: Keep) -> Result<()> {
    let refused = filter(rules(keep)?, libc::EPERM)?;
    // Its flags lie in memory, where no filter looks; who hears that there is no such call makes `clone`.
    let unknown = [libc::SYS_clone3].map(|call| (call, Vec::new()));
    let unknown = filter(unknown.into_iter().collect(), libc::ENOSYS)?;
    for program in [refused, unknown] {
        apply_filter(&program).context("cannot filter system calls")?;
    }
    Ok(())
}

fn filter(
    rules: BTreeMap<libc::c_long, Vec<SeccompRule>>,
    error: libc::c_int,
) -> Result<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let fails = SeccompAction::Errno(error.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, fails, arch)?;
    Ok(filter.try_into()?)
}

/// Returns what is refused: a call without rules always, others where a rule is met.
fn rules(keep: Keep) -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>> {
    let mut calls: Vec<libc::c_long> = REFUSED.concat();
    let mut of_x32 = X32_REFUSED.to_vec();
    let mut rules = BTreeMap::new();
    rules.insert(libc::SYS_clone, namespaces()?);
    if !keep.recordings {
        calls.extend_from_slice(EXECUTION);
        calls.extend_from_slice(PROBES);
        of_x32.extend_from_slice(&X32_EXECUTION);
        rules.insert(libc::SYS_bpf, vec![no_read(keep)?]);
    }
    rules.extend(calls.into_iter().map(|call| (call, Vec::new())));
    if cfg!(target_arch = "x86_64") {
        let again: Vec<_> = rules.iter().map(|(call, rules)| (call | X32, rules.clone())).collect();
        rules.extend(again);
        rules.extend(of_x32.into_iter().map(|call| (call | X32, Vec::new())));
    }
    ensure!(rules.len() < 200, "too many calls are refused for one filter");
    Ok(rules)
}

/// The first argument of `bpf` is its command.
fn no_read(keep: Keep) -> Result<SeccompRule> {
    let is_not =
        |command| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, command);
    let allowed = BPF_COUNTS.into_iter().chain(keep.measuring.then_some(BPF_MEASURE));
    Ok(SeccompRule::new(allowed.map(is_not).collect::<Result<_, _>>()?)?)
}

/// The first argument of `clone` is its flags.
fn namespaces() -> Result<Vec<SeccompRule>> {
    let has = |flag: libc::c_int| {
        let flag = u64::from(flag.unsigned_abs());
        let is_set = SeccompCmpOp::MaskedEq(flag);
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, is_set, flag)?;
        Ok(SeccompRule::new(vec![condition])?)
    };
    NAMESPACES.map(has).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::{io, process::Command, ptr, thread};

    use super::*;

    const RECORDS: Keep = Keep { recordings: true, measuring: false };

    /// Makes a call with a filter, on a thread of its own, and returns how it fails.
    fn fails(keep: Keep, call: impl FnOnce() -> libc::c_long + Send + 'static) -> Option<i32> {
        let called = thread::spawn(move || {
            refuse(keep).expect("this kernel filters calls");
            (call() < 0).then(io::Error::last_os_error)
        });
        called.join().expect("no panic").and_then(|error| error.raw_os_error())
    }

    /// `bpf` with a command, and nothing to it: what is let through is then not understood.
    fn bpf(command: libc::c_long) -> libc::c_long {
        // SAFETY: there are no attributes to read.
        unsafe { libc::syscall(libc::SYS_bpf, command, ptr::null::<u8>(), 0) }
    }

    #[test]
    fn what_nobody_has_a_use_for_fails() {
        let failed = fails(Keep::default(), || {
            // SAFETY: each has no valid argument.
            unsafe { libc::syscall(libc::SYS_ptrace, -1, 0, 0, 0) }
        });
        assert_eq!(failed, Some(libc::EPERM));
        for call in REFUSED.concat() {
            let failed = fails(RECORDS, move || {
                // SAFETY: as above.
                unsafe { libc::syscall(call, -1, -1, -1, -1, -1, -1) }
            });
            assert_eq!(failed, Some(libc::EPERM), "{call}");
        }
    }

    #[test]
    fn programs_can_be_started_only_where_that_is_kept() {
        for (keep, expected) in [(Keep::default(), Some(libc::EPERM)), (RECORDS, None)] {
            let started = thread::spawn(move || {
                refuse(keep).expect("this kernel filters calls");
                Command::new("true").status().map_err(|error| error.raw_os_error())
            });
            let started = started.join().expect("no panic");
            assert_eq!(started.err().flatten(), expected, "{keep:?}");
        }
    }

    #[test]
    fn counts_can_be_read_and_probes_not_be_loaded() {
        /// `BPF_PROG_LOAD`.
        const LOAD: libc::c_long = 5;
        for command in BPF_COUNTS {
            let failed = fails(Keep::default(), move || bpf(command as libc::c_long));
            assert_ne!(failed, Some(libc::EPERM), "{command}");
        }
        assert_eq!(fails(Keep::default(), || bpf(LOAD)), Some(libc::EPERM));
        let measuring = Keep { measuring: true, ..Keep::default() };
        let measure = || bpf(BPF_MEASURE as libc::c_long);
        assert_eq!(fails(Keep::default(), measure), Some(libc::EPERM));
        assert_ne!(fails(measuring, measure), Some(libc::EPERM));
        assert_eq!(fails(measuring, || bpf(LOAD)), Some(libc::EPERM));
    }

    #[test]
    fn no_namespace_is_made() {
        let failed = fails(Keep::default(), || {
            let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
            // SAFETY: a child, if there were one, would do nothing but end.
            let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
            if child == 0 {
                // SAFETY: ends this process at once.
                unsafe { libc::_exit(0) };
            }
            child
        });
        assert_eq!(failed, Some(libc::EPERM));
        let failed = fails(Keep::default(), || {
            // SAFETY: there are no arguments to read.
            unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<u8>(), 0) }
        });
        assert_eq!(failed, Some(libc::ENOSYS));
    }

    #[test]
    fn a_thread_can_still_be_begun_and_a_file_be_read() {
        let read = thread::spawn(|| {
            refuse(Keep::default()).expect("this kernel filters calls");
            thread::spawn(|| std::fs::read_to_string("/proc/self/comm").is_ok()).join()
        });
        assert!(read.join().expect("no panic").expect("no panic"));
    }
}
