//! Names that would harm a terminal or shift a column.

use insta::assert_snapshot;

use super::*;

#[test]
fn hostile_names_are_shown_harmlessly() {
    let names = [
        "\x1b[2J\x1b]0;t\x07",
        "a\nb\tc\r",
        "exe\u{202e}gpj",
        "日本語の名前",
        "\u{fffd}\u{fffd}",
        "z\u{336}\u{200d}",
        "",
    ];
    let named = |(tgid, name): (u32, &&str)| plain(tgid, name, MIB);
    let view = view((1..).zip(&names).map(named).collect());
    assert_snapshot!(screen(&view, 80, 12), @r#"
    |memtrace  7 processes, RSS 7.0 MiB; freed, not reclaimed 0 B (0 walked)         |
    |                                                                                |
    |    PID  name                   RSS  made of      ▾freed   reclaimed/s  faults/s|
    |      1  \u{1b}[2J\u{1…     1.0 MiB                    –           0 B         0|
    |      2  a\nb\tc\r          1.0 MiB                    –           0 B         0|
    |      3  exe\u{202e}gpj     1.0 MiB                    –           0 B         0|
    |      4  日本語の名前       1.0 MiB                    –           0 B         0|
    |      5  ��                 1.0 MiB                    –           0 B         0|
    |      6  z\u{336}\u{20…     1.0 MiB                    –           0 B         0|
    |      7                     1.0 MiB                    –           0 B         0|
    |                                                                                |
    |q quit  ? help  Enter look  / filter  Space pause  1-4 sort  ↑↓ move  w walk now|
    "#);
    let buffer = buffer(&view, 80, 12);
    let cells = buffer.content.iter().flat_map(|cell| cell.symbol().chars());
    assert_eq!(cells.filter(|c| c.is_control()).count(), 0);
}

#[test]
fn hostile_names_of_a_page_are_shown_harmlessly() {
    let mut view = machine();
    let mut process = python();
    process.comm = "\x1b[31m".repeat(40);
    if let Some(looked) = &mut process.looked {
        let mut report = looked.report.as_deref().cloned().unwrap_or_default();
        report.comm = process.comm.clone();
        report.unwalked = vec!["\x1b]8;;x\x07".into()];
        report.regions[0].name = Some("/tmp/\x1b[2J\u{202e}".repeat(300));
        looked.report = Some(Arc::new(report));
    }
    view.take(Arc::new(snapshot(vec![process], Counting::Off("\x1b[1m".into()))));
    press(&mut view, KeyCode::Enter);
    for key in ['1', '2', '3', '4', '5'] {
        press(&mut view, KeyCode::Char(key));
        for (width, height) in [(80, 24), (200, 60), (13, 3)] {
            let buffer = buffer(&view, width, height);
            let cells = buffer.content.iter().flat_map(|cell| cell.symbol().chars());
            assert_eq!(cells.filter(|c| c.is_control()).count(), 0, "{key} {width}");
        }
    }
}
