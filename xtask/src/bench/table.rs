//! The table of a benchmark, and its place in docs/PERFORMANCE.md.

use std::fmt::Write as _;

/// One workload under one tracer.
pub(super) struct Row {
    workload: &'static str,
    tracer: &'static str,
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
        tracer: &'static str,
        units: u64,
        unit: &'static str,
    ) -> Self {
        Self { workload, tracer, units, unit, times: vec![], ratios: vec![], reason: None }
    }

    /// Adds a run, beside the bare run of its round.
    pub(super) fn add(&mut self, elapsed: Option<u64>, bare: Option<u64>) {
        if let Some(elapsed) = elapsed {
            self.times.push(elapsed);
            self.ratios.push(elapsed as f64 / bare.unwrap_or(elapsed).max(1) as f64);
        }
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
        let Row { workload, tracer, units, unit, times, ratios, reason } = row;
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
    for row in rows.iter().filter(|row| row.tracer == "memtrace run") {
        let Some(own) = median(&row.ratios) else { continue };
        // One that looks at faults alone says nothing of a workload without any.
        let looks_at = |peer: &Row| {
            peer.tracer.starts_with("strace")
                || peer.tracer.starts_with("perf trace (")
                || peer.tracer.starts_with("perf trace -F") && row.workload.contains("fault")
        };
        let peers = rows.iter().filter(|peer| peer.workload == row.workload && looks_at(peer));
        for peer in peers {
            if let Some(ratio) = median(&peer.ratios).filter(|&ratio| ratio <= own) {
                let _ = writeln!(
                    text,
                    "\n**Not below a peer:** {}: memtrace {own:.2}, {} {ratio:.2}.",
                    row.workload, peer.tracer
                );
            }
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

    #[test]
    fn a_peer_that_is_cheaper_is_named() {
        let mut own = Row::new("storm", "memtrace run", 10, "page");
        own.add(Some(200), Some(100));
        let mut peer = Row::new("storm", "strace", 10, "page");
        peer.add(Some(110), Some(100));
        let text = render(&[own, peer], 1, "6.18");
        assert!(text.contains("| storm | memtrace run | 20 a page | 2.00 | 2.00 – 2.00 |"));
        assert!(text.contains("**Not below a peer:** storm: memtrace 2.00, strace 1.10."));
    }
}
