//! Figures for Prometheus: the OpenMetrics text of what is told of a machine. docs/SERVE.md lists the names.

use std::{borrow::Cow, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, prometheus_text, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

use super::printable;
use crate::model::{
    fleet::{Figures, Fleet, Named, Sums},
    place::Place,
    report::Evidence,
    top::ProbeTimes,
    watchdog::{Counts, Shed},
};

/// What the daemon says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// Version of memtrace.
    pub version: &'static str,
    /// What the figures rest on; `None` while nothing is counted.
    pub evidence: Option<Evidence>,
    /// CPU time of the daemon, seconds.
    pub cpu_seconds: f64,
    /// Its resident bytes.
    pub resident: u64,
    /// Its open file descriptors.
    pub open_fds: u64,
    /// CPU time that walks took, seconds.
    pub walk_seconds: f64,
    /// Walks.
    pub walks: u64,
    /// Walks that found no heap or could not look at the process.
    pub walks_failed: u64,
    /// The share of a CPU that walks may take.
    pub walk_budget: f64,
    /// The share of a CPU that the daemon may take.
    pub budget: f64,
    /// What is left out, since it took more.
    pub shed: Shed,
    /// Address spaces that could not be counted since the table was full.
    pub untracked: u64,
    /// How long the probes ran.
    pub probes: Arc<ProbeTimes>,
}

/// The forms that the text has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own, version 0.0.4.
    Plain,
}

impl Form {
    /// Returns the form for those who accept this.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Plain
        }
    }

    /// Returns its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Returns the text.
///
/// # Errors
///
/// Never, but for one that the encoder makes up.
pub fn render(fleet: Arc<Fleet>, own: Own, form: Form) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("memtrace");
    registry.register_collector(Box::new(Told { fleet, own }));
    let mut page = String::new();
    match form {
        Form::OpenMetrics => text::encode(&mut page, &registry)?,
        Form::Plain => prometheus_text::encode(&mut page, &registry)?,
    }
    Ok(page)
}

#[derive(Debug)]
struct Told {
    fleet: Arc<Fleet>,
    own: Own,
}

type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// A family of gauges in bytes or processes: name, what it says, unit, which figure.
type Held = (&'static str, &'static str, Option<Unit>, fn(&Figures) -> u64);

const HELD: [Held; 6] = [
    ("processes", "Living processes", None, |figures| figures.processes),
    ("walked_processes", "Living processes whose heaps were walked", None, |figures| {
        figures.walked
    }),
    ("resident", "Frames that are mapped", Some(Unit::Bytes), |figures| figures.resident),
    (
        "live",
        "Resident and not known to be free, of walked processes",
        Some(Unit::Bytes),
        |figures| figures.live,
    ),
    (
        "freed_not_reclaimed_allocator",
        "Freed by the program and kept by its allocators, of walked processes",
        Some(Unit::Bytes),
        |figures| figures.allocator,
    ),
    (
        "freed_not_reclaimed_lazy_free",
        "Given up by MADV_FREE and not yet taken, of walked processes",
        Some(Unit::Bytes),
        |figures| figures.lazy_free,
    ),
];

/// A family of counters by path: name, what it says, unit, which figure.
type LeftBy = (&'static str, &'static str, Option<Unit>, fn(&Sums) -> Option<u64>);

const LEFT: [LeftBy; 3] = [
    ("reclaimed", "Frames that the kernel's page allocator got back", Some(Unit::Bytes), |sums| {
        sums.freed
    }),
    ("detached", "Resident memory detached from address spaces", Some(Unit::Bytes), |sums| {
        Some(sums.zapped)
    }),
    ("detaching_operations", "Operations that detached memory", None, |sums| Some(sums.operations)),
];

/// Whose figures: the beginning of the names, what is said of it, and all of them with their labels.
struct Group<'a> {
    prefix: &'static str,
    whose: &'static str,
    members: Vec<(Labels<'a>, &'a Figures)>,
}

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for group in groups(&self.fleet) {
            for (name, help, unit, figure) in &HELD {
                // A process is one process.
                if group.prefix == "process" && matches!(*name, "processes" | "walked_processes") {
                    continue;
                }
                let name = format!("{}_{name}", group.prefix);
                let help = format!("{help}: {}", group.whose);
                let mut family =
                    encoder.encode_descriptor(&name, &help, unit.as_ref(), MetricType::Gauge)?;
                for (labels, figures) in &group.members {
                    if figures.processes == 0 || (is_of_walks(&name) && figures.walked == 0) {
                        continue;
                    }
                    let value = ConstGauge::new(signed(figure(figures)));
                    value.encode(family.encode_family(labels)?)?;
                }
            }
            for (name, help, unit, figure) in &LEFT {
                let name = format!("{}_{name}", group.prefix);
                let help = format!("{help}, by path: {}", group.whose);
                let mut family =
                    encoder.encode_descriptor(&name, &help, unit.as_ref(), MetricType::Counter)?;
                for (labels, figures) in &group.members {
                    for (path, sums) in &figures.left {
                        let Some(count) = figure(sums) else { continue };
                        let mut labels = labels.clone();
                        labels.push(("path", Cow::Borrowed(*path)));
                        ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                    }
                }
            }
        }
        self.own(encoder)
    }
}

impl Told {
    /// Says what the daemon is and takes.
    fn own(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Own {
            version,
            evidence,
            cpu_seconds,
            resident,
            open_fds,
            walk_seconds,
            walks,
            walks_failed,
            walk_budget,
            budget,
            shed,
            untracked,
            probes,
        } = &self.own;
        let evidence = evidence.map_or("none", Evidence::name);
        let mut info = encoder.encode_descriptor(
            "build_info",
            "Version of memtrace, and what the figures rest on",
            None,
            MetricType::Gauge,
        )?;
        let labels = [("version", *version), ("evidence", evidence)];
        ConstGauge::new(1_i64).encode(info.encode_family(&labels)?)?;
        let seconds = Some(Unit::Seconds);
        for (name, help, value) in [
            ("self_cpu", "CPU time of memtrace itself", *cpu_seconds),
            ("walk_cpu", "CPU time that walks of heaps took", *walk_seconds),
        ] {
            let counter = ConstCounter::new(value);
            let metric =
                encoder.encode_descriptor(name, help, seconds.as_ref(), MetricType::Counter)?;
            counter.encode(metric)?;
        }
        for (name, help, value) in [
            ("walks", "Walks of the heaps of a process", *walks),
            ("walks_failed", "Walks that could not look at the process", *walks_failed),
            ("untracked_spaces", "Address spaces that could not be counted", *untracked),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(metric)?;
        }
        let bytes = Some(Unit::Bytes);
        let metric = encoder.encode_descriptor(
            "self_resident",
            "Resident memory of memtrace itself",
            bytes.as_ref(),
            MetricType::Gauge,
        )?;
        ConstGauge::new(signed(*resident)).encode(metric)?;
        let metric = encoder.encode_descriptor(
            "self_open_fds",
            "Open file descriptors of memtrace itself",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(signed(*open_fds)).encode(metric)?;
        let ratio = Unit::Other("ratio".to_owned());
        for (name, help, value) in [
            ("walk_budget", "The part of a CPU that walks may take", *walk_budget),
            ("budget", "The part of a CPU that memtrace may take", *budget),
        ] {
            let metric = encoder.encode_descriptor(name, help, Some(&ratio), MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
        let mut family = encoder.encode_descriptor(
            "shed",
            "1 for what is left out since memtrace took more than its budget",
            None,
            MetricType::Gauge,
        )?;
        for (what, is_left_out) in [
            ("walks", shed.walks),
            ("frames", shed.counts >= Counts::NoFrames),
            ("counts", shed.counts >= Counts::Nothing),
        ] {
            let value = ConstGauge::new(i64::from(is_left_out));
            value.encode(family.encode_family(&[("what", what)])?)?;
        }
        probe_times(encoder, probes)
    }
}

/// Says how long the probes ran, where the kernel measured it.
fn probe_times(mut encoder: DescriptorEncoder, probes: &ProbeTimes) -> fmt::Result {
    if probes.measured_ns == 0 {
        return Ok(());
    }
    let seconds = Some(Unit::Seconds);
    let in_seconds = |ns: u64| ConstCounter::new(ns as f64 / 1e9);
    let metric = encoder.encode_descriptor(
        "probe_measured",
        "Time during which the kernel measured how long probes run",
        seconds.as_ref(),
        MetricType::Counter,
    )?;
    in_seconds(probes.measured_ns).encode(metric)?;
    let mut family = encoder.encode_descriptor(
        "probe_run",
        "How long probes ran while that was measured",
        seconds.as_ref(),
        MetricType::Counter,
    )?;
    for runs in &probes.programs {
        let labels = [("program", runs.program)];
        in_seconds(runs.time_ns).encode(family.encode_family(&labels)?)?;
    }
    let help = "How often probes ran while that was measured";
    let mut family = encoder.encode_descriptor("probe_runs", help, None, MetricType::Counter)?;
    for runs in &probes.programs {
        let labels = [("program", runs.program)];
        ConstCounter::new(runs.times).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn groups(fleet: &Fleet) -> [Group<'_>; 5] {
    let Fleet { time_ns: _, all, processes, others, cgroups, other_cgroups } = fleet;
    let one =
        |prefix, whose, figures| Group { prefix, whose, members: vec![(Labels::new(), figures)] };
    [
        one("machine", "the whole machine", all),
        Group {
            prefix: "process",
            whose: "processes that hold or give back most",
            members: processes.iter().map(|named| (labels(named), &named.figures)).collect(),
        },
        one("other_processes", "all other processes together", others),
        Group {
            prefix: "cgroup",
            whose: "cgroups that hold most",
            members: cgroups.iter().map(|(path, figures)| (of_place(path), figures)).collect(),
        },
        one("other_cgroups", "all other cgroups together", other_cgroups),
    ]
}

fn labels(named: &Named) -> Labels<'_> {
    let mut labels: Labels<'_> = vec![
        ("pid", Cow::Owned(named.id.tgid.to_string())),
        ("comm", Cow::Owned(printable(&named.comm))),
    ];
    if let Some(path) = &named.cgroup {
        labels.extend(of_place(path));
    }
    labels
}

/// Returns the path of a cgroup, and what it says for certain.
fn of_place(path: &str) -> Labels<'_> {
    let Place { unit, container, pod } = Place::of(path);
    let mut labels: Labels<'_> = vec![("cgroup", Cow::Owned(printable(path)))];
    for (name, value) in [("unit", unit), ("container", container), ("pod", pod)] {
        labels.extend(value.map(|value| (name, Cow::Owned(value))));
    }
    labels
}

fn is_of_walks(name: &str) -> bool {
    name.ends_with("_live") || name.contains("_freed_not_reclaimed_")
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
