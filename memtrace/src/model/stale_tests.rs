//! Region maps that are in doubt, and are read again.

use super::*;

#[test]
fn lost_records_put_every_living_address_space_in_doubt_until_it_is_read_again() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh"), map(OTHER_MM, 0..4, 1)]);
    model.apply(&exec(2, OTHER_MM, "cat"));
    assert_eq!(model.stale(), []);
    model.lost_records();
    let mut stale = model.stale();
    stale.sort_unstable();
    assert_eq!(stale, [(1, MM), (2, OTHER_MM)]);
    model.replace_regions(MM, &[region(MM, 0..2, 0)], 8);
    assert_eq!(model.stale(), [(2, OTHER_MM)]);
    assert_eq!(model.resyncs, 1);
    assert_eq!(regions(&model, 0), [(0, 2)]);
    // What the snapshot has seen is not applied again.
    model.apply(&map(MM, 2..4, 7));
    assert_eq!(regions(&model, 0), [(0, 2)]);
    model.apply(&map(MM, 2..4, 8));
    assert_eq!(regions(&model, 0), [(0, 2), (2, 4)]);
}

#[test]
fn the_first_snapshot_of_an_address_space_is_no_resync() {
    let mut model = model(&[exec(1, MM, "sh")]);
    model.replace_regions(MM, &[region(MM, 0..2, 7)], 7);
    assert_eq!(model.resyncs, 0);
}

#[test]
fn an_address_space_that_ended_is_not_read_again() {
    let mut model = model(&[map(MM, 0..4, 1), exec(1, MM, "sh")]);
    model.lost_records();
    model.apply(&mm_end(MM, Path::Exit, 1));
    assert_eq!(model.stale(), []);
}
