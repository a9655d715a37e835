//! Sizes and times as users write them.

use std::time::Duration;

/// Splits a size into its digits and the binary logarithm of its unit.
fn without_unit(text: &str) -> (&str, u32) {
    match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    }
}

pub(super) fn buffer_size(text: &str) -> Result<u32, String> {
    let (digits, shift) = without_unit(text);
    let bytes = digits.parse::<u32>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= 4096 && bytes.is_power_of_two() => Ok(bytes),
        Some(_) => Err("must be a power of two and at least 4K".to_owned()),
        None => Err("must be a size such as 64K or 16M, below 4G".to_owned()),
    }
}

/// Reads a size in bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = without_unit(text);
    // `parse` takes a sign, too.
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_number);
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "must be a size such as 512K, 10M or 0".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (digits, unit) = units
        .iter()
        .find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1.0));
    let seconds = digits.parse::<f64>().ok().map(|number| number * unit);
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "must be a time such as 500ms, 10s or 5m".to_owned())
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_a_power_of_two_of_at_least_a_page() {
        assert_eq!(buffer_size("64K"), Ok(64 << 10));
        assert_eq!(buffer_size("4096"), Ok(4096));
        assert!(buffer_size("3K").is_err());
        assert!(buffer_size("8G").is_err());
        assert!(buffer_size("").is_err());
        assert!(buffer_size("é").is_err());
    }

    #[test]
    fn a_duration_has_a_unit_or_is_in_seconds() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "0", "-1s", "nan", "1d", "1e400"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
