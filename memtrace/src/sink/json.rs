//! JSON for programs: docs/OUTPUT.md says what each field means, docs/report.schema.json holds it.

use serde::Serialize;

use crate::model::change::Change;

/// Returns a report, or the verdict of `memtrace verify`, as indented JSON that ends in a newline.
pub fn render(document: &impl Serialize) -> String {
    let mut json = serde_json::to_string_pretty(document)
        .expect("ours have string keys and no serializer that fails");
    json.push('\n');
    json
}

/// Returns a document as one line of JSON that ends in a newline.
pub fn line(document: &impl Serialize) -> String {
    compact(document) + "\n"
}

/// Returns one event as one line of JSON, without the newline.
pub fn event_line(change: &Change) -> String {
    compact(change)
}

fn compact(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("ours have string keys and no serializer that fails")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::model::{
        change::What,
        report::{Evidence, Host, Report, SCHEMA, Window},
    };

    fn line(what: What) -> String {
        event_line(&Change { time_ns: 1_234_567, tgid: 4242, tid: 4243, what })
    }

    #[test]
    fn a_report_is_indented_and_ends_in_one_newline() {
        let json = render(&Report {
            schema: SCHEMA,
            host: Host {
                kernel: "6.18.0".into(),
                arch: "x86_64".into(),
                page_size: 4096,
                ..Host::default()
            },
            window: Window {
                evidence: Evidence::Frames,
                start_ns: 1,
                end_ns: 2,
                emitted: 0,
                dropped: 0,
                untracked: 0,
                missed: 0,
                resyncs: 0,
                complete: true,
                probes: vec![],
            },
            processes: vec![],
            stacks: None,
        });
        assert!(json.ends_with("\n}\n"), "{json:?}");
        assert_snapshot!(json, @r#"
        {
          "schema": "memtrace.report/1",
          "host": {
            "kernel": "6.18.0",
            "arch": "x86_64",
            "page_size": 4096,
            "init_on_alloc": null,
            "init_on_free": null
          },
          "window": {
            "evidence": "frames",
            "start_ns": 1,
            "end_ns": 2,
            "emitted": 0,
            "dropped": 0,
            "untracked": 0,
            "missed": 0,
            "resyncs": 0,
            "complete": true,
            "probes": []
          },
          "processes": [],
          "stacks": null
        }
        "#);
    }

    #[test]
    fn a_call_is_one_flat_object_with_a_hexadecimal_address() {
        assert_snapshot!(line(What::Call {
            call: "munmap",
            start: 0x7f12_a000_0000,
            requested: 64 << 20,
            detail: String::new(),
            ret: 0,
            path: Some("munmap"),
            zapped: Some(32 << 20),
            freed: Some(31 << 20),
            duration_ns: Some(412_000),
        }), @r#"{"time_ns":1234567,"tgid":4242,"tid":4243,"event":"call","call":"munmap","start":"0x7f12a0000000","requested":67108864,"detail":"","ret":0,"path":"munmap","zapped":33554432,"freed":32505856,"duration_ns":412000}"#);
    }

    #[test]
    fn every_event_names_itself() {
        let lines = [
            line(What::Fault { address: 0x1000, access: "write", from_kernel: false }),
            line(What::Fork { child: 4300, followed: true }),
            line(What::Exec { path: "/bin/true".into() }),
            line(What::Exit { code: 137 }),
            line(What::MmEnd { zapped: Some(4096), freed: None }),
            line(What::Memory {
                resident: Some(8192),
                live: Some(4096),
                free_resident: Some(4096),
                lazy_free: None,
                trimmable: Some(0),
                regions: vec![],
            }),
        ];
        assert_snapshot!(lines.join("\n"), @r#"
        {"time_ns":1234567,"tgid":4242,"tid":4243,"event":"fault","address":"0x1000","access":"write","from_kernel":false}
        {"time_ns":1234567,"tgid":4242,"tid":4243,"event":"fork","child":4300,"followed":true}
        {"time_ns":1234567,"tgid":4242,"tid":4243,"event":"exec","path":"/bin/true"}
        {"time_ns":1234567,"tgid":4242,"tid":4243,"event":"exit","code":137}
        {"time_ns":1234567,"tgid":4242,"tid":4243,"event":"mm_end","zapped":4096,"freed":null}
        {"time_ns":1234567,"tgid":4242,"tid":4243,"event":"memory","resident":8192,"live":4096,"free_resident":4096,"lazy_free":null,"trimmable":0,"regions":[]}
        "#);
    }

    #[test]
    fn a_hostile_name_stays_on_its_line() {
        let line = line(What::Exec { path: "/tmp/\n\x1b[2J\"}".into() });
        assert_snapshot!(line, @r#"{"time_ns":1234567,"tgid":4242,"tid":4243,"event":"exec","path":"/tmp/\n\u001b[2J\"}"}"#);
    }
}
