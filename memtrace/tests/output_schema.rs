//! Holds the JSON that memtrace writes against docs/report.schema.json, and the schema against
//! docs/OUTPUT.md.

use jsonschema::Validator;
use memtrace::{
    model::{
        change::path_name,
        report::{
            AllocatorReport, ArenaReport, Balance, Evidence, Faults, Finding, Frame, FreedBy,
            FreedNotReclaimed, Host, KeptByReason, KindReport, LateDelay, MadvFree, Mapped, Memory,
            PathReport, ProbeReport, ProbedFunction, ProcessReport, ProcessStacks, Reclaimed,
            RegionReport, Remains, Remanence, Report, ResidentByKind, RetainedBy, Reuse, SCHEMA,
            SamplingCost, Stacks, Swap, Window, Within, ZeroedByKind,
        },
    },
    sink::json,
};
use memtrace_common::Path;
use serde_json::Value;

const SCHEMA_TEXT: &str = include_str!("../../docs/report.schema.json");
const OUTPUT_MD: &str = include_str!("../../docs/OUTPUT.md");

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
        // `unknown` has null in every field that can be null, but one: what is inside of it counts.
        if pointer == "/stacks" || unknown.pointer(&pointer).is_some_and(Value::is_null) {
            nullable += 1;
            assert_valid(&report);
        } else {
            assert_refused(&report, &format!("{pointer} is null"));
        }
    }
    assert_eq!(nullable, 60 + 6 * Path::ALL.len());
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
    fn visit(schema: &Value, missing: &mut Vec<String>) {
        match schema {
            Value::Object(object) => {
                if let Some(Value::Object(properties)) = object.get("properties") {
                    missing.extend(
                        properties
                            .keys()
                            .filter(|name| !OUTPUT_MD.contains(&format!("`{name}`")))
                            .cloned(),
                    );
                }
                object.values().for_each(|value| visit(value, missing));
            }
            Value::Array(items) => items.iter().for_each(|item| visit(item, missing)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut missing = vec![];
    visit(&schema(), &mut missing);
    assert!(missing.is_empty(), "docs/OUTPUT.md lacks {missing:?}");
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

/// A report in which every field has a value and every list an item.
fn known() -> Report {
    let figures = PathReport {
        calls: 2,
        requested: Some(16384),
        zapped: Some(8192),
        freed: Some(4096),
        late: Some(4096),
        kept_elsewhere: Some(4096),
        kept_by_reason: Some(KeptByReason {
            page_cache: 1024,
            shmem: 1024,
            shared: 512,
            huge_page: 512,
            pinned: 512,
            swap: 256,
            unknown: 256,
        }),
    };
    Report {
        schema: SCHEMA,
        host: Host {
            kernel: "6.18.5".into(),
            arch: "x86_64".into(),
            page_size: 4096,
            init_on_alloc: Some(true),
            init_on_free: Some(false),
        },
        window: Window {
            evidence: Evidence::Frames,
            start_ns: 1,
            end_ns: 2,
            emitted: 3,
            dropped: 4,
            untracked: 6,
            missed: 7,
            resyncs: 5,
            complete: false,
            probes: vec![ProbeReport {
                name: "munmap".into(),
                hook: Some("tp/syscalls".into()),
                state: "attached",
            }],
        },
        processes: vec![ProcessReport {
            tgid: 4242,
            start_time: 6,
            comm: "python3".into(),
            exe: Some("/usr/bin/python3".into()),
            state: "exited",
            of_core: false,
            exit_code: Some(0),
            memory: Memory {
                mapped: Some(1),
                resident: Some(2),
                resident_by_kind: ResidentByKind { anon: Some(1), file: Some(1), shmem: Some(0) },
                live: Some(1),
                freed_not_reclaimed: FreedNotReclaimed {
                    total: Some(1),
                    allocator: Some(1),
                    lazy_free: Some(0),
                },
                reserved: Some(0),
                swapped: Some(0),
                cold: Some(0),
            },
            mapped: Mapped { calls: 1, requested: Some(4096), peak: Some(8192) },
            reclaimed: Reclaimed {
                total: Some(4096),
                late_delay: Some(LateDelay { p50_ns: 1, p99_ns: 2, max_ns: 3 }),
                by_path: Path::ALL.map(|path| (path_name(path), figures.clone())).into(),
                by_kind: [("heap", KindReport { calls: 1, zapped: 4096, freed: Some(4096) })]
                    .into(),
            },
            madv_free: MadvFree { now: Some(0), used_again: Some(1), taken: Some(0) },
            swap: Swap { out: Some(0), r#in: Some(0) },
            remanence: Some(Remanence {
                freed: 2,
                still_free: 0,
                zeroed_for_others: 1,
                to_itself: reuse(1),
                to_others: reuse(1),
            }),
            faults: Faults {
                minor: Some(1),
                major: Some(0),
                zeroed: Some(1),
                zeroed_by_kind: ZeroedByKind { anon: Some(1), huge: Some(0), shmem: Some(0) },
                copied: Some(1),
            },
            balance: Balance {
                r#in: Some(8192),
                out: Some(8192),
                resident: Some(0),
                unexplained: Some(0),
            },
            allocators: vec![AllocatorReport {
                name: "glibc",
                version: Some("2.36".into()),
                evidence: "walked",
                system: 8192,
                in_use: 4096,
                free: [("bins", 4096)].into(),
                unknown: 0,
                resyncs: 0,
                locked: 0,
                free_resident: Some(4096),
                trimmable: Some(0),
                trimmable_late: Some(0),
                remains: Some(Remains { partly_used: 4096, ..Remains::default() }),
                settings: [("mmap_threshold", 131_072)].into(),
                arenas: vec![ArenaReport {
                    address: "0x7f12a0000000".into(),
                    system: 8192,
                    free: 4096,
                    free_resident: Some(4096),
                    trimmable: Some(0),
                    threads: Some(1),
                }],
            }],
            unwalked: vec!["jemalloc is in use, but its books make no sense".into()],
            findings: vec![Finding {
                id: "pinned_top",
                bytes: 8 << 20,
                summary: "something lies above".into(),
                evidence: "8.0 MiB below the top".into(),
                advice: "malloc_trim(0)".into(),
            }],
            regions: vec![RegionReport {
                start: "0x7f12a0000000".into(),
                end: "0x7f12a0001000".into(),
                kind: "file",
                name: Some("libc.so.6".into()),
                prot: "r-xp".into(),
                mapped: 4096,
                resident: Some(4096),
                live: Some(4096),
                free_resident: Some(0),
                lazy_free: Some(0),
                swapped: Some(0),
                cold: Some(0),
            }],
        }],
        stacks: Some(stacks()),
    }
}

fn stacks() -> Stacks {
    let frames = || {
        vec![Frame {
            function: Some("main".into()),
            file: Some("/usr/bin/python3".into()),
            offset: "0x1234".into(),
        }]
    };
    Stacks {
        sample_bytes: 524_288,
        allocations: 3,
        frees: 2,
        samples: 2,
        lost: 0,
        lost_stacks: 0,
        cost: SamplingCost { allocation_ns: 800, free_ns: 500, stepped_ns: 9000 },
        functions: vec![ProbedFunction {
            name: "malloc".into(),
            file: "/usr/lib/libc.so.6".into(),
            emulated: true,
        }],
        processes: vec![ProcessStacks {
            tgid: 4242,
            retained: 4096,
            freed: 4096,
            freed_resident_estimate: Some(4096),
            retained_by: vec![RetainedBy { bytes: 4096, samples: 1, frames: frames() }],
            freed_by: vec![FreedBy {
                bytes: 4096,
                resident_estimate: Some(4096),
                samples: 1,
                frames: frames(),
            }],
        }],
    }
}

fn reuse(frames: u64) -> Reuse {
    let histogram = vec![Within { within_ns: 3, frames }];
    Reuse { frames, p50_ns: 2, p99_ns: 2, max_ns: 2, histogram }
}

/// The same with everything unknown that can be.
fn unknown() -> Report {
    let mut report = known();
    report.window.probes[0].hook = None;
    let process = &mut report.stacks.as_mut().expect("it is known").processes[0];
    process.freed_resident_estimate = None;
    let RetainedBy { frames, .. } = &mut process.retained_by[0];
    (frames[0].function, frames[0].file) = (None, None);
    let FreedBy { frames, resident_estimate, .. } = &mut process.freed_by[0];
    (frames[0].function, frames[0].file, *resident_estimate) = (None, None, None);
    report.host.init_on_alloc = None;
    report.host.init_on_free = None;
    let process = &mut report.processes[0];
    process.exe = None;
    process.exit_code = None;
    process.memory = Memory::default();
    process.madv_free = MadvFree::default();
    process.swap = Swap::default();
    process.remanence = None;
    process.faults = Faults::default();
    process.balance = Balance::default();
    process.mapped = Mapped { calls: 1, ..Mapped::default() };
    process.reclaimed.total = None;
    process.reclaimed.late_delay = None;
    for kind in process.reclaimed.by_kind.values_mut() {
        kind.freed = None;
    }
    for path in process.reclaimed.by_path.values_mut() {
        *path = PathReport { calls: path.calls, ..PathReport::default() };
    }
    let allocator = &mut process.allocators[0];
    allocator.version = None;
    allocator.free_resident = None;
    allocator.trimmable = None;
    allocator.trimmable_late = None;
    allocator.remains = None;
    let arena = &mut allocator.arenas[0];
    (arena.free_resident, arena.trimmable, arena.threads) = (None, None, None);
    let region = &mut process.regions[0];
    region.name = None;
    region.resident = None;
    region.live = None;
    region.free_resident = None;
    region.lazy_free = None;
    region.cold = None;
    report
}
