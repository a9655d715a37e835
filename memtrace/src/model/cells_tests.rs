//! Cells against a slow model that has every page.

use proptest::{collection::vec, prelude::*};

use super::*;

fn expanded(runs: &Runs, len: usize) -> Vec<u64> {
    let all = runs.iter().flat_map(|(count, value)| std::iter::repeat_n(value, count as usize));
    let mut all: Vec<u64> = all.collect();
    assert!(all.len() <= len, "{} figures for {len} cells", all.len());
    all.resize(len, 0);
    all
}

fn summed(pages: &[u64], order: u32) -> Vec<u64> {
    pages.chunks(1 << order).map(|cell| cell.iter().sum()).collect()
}

fn filled(pages: &[u64], order: u32) -> Runs {
    let mut filling = Filling::new(order, pages.len() as u64);
    for (page, &value) in (0..).zip(pages) {
        filling.add(page..page + 1, value);
    }
    filling.finish()
}

fn runs_of(pages: &[bool]) -> impl Iterator<Item = Range<u64>> {
    let same = |a: &bool, b: &bool| a == b;
    pages
        .chunk_by(same)
        .scan(0, |at, run| {
            let start = *at;
            *at += run.len() as u64;
            Some((start..*at, run[0]))
        })
        .filter_map(|(range, is)| is.then_some(range))
}

proptest! {
    #[test]
    fn runs_of_pages_are_summed_up_as_pages_are(
        runs in vec((any::<bool>(), 1usize..40), 0..30), order in 0u32..6
    ) {
        let pages: Vec<bool> =
            runs.iter().flat_map(|&(is, count)| std::iter::repeat_n(is, count)).collect();
        let mut filling = Filling::new(order, pages.len() as u64);
        runs_of(&pages).for_each(|range| filling.add(range, 1));
        let found = filling.finish();
        let values: Vec<u64> = pages.iter().map(|&is| u64::from(is)).collect();
        let wanted = summed(&values, order);
        prop_assert_eq!(expanded(&found, wanted.len()), wanted);
        // Equal neighbours are one run, and the end is left out where it is empty.
        prop_assert!(found.0.windows(2).all(|two| two[0].1 != two[1].1));
        prop_assert!(found.0.last().is_none_or(|last| last.1 > 0));
        prop_assert_eq!(&found, &filled(&values, order));
    }

    #[test]
    fn coarser_cells_hold_the_sums_of_finer_ones(
        pages in vec(prop_oneof![Just(0u64), 0u64..9], 1..200), fine in 0u32..4, more in 0u32..4
    ) {
        let count = pages.len() as u64;
        let resident = filled(&pages, fine);
        let mut cells = Cells { order: fine, swapped: resident.clone(), resident, ..Cells::default() };
        cells.coarsen(fine + more, count);
        prop_assert_eq!(cells.order, fine + more);
        let wanted = filled(&pages, fine + more);
        prop_assert_eq!(&cells.resident, &wanted);
        prop_assert_eq!(&cells.swapped, &wanted);
    }

    #[test]
    fn free_bytes_come_from_several_walks_and_in_any_order(
        found in vec((0u64..120, 1u64..4097), 0..80), walked in 0u32..4, read in 0u32..4
    ) {
        let pages = 100;
        let mut cells = Cells { order: read, ..Cells::default() };
        let in_cells = found.iter().map(|&(page, bytes)| (page >> walked, bytes)).collect();
        cells.add_free(walked, pages, in_cells);
        prop_assert_eq!(cells.order, walked.max(read));
        let mut slow = vec![0; cells_of(pages, cells.order)];
        for (page, bytes) in found {
            // A finer cell may begin before the end and go on behind it.
            if page >> walked < pages.div_ceil(1 << walked) {
                slow[(page >> cells.order) as usize] += bytes;
            }
        }
        prop_assert_eq!(expanded(&cells.free, slow.len()), slow);
    }

    #[test]
    fn they_survive_the_round_trip(
        pages in vec(0u64..3, 0..100), order in 0u32..5
    ) {
        let cells = Cells { order, resident: filled(&pages, order), ..Cells::default() };
        let text = serde_json::to_string(&cells).expect("it is JSON");
        prop_assert_eq!(serde_json::from_str::<Cells>(&text).expect("it is read"), cells);
    }

    #[test]
    fn regions_have_no_more_cells_together_than_they_may(
        regions in vec(prop_oneof![1u64..5000, 1u64..1 << 40], 1..60), most in 60u64..100_000
    ) {
        let grain = Grain::new(most, regions.iter().copied());
        let count = |grain: Grain| -> u64 {
            regions.iter().map(|&pages| cells(pages, grain.order(pages))).sum()
        };
        prop_assert!(count(grain) <= most);
        let is_finest = grain.0 * 2 > most || count(Grain(grain.0 * 2)) > most;
        prop_assert!(is_finest, "{:?}", grain);
    }
}

fn cells_of(pages: u64, order: u32) -> usize {
    cells(pages, order) as usize
}

#[test]
fn a_small_process_is_told_page_by_page() {
    // A GiB, in regions of any size.
    let regions = [(200 << 20) / 4096, (800 << 20) / 4096, 1, 700];
    let grain = Grain::new(share(1), regions.into_iter());
    assert_eq!(regions.map(|pages| grain.order(pages)), [0; 4]);
    // What is only reserved makes itself coarse, and nothing else.
    let grain = Grain::new(share(1), regions.into_iter().take(1).chain([1 << 34]));
    assert_eq!((grain.order(regions[0]), grain.order(1 << 34)), (0, 17));
}

#[test]
fn a_hostile_list_is_cut_at_the_end_of_its_region() {
    let text = format!(
        r#"{{"order":4294967295,"resident":[{max},{max},{max},1,7],"free":[3],"swapped":[]}}"#,
        max = u64::MAX
    );
    let mut cells: Cells = serde_json::from_str(&text).expect("it is a list");
    cells.coarsen(0, 10);
    assert_eq!(cells.order, 52);
    assert_eq!(cells.resident.0, [(1, u64::MAX)]);
    let text = r#"{"order":1,"resident":[18446744073709551615,2,0,5,1]}"#;
    let mut cells: Cells = serde_json::from_str(text).expect("it is a list");
    cells.coarsen(1, 10);
    assert_eq!((cells.order, cells.resident.0.as_slice()), (1, &[(5, 2)][..]));
    assert_eq!(cells.resident.sum(), 10);
}
