//! The verdict of `memtrace verify`, for people.

use std::fmt::Write as _;

use super::printable;
use crate::verify::Verdict;

/// Returns the verdict: the answer first, then what differs.
pub fn render(verdict: &Verdict) -> String {
    let Verdict { tgid, comm, looks, busy, exited, resyncs, regions, pages, differences, .. } =
        verdict;
    let who = format!("process {tgid} ({})", printable(comm));
    let mut text = if !differences.is_empty() {
        format!("memtrace and the kernel differ about {who}:\n")
    } else if *looks == 0 {
        format!("nothing could be compared of {who}\n")
    } else {
        format!("memtrace and the kernel agree about {who}\n")
    };
    for difference in differences {
        let _ = writeln!(text, "  {}", printable(difference));
    }
    let plural = |count: u64, what: &str| {
        if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
    };
    let _ = write!(text, "{}", plural(*looks, "look"));
    if *busy > 0 {
        let _ = write!(text, ", {busy} more while it was changing its memory");
    }
    if *resyncs > 0 {
        let _ = write!(text, ", regions read again {}", plural(*resyncs, "time"));
    }
    if *exited {
        text.push_str(", until it exited");
    }
    text.push('\n');
    if let Some([ours, _]) = pages
        && differences.is_empty()
    {
        let _ = writeln!(
            text,
            "{}; {} anonymous pages and {} of files resident",
            plural(*regions, "region"),
            ours.anon,
            ours.file
        );
    }
    if *looks == 0 && !*exited {
        text.push_str("hint: it is never still; `--stop` stops it for each look\n");
    }
    text
}
