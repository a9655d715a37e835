//! What docs/openapi.json says of the daemon, held against what it answers; and what a fuzzer of it finds.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use jsonschema::{Resource, Validator};
use serde_json::{Value, json};

use crate::{
    daemon as start,
    daemon::{Heap, request},
    daemon_with,
    python::python,
};

const PROBLEM: &str = "application/problem+json";

/// A token, as long as one has to be.
const TOKEN: &str = "0123456789abcdef0123";

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn read(name: &str) -> Value {
    let text = fs::read_to_string(docs(name)).expect("it is there");
    serde_json::from_str(&text).expect("JSON")
}

/// Returns the schema that a reference of the description names.
fn schema(reference: &str) -> Validator {
    let resource = |name| {
        let address = format!("http://memtrace/{name}");
        (address, Resource::from_contents(read(name)).expect("a schema"))
    };
    let reference = reference.replace('{', "%7B").replace('}', "%7D");
    jsonschema::options()
        .with_resources(["openapi.json", "report.schema.json"].map(resource).into_iter())
        .build(&json!({"$ref": format!("http://memtrace/openapi.json#{reference}")}))
        .expect("it can be compiled")
}

#[track_caller]
pub(crate) fn assert_valid(what: &str, reference: &str, answer: &Value) {
    let errors: Vec<String> = schema(reference)
        .iter_errors(answer)
        .map(|error| format!("{}: {error}", error.instance_path))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
}

pub(crate) fn answers_are_as_described() {
    let heap = Heap::start();
    let daemon = start();
    daemon.report_of(&heap);
    daemon.wait_until_ready();
    // A program unmaps something as it starts.
    let _new = Heap::start();
    daemon.wait_until("counts", |daemon| {
        let all = daemon.get_json("/api/v1/processes");
        let mut processes = all["processes"].as_array().expect("a list").iter();
        processes.any(|process| process["left"]["munmap"].is_object()).then_some(())
    });
    let described = read("openapi.json");
    // What is told of recordings is checked where there are some.
    let paths = described["paths"].as_object().expect("paths").iter();
    let told = paths.filter(|(path, what)| what["get"].is_object() && !path.contains("{id}"));
    for (path, _) in told {
        let asked = path.replace("{pid}", &heap.pid().to_string());
        let (status, head, body) = daemon.ask_with_head(&request("GET", &asked));
        assert_eq!(status, 200, "{path}: {body}");
        let at = format!("/paths/{}/get/responses/200/content", path.replace('/', "~1"));
        let kinds = described.pointer(&at).and_then(Value::as_object).expect("it is described");
        let kind = kinds.keys().find(|kind| head.contains(&format!("content-type: {kind}")));
        assert!(kind.is_some(), "{path} answers none of {:?}: {head}", kinds.keys());
        if kinds.contains_key("application/json") {
            let answer = serde_json::from_str(&body).expect("JSON");
            assert_valid(path, &format!("{at}/application~1json/schema"), &answer);
        }
    }
    assert_eq!(daemon.get_json("/api/v1/openapi.json"), described);
    assert_eq!(daemon.get_json("/api/v1/report.schema.json"), read("report.schema.json"));
    // What is wrong is told in one form.
    for (method, path, expected) in [
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/processes/x", 400),
        ("GET", "/api/v1/processes/%ff", 400),
        ("GET", "/api/v1/processes/4194304", 404),
        ("DELETE", "/metrics", 405),
        ("POST", "/api/v1/processes/1", 405),
        ("TRACE", "/healthz", 405),
    ] {
        let request = request(method, path);
        let (status, head, body) = daemon.ask_with_head(&request);
        assert_eq!(status, expected, "{request}: {body}");
        assert!(head.contains(&format!("content-type: {PROBLEM}")), "{request}: {head}");
        assert_eq!(head.contains("allow: get,head"), expected == 405, "{request}: {head}");
        let problem: Value = serde_json::from_str(&body).expect("JSON");
        assert_valid(&request, "/components/schemas/Problem", &problem);
        assert_eq!(problem["status"], expected);
    }
}

/// Tells whether it can be run.
pub(crate) fn has_schemathesis() -> bool {
    schemathesis().arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Returns the command.
fn schemathesis() -> Command {
    let mut command = python("MEMTRACE_SCHEMATHESIS");
    command.args(["-m", "schemathesis.cli"]);
    command
}

pub(crate) fn fuzzed() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).expect("it can be written");
    let daemon = daemon_with(&format!("token_file = {token:?}\n"));
    daemon.wait_until_ready();
    // A process that was not walked yet is no failure of the daemon.
    let config = folder.path().join("schemathesis.toml");
    let expected =
        "[checks.not_a_server_error]\nexpected-statuses = [\"2xx\", \"3xx\", \"4xx\", 503]\n";
    fs::write(&config, expected).expect("it can be written");
    let output = schemathesis()
        .arg(format!("--config-file={}", config.display()))
        .args(["run", "--checks=all", "--no-color", "--seed=1", "--max-examples=50"])
        .arg(format!("--header=Authorization: Bearer {TOKEN}"))
        .arg(format!("--url=http://{}", daemon.address))
        .arg(docs("openapi.json"))
        .current_dir(folder.path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(daemon.get("/healthz").0, 200);
}
