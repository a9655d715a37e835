//! The formats of `/proc`. Any text gives a value or nothing; nothing panics.

use std::fmt;

use crate::{
    model::region_map::{PAGE, flag, protection},
    source::cgroups::is_of_memory,
};

/// `PF_KTHREAD` (include/linux/sched.h, 5.10 to 7.3).
const PF_KTHREAD: u64 = 0x0020_0000;
/// `USER_HZ`: clock ticks of `/proc` a second, the same on every architecture that we run on.
const USER_HZ: u64 = 100;

/// What we need of `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Its name.
    pub comm: String,
    /// State letter.
    pub state: char,
    /// Minor and major faults in its life.
    pub faults: (u64, u64),
    /// CPU time of its threads, in steps of 10 ms.
    pub cpu_ns: u64,
    /// When it started, `CLOCK_BOOTTIME`, in steps of 10 ms.
    pub start_ns: u64,
    /// Resident bytes, to a few pages a CPU; `None` where the text ends before.
    pub resident: Option<u64>,
    /// It belongs to the kernel and has no address space.
    pub is_kernel_thread: bool,
}

impl Stat {
    /// Tells whether it exited and was not waited for.
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// Parses `/proc/PID/stat`. The name may hold anything, `)` and line breaks too.
pub fn parse_stat(text: &str) -> Option<Stat> {
    let (before, after) = text.rsplit_once(')')?;
    let comm = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    // The first field behind the name is number 3 of the manual.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let time = |ticks: u64| ticks.saturating_mul(1_000_000_000 / USER_HZ);
    Some(Stat {
        comm,
        state: fields.first()?.chars().next()?,
        is_kernel_thread: number(9)? & PF_KTHREAD != 0,
        faults: (number(10)?, number(12)?),
        cpu_ns: time(number(14)?.saturating_add(number(15)?)),
        start_ns: time(number(22)?),
        resident: number(24).map(|pages| pages.saturating_mul(PAGE)),
    })
}

/// One mapping of `/proc/PID/smaps` (proc_pid_smaps(5)), sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
    /// The bits of [`flag`] that its permissions show.
    pub flags: u64,
    /// Offset into the file.
    pub offset: u64,
    /// `(major << 20) | minor`.
    pub dev: u32,
    /// Inode number, 0 for anonymous memory.
    pub inode: u64,
    /// Path or what the kernel calls it; empty for plain anonymous memory.
    pub name: String,
    /// `Rss`.
    pub resident: u64,
    /// `Anonymous`.
    pub anon: u64,
    /// `Swap`.
    pub swapped: u64,
    /// `LazyFree`.
    pub lazy_free: u64,
    /// `Referenced`: touched since that was reset.
    pub referenced: u64,
}

impl Mapping {
    /// Returns its name as it was before the file was deleted.
    pub fn path(&self) -> &str {
        self.name.strip_suffix(" (deleted)").unwrap_or(&self.name)
    }

    /// Tells whether no file is behind it. (System V shared memory may have inode number 0.)
    pub const fn is_anonymous(&self) -> bool {
        self.dev == 0 && self.inode == 0
    }
}

/// As in `/proc/PID/maps`.
impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, flags, offset, dev, inode, name, .. } = self;
        let letters = protection(*flags);
        let (major, minor) = (dev >> 20, dev & 0xf_ffff);
        write!(f, "{start:x}-{end:x} {letters} {offset:08x} {major:02x}:{minor:02x} {inode} {name}")
    }
}

/// Parses `/proc/PID/smaps`, or `/proc/PID/maps`, which has the first line of each mapping only.
pub fn parse_smaps(text: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(mapping) = parse_head(line) {
            mappings.push(mapping);
        } else if let Some(mapping) = mappings.last_mut()
            && let Some((key, value)) = line.split_once(':')
            && let Some(bytes) = kibibytes(value)
        {
            match key {
                "Rss" => mapping.resident = bytes,
                "Anonymous" => mapping.anon = bytes,
                "Swap" => mapping.swapped = bytes,
                "Referenced" => mapping.referenced = bytes,
                "LazyFree" => mapping.lazy_free = bytes,
                _ => {}
            }
        }
    }
    mappings
}

/// Returns mappings without what is listed twice: the kernel goes on behind the end of the mapping that it
/// listed last, and lists one that grew meanwhile again (`m_next`, fs/proc/task_mmu.c, 5.10 to 7.3). What was
/// seen last counts.
pub fn as_last_seen(listed: Vec<Mapping>) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::with_capacity(listed.len());
    for mapping in listed {
        mappings.truncate(mappings.partition_point(|before| before.start < mapping.start));
        if let Some(before) = mappings.last_mut().filter(|before| before.end > mapping.start) {
            before.end = mapping.start;
            let most = before.end - before.start;
            let Mapping { resident, anon, swapped, lazy_free, referenced, .. } = before;
            for bytes in [resident, anon, swapped, lazy_free, referenced] {
                *bytes = most.min(*bytes);
            }
        }
        mappings.push(mapping);
    }
    mappings
}

fn kibibytes(value: &str) -> Option<u64> {
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Parses `5581b000-5581c000 r-xp 00001000 fe:01 1234    /usr/bin/cat`.
fn parse_head(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.as_bytes();
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?;
    let name = fields.next().unwrap_or_default().trim_start();
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    let &[read, write, exec, shared] = permissions else { return None };
    let bit = |set, bit| if set { bit } else { 0 };
    let (start, end) = (hex(start)?, hex(end)?);
    (start < end).then_some(())?;
    Some(Mapping {
        start,
        end,
        flags: bit(read == b'r', flag::READ)
            | bit(write == b'w', flag::WRITE)
            | bit(exec == b'x', flag::EXEC)
            | bit(shared == b's', flag::MAYSHARE),
        offset: hex(offset)?,
        dev: (hex(major)? as u32) << 20 | hex(minor)? as u32 & 0xf_ffff,
        inode: inode.parse().ok()?,
        name: name.to_owned(),
        ..Mapping::default()
    })
}

/// Returns the path of a process's cgroup (`/proc/PID/cgroup`, cgroups(7)): in the hierarchy of version 2,
/// or in that of the memory controller where version 1 has it.
pub fn parse_cgroup(text: &str) -> Option<&str> {
    let lines = || {
        text.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            Some((controllers, path))
        })
    };
    let of_memory = lines().find(|(controllers, _)| is_of_memory(controllers));
    let found = of_memory.or_else(|| lines().find(|(none, _)| none.is_empty()));
    found.map(|(_, path)| path.strip_suffix(" (deleted)").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "42 (a) R (b) S 1 42 42 0 -1 4194304 117 0 3 0 1 2 0 0 20 0 1 0 250 1 2";

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = parse_stat(STAT).expect("valid");
        assert_eq!(stat.comm, "a) R (b");
        assert_eq!(stat.state, 'S');
        assert_eq!(stat.faults, (117, 3));
        assert_eq!((stat.cpu_ns, stat.start_ns), (30_000_000, 2_500_000_000));
        assert_eq!(stat.resident, Some(2 * PAGE));
        assert!(!stat.is_kernel_thread && !stat.is_dead());
    }

    #[test]
    fn a_kernel_thread_is_told_by_its_flag() {
        let text = STAT.replace("4194304", "69238848");
        assert!(parse_stat(&text).expect("valid").is_kernel_thread);
    }

    #[test]
    fn a_mapping_carries_its_figures_in_bytes() {
        let text = "5581b000-5581d000 rw-s 00001000 fe:01 1234                     /tmp/a b:c\n\
                    Size:                  8 kB\n\
                    Rss:                   4 kB\n\
                    LazyFree:              4 kB\n\
                    VmFlags: rd wr sh\n\
                    7ffc000-7ffd000 ---p 00000000 00:00 0\n";
        let mappings = parse_smaps(text);
        assert_eq!(mappings.len(), 2);
        let first = &mappings[0];
        assert_eq!((first.start, first.end), (0x5581_b000, 0x5581_d000));
        assert_eq!(first.flags, flag::READ | flag::WRITE | flag::MAYSHARE);
        assert_eq!((first.offset, first.dev, first.inode), (0x1000, 0xfe << 20 | 1, 1234));
        assert_eq!(first.name, "/tmp/a b:c");
        assert_eq!((first.resident, first.lazy_free, first.anon), (4096, 4096, 0));
        assert_eq!(mappings[1].name, "");
    }

    #[test]
    fn a_huge_or_reversed_range_is_no_mapping() {
        assert_eq!(parse_smaps("2000-1000 r--p 0 0:0 0 x"), []);
        assert_eq!(parse_smaps("fffffffffffffffff-0 r--p 0 0:0 0 x"), []);
    }

    proptest! {
        #[test]
        fn any_text_gives_a_value_or_nothing(text in "[0-9a-f \\-:rwxps()\n/\u{0}-\u{ff}]{0,200}") {
            let _ = parse_stat(&text);
            let _ = parse_smaps(&text);
        }
    }

    #[test]
    fn a_mapping_that_grew_while_it_was_listed_counts_once() {
        let mapping = |start: u64, end: u64, resident: u64| Mapping {
            start: start << 20,
            end: end << 20,
            resident: resident << 20,
            ..Mapping::default()
        };
        let listed = vec![
            mapping(1, 2, 1),
            // The heap, and again when it had grown.
            mapping(4, 8, 4),
            mapping(4, 9, 5),
            mapping(4, 12, 8),
            // One of which the upper part became another.
            mapping(20, 30, 10),
            mapping(25, 31, 6),
            mapping(40, 41, 0),
        ];
        let seen = [
            mapping(1, 2, 1),
            mapping(4, 12, 8),
            mapping(20, 25, 5),
            mapping(25, 31, 6),
            mapping(40, 41, 0),
        ];
        assert_eq!(as_last_seen(listed), seen);
    }

    #[test]
    fn a_cgroup_is_that_of_version_2_unless_version_1_has_the_memory_controller() {
        assert_eq!(parse_cgroup("0::/system.slice/x.service\n"), Some("/system.slice/x.service"));
        let both = "11:cpu,cpuacct:/a\n4:memory:/docker/b:c\n0::/d\n";
        assert_eq!(parse_cgroup(both), Some("/docker/b:c"));
        assert_eq!(parse_cgroup("1:name=systemd:/a\n0::/d (deleted)\n"), Some("/d"));
        assert_eq!(parse_cgroup("1:cpu:/a\n"), None);
        assert_eq!(parse_cgroup(""), None);
    }
}
