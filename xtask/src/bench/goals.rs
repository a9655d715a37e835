//! What memtrace may cost at most, and whether that holds.

use std::fmt::Write as _;

use super::{
    machine::Machine,
    table::Row,
    tracers::{FRAMES, UNTRACED_ARGS, UNTRACED_RSS},
    workload::{LARGE_STORM, REDIS},
};

/// A limit for one row of the table.
struct Goal {
    workload: &'static str,
    tracer: &'static str,
    limit: Limit,
}

enum Limit {
    /// The median ratio to bare is at most this.
    AtMost(f64),
    /// The ratios lie on both sides of 1; holds where memory calls are taken by fexit.
    NotMeasurable,
}

const GOALS: &[Goal] = &[
    Goal { workload: LARGE_STORM, tracer: FRAMES, limit: Limit::AtMost(1.25) },
    Goal { workload: REDIS, tracer: FRAMES, limit: Limit::AtMost(1.02) },
    Goal { workload: LARGE_STORM, tracer: UNTRACED_RSS, limit: Limit::AtMost(1.05) },
    Goal { workload: LARGE_STORM, tracer: UNTRACED_ARGS, limit: Limit::NotMeasurable },
];

/// Returns a line of Markdown for each goal whose row was measured.
pub(super) fn render(rows: &[Row], machine: &Machine) -> String {
    let mut text = String::new();
    for Goal { workload, tracer, limit } in GOALS {
        let row = rows.iter().find(|row| row.workload == *workload && row.tracer == *tracer);
        let Some((row, ratio)) = row.and_then(|row| Some((row, row.ratio()?))) else { continue };
        let (smallest, largest) = row.range();
        let (asked, met) = match limit {
            Limit::AtMost(most) => (format!("at most {most:.2}"), ratio <= *most),
            Limit::NotMeasurable => {
                ("nothing measurable, with fexit".to_owned(), smallest <= 1.0 && largest >= 1.0)
            }
        };
        let mut verdict = if met { "met" } else { "**missed**" }.to_owned();
        if matches!(limit, Limit::NotMeasurable) && machine.calls != "fexit" {
            verdict = format!("not for {}", machine.calls);
        }
        let _ = writeln!(
            text,
            "- {workload}, {tracer}: {ratio:.2} ({smallest:.2} – {largest:.2}); {asked}: {verdict}"
        );
    }
    if text.is_empty() { text } else { format!("\nGoals, as ratios to bare:\n\n{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tracer::Tracer;

    fn row(workload: &'static str, tracer: &'static str, times: [u64; 2]) -> Row {
        let mut row = Row::named(workload, &Tracer { name: tracer, ..Tracer::BARE });
        for time in times {
            row.add(Some(time), Some(100));
        }
        row
    }

    fn lines(rows: &[Row], calls: &str) -> Vec<String> {
        let machine = Machine { kernel: "6.18".to_owned(), calls: calls.to_owned() };
        render(rows, &machine).lines().skip(3).map(str::to_owned).collect()
    }

    #[test]
    fn a_goal_holds_up_to_its_limit() {
        let rows = [row(LARGE_STORM, FRAMES, [125, 130]), row(REDIS, FRAMES, [103, 104])];
        assert_eq!(
            lines(&rows, "fexit"),
            [
                format!("- {LARGE_STORM}, {FRAMES}: 1.25 (1.25 – 1.30); at most 1.25: met"),
                format!("- {REDIS}, {FRAMES}: 1.03 (1.03 – 1.04); at most 1.02: **missed**"),
            ]
        );
    }

    #[test]
    fn what_is_not_measurable_lies_on_both_sides_of_bare_and_is_asked_with_fexit_alone() {
        let verdict = |times, calls| {
            let lines = lines(&[row(LARGE_STORM, UNTRACED_ARGS, times)], calls);
            lines[0].rsplit_once(": ").map(|(_, verdict)| verdict.to_owned())
        };
        assert_eq!(verdict([99, 102], "fexit").as_deref(), Some("met"));
        assert_eq!(verdict([101, 102], "fexit").as_deref(), Some("**missed**"));
        assert_eq!(verdict([99, 102], "x").as_deref(), Some("not for x"));
    }

    #[test]
    fn a_goal_that_was_not_measured_is_not_judged() {
        let machine = Machine { kernel: "6.18".to_owned(), calls: "fexit".to_owned() };
        assert_eq!(render(&[Row::named(REDIS, &Tracer::BARE)], &machine), "");
    }
}
