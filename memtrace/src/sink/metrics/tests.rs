use super::*;
use crate::model::{
    fleet::{Figures, Named, Sums},
    top::Id,
};

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

fn page(fleet: Fleet) -> Vec<String> {
    let text = render(fleet.into(), Own { version: "1.2.3", ..Own::default() }, Form::Plain)
        .expect("text");
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
    };
    let lines = page(Fleet { processes: vec![named], ..Fleet::default() });
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
    let lines = page(Fleet { all, ..Fleet::default() });
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
        lines.contains(&"memtrace_build_info{version=\"1.2.3\",evidence=\"none\"} 1".to_owned())
    );
    // The others are nobody.
    assert!(!lines.iter().any(|line| line.starts_with("memtrace_other")), "{lines:?}");
}

#[test]
fn each_form_is_for_those_who_accept_it() {
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
    assert_eq!(Form::accepted(prometheus), Form::OpenMetrics);
    assert_eq!([Form::accepted(""), Form::accepted("*/*")], [Form::Plain; 2]);
    let text = |form| render(Arc::default(), Own::default(), form).expect("text");
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
    let docs = include_str!("../../../../docs/SERVE.md");
    let text = render(fleet.into(), Own::default(), Form::OpenMetrics).expect("text");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE memtrace_")) {
        let (name, kind) = line.split_once(' ').expect("a type");
        let name = format!("{name}{}", if kind == "counter" { "_total" } else { "" });
        let groups = ["machine_", "process_", "other_processes_", "cgroup_", "other_cgroups_"];
        let group = groups.iter().find_map(|group| name.strip_prefix(group));
        let name = group.map_or(format!("memtrace_{name}"), |name| format!("…_{name}"));
        assert!(docs.contains(&format!("`{name}`")), "{name} is not in docs/SERVE.md");
    }
}
