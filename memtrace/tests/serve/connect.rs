//! Others that ask the daemon instead of looking for themselves.

use std::process::{Command, Output};

use libtest_mimic::Failed;
use serde_json::Value;

use crate::{
    daemon,
    daemon::{HEAP, Heap},
    daemon_with,
    terminal::Terminal,
};

fn memtrace(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memtrace")).args(args).output().expect("it runs")
}

#[track_caller]
fn fails(args: &[&str], with: &str) {
    let output = memtrace(args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains(with), "{args:?}: {said}");
    assert!(said.contains("hint: "), "{said}");
}

pub(crate) fn report() {
    const TOKEN: &str = "0123456789abcdef0123";
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), TOKEN).expect("it can be written");
    let token = token.path().to_str().expect("a path");
    let heap = Heap::start();
    let open = daemon();
    let expected = open.report_of(&heap);
    let pid = heap.pid().to_string();
    for who in [&*pid, "--all"] {
        let output = memtrace(&["report", "--connect", &open.address, "--format", "json", who]);
        assert!(output.status.success(), "{output:?}");
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(found["processes"], expected["processes"], "{who}");
        assert_eq!(found["host"], expected["host"]);
    }
    let output = memtrace(&["report", "--connect", &format!("http://{}/", open.address), &pid]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(HEAP) && text.contains("freed, not reclaimed"), "{text}");
    let own = std::process::id().to_string();
    fails(&["report", "--connect", &open.address, &own], "it was not walked yet");
    fails(&["report", "--connect", &open.address, "4194305"], "there is no such process");
    fails(&["report", "--connect", "127.0.0.1:1", &pid], "cannot ask the daemon");

    let shut = daemon_with(&format!("token_file = {token:?}\n"));
    fails(&["report", "--connect", &shut.address, &pid], "needs the token");
    // It walks when it gets to it.
    let answers = || {
        let args = ["report", "--connect", &*shut.address, "--token-file", token, &*pid];
        memtrace(&args).status.success().then_some(())
    };
    shut.wait_until("a walk", |_| answers());
}

pub(crate) fn top() {
    show().expect("it is shown");
}

fn show() -> Result<(), Failed> {
    let terminal = Terminal::start()?.ok_or("tmux is there")?;
    let heap = Heap::start();
    let daemon = daemon();
    daemon.report_of(&heap);
    let show = format!(
        "{} top --connect {} --interval 200ms {}",
        env!("CARGO_BIN_EXE_memtrace"),
        daemon.address,
        heap.pid()
    );
    terminal.run(&show)?;
    terminal.wait_for("1 process,")?;
    terminal.wait_for(HEAP)?;
    terminal.press("Enter")?;
    terminal.wait_for(&format!("{HEAP} (pid {})", heap.pid()))?;
    // What only the whole report has.
    terminal.press("4")?;
    terminal.wait_for("pymalloc")?;
    terminal.press("q")?;
    terminal.is_given_back(0)?;
    // A daemon that ends is told.
    terminal.run(&show)?;
    terminal.wait_for("1 process,")?;
    drop(daemon);
    terminal.is_given_back(1)?;
    terminal.wait_for("cannot ask the daemon")?;
    Ok(())
}
