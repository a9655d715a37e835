//! The dashboard and the alerts that are shipped: held against the metrics of a running daemon.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::daemon as start;

/// Columns that a dashboard of Grafana has.
const COLUMNS: u64 = 24;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(shipped(name)).expect("it is there")
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana/memtrace.json")).expect("JSON")
}

/// Returns the queries of all panels.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

/// Returns what begins as names of metrics do.
fn metrics_of(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("memtrace_") && *word != "memtrace_");
    names.map(str::to_owned).collect()
}

pub(crate) fn metrics_are_there() {
    let daemon = start();
    let page = daemon.get("/metrics").1;
    let told: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, _)| name)
        .collect();
    for file in ["grafana/memtrace.json", "prometheus/memtrace.rules.yml"] {
        let used = metrics_of(&read(file));
        assert!(used.len() > 5, "{file}: {used:?}");
        let unknown: Vec<_> = used.iter().filter(|name| !told.contains(name.as_str())).collect();
        assert!(unknown.is_empty(), "{file} has metrics that the daemon has not: {unknown:?}");
    }
}

pub(crate) fn panels_are_apart() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"]
            .map(|side| panel["gridPos"][side].as_u64().expect("a number of cells"));
        assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{title}: it is not on the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title}: another is at {cell:?}");
        }
        let is_told = panel["description"].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_told || panel["type"] == "row", "{title}: it does not say what it is");
    }
}

pub(crate) fn rules() {
    promtool(&["check", "rules"], &shipped("prometheus/memtrace.rules.yml"));
    promtool(&["test", "rules"], &shipped("prometheus/memtrace.rules.test.yml"));
    // Each alert is tested.
    let rules = read("prometheus/memtrace.rules.yml");
    let tests = read("prometheus/memtrace.rules.test.yml");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(alert), "{alert} is in no test");
    }
    // What a dashboard asks is PromQL.
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, query) in queries(&dashboard()).iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m").replace("$instance", ".*");
        let query = serde_json::to_string(&query).expect("text");
        writeln!(rules, "  - record: query{number}\n    expr: {query}").expect("text");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dashboard.yml");
    fs::write(&file, rules).expect("it can be written");
    promtool(&["check", "rules"], &file);
}

#[track_caller]
fn promtool(command: &[&str], file: &Path) {
    let output = Command::new("promtool").args(command).arg(file).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
