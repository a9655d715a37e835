//! Figures for Prometheus: the OpenMetrics text of what is told of a machine. docs/SERVE.md lists the names.

use std::{borrow::Cow, fmt};

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
    /// Address spaces that could not be counted since the table was full.
    pub untracked: u64,
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
pub fn render(fleet: &Fleet, own: &Own, form: Form) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("memtrace");
    registry.register_collector(Box::new(Told { fleet: fleet.clone(), own: own.clone() }));
    let mut page = String::new();
    match form {
        Form::OpenMetrics => text::encode(&mut page, &registry)?,
        Form::Plain => prometheus_text::encode(&mut page, &registry)?,
    }
    Ok(page)
}

#[derive(Debug)]
struct Told {
    fleet: Fleet,
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
            untracked,
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
        let metric = encoder.encode_descriptor(
            "walk_budget",
            "The part of a CPU that walks may take",
            Some(&ratio),
            MetricType::Gauge,
        )?;
        ConstGauge::new(*walk_budget).encode(metric)
    }
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
mod tests {
    use super::*;
    use crate::model::top::Id;

    fn figures(processes: u64, walked: u64, freed: Option<u64>) -> Figures {
        let sums = Sums { operations: 2, zapped: 8192, freed };
        Figures {
            processes,
            walked,
            live: 5,
            allocator: 7,
            resident: 4096,
            left: [("munmap", sums)].into(),
            ..Figures::default()
        }
    }

    fn page(fleet: &Fleet) -> Vec<String> {
        let text =
            render(fleet, &Own { version: "1.2.3", ..Own::default() }, Form::Plain).expect("text");
        text.lines().filter(|line| !line.starts_with("# ")).map(str::to_owned).collect()
    }

    #[test]
    fn a_process_has_its_figures_and_where_it_runs() {
        let id = "0123456789abcdef".repeat(4);
        let named = Named {
            id: Id { tgid: 42, start_ns: 1 },
            comm: "a\"b\n\u{1b}[2J".into(),
            cgroup: Some(format!("/docker/{id}").into()),
            figures: figures(1, 1, Some(4096)),
            ..Named::default()
        };
        let lines = page(&Fleet { processes: vec![named], ..Fleet::default() });
        let of_it: Vec<String> = lines
            .iter()
            .filter(|line| line.contains("pid="))
            .map(|line| line.replace(&id, "ID"))
            .collect();
        insta::assert_snapshot!(of_it.join("\n"), @r#"
        memtrace_process_resident_bytes{pid="42",comm="a\"b\\n\\u{1b}[2J",cgroup="/docker/ID",container="ID"} 4096
        memtrace_process_live_bytes{pid="42",comm="a\"b\\n\\u{1b}[2J",cgroup="/docker/ID",container="ID"} 5
        memtrace_process_freed_not_reclaimed_allocator_bytes{pid="42",comm="a\"b\\n\\u{1b}[2J",cgroup="/docker/ID",container="ID"} 7
        memtrace_process_freed_not_reclaimed_lazy_free_bytes{pid="42",comm="a\"b\\n\\u{1b}[2J",cgroup="/docker/ID",container="ID"} 0
        memtrace_process_reclaimed_bytes_total{pid="42",comm="a\"b\\n\\u{1b}[2J",cgroup="/docker/ID",container="ID",path="munmap"} 4096
        memtrace_process_detached_bytes_total{pid="42",comm="a\"b\\n\\u{1b}[2J",cgroup="/docker/ID",container="ID",path="munmap"} 8192
        memtrace_process_detaching_operations_total{pid="42",comm="a\"b\\n\\u{1b}[2J",cgroup="/docker/ID",container="ID",path="munmap"} 2
        "#);
    }

    #[test]
    fn what_is_not_known_is_absent_and_what_is_0_is_there() {
        let all = figures(3, 0, None);
        let lines = page(&Fleet { all, ..Fleet::default() });
        let of_all = lines.iter().filter(|line| line.starts_with("memtrace_machine_"));
        insta::assert_snapshot!(of_all.cloned().collect::<Vec<_>>().join("\n"), @r#"
        memtrace_machine_processes 3
        memtrace_machine_walked_processes 0
        memtrace_machine_resident_bytes 4096
        memtrace_machine_detached_bytes_total{path="munmap"} 8192
        memtrace_machine_detaching_operations_total{path="munmap"} 2
        "#);
        assert!(lines.contains(&"memtrace_walks_total 0".to_owned()), "{lines:?}");
        assert!(
            lines
                .contains(&"memtrace_build_info{version=\"1.2.3\",evidence=\"none\"} 1".to_owned())
        );
        // The others are nobody.
        assert!(!lines.iter().any(|line| line.starts_with("memtrace_other")), "{lines:?}");
    }

    #[test]
    fn each_form_is_for_those_who_accept_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
        assert_eq!(Form::accepted(prometheus), Form::OpenMetrics);
        assert_eq!([Form::accepted(""), Form::accepted("*/*")], [Form::Plain; 2]);
        let text = |form| render(&Fleet::default(), &Own::default(), form).expect("text");
        assert!(text(Form::OpenMetrics).ends_with("# EOF\n"));
        assert!(text(Form::Plain).contains("# TYPE memtrace_walks_total counter\n"));
    }

    #[test]
    fn every_family_is_described_in_the_docs() {
        let all = figures(1, 1, Some(1));
        let fleet = Fleet {
            all: all.clone(),
            processes: vec![Named { figures: all.clone(), ..Named::default() }],
            others: all.clone(),
            cgroups: vec![("/".to_owned(), all.clone())],
            other_cgroups: all,
            ..Fleet::default()
        };
        let docs = include_str!("../../../docs/SERVE.md");
        let text = render(&fleet, &Own::default(), Form::OpenMetrics).expect("text");
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE memtrace_")) {
            let (name, kind) = line.split_once(' ').expect("a type");
            let name = format!("{name}{}", if kind == "counter" { "_total" } else { "" });
            let groups = ["machine_", "process_", "other_processes_", "cgroup_", "other_cgroups_"];
            let group = groups.iter().find_map(|group| name.strip_prefix(group));
            let name = group.map_or(format!("memtrace_{name}"), |name| format!("…_{name}"));
            assert!(docs.contains(&format!("`{name}`")), "{name} is not in docs/SERVE.md");
        }
    }
}
