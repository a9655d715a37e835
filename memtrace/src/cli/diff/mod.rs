//! `memtrace diff`: two reports held against each other.

mod limits;

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::anyhow;
use clap::Args;

use self::limits::limit;
use super::{
    Common, Outcome,
    failure::Failure,
    output::{Output, Stream, check_not_over},
    replay,
};
use crate::{
    model::diff::{Kept, Limit, Named, NotAReport, Verdict, diff},
    sink::size,
    source::trace_file::MAGIC,
};

/// Says what grew, what fell and what stayed between two reports.
///
/// A and B are reports of `run`, `attach`, `report` or `replay`, written with `--format json`, or traces
/// of `record`.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Exits with 1 when this grew by more than SIZE, such as 512K, 10M or 0: resident memory, or
    /// CLASS=SIZE for `live`, `freed_not_reclaimed`, `allocator`, `lazy_free`, `reserved`, `swapped` or
    /// `mapped`. Of all processes of a report together; may be given again.
    #[arg(long, value_name = "[CLASS=]SIZE", value_parser = limit)]
    fail_above: Vec<Limit>,
    /// The report that came first.
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The other one.
    #[arg(value_name = "B")]
    after: PathBuf,
}

impl Diff {
    /// Reads both, compares and shows.
    pub(super) fn main(self, common: &Common) -> Outcome {
        let Self { fail_above, before: before_path, after: after_path } = self;
        let reports = [load(&before_path)?, load(&after_path)?];
        let names = [&before_path, &after_path].map(|path| path.display().to_string());
        let [before, after] = [0, 1].map(|i| Named { name: &names[i], report: &reports[i] });
        for input in [&before_path, &after_path].into_iter().flat_map(fs::metadata) {
            check_not_over(common, &input, "this would overwrite one of the reports")?;
        }
        let mut output = Output::open(common, Stream::Stdout)?;
        let diff = diff(before, after, &fail_above);
        output.write_diff(&diff)?;
        let broken: Vec<String> =
            diff.limits.iter().filter(|limit| limit.state != "held").map(broken).collect();
        if broken.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let hint =
            "`memtrace report PID` on the running program says what holds it, and what to try";
        Err(Failure::new(Failure::FAILED, anyhow!(broken.join("; ")), hint))
    }
}

/// Returns why a limit was not held.
fn broken(limit: &Verdict) -> String {
    let Verdict { class, allowed, change, .. } = *limit;
    let allowed = size(allowed);
    match change {
        Some(change) => {
            format!("{class} grew by {}, more than {allowed}", size(change.unsigned_abs()))
        }
        None => format!(
            "nobody knows whether {class} grew by more than {allowed}: one of the reports does not tell"
        ),
    }
}

/// Reads a report. The one place that knows what can be compared.
fn load(path: &Path) -> Result<Kept, Failure> {
    let name = path.display();
    let unread = |error: io::Error| Failure::unread(path, &error, HOW_TO_KEEP);
    let refused = |why: String, hint: &str| {
        Failure::new(Failure::FAILED, anyhow!("cannot compare {name}: {why}"), hint)
    };
    let mut file = BufReader::new(File::open(path).map_err(unread)?);
    // Whatever it is, it may be large: only what begins as an object does is read.
    let head = file.fill_buf().map_err(unread)?;
    if head.starts_with(&MAGIC) {
        let report = replay::whole(path)?;
        return Kept::of(&report).map_err(|error| refused(error.to_string(), hint(&error)));
    }
    match head.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {}
        None if head.is_empty() => return Err(refused("it is empty".to_owned(), HOW_TO_KEEP)),
        _ => {
            let why = "it is neither a JSON report of memtrace nor a trace".to_owned();
            return Err(refused(why, HOW_TO_KEEP));
        }
    }
    let mut json = Vec::new();
    file.read_to_end(&mut json).map_err(unread)?;
    Kept::decode(&json).map_err(|error| refused(error.to_string(), hint(&error)))
}

const HOW_TO_KEEP: &str = "`memtrace report PID --format json -o FILE` writes a report";

/// Returns what a user can do about a file that cannot be compared.
const fn hint(error: &NotAReport) -> &'static str {
    match error {
        NotAReport::Json(_) => {
            "one whole report is compared: of --watch and --events take a single line; was it cut?"
        }
        NotAReport::OtherSchema(_) => HOW_TO_KEEP,
        NotAReport::OtherMajor(_) => "compare it with the memtrace that wrote it, or a newer one",
    }
}
