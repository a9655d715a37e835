//! Finds out that records are missing, by the numbers that the probes of each CPU give them.

use std::collections::HashMap;

use memtrace_common::Header;

/// Watches the numbers of records.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// The highest number so far, by CPU.
    last: HashMap<u16, u16>,
    missing: i64,
}

impl Sequence {
    /// Takes in a record. Numbers wrap; a probe that interrupted another may write before it, so
    /// that a number which comes late is one that is not missing after all.
    pub fn see(&mut self, &Header { cpu, sequence, .. }: &Header) {
        let Some(last) = self.last.get_mut(&cpu) else {
            self.last.insert(cpu, sequence);
            return;
        };
        let ahead = sequence.wrapping_sub(last.wrapping_add(1)) as i16;
        if ahead >= 0 {
            self.missing += i64::from(ahead);
            *last = sequence;
        } else {
            self.missing -= 1;
        }
    }

    /// Returns how many records are missing between the first and the last of each CPU. (Not more
    /// than 32,767 between two are told apart: the probes count what they drop.)
    pub fn missing(&self) -> u64 {
        self.missing.max(0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(numbers: &[(u16, u16)]) -> u64 {
        let mut sequence = Sequence::default();
        for &(cpu, sequence_number) in numbers {
            sequence.see(&Header { cpu, sequence: sequence_number, ..Header::default() });
        }
        sequence.missing()
    }

    #[test]
    fn numbers_that_follow_each_other_miss_nothing_whatever_other_cpus_do() {
        assert_eq!(missing(&[(0, 7), (1, 900), (0, 8), (1, 901), (0, 9)]), 0);
        assert_eq!(missing(&[(0, 65_534), (0, 65_535), (0, 0), (0, 1)]), 0);
    }

    #[test]
    fn each_number_that_does_not_come_is_missing() {
        assert_eq!(missing(&[(0, 7), (0, 10)]), 2);
        assert_eq!(missing(&[(0, 65_535), (0, 3), (1, 5), (1, 7)]), 4);
    }

    #[test]
    fn a_number_that_comes_late_is_not_missing() {
        assert_eq!(missing(&[(0, 7), (0, 9), (0, 8), (0, 10)]), 0);
        assert_eq!(missing(&[(0, 65_535), (0, 1), (0, 0)]), 0);
    }
}
