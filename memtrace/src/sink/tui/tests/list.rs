//! The list: order, filter, what is pointed at, and what is said of what is not known.

use insta::assert_snapshot;

use super::*;

fn names(view: &View) -> Vec<&str> {
    view.listed().iter().map(|process| process.comm.as_str()).collect()
}

#[test]
fn the_list_fits_80_columns() {
    assert_snapshot!(screen(&machine(), 80, 10), @"
    |memtrace  4 processes, RSS 860.0 MiB; freed, not reclaimed 194.0 MiB (2 walked) |
    |                                                                                |
    |    PID  name                   RSS  made of      ▾freed   reclaimed/s  faults/s|
    |   4242  python3          148.0 MiB  █▓▓▓▓▓▓   134.0 MiB     300.0 KiB       120|
    |     77  gopher           100.0 MiB  ███▓▒▒▒    60.0 MiB           0 B         0|
    |    300  cc1plus          600.0 MiB                    –           0 B     48211|
    |      1  init              12.0 MiB                    –           0 B         0|
    |                                                                                |
    |                                                                                |
    |q quit  ? help  Enter look  / filter  Space pause  1-4 sort  ↑↓ move  w walk now|
    ");
}

#[test]
fn a_wide_list_tells_more() {
    assert_snapshot!(screen(&machine(), 140, 8), @"
    |memtrace  4 processes, RSS 860.0 MiB; freed, not reclaimed 194.0 MiB (2 walked)                                                             |
    |                                                                                                                                            |
    |    PID  name                              RSS  made of                     live      ▾freed   lazy free   trimmable   reclaimed/s  faults/s|
    |   4242  python3                     148.0 MiB  ██▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓    14.0 MiB   134.0 MiB         0 B   130.0 MiB     300.0 KiB       120|
    |     77  gopher                      100.0 MiB  ████████▓▓▒▒▒▒▒▒▒▒▒▒    40.0 MiB    60.0 MiB    50.0 MiB           –           0 B         0|
    |    300  cc1plus                     600.0 MiB                                 –           –           –           –           0 B     48211|
    |      1  init                         12.0 MiB                                 –           –           –           –           0 B         0|
    |q quit  ? help  Enter look  / filter  Space pause  1-4 sort  ↑↓ move  w walk now                                                            |
    ");
}

#[test]
fn number_keys_choose_what_goes_first() {
    let mut view = machine();
    assert_eq!(names(&view), ["python3", "gopher", "cc1plus", "init"]);
    for (key, first) in [('2', "cc1plus"), ('3', "python3"), ('4', "cc1plus"), ('1', "python3")] {
        press(&mut view, KeyCode::Char(key));
        assert_eq!(names(&view)[0], first, "{key}");
    }
    press(&mut view, KeyCode::Char('s'));
    assert_eq!(view.sort, Sort::Resident);
}

#[test]
fn a_filter_takes_names_and_the_beginnings_of_pids() {
    let mut view = machine();
    for c in "/PY".chars() {
        press(&mut view, KeyCode::Char(c));
    }
    assert_eq!(names(&view), ["python3"]);
    // While it is typed, q is a letter.
    assert_eq!(press(&mut view, KeyCode::Char('q')), Step::Show);
    assert_eq!(names(&view), [""; 0]);
    assert_snapshot!(screen(&view, 60, 7), @"
    |memtrace  0 of 4 processes, RSS 0 B; freed, not reclaimed 0…|
    |                                                            |
    |    PID  name                  RSS      ▾freed   reclaimed/s|
    |  no process has this in its name, nor a PID that begins wi…|
    |                                                            |
    |                                                            |
    |/PYq█  Enter keep  Esc drop                                 |
    ");
    press(&mut view, KeyCode::Esc);
    for c in "/77".chars() {
        press(&mut view, KeyCode::Char(c));
    }
    press(&mut view, KeyCode::Enter);
    assert_eq!(names(&view), ["gopher"]);
    assert_eq!(press(&mut view, KeyCode::Char('q')), Step::Quit);
}

#[test]
fn what_is_pointed_at_stays_pointed_at_when_the_order_changes() {
    let mut view = machine();
    press(&mut view, KeyCode::Down);
    let pointed = |view: &View| {
        let listed = view.listed();
        (view.selected_index(&listed), listed[view.selected_index(&listed)].comm.clone())
    };
    assert_eq!(pointed(&view), (1, "gopher".to_owned()));
    press(&mut view, KeyCode::Char('2'));
    assert_eq!(pointed(&view), (2, "gopher".to_owned()));
    press(&mut view, KeyCode::End);
    assert_eq!(pointed(&view), (3, "init".to_owned()));
    press(&mut view, KeyCode::PageUp);
    assert_eq!(pointed(&view), (0, "cc1plus".to_owned()));
}

#[test]
fn what_is_not_counted_is_said() {
    let mut view = machine();
    let off = Counting::Off("it needs root".to_owned());
    let processes = vec![Process { reclaimed_per_s: None, ..plain(5, "a", MIB) }];
    view.take(Arc::new(snapshot(processes, off)));
    assert_snapshot!(screen(&view, 70, 6), @"
    |memtrace  1 process, RSS 1.0 MiB; freed, not reclaimed 0 B (0 walked) |
    |reclaimed/s is not counted: it needs root                             |
    |    PID  name                  RSS      ▾freed   reclaimed/s  faults/s|
    |      5  a                 1.0 MiB           –             –         0|
    |                                                                      |
    |q quit  ? help  Enter look  / filter  Space pause  1-4 sort  ↑↓ move  |
    ");
}

#[test]
fn nothing_moves_while_it_is_paused() {
    let mut view = machine();
    press(&mut view, KeyCode::Char(' '));
    view.take(Arc::new(snapshot(vec![], Counting::Starting)));
    assert_eq!(names(&view).len(), 4);
    assert!(view.wish().paused);
    assert!(screen(&view, 80, 10).starts_with("| paused "));
    press(&mut view, KeyCode::Char(' '));
    view.take(Arc::new(snapshot(vec![], Counting::Starting)));
    assert_eq!(names(&view), [""; 0]);
}
