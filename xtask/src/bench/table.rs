//! The table of a benchmark, and its place in docs/PERFORMANCE.md.

use std::fmt::Write as _;

use super::{
    goals,
    machine::Machine,
    tracer::{Sees, Tracer},
    workload::Workload,
};

/// One workload under one tracer.
pub(super) struct Row {
    pub(super) workload: &'static str,
    pub(super) tracer: &'static str,
    sees: Sees,
    units: u64,
    unit: &'static str,
    /// Whether the workload faults pages in.
    faults: bool,
    /// Times, nanoseconds.
    times: Vec<u64>,
    /// Ratios to the bare run of the same round.
    ratios: Vec<f64>,
    /// Why there are none.
    pub(super) reason: Option<String>,
}

impl Row {
    /// Returns a row without a measurement.
    pub(super) fn new(workload: &Workload, tracer: &Tracer) -> Self {
        let Workload { name: workload, units, unit, faults, .. } = *workload;
        let Tracer { name: tracer, sees, .. } = *tracer;
        let (times, ratios) = (vec![], vec![]);
        Self { workload, tracer, sees, units, unit, faults, times, ratios, reason: None }
    }

    /// Adds a run, beside the bare run of its round.
    pub(super) fn add(&mut self, elapsed: Option<u64>, bare: Option<u64>) {
        if let Some(elapsed) = elapsed {
            self.times.push(elapsed);
            self.ratios.push(elapsed as f64 / bare.unwrap_or(elapsed).max(1) as f64);
        }
    }

    /// Returns the median ratio to bare.
    pub(super) fn ratio(&self) -> Option<f64> {
        median(&self.ratios)
    }

    /// Returns the smallest and the largest ratio to bare.
    pub(super) fn range(&self) -> (f64, f64) {
        let smallest = self.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        (smallest, self.ratios.iter().copied().fold(0.0, f64::max))
    }

    fn is_ours(&self) -> bool {
        self.tracer.starts_with("memtrace")
    }

    /// Tells whether `peer` is one to hold this row against.
    fn has_as_peer(&self, peer: &Self) -> bool {
        // One that looks at faults alone says nothing of a workload without any.
        let is_idle = peer.sees == Sees::Faults && !peer.faults;
        let looks = peer.sees != Sees::Nothing && peer.sees <= self.sees;
        peer.workload == self.workload && !peer.is_ours() && looks && !is_idle
    }
}

/// Returns the middle value, the lower one of two; `None` of nothing.
fn median<T: Copy + PartialOrd>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// Returns the table in Markdown, the goals, and a line for each row of ours that a peer was not
/// dearer than.
pub(super) fn render(rows: &[Row], rounds: usize, machine: &Machine) -> String {
    let Machine { kernel, calls } = machine;
    let mut text = format!(
        "Linux {kernel}; memory calls by `{calls}`; medians of {rounds} interleaved rounds; ratios \
         within a round, with their smallest and largest.\n\n\
         | workload | tracer | ns a unit | ratio to bare | smallest – largest |\n\
         |---|---|---:|---:|---:|\n"
    );
    for row in rows {
        let Row { workload, tracer, units, unit, times, reason, .. } = row;
        let figures = match (median(times), row.ratio()) {
            (Some(time), Some(ratio)) => {
                let (smallest, largest) = row.range();
                let each = time / (*units).max(1);
                format!("{each} a {unit} | {ratio:.2} | {smallest:.2} – {largest:.2}")
            }
            _ => format!("– | – | {}", reason.as_deref().unwrap_or("not measured")),
        };
        let _ = writeln!(text, "| {workload} | {tracer} | {figures} |");
    }
    text.push_str(&goals::render(rows, machine));
    for row in rows.iter().filter(|row| row.is_ours()) {
        let Some(own) = row.ratio() else { continue };
        let mut cheaper = String::new();
        for peer in rows.iter().filter(|peer| row.has_as_peer(peer)) {
            let Some(ratio) = peer.ratio().filter(|&ratio| ratio <= own) else { continue };
            let less = peer.sees.lacks_beside(row.sees);
            let _ = write!(cheaper, "; {}{less} {ratio:.2}", peer.tracer);
        }
        if !cheaper.is_empty() {
            let Row { workload, tracer, .. } = row;
            let _ =
                writeln!(text, "\n**Not below a peer:** {workload}: {tracer} {own:.2}{cheaper}.");
        }
    }
    text
}

#[cfg(test)]
impl Row {
    /// Returns a row of a workload that faults, whose units do not matter.
    pub(super) fn named(workload: &'static str, tracer: &Tracer) -> Self {
        let (driver, command) = (vec![], vec![]);
        let workload =
            Workload { name: workload, driver, command, units: 10, unit: "page", faults: true };
        Self::new(&workload, tracer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_one_of_the_values() {
        assert_eq!(median(&[3, 1, 2]), Some(2));
        assert_eq!(median(&[4, 1, 2, 3]), Some(2));
        assert_eq!(median::<u64>(&[]), None);
    }

    fn row(name: &'static str, sees: Sees, time: u64) -> Row {
        let mut row = Row::named("fault storm", &Tracer { name, sees, ..Tracer::BARE });
        row.add(Some(time), Some(100));
        row
    }

    fn rendered(rows: &[Row]) -> String {
        let machine = Machine { kernel: "6.18".to_owned(), calls: "fexit".to_owned() };
        render(rows, 1, &machine)
    }

    fn not_below(rows: &[Row]) -> Vec<String> {
        let text = rendered(rows);
        text.lines().filter(|line| line.starts_with("**Not below")).map(str::to_owned).collect()
    }

    #[test]
    fn a_row_has_its_figures_or_the_reason_why_not() {
        let mut missing = Row::named("fault storm", &Tracer { name: "perf", ..Tracer::BARE });
        missing.reason = Some("not installed".to_owned());
        let text = rendered(&[row("memtrace run", Sees::Pages, 200), missing]);
        assert!(text.starts_with("Linux 6.18; memory calls by `fexit`; medians of 1 "), "{text}");
        assert!(text.contains("| fault storm | memtrace run | 20 a page | 2.00 | 2.00 – 2.00 |"));
        assert!(text.contains("| fault storm | perf | – | – | not installed |"), "{text}");
    }

    #[test]
    fn a_peer_that_is_cheaper_is_named_with_what_it_does_less() {
        let rows = [
            row("memtrace run --evidence frames", Sees::Frames, 200),
            row("memtrace run --evidence args", Sees::Calls, 105),
            row("bpftrace", Sees::Frames, 200),
            row("bpftrace pages", Sees::Pages, 104),
            row("strace", Sees::Calls, 110),
            row("perf", Sees::Faults, 190),
            row("perf calls", Sees::Calls, 201),
            row("bare", Sees::Nothing, 100),
        ];
        assert_eq!(
            not_below(&rows),
            ["**Not below a peer:** fault storm: memtrace run --evidence frames 2.00; bpftrace \
              2.00; bpftrace pages, which looks at no freed frame, 1.04; strace, which looks at \
              no page, 1.10; perf, which looks at faults alone, 1.90."]
        );
    }

    #[test]
    fn who_looks_at_faults_alone_is_no_peer_where_there_are_none() {
        let mut rows =
            [row("memtrace run", Sees::Pages, 200), row("perf trace -F", Sees::Faults, 100)];
        assert_eq!(not_below(&rows).len(), 1);
        rows[1].faults = false;
        assert_eq!(not_below(&rows), [""; 0]);
    }
}
