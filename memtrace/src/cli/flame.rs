//! Call stacks as the report.

use anyhow::{Context as _, anyhow};

use super::{Failure, Format};
use crate::{
    model::report::{Evidence, Report},
    sink::{
        flamegraph,
        folded::{self, Measure},
    },
};

/// Returns the call stacks of a report in the format that was asked for, if it is one of theirs.
pub(super) fn render(
    format: Format,
    measure: Option<Measure>,
    report: &Report,
) -> Result<Option<String>, Failure> {
    let (Format::Folded | Format::Flamegraph) = format else { return Ok(None) };
    let Some(stacks) = &report.stacks else {
        let error = anyhow!("the trace has no call stacks");
        return Err(Failure::new(Failure::FAILED, error, "record it with --stacks"));
    };
    let measure = measure.unwrap_or_else(|| Measure::of(stacks));
    if !stacks.kinds.contains(&measure.kind()) {
        let kind = measure.kind_name();
        return Err(Failure::new(
            Failure::FAILED,
            anyhow!("the trace has no call stacks of who {}", measure.who()),
            format!("record it with --stacks={kind}"),
        ));
    }
    if stacks.processes.iter().any(|process| !measure.is_known(process)) {
        return Err(Failure::new(
            Failure::FAILED,
            anyhow!("what is resident of what a process freed is not known: it exited"),
            "stop before it does, with --duration, or say --flame freed",
        ));
    }
    let counts_frames = report.window.evidence == Evidence::Frames;
    if measure == Measure::Reclaimed && !counts_frames {
        log::warn!(
            "nobody counted what came back at --evidence {}: these are the bytes that were detached",
            report.window.evidence.name()
        );
    }
    let lines = folded::by_measure(stacks, &report.processes, measure);
    if format == Format::Folded {
        return Ok(Some(lines));
    }
    let drawn = flamegraph::render(&lines, measure, counts_frames);
    Ok(Some(drawn.context("cannot draw the flame graph")?))
}
