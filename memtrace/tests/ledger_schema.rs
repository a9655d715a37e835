//! Holds the JSON of `memtrace ledger` against docs/ledger.schema.json, and that against docs/OUTPUT.md.

mod common;

use std::collections::{BTreeMap, HashMap};

use memtrace::{
    model::{
        change::path_name,
        machine::{Left, MachineReport, MachineWindow, Reading, Row, SCHEMA, Space},
        machine::{MachineSurroundings, Top, machine_report},
        report::{Evidence, Host},
    },
    sink::json,
};
use memtrace_common::{Owner, Path};
use serde_json::Value;

use common::missing;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../docs/ledger.schema.json")).expect("JSON")
}

fn errors(document: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path)).collect()
}

fn window(evidence: Evidence) -> MachineWindow {
    MachineWindow { evidence, start_ns: 1, interval_ns: 2, end_ns: 3, untracked: 0, complete: true }
}

fn value(report: &MachineReport) -> Value {
    let line = json::line(report);
    assert_eq!(line.matches('\n').count(), 1, "one line");
    serde_json::from_str(&line).expect("JSON")
}

/// A report in which everything is known.
fn known() -> Value {
    let left = Left { operations: 1, zapped: 2, freed: Some(2), late: Some(1), kept: Some(0) };
    let row = Row {
        tgid: Some(7),
        comm: Some("sh".into()),
        cgroup: Some("/".into()),
        freed_lately: Some(1),
        total: left,
        by_path: BTreeMap::from(Path::ALL.map(|path| (path_name(path), left))),
        ..Row::default()
    };
    value(&MachineReport {
        schema: SCHEMA,
        host: Host { init_on_alloc: Some(true), init_on_free: Some(false), ..Host::default() },
        window: window(Evidence::Frames),
        all: row.clone(),
        processes: vec![row.clone().into()],
        programs: vec![row.clone().into()],
        cgroups: vec![row.into()],
    })
}

#[test]
fn what_is_known_and_what_is_not_is_valid() {
    assert_eq!(errors(&known()), Vec::<String>::new());
    let owner = Owner { tgid: 7, ..Owner::default() };
    let reading =
        Reading { spaces: vec![Space { owner, ..Space::default() }], ..Reading::default() };
    let (host, cgroups) = (Host::default(), &HashMap::new());
    let surroundings =
        MachineSurroundings { host, window: window(Evidence::Rss), top: Top::of_each(1), cgroups };
    let unknown = value(&machine_report(&reading, &Reading::default(), surroundings));
    assert!(unknown["processes"][0]["comm"].is_null(), "{unknown}");
    assert_eq!(errors(&unknown), Vec::<String>::new());
}

#[test]
fn a_missing_an_extra_and_a_wrong_field_are_refused() {
    for pointer in ["", "/host", "/window", "/all", "/processes/0", "/cgroups/0/total"] {
        let fields: Vec<String> = known()
            .pointer(pointer)
            .and_then(Value::as_object)
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        for field in fields {
            let mut broken = known();
            let object = broken.pointer_mut(pointer).and_then(Value::as_object_mut);
            let object = object.expect("an object");
            let was = object.insert(field.clone(), 0.5.into());
            assert_ne!(
                errors(&broken),
                Vec::<String>::new(),
                "{pointer}/{field} is 0.5, not {was:?}"
            );
            broken
                .pointer_mut(pointer)
                .and_then(Value::as_object_mut)
                .expect("an object")
                .remove(&field);
            assert_ne!(errors(&broken), Vec::<String>::new(), "{pointer}/{field} is missing");
        }
        let mut broken = known();
        let object = broken.pointer_mut(pointer).and_then(Value::as_object_mut);
        object.expect("an object").insert("surprise".into(), Value::Null);
        assert_ne!(errors(&broken), Vec::<String>::new(), "{pointer}/surprise");
    }
}

#[test]
fn the_schema_and_the_document_name_every_field() {
    let text = include_str!("../../docs/OUTPUT.md");
    let missing = missing(&schema(), text);
    assert!(missing.is_empty(), "docs/OUTPUT.md lacks {missing:?}");
    let schema = schema();
    let paths = schema["$defs"]["row"]["properties"]["by_path"]["properties"].as_object();
    let mut paths: Vec<&str> = paths.expect("paths").keys().map(String::as_str).collect();
    paths.sort_unstable();
    let mut in_code = Path::ALL.map(path_name);
    in_code.sort_unstable();
    assert_eq!(paths, in_code);
}
