//! How much memory the machine has.

use std::{fs, io};

/// Returns a number above that of every page frame (`/proc/zoneinfo`).
pub fn frames() -> io::Result<u32> {
    end_of_zones(&fs::read_to_string("/proc/zoneinfo")?)
        .ok_or_else(|| io::Error::other("/proc/zoneinfo is not understood"))
}

fn end_of_zones(text: &str) -> Option<u32> {
    let mut spanned = 0;
    let mut end: u64 = 0;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("spanned"), Some(pages)) => spanned = pages.parse().ok()?,
            (Some("start_pfn:"), Some(first)) if spanned > 0 => {
                end = end.max(first.parse::<u64>().ok()?.checked_add(spanned)?);
            }
            _ => {}
        }
    }
    u32::try_from(end).ok().filter(|&end| end > 0 && end <= 1 << 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_zone_ends_last() {
        let text = "Node 0, zone      DMA\n        spanned  4095\n  start_pfn:           1\n\
                    Node 0, zone   Normal\n        spanned  1000\n  start_pfn:           8192\n\
                    Node 0, zone  Movable\n        spanned  0\n  start_pfn:           0\n";
        assert_eq!(end_of_zones(text), Some(9192));
        assert_eq!(end_of_zones(""), None);
        let huge = "spanned 99999999999\nstart_pfn: 1\n";
        assert_eq!(end_of_zones(huge), None);
    }

    #[test]
    fn this_machine_has_memory() -> io::Result<()> {
        assert!(frames()? > 4096);
        Ok(())
    }
}
