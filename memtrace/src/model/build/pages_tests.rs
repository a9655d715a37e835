//! The slow, obvious model: one entry a page. It makes the records that the probes would write.

use super::*;

#[derive(Clone, Debug)]
pub(super) enum Op {
    Map(std::ops::Range<u64>),
    Touch(std::ops::Range<u64>),
    /// Another mm gets these frames too, as by fork.
    Share(std::ops::Range<u64>),
    Unmap(std::ops::Range<u64>),
    DontNeed(std::ops::Range<u64>),
    /// The heap ends here.
    Brk(u64),
}

/// Pages of the heap; mappings lie below.
const HEAP: std::ops::Range<u64> = 64..80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Untouched,
    Resident,
    Shared,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    calls: u64,
    requested: u64,
    zapped: u64,
    freed: u64,
}

impl From<&PathReport> for Figures {
    fn from(report: &PathReport) -> Self {
        let &PathReport { calls, requested, zapped, freed, late, kept_elsewhere, .. } = report;
        // Without any operation no region was ever seen.
        let requested = requested.unwrap_or(0);
        let [zapped, freed, late, kept_elsewhere] =
            [zapped, freed, late, kept_elsewhere].map(|bytes| bytes.expect("counted"));
        assert_eq!((late, kept_elsewhere), (0, zapped - freed));
        Self { calls, requested: requested / PAGE, zapped: zapped / PAGE, freed: freed / PAGE }
    }
}

#[derive(Default)]
pub(super) struct Pages {
    pages: BTreeMap<u64, Page>,
    seq: u64,
    faulted: i64,
    pub(super) by_path: BTreeMap<&'static str, Figures>,
}

impl Pages {
    /// Applies an operation and returns its records.
    pub(super) fn apply(&mut self, op: &Op) -> Vec<Event> {
        self.seq += 1;
        match op.clone() {
            Op::Map(pages) => {
                let left = self.take(&pages);
                self.pages.extend(pages.clone().map(|page| (page, Page::Untouched)));
                let path = (left.zapped > 0).then_some(Path::Overmap);
                let args = [pages.start * PAGE, len(&pages), 3, 0x32, 0, 0];
                let region = Region { seq: self.seq, ..anon(pages.clone()) };
                let ret = (pages.start * PAGE) as i64;
                let call = self.call(Syscall::Mmap, args, ret, path, left);
                self.book(path, &pages, left);
                vec![Event::MapRegion(region), call]
            }
            Op::Touch(pages) => {
                for (_, page) in self.pages.range_mut(pages) {
                    if *page == Page::Untouched {
                        *page = Page::Resident;
                        self.faulted += 1;
                    }
                }
                Vec::new()
            }
            Op::Share(pages) => {
                for (_, page) in self.pages.range_mut(pages) {
                    if *page == Page::Resident {
                        *page = Page::Shared;
                    }
                }
                Vec::new()
            }
            Op::Unmap(pages) => {
                let left = self.take(&pages);
                let args = [pages.start * PAGE, len(&pages), 0, 0, 0, 0];
                let call = self.call(Syscall::Munmap, args, 0, Some(Path::Munmap), left);
                self.book(Some(Path::Munmap), &pages, left);
                vec![call]
            }
            Op::DontNeed(pages) => {
                // With a hole it fails: a caller asks for what is mapped.
                if pages.clone().any(|page| !self.pages.contains_key(&page)) {
                    return Vec::new();
                }
                let left = self.take(&pages);
                self.pages.extend(pages.clone().map(|page| (page, Page::Untouched)));
                let args = [pages.start * PAGE, len(&pages), 4, 0, 0, 0];
                let call = self.call(Syscall::Madvise, args, 0, Some(Path::DontNeed), left);
                self.book(Some(Path::DontNeed), &pages, left);
                vec![call]
            }
            Op::Brk(end) => self.brk(end),
        }
    }

    fn brk(&mut self, end: u64) -> Vec<Event> {
        let heap = self.pages.range(HEAP).count() as u64;
        let old = HEAP.start + heap;
        let mut records = Vec::new();
        let mut left = Figures::default();
        if end > old {
            self.pages.extend((old..end).map(|page| (page, Page::Untouched)));
            let region = Region { seq: self.seq, ..anon(HEAP.start..end) };
            records.push(Event::MapRegion(region));
        } else {
            left = self.take(&(end..old));
        }
        let path = (end < old).then_some(Path::Brk);
        let args = [end * PAGE, 0, 0, 0, 0, 0];
        records.push(self.call(Syscall::Brk, args, (end * PAGE) as i64, path, left));
        self.book(path, &(end..old), left);
        records
    }

    /// The records of the end.
    pub(super) fn exit(&mut self) -> [Event; 2] {
        let mapped = self.pages.len() as u64;
        let left = self.take(&(0..u64::MAX));
        self.book(Some(Path::Exit), &(0..mapped), left);
        let mut ledger = Ledger::default();
        ledger.in_pages[Counter::Anon as usize] = self.faulted;
        for path in Path::ALL {
            if let Some(figures) = self.by_path.get(path_name(path)) {
                let books = &mut ledger.paths[path.index()];
                books.zapped_pages[Counter::Anon as usize] = figures.zapped;
                books.freed_frames = figures.freed;
            }
        }
        exited(ledger)
    }

    pub(super) fn regions_mapped(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Takes pages away and counts the frames.
    fn take(&mut self, pages: &std::ops::Range<u64>) -> Figures {
        let mut left = Figures::default();
        self.pages.retain(|page, state| {
            let taken = pages.contains(page);
            left.zapped += u64::from(taken && *state != Page::Untouched);
            left.freed += u64::from(taken && *state == Page::Resident);
            !taken
        });
        left
    }

    fn book(&mut self, path: Option<Path>, pages: &std::ops::Range<u64>, left: Figures) {
        let Some(path) = path else { return };
        let figures = self.by_path.entry(path_name(path)).or_default();
        figures.calls += 1;
        figures.requested += pages.end - pages.start;
        figures.zapped += left.zapped;
        figures.freed += left.freed;
    }

    fn call(
        &self,
        syscall: Syscall,
        args: [u64; 6],
        ret: i64,
        path: Option<Path>,
        left: Figures,
    ) -> Event {
        let path = path.filter(|_| left.zapped > 0).map_or(Path::NONE, |path| path as u16);
        Event::Call(Call {
            header: header(),
            seq: self.seq,
            args,
            ret,
            zapped_pages: left.zapped,
            freed_frames: left.freed,
            syscall: syscall as u16,
            path,
            duration_ns: 0,
        })
    }
}

fn len(pages: &std::ops::Range<u64>) -> u64 {
    (pages.end - pages.start) * PAGE
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let low = || (0..56_u64, 1..16_u64).prop_map(|(start, len)| start..(start + len).min(64));
    let any = || (0..72_u64, 1..24_u64).prop_map(|(start, len)| start..(start + len).min(80));
    let op = prop_oneof![
        3 => low().prop_map(Op::Map),
        4 => any().prop_map(Op::Touch),
        1 => any().prop_map(Op::Share),
        2 => low().prop_map(Op::Unmap),
        2 => any().prop_map(Op::DontNeed),
        2 => HEAP.prop_map(Op::Brk),
    ];
    prop::collection::vec(op, 0..40)
}

proptest! {
    #[test]
    fn the_figures_of_each_path_are_those_of_a_count_page_by_page(ops in ops()) {
        let mut pages = Pages::default();
        let mut model = Model::default();
        model.apply(&exec((HEAP.start * PAGE, HEAP.start * PAGE)));
        for op in &ops {
            for record in pages.apply(op) {
                model.apply(&record);
            }
            let mapped = model.space(model.processes()[0].spaces[0]).mapped();
            prop_assert_eq!(mapped, pages.regions_mapped() * PAGE, "after {:?}", op);
        }
        for record in pages.exit() {
            model.apply(&record);
        }
        let process = only(&model);
        let found: BTreeMap<&str, Figures> = process
            .reclaimed
            .by_path
            .iter()
            .map(|(&path, report)| (path, Figures::from(report)))
            .collect();
        prop_assert_eq!(found, pages.by_path);
        prop_assert_eq!(process.balance.unexplained, Some(0));
    }
}
