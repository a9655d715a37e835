//! Holds the layers of `src/`: who may do I/O, who may print, who knows aya, and where the kinds of
//! records are told apart. Reads the sources; comments, strings and tests do not count.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A source file without comments and tests.
struct Source {
    /// Path below `src/`, such as `model/mod.rs`.
    path: String,
    code: String,
}

#[test]
fn the_model_does_no_io_and_knows_no_clock() {
    let forbidden = |code: &str| {
        let found = words(code).find(|word| {
            ["aya", "tokio", "procfs", "nix", "libc", "SystemTime", "Instant"].contains(word)
        });
        // An error's number is a constant, not a call.
        let found = found.filter(|word| *word != "libc" || !only_errno(code));
        found
            .or_else(|| std_module(code, &["fs", "io", "time", "net", "env", "process", "thread"]))
            .map(str::to_owned)
    };
    assert_eq!(forbidden("use std::{fmt, fs};"), Some("fs".to_owned()));
    assert_eq!(forbidden("let x = std::time::Duration::ZERO;"), Some("time".to_owned()));
    assert_eq!(forbidden("use std::ops::Range; fn io() {}"), None);
    assert_none(files_below("model/"), forbidden);
}

#[test]
fn only_the_probes_and_the_live_source_name_aya() {
    let forbidden = |code: &str| words(code).find(|word| *word == "aya").map(str::to_owned);
    assert_eq!(forbidden("use aya::Btf;"), Some("aya".to_owned()));
    assert_eq!(forbidden("aya_log::Level::Debug"), None);
    let others = sources()
        .into_iter()
        .filter(|file| !file.path.starts_with("probe/") && file.path != "source/live.rs");
    assert_none(others, forbidden);
}

#[test]
fn only_the_tracer_names_the_logger_of_the_probes() {
    let forbidden = |code: &str| words(code).find(|word| *word == "aya_log").map(str::to_owned);
    let others = sources()
        .into_iter()
        .filter(|file| !file.path.starts_with("probe/") && file.path != "cli/tracer.rs");
    assert_none(others, forbidden);
}

#[test]
fn only_sinks_and_commands_print() {
    let forbidden = |code: &str| {
        let macros = ["print!", "println!", "eprint!", "eprintln!", "dbg!"];
        let streams = ["stdout()", "stderr()"];
        let mut printing = macros.iter().chain(&streams);
        printing.find(|what| has_word(code, what)).map(|what| (*what).to_owned())
    };
    assert_eq!(forbidden("eprintln!()"), Some("eprintln!".to_owned()));
    assert_eq!(forbidden("io::stderr().lock()"), Some("stderr()".to_owned()));
    let others = sources()
        .into_iter()
        .filter(|file| !file.path.starts_with("sink/") && !file.path.starts_with("cli/"));
    assert_none(others, forbidden);
}

#[test]
fn kinds_are_told_apart_by_the_decoder_and_the_dispatch_alone() {
    let forbidden = |code: &str| patterns(code).first().map(|line| (*line).to_owned());
    for pattern in [
        "Event::Call(call) => 1,",
        "Kind::Exit | Kind::Fork => 1,",
        "if let Event::Call(call) = event {",
        "let Some(Event::Call(call)) = event else {",
        "if matches!(event, Event::Call(_)) {",
    ] {
        assert_eq!(forbidden(pattern).as_deref(), Some(pattern));
    }
    for expression in [
        "model.apply(&Event::TaskSeed(seed));",
        "let kind = Kind::MapRegion as u16;",
        "RegionKind::Heap => 1,",
        "WatchedEvent::Call(call) => 1,",
    ] {
        assert_eq!(forbidden(expression), None);
    }
    // The snapshots of a task iterator are records of one kind each.
    let others = sources()
        .into_iter()
        .filter(|file| !["model/mod.rs", "probe/look.rs"].contains(&file.path.as_str()));
    assert_none(others, forbidden);
}

#[test]
fn the_decoder_and_the_dispatch_name_every_kind() {
    let common = Path::new(env!("CARGO_MANIFEST_DIR")).join("../memtrace-common/src");
    let head = "pub enum Kind {";
    let records = sources_in(&common).into_iter().find(|file| file.code.contains(head));
    let kinds = variants(&records.expect("the kinds are there").code, head);
    assert!(kinds.len() > 10, "{kinds:?}");
    let decoder = read(&common.join("decode.rs"));
    let dispatch = read(&src().join("model/mod.rs"));
    for kind in kinds {
        assert!(has_arm(&decoder, &format!("Kind::{kind}")), "decode.rs: {kind}");
        assert!(has_arm(&dispatch, &format!("Event::{kind}")), "model/mod.rs: {kind}");
    }
}

/// Asserts that no file has what `find` finds.
#[track_caller]
fn assert_none(files: impl IntoIterator<Item = Source>, find: impl Fn(&str) -> Option<String>) {
    let mut looked_at = 0;
    let mut found = Vec::new();
    for Source { path, code } in files {
        looked_at += 1;
        found.extend(find(&code).map(|what| format!("src/{path}: {what}")));
    }
    assert!(looked_at > 3, "only {looked_at} files were found");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Returns a module of std that `code` uses, if it is one of `modules`.
fn std_module<'a>(code: &'a str, modules: &[&str]) -> Option<&'a str> {
    code.match_indices("std::").find_map(|(at, std)| {
        let path = &code[at + std.len()..];
        // `std::{fmt, fs::File}` names several.
        let end = if path.starts_with('{') { path.find(';') } else { path.find("::") };
        let end = end.or_else(|| path.find(';')).unwrap_or(path.len());
        words(&path[..end]).find(|word| modules.contains(word))
    })
}

/// Tells whether all that `code` takes of libc are the numbers of errors.
fn only_errno(code: &str) -> bool {
    code.match_indices("libc").all(|(at, libc)| code[at + libc.len()..].starts_with("::E"))
}

/// Returns the lines in which a kind of record or an event is a pattern, not a value.
fn patterns(code: &str) -> Vec<&str> {
    let is_pattern = |line: &&str| {
        ["Event::", "Kind::"].into_iter().any(|name| {
            starts_of(line, name).any(|at| {
                let (before, behind) = line.split_at(at);
                let bound = before.rsplit_once("let ").is_some_and(|(_, part)| !part.contains('='));
                bound || behind.contains("=>") || before.contains("matches!(")
            })
        })
    };
    code.lines().map(str::trim).filter(is_pattern).collect()
}

fn has_arm(code: &str, pattern: &str) -> bool {
    starts_of(code, pattern).any(|at| {
        let behind = &code[at + pattern.len()..];
        let line = behind.lines().next().unwrap_or_default();
        line.starts_with([' ', '(']) && line.contains("=>")
    })
}

/// Returns the names of the variants of an enum without data.
fn variants(code: &str, head: &str) -> Vec<String> {
    let (_, body) = code.split_once(head).expect("the enum is there");
    let (body, _) = body.split_once('}').expect("it ends");
    let name = |line: &str| Some(line.split_once(" = ")?.0.trim().to_owned());
    body.lines().filter_map(name).collect()
}

/// Returns where `name` begins a word.
fn starts_of<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let begins = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(name).map(|(at, _)| at).filter(move |&at| begins(at))
}

fn has_word(code: &str, word: &str) -> bool {
    starts_of(code, word).next().is_some()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files_below(folder: &str) -> Vec<Source> {
    sources().into_iter().filter(|file| file.path.starts_with(folder)).collect()
}

fn sources() -> Vec<Source> {
    sources_in(&src())
}

fn sources_in(root: &Path) -> Vec<Source> {
    let mut folders = vec![root.to_owned()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("it can be listed").path();
            let below = path.strip_prefix(root).expect("it is below").display().to_string();
            if path.is_dir() {
                folders.extend((!below.ends_with("tests")).then_some(path));
            } else if below.ends_with(".rs") && !below.ends_with("tests.rs") {
                sources.push(Source { code: read(&path), path: below });
            }
        }
    }
    sources
}

/// Reads a source file without comments, and up to its tests.
fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    without_tests(&text)
}

fn without_tests(text: &str) -> String {
    let code: String = text.lines().map(|line| code_of(line) + "\n").collect();
    // Tests in a module of the same file are the rest of it; those in another file are one line.
    let (code, _) = code.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&code, ""));
    code.to_owned()
}

/// Returns a line without its comment and without what stands in its strings.
fn code_of(line: &str) -> String {
    let line = line.replace("'\"'", "' '").replace("\\\"", "");
    let mut code = String::new();
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            code.push_str("\"\"");
        } else if let Some((part, _)) = part.split_once("//") {
            return code + part;
        } else {
            code.push_str(part);
        }
    }
    code
}

#[test]
fn strings_and_comments_are_no_code() {
    assert_eq!(code_of(r#"f("a//b", '"', "\"c") + d; // e"#), r#"f("", ' ', "") + d; "#);
}

#[test]
fn code_behind_the_line_that_names_a_test_file_counts() {
    let file = "a // b\n#[cfg(test)]\nmod tests;\nc\n#[cfg(test)]\nmod tests {\nd\n";
    assert_eq!(without_tests(file), "a \n#[cfg(test)]\nmod tests;\nc\n");
}
