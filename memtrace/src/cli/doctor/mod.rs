//! `memtrace doctor`: what this kernel offers, and what to do about what is missing.

mod measure;

use std::process::ExitCode;

use nix::sys::utsname::uname;
use serde::Serialize;

use self::measure::{Cost, Costs, Level, measure};
use super::{
    Common, Failure, Format, Outcome,
    failure::check_privileges,
    output::{Output, Stream},
};
use crate::{
    model::report::{Evidence, ProbeReport},
    probe::{
        attach::{describe, examine},
        plan::{Asked, plan_best},
        table::PROBES,
    },
};

/// What the doctor found.
#[derive(Debug, Serialize)]
struct Findings {
    schema: &'static str,
    kernel: String,
    arch: String,
    trampolines: bool,
    /// The most that figures can rest on here, `None` when memtrace cannot work.
    evidence: Option<Evidence>,
    /// Why it is not more.
    limit: Option<String>,
    probes: Vec<Probe>,
    /// What each level costs here.
    costs: Option<Costs>,
    problem: Option<String>,
}

/// A probe, what it gives and what it costs.
#[derive(Debug, Serialize)]
struct Probe {
    #[serde(flatten)]
    probe: ProbeReport,
    /// The lowest level of evidence that has a use for it.
    evidence: Evidence,
    gives: &'static str,
    cost: &'static str,
}

/// Examines this machine. Exit code 1 when memtrace cannot work here.
pub(super) fn main(common: &Common) -> Outcome {
    check_privileges()?;
    let mut output = Output::open(common, Stream::Stdout)?;
    let facts = examine()?;
    let system = uname().map_err(anyhow::Error::from)?;
    let asked = Asked { faults: true, ..Asked::default() };
    let (evidence, plan, limit, problem) = match plan_best(PROBES, &facts, asked) {
        Ok((evidence, plan, limit)) => (Some(evidence), plan, limit, None),
        Err(error) => (None, Vec::new(), None, Some(error.to_string())),
    };
    let probes = describe(&plan).into_iter().zip(PROBES).map(|(probe, entry)| Probe {
        probe,
        evidence: entry.evidence,
        gives: entry.gives,
        cost: entry.cost,
    });
    let findings = Findings {
        schema: "memtrace.doctor/1",
        kernel: system.release().to_string_lossy().into_owned(),
        arch: system.machine().to_string_lossy().into_owned(),
        trampolines: facts.trampolines,
        evidence,
        limit: limit.map(|limit| limit.to_string()),
        probes: probes.collect(),
        costs: evidence.map(measure).transpose()?,
        problem,
    };
    let text = match output.format() {
        Format::Json => {
            serde_json::to_string_pretty(&findings).map_err(anyhow::Error::from)? + "\n"
        }
        _ => render(&findings),
    };
    output.write_text(&text)?;
    Ok(ExitCode::from(if findings.problem.is_some() { Failure::FAILED } else { 0 }))
}

fn render(findings: &Findings) -> String {
    let Findings { kernel, arch, trampolines, evidence, limit, probes, problem, .. } = findings;
    let mut text = match (problem, limit) {
        (Some(problem), _) => format!(
            "memtrace does not work here (Linux {kernel}, {arch}): {problem}.\n\
             It needs Linux 5.10 or later with CONFIG_DEBUG_INFO_BTF=y.\n"
        ),
        (None, None) => format!("memtrace works here (Linux {kernel}, {arch}).\n"),
        (None, Some(limit)) => format!(
            "memtrace works here (Linux {kernel}, {arch}) with --evidence {} at most: {limit}.\n\
             Linux 6.1 and later give all.\n",
            evidence.unwrap_or_default().name()
        ),
    };
    text.push_str(if *trampolines {
        "fexit programs load: other processes' system calls pay nothing.\n"
    } else {
        "fexit programs do not load (not built in, or refused by policy): while memtrace traces, \
         every system call of the machine pays about 0.05 µs, or 0.08 µs where tracefs is not \
         mounted.\n"
    });
    if !probes.is_empty() {
        text.push_str("tracefs is of use for memory calls alone.\n\n");
    }
    for Probe { probe: ProbeReport { name, hook, state }, evidence, gives, cost } in probes {
        let hook = hook.as_deref().unwrap_or(state);
        text.push_str(&format!("{name:<22} {hook}\n"));
        let from = match evidence {
            Evidence::Args => String::new(),
            level => format!("; from --evidence {} on", level.name()),
        };
        text.push_str(&format!("{:<22}   gives {gives}; costs {cost}{from}\n", ""));
    }
    if let Some(costs) = &findings.costs {
        text.push_str(&cost_table(costs));
    }
    text
}

/// Returns what was measured as a table.
fn cost_table(costs: &Costs) -> String {
    let ns = |ns: f64| format!("{ns:+.0} ns");
    let Cost { page_ns, pair_ns } = costs.bare;
    let mut text = format!(
        "\nWhat each level adds here, as just measured. Without memtrace a page costs {page_ns:.0} ns to \
         fault in and unmap,\na pair of mmap and munmap {pair_ns:.0} ns.\n\n\
         {:<8}  {:>23}  {:>23}\n{:<8}  {:>10} {:>12}  {:>10} {:>12}\n",
        "",
        "a process not traced",
        "the traced process",
        "evidence",
        "a page",
        "mmap+munmap",
        "a page",
        "mmap+munmap",
    );
    for Level { evidence, untraced, traced } in &costs.levels {
        let [first, second] = [untraced, traced]
            .map(|cost| format!("{:>10} {:>12}", ns(cost.page_ns), ns(cost.pair_ns)));
        text.push_str(&format!("{:<8}  {first}  {second}\n", evidence.name()));
    }
    text
}
