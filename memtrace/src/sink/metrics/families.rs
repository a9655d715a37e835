//! What is told of a machine and of the daemon itself, family by family: each has its name, what is said of it
//! and its figures here alone, in whichever form it goes out.

use std::borrow::Cow;

use super::Own;
use crate::{
    model::{
        fleet::{Figures, Fleet, Named, Sums},
        place::Place,
        report::Evidence,
        top::ProgramRuns,
        watchdog::{Counts, Shed},
    },
    sink::printable,
};

/// Series that have a name in common.
pub(super) struct Family {
    /// Whose figures they are; none where they are the daemon's own.
    pub(super) group: Option<Group>,
    /// The name after that of the group, without the unit.
    pub(super) name: &'static str,
    /// What it says.
    pub(super) help: String,
    pub(super) unit: Unit,
    pub(super) kind: Instrument,
    figure: Figure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instrument {
    Gauge,
    Counter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Seconds,
    Ratio,
    /// Things of this name are counted.
    Things(&'static str),
}

/// Whose figures: the beginning of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Machine,
    Process,
    OtherProcesses,
    Cgroup,
    OtherCgroups,
}

enum Figure {
    /// What is held.
    Held(fn(&Figures) -> u64),
    /// What is held as walks found it; not known of those that were not walked.
    Walked(fn(&Figures) -> u64),
    /// What left, by path.
    Left(fn(&Sums) -> Option<u64>),
    /// Of the daemon.
    Own(fn(&Own) -> Value),
    /// 1, with what the daemon is as labels.
    Build,
    /// 1 or 0 for each thing that may be left out.
    Shed,
    /// 1 for each capability that is not there.
    Lacking,
    /// For how long it was measured how long probes run; not known where it never was.
    Measured,
    /// Of each program, as far as it was measured.
    Runs(fn(&ProgramRuns) -> Value),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
}

impl Value {
    fn seconds(ns: u64) -> Self {
        Self::Real(ns as f64 / 1e9)
    }
}

pub(super) type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// One figure and whose it is.
pub(super) struct Point<'a> {
    pub(super) labels: Labels<'a>,
    pub(super) value: Value,
}

impl Family {
    /// Returns its figures; what is not known is not among them.
    pub(super) fn points<'a>(&self, fleet: &'a Fleet, own: &'a Own) -> Vec<Point<'a>> {
        let members = || self.group.map(|group| group.members(fleet)).unwrap_or_default();
        let held = |members: Vec<(Labels<'a>, &'a Figures)>, figure: fn(&Figures) -> u64| {
            let living = members.into_iter().filter(|(_, figures)| figures.processes > 0);
            let point = |(labels, figures)| Point { labels, value: Value::Whole(figure(figures)) };
            living.map(point).collect()
        };
        match self.figure {
            Figure::Held(figure) => held(members(), figure),
            Figure::Walked(figure) => {
                let members = members().into_iter();
                held(members.filter(|(_, figures)| figures.walked > 0).collect(), figure)
            }
            Figure::Left(figure) => {
                let mut points = Vec::new();
                for (labels, figures) in members() {
                    for (path, sums) in &figures.left {
                        let Some(count) = figure(sums) else { continue };
                        let mut labels = labels.clone();
                        labels.push(("path", Cow::Borrowed(*path)));
                        points.push(Point { labels, value: Value::Whole(count) });
                    }
                }
                points
            }
            Figure::Own(figure) => vec![Point { labels: Labels::new(), value: figure(own) }],
            Figure::Build => {
                let evidence = own.evidence.map_or("none", Evidence::name);
                let labels = vec![("version", own.version.into()), ("evidence", evidence.into())];
                vec![Point { labels, value: Value::Whole(1) }]
            }
            Figure::Shed => {
                let Shed { walks, counts } = own.shed;
                let (frames, all) = (counts >= Counts::NoFrames, counts >= Counts::Nothing);
                let point = |(what, is_left_out): (&'static str, bool)| Point {
                    labels: vec![("what", what.into())],
                    value: Value::Whole(is_left_out.into()),
                };
                [("walks", walks), ("frames", frames), ("counts", all)].map(point).into()
            }
            Figure::Lacking => {
                let point = |capability: &'a String| Point {
                    labels: vec![("capability", capability.as_str().into())],
                    value: Value::Whole(1),
                };
                own.lacking.iter().map(point).collect()
            }
            Figure::Measured => {
                let measured_ns = Some(own.probes.measured_ns).filter(|ns| *ns > 0).into_iter();
                let point = |ns| Point { labels: Labels::new(), value: Value::seconds(ns) };
                measured_ns.map(point).collect()
            }
            Figure::Runs(figure) => {
                let point = |runs: &ProgramRuns| Point {
                    labels: vec![("program", runs.program.into())],
                    value: figure(runs),
                };
                own.probes.programs.iter().map(point).collect()
            }
        }
    }

    /// Tells whether its figures are whole numbers.
    pub(super) fn is_whole(&self) -> bool {
        self.unit != Unit::Seconds && self.unit != Unit::Ratio
    }
}

/// Returns all of them, in the order in which they are told.
pub(super) fn families() -> Vec<Family> {
    let mut all: Vec<Family> = Group::ALL.into_iter().flat_map(of_group).collect();
    all.extend(own());
    all
}

fn of_group(group: Group) -> Vec<Family> {
    use Instrument::{Counter, Gauge};
    let whose = group.whose();
    let family = |name, help: &str, unit, kind, figure| {
        let by_path = if kind == Counter { ", by path" } else { "" };
        Family {
            group: Some(group),
            name,
            help: format!("{help}{by_path}: {whose}"),
            unit,
            kind,
            figure,
        }
    };
    let held = |name, help, unit, figure| family(name, help, unit, Gauge, Figure::Held(figure));
    let walked =
        |name, help, figure| family(name, help, Unit::Bytes, Gauge, Figure::Walked(figure));
    let left = |name, help, unit, figure| family(name, help, unit, Counter, Figure::Left(figure));
    let mut all = Vec::new();
    // A process is one process.
    if group != Group::Process {
        let unit = Unit::Things("process");
        all.push(held("processes", "Living processes", unit, |figures| figures.processes));
        let help = "Living processes whose heaps were walked";
        all.push(held("walked_processes", help, unit, |figures| figures.walked));
    }
    all.push(held("resident", "Frames that are mapped", Unit::Bytes, |figures| figures.resident));
    all.push(walked("live", "Resident and not known to be free, of walked processes", |figures| {
        figures.live
    }));
    all.push(walked(
        "freed_not_reclaimed_allocator",
        "Freed by the program and kept by its allocators, of walked processes",
        |figures| figures.allocator,
    ));
    all.push(walked(
        "freed_not_reclaimed_lazy_free",
        "Given up by MADV_FREE and not yet taken, of walked processes",
        |figures| figures.lazy_free,
    ));
    let help = "Frames that the kernel's page allocator got back";
    all.push(left("reclaimed", help, Unit::Bytes, |sums| sums.freed));
    let help = "Resident memory detached from address spaces";
    all.push(left("detached", help, Unit::Bytes, |sums| Some(sums.zapped)));
    let unit = Unit::Things("operation");
    all.push(left("detaching_operations", "Operations that detached memory", unit, |sums| {
        Some(sums.operations)
    }));
    all
}

/// Returns what the daemon is and takes.
fn own() -> Vec<Family> {
    use Instrument::{Counter, Gauge};
    use Unit::{Bytes, Ratio, Seconds, Things};
    use Value::{Real, Whole};
    let sign = |name, help, things, figure| of_none(name, help, Things(things), Gauge, figure);
    let count = |name, help, things, figure| of_daemon(name, help, Things(things), Counter, figure);
    vec![
        sign(
            "build_info",
            "Version of memtrace, and what the figures rest on",
            "daemon",
            Figure::Build,
        ),
        of_daemon("self_cpu", "CPU time of memtrace itself", Seconds, Counter, |own| {
            Real(own.cpu_seconds)
        }),
        of_daemon("walk_cpu", "CPU time that walks of heaps took", Seconds, Counter, |own| {
            Real(own.walk_seconds)
        }),
        count("walks", "Walks of the heaps of a process", "walk", |own| Whole(own.walks)),
        count("walks_failed", "Walks that could not look at the process", "walk", |own| {
            Whole(own.walks_failed)
        }),
        count("untracked_spaces", "Address spaces that could not be counted", "space", |own| {
            Whole(own.untracked)
        }),
        of_daemon("self_resident", "Resident memory of memtrace itself", Bytes, Gauge, |own| {
            Whole(own.resident)
        }),
        of_daemon(
            "self_open_fds",
            "Open file descriptors of memtrace itself",
            Things("descriptor"),
            Gauge,
            |own| Whole(own.open_fds),
        ),
        of_daemon("walk_budget", "The part of a CPU that walks may take", Ratio, Gauge, |own| {
            Real(own.walk_budget)
        }),
        of_daemon("budget", "The part of a CPU that memtrace may take", Ratio, Gauge, |own| {
            Real(own.budget)
        }),
        sign(
            "shed",
            "1 for what is left out since memtrace took more than its budget",
            "part",
            Figure::Shed,
        ),
        sign(
            "lacking",
            "1 for a capability without which something is switched off",
            "capability",
            Figure::Lacking,
        ),
        of_probes(
            "probe_measured",
            "Time during which the kernel measured how long probes run",
            Seconds,
            Figure::Measured,
        ),
        of_probes(
            "probe_run",
            "How long probes ran while that was measured",
            Seconds,
            Figure::Runs(|runs| Value::seconds(runs.time_ns)),
        ),
        of_probes(
            "probe_runs",
            "How often probes ran while that was measured",
            Things("run"),
            Figure::Runs(|runs| Whole(runs.times)),
        ),
        count("otlp_exports", "Times that metrics were sent by OTLP", "export", |own| {
            Whole(own.exports)
        }),
        count(
            "otlp_exports_failed",
            "Times that the receiver of OTLP did not take them",
            "export",
            |own| Whole(own.exports_failed),
        ),
    ]
}

fn of_daemon(
    name: &'static str,
    help: &str,
    unit: Unit,
    kind: Instrument,
    figure: fn(&Own) -> Value,
) -> Family {
    of_none(name, help, unit, kind, Figure::Own(figure))
}

fn of_probes(name: &'static str, help: &str, unit: Unit, figure: Figure) -> Family {
    of_none(name, help, unit, Instrument::Counter, figure)
}

/// Returns a family of no group.
fn of_none(name: &'static str, help: &str, unit: Unit, kind: Instrument, figure: Figure) -> Family {
    Family { group: None, name, help: help.to_owned(), unit, kind, figure }
}

impl Group {
    const ALL: [Self; 5] =
        [Self::Machine, Self::Process, Self::OtherProcesses, Self::Cgroup, Self::OtherCgroups];

    /// Returns how names begin.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Process => "process",
            Self::OtherProcesses => "other_processes",
            Self::Cgroup => "cgroup",
            Self::OtherCgroups => "other_cgroups",
        }
    }

    const fn whose(self) -> &'static str {
        match self {
            Self::Machine => "the whole machine",
            Self::Process => "processes that hold or give back most",
            Self::OtherProcesses => "all other processes together",
            Self::Cgroup => "cgroups that hold most",
            Self::OtherCgroups => "all other cgroups together",
        }
    }

    fn members(self, fleet: &Fleet) -> Vec<(Labels<'_>, &Figures)> {
        let Fleet { time_ns: _, all, processes, others, cgroups, other_cgroups } = fleet;
        match self {
            Self::Machine => vec![(Labels::new(), all)],
            Self::Process => {
                processes.iter().map(|named| (labels(named), &named.figures)).collect()
            }
            Self::OtherProcesses => vec![(Labels::new(), others)],
            Self::Cgroup => {
                cgroups.iter().map(|(path, figures)| (of_place(path), figures)).collect()
            }
            Self::OtherCgroups => vec![(Labels::new(), other_cgroups)],
        }
    }
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
