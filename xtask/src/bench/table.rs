//! The table of a benchmark, and its place in docs/PERFORMANCE.md.

use std::fmt::Write as _;

use super::tracer::{Sees, Tracer};

/// One workload under one tracer.
pub(super) struct Row {
    workload: &'static str,
    tracer: &'static str,
    sees: Sees,
    units: u64,
    unit: &'static str,
    /// Times, nanoseconds.
    times: Vec<u64>,
    /// Ratios to the bare run of the same round.
    ratios: Vec<f64>,
    /// Why there are none.
    pub(super) reason: Option<String>,
}

impl Row {
    /// Returns a row without a measurement.
    pub(super) fn new(
        workload: &'static str,
        tracer: &Tracer,
        units: u64,
        unit: &'static str,
    ) -> Self {
        let Tracer { name: tracer, sees, .. } = *tracer;
        Self { workload, tracer, sees, units, unit, times: vec![], ratios: vec![], reason: None }
    }

    /// Adds a run, beside the bare run of its round.
    pub(super) fn add(&mut self, elapsed: Option<u64>, bare: Option<u64>) {
        if let Some(elapsed) = elapsed {
            self.times.push(elapsed);
            self.ratios.push(elapsed as f64 / bare.unwrap_or(elapsed).max(1) as f64);
        }
    }
}

impl Row {
    fn is_ours(&self) -> bool {
        self.tracer.starts_with("memtrace")
    }

    /// Tells whether `peer` is one to hold this row against.
    fn has_as_peer(&self, peer: &Self) -> bool {
        // One that looks at faults alone says nothing of a workload without any.
        let is_idle = peer.sees == Sees::Pages && !self.workload.contains("fault");
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

/// Returns the table in Markdown, with a line for each peer that was cheaper than memtrace.
pub(super) fn render(rows: &[Row], rounds: usize, kernel: &str) -> String {
    let mut text = format!(
        "Linux {kernel}; medians of {rounds} interleaved rounds; ratios within a round, with their \
         smallest and largest.\n\n\
         | workload | tracer | ns a unit | ratio to bare | smallest – largest |\n\
         |---|---|---:|---:|---:|\n"
    );
    for row in rows {
        let Row { workload, tracer, units, unit, times, ratios, reason, .. } = row;
        let figures = match (median(times), median(ratios)) {
            (Some(time), Some(ratio)) => {
                let smallest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
                let largest = ratios.iter().copied().fold(0.0, f64::max);
                let each = time / (*units).max(1);
                format!("{each} a {unit} | {ratio:.2} | {smallest:.2} – {largest:.2}")
            }
            _ => format!("– | – | {}", reason.as_deref().unwrap_or("not measured")),
        };
        let _ = writeln!(text, "| {workload} | {tracer} | {figures} |");
    }
    for row in rows.iter().filter(|row| row.is_ours()) {
        let Some(own) = median(&row.ratios) else { continue };
        let peers = rows.iter().filter(|peer| row.has_as_peer(peer));
        for peer in peers {
            let Some(ratio) = median(&peer.ratios).filter(|&ratio| ratio <= own) else { continue };
            let less = if peer.sees < row.sees { ", which looks at no page," } else { "" };
            let _ = writeln!(
                text,
                "\n**Not below a peer:** {}: {} {own:.2}, {}{less} {ratio:.2}.",
                row.workload, row.tracer, peer.tracer
            );
        }
    }
    text
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
        let tracer = Tracer { name, sees, ..Tracer::BARE };
        let mut row = Row::new("fault storm", &tracer, 10, "page");
        row.add(Some(time), Some(100));
        row
    }

    #[test]
    fn a_peer_that_is_cheaper_is_named_with_what_it_does_less() {
        let rows = [
            row("memtrace run", Sees::Pages, 200),
            row("memtrace run --evidence args", Sees::Calls, 105),
            row("strace", Sees::Calls, 110),
            row("perf", Sees::Pages, 190),
            row("bare", Sees::Nothing, 100),
        ];
        let text = render(&rows, 1, "6.18");
        assert!(text.contains("| fault storm | memtrace run | 20 a page | 2.00 | 2.00 – 2.00 |"));
        let named: Vec<&str> =
            text.lines().filter(|line| line.starts_with("**Not below")).collect();
        assert_eq!(
            named,
            [
                "**Not below a peer:** fault storm: memtrace run 2.00, strace, which looks at no \
                 page, 1.10.",
                "**Not below a peer:** fault storm: memtrace run 2.00, perf 1.90.",
            ]
        );
    }
}
