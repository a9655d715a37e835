//! What the daemon may take, and whether it did.

use super::daemon::Reading;

/// Per cent of a core, with its interval by default.
const CPU: f64 = 1.0;
/// Resident, and how much of it may come in the second half, bytes.
const RESIDENT: u64 = 48 << 20;
const GROWTH: u64 = 1 << 20;
/// Descriptors that may come in the second half: one is for each process that lives at a reading.
const FILES: usize = 100;
/// Lines of metrics, however many processes there are.
const METRICS: usize = 3_000;

/// Says what was missed.
pub(super) fn missed(begin: &Reading, readings: &[Reading], by_default: bool) -> Vec<String> {
    let Some(last) = readings.last() else { return vec!["nothing was read".to_owned()] };
    let half = &readings[(readings.len() - 1) / 2];
    let second_half = &readings[readings.len() / 2..];
    let most = |of: fn(&Reading) -> u64, readings: &[Reading]| {
        readings.iter().map(of).max().unwrap_or_default()
    };
    let resident = most(|reading| reading.resident, readings);
    let grown = most(|reading| reading.resident, second_half).saturating_sub(half.resident);
    let files = most(|reading| reading.files as u64, second_half).saturating_sub(half.files as u64);
    let metrics = most(|reading| reading.metrics as u64, readings);
    let percent = last.percent_since(begin);
    let checks = [
        (by_default && percent > CPU, format!("{percent:.2} % of a core, not {CPU} %")),
        (resident > RESIDENT, format!("{} MiB resident, not {}", resident >> 20, RESIDENT >> 20)),
        (grown > GROWTH, format!("{} KiB more resident in the second half", grown >> 10)),
        (files > FILES as u64, format!("{files} more files open in the second half")),
        (metrics > METRICS as u64, format!("{metrics} lines of metrics, not {METRICS}")),
        (last.untracked > 0.0, format!("{} processes were not counted", last.untracked)),
    ];
    checks.into_iter().filter(|(is_missed, _)| *is_missed).map(|(_, what)| what).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn reading(begin: Instant, second: u64, cpu: f64, resident: u64) -> Reading {
        let at = begin + Duration::from_secs(second);
        Reading { at, cpu, resident, files: 10, metrics: 100, untracked: 0.0 }
    }

    #[test]
    fn what_is_missed_is_told() {
        let begin = Instant::now();
        let first = reading(begin, 0, 0.0, 20 << 20);
        let readings = |cpu: f64, last: u64| {
            [
                reading(begin, 10, cpu / 4.0, 24 << 20),
                reading(begin, 20, cpu / 2.0, 25 << 20),
                reading(begin, 30, cpu / 1.5, 25 << 20),
                reading(begin, 40, cpu, last),
            ]
        };
        assert!(missed(&first, &readings(0.4, 26 << 20), true).is_empty());
        let told = missed(&first, &readings(0.5, 49 << 20), true);
        assert_eq!(
            told,
            [
                "1.25 % of a core, not 1 %",
                "49 MiB resident, not 48",
                "24576 KiB more resident in the second half"
            ]
        );
        assert!(missed(&first, &readings(0.5, 26 << 20), false).is_empty(), "it reads more often");
        let mut readings = readings(0.1, 25 << 20);
        readings[3].files = 200;
        readings[0].metrics = 4_000;
        readings[3].untracked = 2.0;
        assert_eq!(missed(&first, &readings, true).len(), 3);
        assert_eq!(missed(&first, &[], true).len(), 1);
    }
}
