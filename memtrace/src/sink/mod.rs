//! Renders what the model says: a report or one event, for people or for programs.
//!
//! Not here: measuring anything, or printing. Every `render` returns a `String`.

pub mod events;
pub mod flamegraph;
pub mod folded;
pub mod html;
pub mod json;
pub mod metrics;
pub mod perfetto;
pub mod strip;
pub mod text;
pub mod tui;
pub mod verify;
mod words;

use nix::sys::signal::Signal;

/// Returns a size in the largest unit that keeps it at 1 or more, with one decimal.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = 0;
    let mut unit_name = "";
    for (power, unit) in (1..).zip(UNITS) {
        let divisor = 1_u128 << (10 * power);
        tenths = (u128::from(bytes) * 10 + divisor / 2) / divisor;
        unit_name = unit;
        // Asked of the rounded figure, so that nothing is shown as "1024.0 KiB".
        if tenths < 10 * 1024 {
            break;
        }
    }
    format!("{}.{} {unit_name}", tenths / 10, tenths % 10)
}

/// What stands for a figure that is not known.
const UNKNOWN: &str = "–";

/// Returns what is known as it is shown, or the sign for what is not.
fn known_as<T>(figure: Option<T>, show: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| UNKNOWN.to_owned(), show)
}

/// Returns a size, or the sign for an unknown one.
pub fn known(bytes: Option<u64>) -> String {
    known_as(bytes, size)
}

/// Returns a number, or the sign for an unknown one.
fn known_number<T: ToString>(number: Option<T>) -> String {
    known_as(number, |number| number.to_string())
}

/// Returns a size that may be below zero.
fn signed_size(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

/// Returns a name that came from a traced process so that it cannot steer a terminal, break a line
/// or pass for another one: everything without a visible glyph of its own is escaped as in Rust.
pub fn printable(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '\'' | '"' => safe.push(c),
            _ => safe.extend(c.escape_debug()),
        }
    }
    safe
}

/// Returns an exit code with the signal that it may stand for.
fn exit_code(code: i32) -> String {
    match Signal::try_from(code.saturating_sub(128)) {
        Ok(signal) => format!("{code} ({})", signal.as_str()),
        Err(_) => code.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_changes_its_unit_where_the_rounded_figure_reaches_1024() {
        let shown = [
            0,
            1,
            1023,
            1024,
            1075,           // 1.0498 KiB
            1076,           // 1.0508 KiB
            (1 << 20) - 52, // 1023.949 KiB
            (1 << 20) - 51, // 1023.950 KiB
            (1 << 20) - 1,
            1 << 20,
            (1 << 30) - 1,
            1 << 30,
            (1 << 40) - 1,
            1 << 40,
            u64::MAX,
        ]
        .map(size);
        assert_eq!(
            shown,
            [
                "0 B",
                "1 B",
                "1023 B",
                "1.0 KiB",
                "1.0 KiB",
                "1.1 KiB",
                "1023.9 KiB",
                "1.0 MiB",
                "1.0 MiB",
                "1.0 MiB",
                "1.0 GiB",
                "1.0 GiB",
                "1024.0 GiB",
                "1024.0 GiB",
                "17179869184.0 GiB",
            ]
        );
    }

    #[test]
    fn a_size_below_zero_keeps_its_sign() {
        assert_eq!(signed_size(-1), "-1 B");
        assert_eq!(signed_size(-4096), "-4.0 KiB");
        assert_eq!(signed_size(i64::MIN), "-8589934592.0 GiB");
    }

    #[test]
    fn an_ordinary_name_is_left_alone() {
        for name in ["python3", "[heap]", "/srv/a file's \"name\"", "naïve", "日本語", "\u{fffd}"]
        {
            assert_eq!(printable(name), name);
        }
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        for (name, shown) in [
            ("\x1b[2J", "\\u{1b}[2J"),
            ("a\nb\rc\td\0", "a\\nb\\rc\\td\\0"),
            ("\x7f\u{9b}31m", "\\u{7f}\\u{9b}31m"),
            ("exe\u{202e}gpj", "exe\\u{202e}gpj"),
            ("\u{2066}\u{2069}\u{200f}\u{61c}", "\\u{2066}\\u{2069}\\u{200f}\\u{61c}"),
            ("a\u{200b}\u{feff}\u{2028}\u{a0}", "a\\u{200b}\\u{feff}\\u{2028}\\u{a0}"),
            ("z\u{336}", "z\\u{336}"),
            ("\\n", "\\\\n"),
        ] {
            assert_eq!(printable(name), shown);
        }
    }

    #[test]
    fn an_exit_code_above_128_names_its_signal() {
        let shown = [0, 1, 128, 137, 139, 255, i32::MIN].map(exit_code);
        assert_eq!(
            shown,
            ["0", "1", "128", "137 (SIGKILL)", "139 (SIGSEGV)", "255", "-2147483648"]
        );
    }
}
