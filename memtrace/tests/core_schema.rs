//! Holds the report of a made-up core file against docs/report.schema.json.

use memtrace::source::core::made_up::MadeUp;
use serde_json::Value;

const SCHEMA: &str = include_str!("../../docs/report.schema.json");

/// Returns what `memtrace report --core` says of a core file.
fn report(core: &MadeUp) -> Value {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), core.bytes()).expect("there is room");
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_memtrace"));
    let assert = command.args(["report", "--format", "json", "--core"]).arg(file.path()).assert();
    let output = assert.success().stderr("").get_output().clone();
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

#[track_caller]
fn assert_valid(report: &Value) {
    let schema = serde_json::from_str(SCHEMA).expect("the schema is JSON");
    let validator = jsonschema::validator_for(&schema).expect("the schema can be compiled");
    let errors: Vec<String> = validator
        .iter_errors(report)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

/// Asserts that what rests on residency is null, wherever it stands. Returns how often it stands there.
fn assert_unknown(value: &Value) -> usize {
    let measured = [
        "resident",
        "live",
        "reserved",
        "swapped",
        "free_resident",
        "lazy_free",
        "trimmable",
        "remains",
    ];
    match value {
        Value::Object(object) => {
            let of = |(key, value): (&String, &Value)| {
                let is_measured = measured.contains(&key.as_str());
                assert!(!is_measured || value.is_null(), "{key} is {value}");
                usize::from(is_measured) + assert_unknown(value)
            };
            object.iter().map(of).sum()
        }
        Value::Array(items) => items.iter().map(assert_unknown).sum(),
        _ => 0,
    }
}

#[test]
fn a_report_of_a_core_file_is_valid_and_knows_nothing_of_residency() {
    let report = report(&MadeUp::program());
    assert_valid(&report);
    let process = &report["processes"][0];
    let [tgid, state, comm] = ["tgid", "state", "comm"].map(|field| &process[field]);
    assert_eq!((tgid, state, comm), (&42.into(), &"unknown".into(), &"program".into()));
    assert_eq!(process["allocators"][0]["free"]["bins"], 4096);
    assert_eq!(process["memory"]["mapped"], 27 * 4096);
    assert!(assert_unknown(process) > 40);
}

#[test]
fn a_core_file_that_says_nothing_is_a_report_all_the_same() {
    let core = MadeUp { files: vec![], auxiliary: vec![], process: None, ..MadeUp::program() };
    let report = report(&core);
    assert_valid(&report);
    let process = &report["processes"][0];
    assert_eq!((&process["tgid"], &process["exe"]), (&0.into(), &Value::Null));
    let why = "the core file does not say which files were mapped: allocators are not found";
    assert_eq!(process["unwalked"], serde_json::json!([why]));
}
