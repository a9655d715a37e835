//! What the daemon may do: it says what it may not, and gives up what it needs no more. Capabilities are
//! those of a thread, and those that begin later inherit them (capabilities(7)).

mod calls;

use std::fmt;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet, runtime};

/// What the daemon still does once the probes are being attached, beside reading counts, which takes
/// nothing, and walks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keep {
    /// It starts programs that attach probes of their own.
    pub(super) recordings: bool,
    /// It has the kernel measure how long probes run.
    pub(super) measuring: bool,
}

/// What a capability is for, in the words of someone who does without.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) capability: Capability,
    without: &'static str,
    /// `CAP_SYS_ADMIN` will do as well.
    is_of_admin: bool,
    /// It is for attaching probes.
    is_for_probes: bool,
}

static USES: [Use; 5] = [
    Use {
        capability: Capability::CAP_BPF,
        without: "nothing that leaves processes is counted",
        is_of_admin: true,
        is_for_probes: true,
    },
    Use {
        capability: Capability::CAP_PERFMON,
        without: "nothing that leaves processes is counted",
        is_of_admin: true,
        is_for_probes: true,
    },
    Use {
        capability: Capability::CAP_SYS_PTRACE,
        without: "processes of other users are not looked at, and not walked",
        is_of_admin: false,
        is_for_probes: false,
    },
    Use {
        capability: Capability::CAP_DAC_READ_SEARCH,
        without: "heaps of other users' processes are not walked, and no probe uses tracefs",
        is_of_admin: false,
        is_for_probes: false,
    },
    Use {
        capability: Capability::CAP_CHECKPOINT_RESTORE,
        without: "versions of libraries that were deleted since they were loaded are guessed",
        is_of_admin: true,
        is_for_probes: false,
    },
];

impl fmt::Display for Use {
    /// Says what is switched off without it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "without {} {}", self.capability, self.without)
    }
}

/// Returns what is switched off for want of a capability.
pub(super) fn lacking() -> Result<Vec<&'static Use>> {
    let has = caps::read(None, CapSet::Effective).context("cannot read the capabilities")?;
    Ok(lacking_of(&has))
}

fn lacking_of(has: &CapsHashSet) -> Vec<&'static Use> {
    let is_admin = has.contains(&Capability::CAP_SYS_ADMIN);
    let lacks = |need: &&Use| !(has.contains(&need.capability) || need.is_of_admin && is_admin);
    USES.iter().filter(lacks).collect()
}

/// Has this thread, and those that it begins from now on, do no more than what is still needed: other
/// capabilities go, no program that is executed gets any back, and system calls that nobody here has a use
/// for fail.
///
/// Errors: the kernel refuses to take a capability away. That system calls cannot be filtered is logged.
pub(super) fn drop(keep: Keep) -> Result<()> {
    let kept = drop_capabilities(keep).context("cannot give up capabilities")?;
    let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    match calls::refuse(keep) {
        Ok(()) => {}
        Err(error) => log::warn!("system calls that are not needed can still be made: {error:#}"),
    }
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    log::info!("capabilities from now on: {names}");
    Ok(())
}

/// Returns those that are left.
fn drop_capabilities(keep: Keep) -> Result<CapsHashSet> {
    let has = caps::read(None, CapSet::Permitted)?;
    let is_kept = |need: &&Use| keep.recordings || !need.is_for_probes;
    let wanted: CapsHashSet = USES.iter().filter(is_kept).map(|need| need.capability).collect();
    let mut kept: CapsHashSet = wanted.intersection(&has).copied().collect();
    let passed_on = if keep.recordings { kept.clone() } else { CapsHashSet::new() };
    if keep.measuring {
        kept.extend(has.get(&Capability::CAP_SYS_ADMIN));
    }
    // Who may not is no root, and gets nothing from there.
    if has.contains(&Capability::CAP_SETPCAP) {
        for capability in runtime::thread_all_supported().difference(&passed_on) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::set(None, CapSet::Inheritable, &passed_on)?;
    for capability in passed_on {
        caps::raise(None, CapSet::Ambient, capability)?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_lacking_is_told_with_what_it_switches_off() {
        let all: CapsHashSet = USES.iter().map(|need| need.capability).collect();
        assert!(lacking_of(&all).is_empty());
        for need in &USES {
            let mut has = all.clone();
            has.remove(&need.capability);
            let expected = format!("without {} {}", need.capability, need.without);
            let lacking: Vec<_> = lacking_of(&has).iter().map(ToString::to_string).collect();
            assert_eq!(lacking, [expected]);
            has.insert(Capability::CAP_SYS_ADMIN);
            assert_eq!(lacking_of(&has).is_empty(), need.is_of_admin);
        }
    }

    #[test]
    fn a_thread_keeps_what_walks_take_and_those_that_it_begins_get_no_more() {
        let all = caps::read(None, CapSet::Permitted).expect("they can be read");
        let (kept, inherited) = thread::spawn(|| {
            let kept = drop_capabilities(Keep::default()).expect("it gives up what it has");
            let read = || caps::read(None, CapSet::Permitted).expect("they can be read");
            (kept, thread::spawn(read).join().expect("no panic"))
        })
        .join()
        .expect("no panic");
        assert_eq!(kept, inherited);
        assert!(!kept.contains(&Capability::CAP_BPF), "{kept:?}");
        let ptrace = Capability::CAP_SYS_PTRACE;
        assert_eq!(kept.contains(&ptrace), all.contains(&ptrace));
        assert_eq!(caps::read(None, CapSet::Permitted).expect("they can be read"), all);
    }

    #[test]
    fn programs_that_attach_probes_get_what_that_takes() {
        let ambient = thread::spawn(|| {
            let kept = drop_capabilities(Keep { recordings: true, measuring: true })
                .expect("it gives up what it has");
            (kept, caps::read(None, CapSet::Ambient).expect("they can be read"))
        });
        let (kept, ambient) = ambient.join().expect("no panic");
        let admin = Capability::CAP_SYS_ADMIN;
        let passed_on: CapsHashSet = kept.iter().copied().filter(|&one| one != admin).collect();
        assert_eq!(passed_on, ambient);
        let all = caps::read(None, CapSet::Permitted).expect("they can be read");
        let bpf = Capability::CAP_BPF;
        assert_eq!(kept.contains(&bpf), all.contains(&bpf));
        assert_eq!(kept.contains(&admin), all.contains(&admin));
    }
}
