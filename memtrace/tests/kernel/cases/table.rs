//! The case table: what the kernel does with the frames of memory that is given up.
//!
//! Measured on 6.1, 6.12, 6.18 and 7.3, and explained by their sources. A batch (mm/swap.c) holds
//! frames back for a while, see [`Frames::held`]: all else is exact.

/// What is done, and what comes of it.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// A program of `workload::cases`, and its pages.
    pub(super) program: &'static str,
    pub(super) pages: u64,
    pub(super) end: End,
    pub(super) left: &'static [Left],
}

/// How a program's work ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It says so, and stays.
    Said,
    /// The program ends.
    Ended,
    /// It is killed.
    Killed,
    /// It is killed and its memory released, by another.
    Released,
}

/// What left a process by one path.
pub(super) struct Left {
    pub(super) whose: Whose,
    pub(super) path: &'static str,
    /// Pages that calls asked for; none for those that ask for the whole address space.
    pub(super) requested: Option<u64>,
    /// Where pages are small.
    small: Frames,
    /// Where they are huge, if they can be.
    huge: Frames,
    needs: Needs,
}

/// The process that a row's figures are of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Program,
    Child,
}

/// What it takes for a program to have huge pages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// They are not for this kind of memory.
    Never,
    /// The program does not ask for them.
    Always,
    /// It does.
    Advice,
}

/// What became of frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frames {
    pub(super) zapped: u64,
    /// Free when the call returned.
    pub(super) in_call: u64,
    /// Freed after it.
    pub(super) late: u64,
    /// Not free when all batches were emptied.
    pub(super) kept: u64,
    held: Held,
}

/// Which frames batches may still hold when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    None,
    /// Those touched last; an anonymous page is put into a batch of the CPU that touches it.
    LastTouched,
    /// All of them: they wait on another CPU where there is one.
    Elsewhere,
}

/// What the figures depend on.
#[derive(Clone, Copy)]
pub(super) struct Machine {
    pub(super) kernel: (u32, u32),
    pub(super) cpus: u64,
    /// Without advice, and with it.
    pub(super) huge: bool,
    pub(super) huge_by_advice: bool,
}

pub(super) const ROWS: &[Row] = &[
    row("munmap_1", "munmap", 1, &[left("munmap", 1, freed(1).last())]),
    row("munmap_4", "munmap", 4, &[left("munmap", 4, freed(4).last())]),
    row("munmap_1000", "munmap", 1000, &[left("munmap", 1000, freed(1000).last())]),
    row(
        "munmap_262144",
        "munmap",
        262_144,
        &[left("munmap", 262_144, freed(262_144).last()).if_huge(freed(262_144))],
    ),
    row("dont_need_1000", "dont_need", 1000, &[left("dont_need", 1000, freed(1000).last())]),
    row("brk_1000", "brk", 1000, &[left("brk", 1000, freed(1000).last())]),
    // The zero page is not counted, a huge one neither.
    row("read_only_1000", "read_only", 1000, &[left("munmap", 1000, freed(0))]),
    row(
        "huge_4096",
        "huge",
        4096,
        &[left("munmap", 4096, freed(4096).last()).advised(freed(4096))],
    ),
    // A huge page is freed as a whole: its split is put off until memory is short.
    row(
        "huge_512_half",
        "huge_half",
        512,
        &[left("munmap", 256, freed(256).last()).advised(kept(256))],
    ),
    row(
        "huge_512_both_halves",
        "huge_halves",
        512,
        // The first half is late: it comes with the second.
        &[left("munmap", 512, freed(512).last()).advised(late(256).and_freed(256))],
    ),
    row(
        "free_1000_redirty_100",
        "lazy",
        1000,
        &[
            left("free", 1000, freed(0)),
            left("pressure", 1000, freed(900)),
            left("munmap", 1000, freed(100).last()),
        ],
    ),
    row(
        "file_1000_copy_300",
        "file",
        1000,
        &[left("munmap", 1000, kept(700).and_freed(300).last())],
    ),
    row("shared_1000_dont_need", "shared_dont_need", 1000, &[left("dont_need", 1000, kept(1000))]),
    row("shared_1000_remove", "shared_remove", 1000, &[left("remove", 1000, freed(1000))]),
    // The file of the mapping is closed in task work, after the call.
    row("shared_1000_munmap", "shared_munmap", 1000, &[left("munmap", 1000, late(1000))]),
    row(
        "forked_1000_munmap",
        "fork",
        1000,
        &[left("munmap", 1000, kept(1000)), whole("exit", freed(1000).last()).of_child()],
    ),
    row("elsewhere_10_dont_need", "elsewhere", 10, &[left("dont_need", 10, freed(10).elsewhere())]),
    row("locked_1000_munmap", "locked", 1000, &[left("munmap", 1000, freed(1000).last())]),
    row("pinned_16_munmap", "pinned", 16, &[left("munmap", 16, late(16))]),
    // 112 pages of the huge page go with the other 488.
    row(
        "mremap_1000_to_400",
        "shrink",
        1000,
        &[left("mremap", 600, freed(600).last()).if_huge(kept(112).and_freed(488).last())],
    ),
    row("map_over_1000", "map_over", 1000, &[left("overmap", 1000, freed(1000).last())]),
    row("exit_1000", "exit", 1000, &[whole("exit", freed(1000).last())]).by(End::Ended),
    row("sigkill_1000", "wait", 1000, &[whole("exit", freed(1000).last())]).by(End::Killed),
    row("exec_1000", "exec", 1000, &[whole("exec", freed(1000).last())]).by(End::Ended),
    row("release_1000", "wait", 1000, &[whole("exit", freed(1000).last())]).by(End::Released),
];

const fn row(name: &'static str, program: &'static str, pages: u64, left: &'static [Left]) -> Row {
    Row { name, program, pages, end: End::Said, left }
}

const fn left(path: &'static str, requested: u64, frames: Frames) -> Left {
    Left { requested: Some(requested), ..whole(path, frames) }
}

const fn whole(path: &'static str, frames: Frames) -> Left {
    let (whose, needs) = (Whose::Program, Needs::Never);
    Left { whose, path, requested: None, small: frames, huge: frames, needs }
}

const fn freed(pages: u64) -> Frames {
    Frames { zapped: pages, in_call: pages, late: 0, kept: 0, held: Held::None }
}

const fn late(pages: u64) -> Frames {
    Frames { zapped: pages, in_call: 0, late: pages, kept: 0, held: Held::None }
}

const fn kept(pages: u64) -> Frames {
    Frames { zapped: pages, in_call: 0, late: 0, kept: pages, held: Held::None }
}

impl Row {
    const fn by(self, end: End) -> Self {
        Self { end, ..self }
    }
}

impl Left {
    const fn of_child(self) -> Self {
        Self { whose: Whose::Child, ..self }
    }

    const fn if_huge(self, huge: Frames) -> Self {
        Self { huge, needs: Needs::Always, ..self }
    }

    const fn advised(self, huge: Frames) -> Self {
        Self { huge, needs: Needs::Advice, ..self }
    }

    /// Returns what becomes of the frames on a machine.
    pub(super) fn frames(&self, machine: Machine) -> Frames {
        let huge = match self.needs {
            Needs::Never => false,
            Needs::Always => machine.huge,
            Needs::Advice => machine.huge_by_advice,
        };
        if huge { self.huge } else { self.small }
    }
}

impl Frames {
    const fn and_freed(self, pages: u64) -> Self {
        Self { zapped: self.zapped + pages, in_call: self.in_call + pages, ..self }
    }

    const fn last(self) -> Self {
        Self { held: Held::LastTouched, ..self }
    }

    const fn elsewhere(self) -> Self {
        Self { held: Held::Elsewhere, ..self }
    }

    /// Returns how many of the frames in the call are late instead since a batch holds them: at
    /// least, and at most.
    pub(super) fn held(self, machine: Machine) -> (u64, u64) {
        let Machine { kernel, cpus, .. } = machine;
        // `PAGEVEC_SIZE`, include/linux/pagevec.h.
        let batch = if kernel < (6, 9) { 15 } else { 31 };
        // Until 6.14, a CPU that gives memory up empties its batches first (`lru_add_drain`).
        let batches = if kernel < (6, 14) { cpus - 1 } else { cpus };
        match self.held {
            Held::None => (0, 0),
            Held::LastTouched => (0, (batch * batches).min(self.in_call)),
            Held::Elsewhere if batches == 0 => (0, 0),
            Held::Elsewhere => (self.in_call, self.in_call),
        }
    }
}
