//! Holds the JSON that memtrace writes against docs/report.schema.json, and the schema against
//! docs/OUTPUT.md.

#[path = "../common/mod.rs"]
mod common;
mod made_up;

use jsonschema::Validator;
use memtrace::{
    model::{change::path_name, report::Report},
    sink::json,
};
use memtrace_common::Path;
use serde_json::Value;

use common::missing;
use made_up::{known, unknown};

const SCHEMA_TEXT: &str = include_str!("../../../docs/report.schema.json");
const OUTPUT_MD: &str = include_str!("../../../docs/OUTPUT.md");

#[test]
fn the_schema_is_a_schema() {
    jsonschema::meta::validate(&schema()).expect("the schema keeps to draft 2020-12");
}

#[test]
fn a_report_in_which_everything_is_known_is_valid() {
    assert_valid(&value(&known()));
}

#[test]
fn a_report_in_which_nothing_is_known_is_valid() {
    assert_valid(&value(&unknown()));
}

#[test]
fn a_report_without_a_process_is_valid() {
    assert_valid(&value(&Report { processes: vec![], ..known() }));
}

#[test]
fn a_report_without_call_stacks_is_valid() {
    assert_valid(&value(&Report { stacks: None, ..known() }));
}

#[test]
fn the_largest_figures_are_valid() {
    let mut report = known();
    report.window.start_ns = u64::MAX;
    report.processes[0].tgid = u32::MAX;
    report.processes[0].exit_code = Some(i32::MIN);
    report.processes[0].memory.mapped = Some(u64::MAX);
    report.processes[0].balance.unexplained = Some(i64::MIN);
    assert_valid(&value(&report));
}

#[test]
fn a_missing_field_is_refused() {
    let report = value(&known());
    for pointer in pointers(&report) {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a parent");
        // Items of a list and paths that nothing took may be absent.
        let open = ["/by_path", "/by_kind", "/free", "/settings"];
        if open.iter().any(|object| parent.ends_with(object)) {
            continue;
        }
        let mut broken = report.clone();
        let Some(Value::Object(object)) = broken.pointer_mut(parent) else { continue };
        object.remove(key).expect("the field was there");
        assert_refused(&broken, &format!("{pointer} is missing"));
    }
}

#[test]
fn an_extra_field_is_refused_everywhere() {
    let report = value(&known());
    for pointer in pointers(&report).into_iter().chain([String::new()]) {
        let mut broken = report.clone();
        let Some(Value::Object(object)) = broken.pointer_mut(&pointer) else { continue };
        object.insert("surprise".into(), Value::Null);
        assert_refused(&broken, &format!("{pointer}/surprise is extra"));
    }
}

#[test]
fn a_field_of_another_type_is_refused() {
    let report = value(&known());
    for pointer in pointers(&report) {
        let mut broken = report.clone();
        let field = broken.pointer_mut(&pointer).expect("the field is there");
        let was = field.clone();
        // No field takes a fraction, a list takes no object and an object no list.
        *field = if was.is_array() { Value::Object(Default::default()) } else { 0.5.into() };
        assert_refused(&broken, &format!("{pointer} has another type than {was}"));
    }
}

#[test]
fn null_stands_only_where_the_type_has_an_option() {
    let (known, unknown) = (value(&known()), value(&unknown()));
    let mut nullable = 0;
    for pointer in pointers(&known) {
        let mut report = known.clone();
        *report.pointer_mut(&pointer).expect("the field is there") = Value::Null;
        // `unknown` has null in every field that can be null, but these: what is inside of them counts.
        let inside =
            ["/stacks", "/stacks/processes/0/reclaimed_by", "/stacks/processes/0/faulted_by"];
        if inside.contains(&pointer.as_str())
            || unknown.pointer(&pointer).is_some_and(Value::is_null)
        {
            nullable += 1;
            assert_valid(&report);
        } else {
            assert_refused(&report, &format!("{pointer} is null"));
        }
    }
    assert_eq!(nullable, 74 + 6 * Path::ALL.len());
}

#[test]
fn words_and_addresses_of_another_form_are_refused() {
    for (pointer, wrong) in [
        ("/schema", "memtrace.report/2"),
        ("/window/evidence", "guesses"),
        ("/window/probes/0/state", "broken"),
        ("/processes/0/state", "zombie"),
        ("/processes/0/regions/0/kind", "device"),
        ("/processes/0/regions/0/prot", "rwx"),
        ("/processes/0/regions/0/start", "7f12a0000000"),
        ("/processes/0/regions/0/end", "0x7F12"),
        ("/processes/0/allocators/0/evidence", "guessed"),
        ("/processes/0/allocators/0/arenas/0/address", "7f12"),
    ] {
        let mut report = value(&known());
        *report.pointer_mut(pointer).expect("the field is there") = wrong.into();
        assert_refused(&report, &format!("{pointer} is {wrong}"));
    }
}

#[test]
fn a_size_below_zero_is_refused_but_for_the_balance() {
    let mut report = value(&known());
    report["processes"][0]["balance"]["unexplained"] = (-1).into();
    assert_valid(&report);
    report["processes"][0]["memory"]["resident"] = (-1).into();
    assert_refused(&report, "resident is -1");
}

#[test]
fn the_schema_knows_every_path() {
    let schema = schema();
    let in_schema: Vec<&str> = schema["$defs"]["reclaimed"]["properties"]["by_path"]["properties"]
        .as_object()
        .expect("by_path has properties")
        .keys()
        .map(String::as_str)
        .collect();
    let mut in_code = Path::ALL.map(path_name);
    in_code.sort_unstable();
    let mut sorted = in_schema;
    sorted.sort_unstable();
    assert_eq!(sorted, in_code);
}

#[test]
fn output_md_names_every_field() {
    assert_eq!(missing(&schema(), OUTPUT_MD), Vec::<String>::new());
}

fn schema() -> Value {
    serde_json::from_str(SCHEMA_TEXT).expect("the schema is JSON")
}

fn validator() -> Validator {
    jsonschema::validator_for(&schema()).expect("the schema can be compiled")
}

fn value(report: &Report) -> Value {
    serde_json::from_str(&json::render(report)).expect("a report is JSON")
}

#[track_caller]
fn assert_valid(report: &Value) {
    let errors: Vec<String> = validator()
        .iter_errors(report)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

#[track_caller]
fn assert_refused(report: &Value, why: &str) {
    assert!(!validator().is_valid(report), "accepted although {why}");
}

/// Returns a JSON pointer to everything inside `value`.
fn pointers(value: &Value) -> Vec<String> {
    fn visit(at: &str, value: &Value, pointers: &mut Vec<String>) {
        let inside: Vec<(String, &Value)> = match value {
            Value::Object(object) => {
                object.iter().map(|(key, value)| (key.clone(), value)).collect()
            }
            Value::Array(items) => (0..).map(|n: usize| n.to_string()).zip(items).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return,
        };
        for (key, value) in inside {
            let pointer = format!("{at}/{key}");
            visit(&pointer, value, pointers);
            pointers.push(pointer);
        }
    }
    let mut found = vec![];
    visit("", value, &mut found);
    found
}
