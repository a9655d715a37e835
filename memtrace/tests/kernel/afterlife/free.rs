//! What became of memory that was given up by `MADV_FREE`.

use libtest_mimic::{Failed, Trial};

use super::{
    super::{driver::trial, paths::N},
    check, living, pages,
};

pub(super) fn trials() -> Vec<Trial> {
    vec![trial("afterlife::lazily_freed_memory_is_there_used_again_or_taken", lazily_free)]
}

fn lazily_free() -> Result<(), Failed> {
    let report = living("lazily_free", &["stopped"])?;
    let found = &report.process()["madv_free"];
    let [now, used_again] = [pages(&found["now"])?, pages(&found["used_again"])?];
    let off = N / 100;
    let mut figures = vec![("now", now, N / 4, off), ("used_again", used_again, N / 4, off)];
    if report.counts() {
        figures.push(("taken", pages(&found["taken"])?, N / 2, off));
    } else if !found["taken"].is_null() {
        return Err(format!("nobody counted that: {found}").into());
    }
    check(&figures, found)
}
