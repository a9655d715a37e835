use memtrace_common::{Event, Header, Kind, Path, Region};

use super::*;
use crate::source::procfs::parse_smaps;

const MM: u64 = 7;

/// A region: start, end, flags, inode, page offset.
type Row = (u64, u64, u64, u64, u64);

/// A model with one process that has these regions.
fn model(regions: &[Row]) -> (Model, SpaceId) {
    let mut model = Model::default();
    let header = Header { mm: MM, tgid: 1, kind: Kind::TaskSeed as u16, ..Header::default() };
    let seed = memtrace_common::TaskSeed {
        header,
        start_ns: 1,
        start_brk: 0x9000,
        brk: 0xb000,
        start_stack: 0,
        vdso: 0,
        rss_pages: [0; 4],
        tracked: 1,
    };
    model.apply(&Event::TaskSeed(seed));
    let region = |&(start, end, flags, inode, pgoff): &Row| Region {
        start,
        end,
        flags,
        inode,
        pgoff,
        dev: if inode == 0 { 0 } else { 0x80_0001 },
        backing: u16::from(inode != 0),
        ..Region::default()
    };
    let regions: Vec<Region> = regions.iter().map(region).collect();
    model.replace_regions(MM, &regions, 0);
    let space = model.living().next().and_then(|process| process.space()).expect("seeded");
    (model, space)
}

fn differences(regions: &[Row], maps: &str) -> Vec<String> {
    let (model, space) = model(regions);
    super::regions(&model, space, &parse_smaps(maps)).iter().map(ToString::to_string).collect()
}

const MAPS: &str = "\
1000-3000 r-xp 00001000 08:01 5
9000-b000 rw-p 00000000 00:00 0 [heap]
d000-f000 rw-s 00000000 00:00 0
";
const SAME: [Row; 3] =
    [(0x1000, 0x3000, 5, 5, 1), (0x9000, 0xb000, 3, 0, 9), (0xd000, 0xf000, 0x83, 0, 13)];

#[test]
fn what_is_the_same_has_no_difference() {
    assert_eq!(differences(&SAME, MAPS), [""; 0]);
}

#[test]
fn neighbours_with_the_same_attributes_count_as_one() {
    let mut split = SAME.to_vec();
    split[0].1 = 0x2000;
    split.insert(1, (0x2000, 0x3000, 5, 5, 2));
    assert_eq!(differences(&split, MAPS), [""; 0]);
    // Not one: the file does not go on there.
    split[1].4 = 3;
    assert_eq!(differences(&split, MAPS).len(), 3);
}

#[test]
fn each_attribute_that_differs_is_a_difference() {
    let changes: [fn(&mut Row); 5] = [
        |region| region.0 += 0x1000,
        |region| region.1 -= 0x1000,
        |region| region.2 ^= flag::WRITE,
        |region| region.3 += 1,
        |region| region.4 += 1,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut regions = SAME;
        change(&mut regions[0]);
        let found = differences(&regions, MAPS);
        assert_eq!(found.len(), 2, "{number}: {found:?}");
        assert!(found[0].starts_with("only") && found[0] != found[1], "{number}: {found:?}");
    }
    let mut shared = SAME;
    shared[2].2 &= !flag::MAYSHARE;
    assert_eq!(differences(&shared, MAPS).len(), 2);
}

#[test]
fn a_region_that_one_side_lacks_is_told_by_its_side() {
    assert_eq!(differences(&SAME[1..], MAPS), ["only the kernel 1000-3000 r-xp 00001000 08:01 5 "]);
    let less = MAPS.split_once('\n').expect("lines").1;
    assert_eq!(differences(&SAME, less), ["only memtrace   1000-3000 r-xp 00001000 08:01 5 "]);
}

#[test]
fn a_name_is_the_last_component_and_deleted_files_keep_it() {
    let line = |path: &str| of_kernel(&parse_smaps(&format!("1000-2000 r--p 0 8:1 5 {path}"))[0]);
    for path in ["/usr/lib/libc.so.6", "/usr/lib/libc.so.6 (deleted)", "libc.so.6"] {
        assert_eq!(line(path).name, "libc.so.6");
    }
}

#[test]
fn pages_of_a_ledger_are_what_came_less_what_went() {
    let mut ledger =
        Ledger { base_pages: [1, 2, 100, 4], in_pages: [10, 20, 100, 40], ..Ledger::default() };
    ledger.paths[Path::Munmap.index()].zapped_pages = [3, 4, 100, 5];
    assert_eq!(Pages::of_ledger(&ledger), Pages { anon: 18, file: 8 + 39 });
}

#[test]
fn devices_and_hugetlb_are_not_counted() {
    let regions =
        [(0, 0x1000, 3, 0, 0), (0x1000, 0x2000, 0x400, 0, 0), (0x2000, 0x3000, 0x4000, 0, 0)];
    let (model, space) = model(&[&regions[..], &[(0x3000, 0x4000, flag::HUGETLB, 0, 0)]].concat());
    let counted = counted(&model, space);
    assert_eq!((counted.len(), counted[0].clone()), (1, 0..0x1000));
}
