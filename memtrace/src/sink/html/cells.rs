//! Where the pages of processes are, for the picture of their regions.

use crate::model::{
    cells::{Cells, Grain, share},
    region_map::PAGE,
    report::{ProcessReport, Report},
};

/// Returns it for the processes that are `shown`, in the order of the report and of its regions; `None`
/// where it is not known.
pub(super) fn of(report: &Report, shown: &[usize]) -> Vec<Option<Vec<Option<Cells>>>> {
    let is_known = |process: &ProcessReport| process.regions.iter().any(|r| r.cells.is_some());
    let most = share(report.processes.iter().filter(|process| is_known(process)).count());
    let mut found = vec![None; report.processes.len()];
    for &index in shown {
        let process = &report.processes[index];
        found[index] = is_known(process).then(|| fitted(process, most));
    }
    found
}

/// Returns no more cells than a process may have, whatever a trace says.
fn fitted(process: &ProcessReport, most: u64) -> Vec<Option<Cells>> {
    let located = process.regions.iter().filter(|region| region.cells.is_some());
    let grain = Grain::new(most, located.map(|region| region.mapped / PAGE));
    let cells = process.regions.iter().map(|region| {
        let mut cells = region.cells.clone()?;
        let pages = region.mapped / PAGE;
        cells.coarsen(grain.order(pages), pages);
        Some(cells)
    });
    cells.collect()
}
