//! What someone sees: the newest snapshot, or the one at which they stopped, and where they are in it.

use std::{cmp::Reverse, sync::Arc};

use crate::{
    model::top::{Id, Process, Snapshot, Wish},
    sink::printable,
};

/// Everything that is shown depends on this.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What is shown.
    pub snapshot: Arc<Snapshot>,
    /// What goes first.
    pub sort: Sort,
    /// Only processes whose name has this, or whose PID begins with it.
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    /// The process that is pointed at; `None` for whichever is first.
    pub selected: Option<Id>,
    /// The process that is looked at closely.
    pub page: Option<Page>,
    /// Nothing new is shown.
    pub paused: bool,
    /// The keys are explained.
    pub help: bool,
    /// Colours are wanted.
    pub color: bool,
    /// Columns and lines of the terminal.
    pub size: (u16, u16),
    /// Walks that were asked for.
    pub asked: u64,
}

/// A process that is looked at closely.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The process, as it is or was last.
    pub process: Process,
    /// It ended.
    pub gone: bool,
    /// What of it is shown.
    pub tab: Tab,
    /// The first line that is shown.
    pub scroll: usize,
}

/// What goes first in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// What was freed and is still held.
    #[default]
    Freed,
    /// Resident memory.
    Resident,
    /// What the kernel gets back.
    Reclaimed,
    /// Page faults.
    Faults,
}

impl Sort {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 4] = [Self::Freed, Self::Resident, Self::Reclaimed, Self::Faults];

    fn figure(self, process: &Process) -> Option<u64> {
        match self {
            Self::Freed => process.freed_not_reclaimed(),
            Self::Resident => process.resident,
            Self::Reclaimed => process.reclaimed_per_s,
            Self::Faults => process.faults_per_s,
        }
    }
}

/// What a page shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// The classes over time, and all the rest in short.
    #[default]
    Overview,
    /// Every region.
    Regions,
    /// What left, by path.
    LeftBy,
    /// Allocators and their arenas.
    Allocators,
    /// What is worth doing.
    Findings,
}

impl Tab {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 5] =
        [Self::Overview, Self::Regions, Self::LeftBy, Self::Allocators, Self::Findings];

    /// Returns what it is called.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Regions => "regions",
            Self::LeftBy => "left by",
            Self::Allocators => "allocators",
            Self::Findings => "findings",
        }
    }
}

impl View {
    /// Shows something newer, unless it stands still.
    pub fn take(&mut self, snapshot: Arc<Snapshot>) {
        if self.paused {
            return;
        }
        self.snapshot = snapshot;
        if let Some(page) = &mut self.page {
            let id = page.process.id;
            let now = self.snapshot.processes.iter().find(|process| process.id == id);
            page.gone = now.is_none();
            if let Some(now) = now {
                page.process = now.clone();
            }
        }
    }

    /// Returns the processes of the list in their order.
    pub fn listed(&self) -> Vec<&Process> {
        let filter = self.filter.to_lowercase();
        let is_wanted = |process: &&Process| {
            filter.is_empty()
                || process.id.tgid.to_string().starts_with(&filter)
                || printable(&process.comm).to_lowercase().contains(&filter)
        };
        let mut listed: Vec<&Process> = self.snapshot.processes.iter().filter(is_wanted).collect();
        listed.sort_by_cached_key(|process| {
            let figure = self.sort.figure(process).filter(|&figure| figure > 0);
            Reverse((figure, process.resident, Reverse(process.id)))
        });
        listed
    }

    /// Returns where in the list what is pointed at stands.
    pub fn selected_index(&self, listed: &[&Process]) -> usize {
        let index = |id| listed.iter().position(|process| process.id == id);
        self.selected.and_then(index).unwrap_or(0)
    }

    /// Returns what it takes to show more.
    pub fn wish(&self) -> Wish {
        let selected = self.selected.or_else(|| Some(self.listed().first()?.id));
        Wish {
            opened: self.page.as_ref().map(|page| page.process.id),
            selected,
            paused: self.paused,
            asked: self.asked,
        }
    }
}
