use proptest::prelude::*;

use super::*;

fn anon(pages: Range<u64>, seq: u64) -> Vma {
    Vma {
        range: pages.start * PAGE..pages.end * PAGE,
        backing: Backing::Anon { index: pages.start },
        flags: flag::READ | flag::WRITE,
        seq,
    }
}

fn bytes(pages: Range<u64>) -> Range<u64> {
    pages.start * PAGE..pages.end * PAGE
}

#[test]
fn erasing_the_middle_leaves_two_vmas() {
    let mut map = RegionMap::default();
    map.store(anon(0..10, 1));
    assert_eq!(map.erase(bytes(3..5), 2), [anon(3..5, 1)]);
    assert_eq!(map.iter().cloned().collect::<Vec<_>>(), [anon(0..3, 1), anon(5..10, 1)]);
    assert_eq!(map.mapped(), 8 * PAGE);
}

#[test]
fn the_upper_half_of_a_split_file_vma_starts_further_into_the_file() {
    let mut map = RegionMap::default();
    let backing = Backing::File { dev: 1, inode: 1, offset: PAGE, shmem: false, name_tag: 0 };
    map.store(Vma { range: 0..4 * PAGE, backing, flags: flag::READ, seq: 1 });
    map.erase(0..PAGE, 2);
    let vma = map.find(PAGE).expect("mapped");
    assert_eq!(
        vma.backing,
        Backing::File { dev: 1, inode: 1, offset: 2 * PAGE, shmem: false, name_tag: 0 }
    );
}

#[test]
fn an_erase_that_arrives_late_spares_what_was_mapped_after_it() {
    let mut map = RegionMap::default();
    map.store(anon(0..4, 1));
    // Section 2 unmapped all four pages; before it was reported, section 3 mapped two of them.
    map.store(anon(1..3, 3));
    map.erase(bytes(0..4), 2);
    assert_eq!(map.iter().cloned().collect::<Vec<_>>(), [anon(1..3, 3)]);
}

#[test]
fn a_protection_that_arrives_late_spares_what_was_mapped_after_it() {
    let mut map = RegionMap::default();
    map.store(anon(0..2, 1));
    map.store(anon(1..2, 3));
    map.protect(bytes(0..2), flag::READ, 2);
    let protections: Vec<_> = map.iter().map(Vma::protection).collect();
    assert_eq!(protections, ["r--p", "rw-p"]);
}

#[test]
fn of_two_protections_the_later_section_counts_in_whatever_order_they_arrive() {
    let mut map = RegionMap::default();
    map.store(anon(0..8, 1));
    // Changes nothing, since section 2 has not arrived.
    map.protect(bytes(0..1), flag::READ | flag::WRITE, 3);
    map.protect(bytes(0..3), flag::READ, 2);
    let protections: Vec<_> =
        map.iter().map(|vma| (vma.range.start / PAGE, vma.protection())).collect();
    let expected = [(0, "rw-p"), (1, "r--p"), (3, "rw-p")];
    assert_eq!(protections, expected.map(|(start, letters)| (start, letters.to_owned())));
}

#[test]
fn a_protection_does_not_split_what_the_kernel_merged() {
    let mut map = RegionMap::default();
    let mut merged = anon(0..4, 2);
    merged.flags = flag::READ;
    map.store(merged.clone());
    map.protect(bytes(2..4), flag::READ, 2);
    assert_eq!(map.iter().cloned().collect::<Vec<_>>(), [merged]);
}

#[test]
fn a_snapshot_ignores_changes_that_it_has_already_seen() {
    let mut map = RegionMap::from_snapshot([anon(0..2, 0), anon(8..10, 0)], 6);
    map.erase(bytes(0..2), 5);
    map.store(anon(4..6, 4));
    assert_eq!(map.count(), 2);
    map.erase(bytes(0..2), 6);
    assert_eq!(map.iter().cloned().collect::<Vec<_>>(), [anon(8..10, 5)]);
}

#[test]
fn a_torn_snapshot_is_healed_by_the_changes_that_it_missed() {
    // Read from below: 0..2 before section 6 erased it and mapped 4..6; 8..10, which section 7
    // mapped as it erased 4..6 again, after both.
    let mut map = RegionMap::from_snapshot([anon(0..2, 0), anon(8..10, 0)], 5);
    map.erase(bytes(0..2), 6);
    map.store(anon(4..6, 6));
    map.erase(bytes(4..6), 7);
    map.store(anon(8..10, 7));
    assert_eq!(map.iter().cloned().collect::<Vec<_>>(), [anon(8..10, 7)]);
}

#[test]
fn a_snapshot_before_the_first_section_ignores_nothing() {
    let mut map = RegionMap::from_snapshot([anon(0..2, 0)], 0);
    map.erase(bytes(0..1), 0);
    assert_eq!(map.iter().cloned().collect::<Vec<_>>(), [anon(1..2, 0)]);
}

#[test]
fn a_store_that_arrives_late_leaves_what_is_newer() {
    let mut map = RegionMap::default();
    map.store(anon(2..3, 2));
    assert_eq!(map.store(anon(1..4, 1)), []);
    let expected = [anon(1..2, 1), anon(2..3, 2), anon(3..4, 1)];
    assert_eq!(map.iter().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(map.mapped(), 3 * PAGE);
    // What is newer may also cover either end, or all.
    map.store(anon(4..6, 1));
    map.store(anon(5..8, 3));
    map.store(anon(4..9, 2));
    assert_eq!(map.store(anon(5..7, 2)), []);
    let ranges: Vec<_> = map.iter().map(|vma| vma.range.clone()).collect();
    assert_eq!(ranges[3..], [bytes(4..5), bytes(5..8), bytes(8..9)]);
    assert_eq!(map.mapped(), 8 * PAGE);
}

#[test]
fn the_letters_of_a_protection_are_those_of_proc_maps() {
    let mut vma = anon(0..1, 0);
    vma.flags = flag::READ | flag::EXEC | flag::MAYSHARE;
    assert_eq!(vma.protection(), "r-xs");
}

#[derive(Clone, Debug)]
enum Op {
    Store(Range<u64>, u64),
    Erase(Range<u64>),
    Protect(Range<u64>, u64),
}

/// The slow, obvious model: inode, page of the file, flags of each page.
#[derive(Clone, Default)]
struct Pages(BTreeMap<u64, (u64, u64, u64)>);

impl Pages {
    fn apply(&mut self, op: &Op) -> u64 {
        let before = self.0.len();
        match op {
            Op::Protect(range, flags) => {
                for page in range.clone() {
                    if let Some((_, _, known)) = self.0.get_mut(&page) {
                        *known = *flags;
                    }
                }
                0
            }
            Op::Store(range, inode) => {
                self.0.retain(|page, _| !range.contains(page));
                let removed = before - self.0.len();
                let pages = range.clone().map(|page| (page, (*inode, page - range.start, 1)));
                self.0.extend(pages);
                removed as u64
            }
            Op::Erase(range) => {
                self.0.retain(|page, _| !range.contains(page));
                (before - self.0.len()) as u64
            }
        }
    }
}

fn apply(map: &mut RegionMap, op: &Op, seq: u64) -> u64 {
    let pages = |removed: Vec<Vma>| removed.iter().map(|vma| vma.len() / PAGE).sum();
    match op.clone() {
        Op::Store(range, inode) => {
            let backing = Backing::File { dev: 0, inode, offset: 0, shmem: false, name_tag: 0 };
            pages(map.store(Vma { range: bytes(range), backing, flags: flag::READ, seq }))
        }
        Op::Erase(range) => pages(map.erase(bytes(range), seq)),
        Op::Protect(range, flags) => {
            map.protect(bytes(range), flags, seq);
            0
        }
    }
}

fn seen(map: &RegionMap, page: u64) -> Option<(u64, u64, u64)> {
    map.find(page * PAGE).map(|vma| match vma.backing {
        Backing::File { inode, offset, .. } => {
            (inode, (offset + page * PAGE - vma.range.start) / PAGE, vma.flags)
        }
        Backing::Anon { .. } => unreachable!("only files are stored here"),
    })
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let range = (0..64u64, 1..16u64).prop_map(|(start, len)| start..start + len);
    let op = prop_oneof![
        (range.clone(), 0..3u64).prop_map(|(range, inode)| Op::Store(range, inode)),
        range.clone().prop_map(Op::Erase),
        (range, 1..8u64).prop_map(|(range, flags)| Op::Protect(range, flags)),
    ];
    prop::collection::vec(op, 0..40)
}

proptest! {
    #[test]
    fn agrees_with_the_page_by_page_model(ops in ops()) {
        let mut map = RegionMap::default();
        let mut pages = Pages::default();
        for (seq, op) in ops.iter().enumerate() {
            prop_assert_eq!(apply(&mut map, op, seq as u64), pages.apply(op));
        }
        for page in 0..80 {
            prop_assert_eq!(seen(&map, page), pages.0.get(&page).copied());
        }
        prop_assert_eq!(map.mapped(), pages.0.len() as u64 * PAGE);
    }

    /// Stores arrive in order, since the lock is held; erases and protections up to three later.
    #[test]
    fn late_erases_and_protections_end_in_the_same_map(
        ops in ops(),
        delays in prop::collection::vec(0..4usize, 40),
    ) {
        let mut pages = Pages::default();
        let mut arrivals: Vec<(usize, usize, &Op)> = Vec::new();
        for (seq, op) in ops.iter().enumerate() {
            // A protection with a hole fails; it is followed by a fresh snapshot, not by this.
            if let Op::Protect(range, _) = op
                && !range.clone().all(|page| pages.0.contains_key(&page))
            {
                continue;
            }
            pages.apply(op);
            let delay = if matches!(op, Op::Store(..)) { 0 } else { delays[seq] };
            arrivals.push((seq + delay, seq, op));
        }
        arrivals.sort_by_key(|&(at, seq, _)| (at, seq));
        let mut map = RegionMap::default();
        for (_, seq, op) in arrivals {
            apply(&mut map, op, seq as u64);
        }
        for page in 0..80 {
            prop_assert_eq!(seen(&map, page), pages.0.get(&page).copied());
        }
    }

    /// A trace file may hold what no kernel writes.
    #[test]
    fn the_sum_of_all_sizes_holds_in_whatever_order_changes_arrive(
        ops in ops(),
        sections in prop::collection::vec(0..8u64, 40),
    ) {
        let mut map = RegionMap::default();
        for (op, seq) in ops.iter().zip(sections) {
            apply(&mut map, op, seq);
            prop_assert_eq!(map.mapped(), map.iter().map(Vma::len).sum::<u64>());
        }
    }
}
