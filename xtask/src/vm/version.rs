//! Debian's order of package versions, as deb-version(7) gives it.

use std::cmp::Ordering;

/// Compares two versions `[epoch:]upstream[-revision]`.
pub(super) fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    left.0
        .cmp(&right.0)
        .then_with(|| compare_part(left.1, right.1))
        .then_with(|| compare_part(left.2, right.2))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("0", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch.parse().unwrap_or(0), upstream, revision)
}

/// Compares non-digits and digits in turn.
fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, right_text);
        (left_text, left) = take(left, |byte| !byte.is_ascii_digit());
        (right_text, right) = take(right, |byte| !byte.is_ascii_digit());
        let length = left_text.len().max(right_text.len());
        let weights = |text: &str| -> Vec<i32> {
            (0..length).map(|at| weight(text.as_bytes().get(at).copied())).collect()
        };
        let (left_number, right_number);
        (left_number, left) = take(left, |byte| byte.is_ascii_digit());
        (right_number, right) = take(right, |byte| byte.is_ascii_digit());
        let number = |text: &str| text.parse::<u64>().unwrap_or(0);
        let order = weights(left_text)
            .cmp(&weights(right_text))
            .then(number(left_number).cmp(&number(right_number)));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn take(text: &str, belongs: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !belongs(byte)).unwrap_or(text.len());
    text.split_at(end)
}

/// A tilde sorts before the end, the end before letters, letters before the rest.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_in_debians_order() {
        let ascending = [
            "5.10.262-1",
            "6.1.99-1",
            "6.1.192-2",
            "6.12.95-1~bpo12+1",
            "6.12.95-1",
            "6.12.115-1",
            "6.12.115-2~deb12u1",
            "6.12.115-2",
            "7.3.4-1~bpo13+1",
            "1:5.2+dfsg-11",
            "1:7.2+dfsg-7+deb12u15",
            "1:10.0.2+ds-2",
        ];
        for (at, left) in ascending.iter().enumerate() {
            assert_eq!(compare(left, left), Ordering::Equal);
            for right in &ascending[at + 1..] {
                assert_eq!(compare(left, right), Ordering::Less, "{left} {right}");
                assert_eq!(compare(right, left), Ordering::Greater, "{right} {left}");
            }
        }
    }
}
