//! The page of a process.

use insta::assert_snapshot;

use super::*;

fn opened() -> View {
    let mut view = machine();
    press(&mut view, KeyCode::Enter);
    view
}

#[test]
fn the_overview_has_it_all_in_short() {
    assert_snapshot!(screen(&opened(), 80, 24), @"
    |python3 (pid 4242) is running: 148.0 MiB are resident now, 134.0 MiB of them    |
    |    freed by the program but not reclaimed; a trim would give 130.0 MiB back    |
    |  RSS 148.0 MiB; 300.0 KiB reclaimed/s; 120 faults/s; walked 2 s ago in 12.3 ms |
    |  1 overview  2 regions  3 left by  4 allocators  5 findings                    |
    |148.0 MiB ┤        ██████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓|
    |          │        ██████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓|
    |          │        ██████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓|
    |          │        ██████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓|
    |          │        ██████████████████████████████████████████████████████████▓▓▓|
    |          │        ██████████████████████████████████████████████████████████▓▓▓|
    |          │        ██████████████████████████████████████████████████████████▓▓▓|
    |        0 ┤        █████████████████████████████████████████████████████████████|
    |           69 s ago                                                          now|
    |  █ live  ▓ free  ▒ lazy free                                                   |
    |                                                                                |
    |  pinned_top: 130.0 MiB – something in use lies above free memory of the heap   |
    |    (130.0 MiB trimmable below the top of the main arena)                       |
    |    try: malloc_trim(0) after the peak                                          |
    |                                                                                |
    |  memory now                                                                    |
    |    mapped                168.0 MiB                                             |
    |    resident              148.0 MiB  anon 144.0 MiB, file 4.0 MiB, shmem 0 B    |
    |  ↓ 22 more lines                                                               |
    |q quit  ? help  Esc list  Tab next  ↑↓ scroll  Space pause  w walk now  1-5 tab |
    ");
}

#[test]
fn a_tall_terminal_needs_no_scrolling() {
    assert_snapshot!(screen(&opened(), 100, 50), @"
    |python3 (pid 4242) is running: 148.0 MiB are resident now, 134.0 MiB of them freed by the program   |
    |    but not reclaimed; a trim would give 130.0 MiB back                                             |
    |  RSS 148.0 MiB; 300.0 KiB reclaimed/s; 120 faults/s; walked 2 s ago in 12.3 ms                     |
    |  1 overview  2 regions  3 left by  4 allocators  5 findings                                        |
    |148.0 MiB ┤                            ██████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓|
    |          │                            ██████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓|
    |          │                            ██████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓|
    |          │                            ██████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓|
    |          │                            ██████████████████████████████████████████████████████████▓▓▓|
    |          │                            ██████████████████████████████████████████████████████████▓▓▓|
    |          │                            ██████████████████████████████████████████████████████████▓▓▓|
    |        0 ┤                            █████████████████████████████████████████████████████████████|
    |           89 s ago                                                                              now|
    |  █ live  ▓ free  ▒ lazy free                                                                       |
    |                                                                                                    |
    |  pinned_top: 130.0 MiB – something in use lies above free memory of the heap (130.0 MiB trimmable  |
    |    below the top of the main arena)                                                                |
    |    try: malloc_trim(0) after the peak                                                              |
    |                                                                                                    |
    |  memory now                                                                                        |
    |    mapped                168.0 MiB                                                                 |
    |    resident              148.0 MiB  anon 144.0 MiB, file 4.0 MiB, shmem 0 B                        |
    |    live                   14.0 MiB                                                                 |
    |    freed, not reclaimed  134.0 MiB  allocator 134.0 MiB, lazy free 0 B                             |
    |    reserved               20.0 MiB                                                                 |
    |    swapped                     0 B                                                                 |
    |                                                                                                    |
    |  allocator     from kernel    in use       free   resident  trimmable                              |
    |    glibc 2.41    150.0 MiB  16.0 MiB  134.0 MiB  134.0 MiB  130.0 MiB                              |
    |    free     bins 134.0 MiB                                                                         |
    |    stays    after a trim: 4.0 MiB on pages that are partly in use                                  |
    |    2 arenas          from kernel       free   resident  trimmable  threads                         |
    |      0x7f12a0000c80     80.0 MiB  100.0 MiB  100.0 MiB  100.0 MiB        1                         |
    |      0x7f1298000030     80.0 MiB   34.0 MiB   34.0 MiB   34.0 MiB        1                         |
    |                                                                                                    |
    |  left by   operations   zapped    freed  late  kept elsewhere                                      |
    |    munmap          12  5.0 MiB  4.0 MiB   0 B         1.0 MiB                                      |
    |    all             12  5.0 MiB  4.0 MiB   0 B         1.0 MiB                                      |
    |                                                                                                    |
    |  region                              mapped    resident        free  name                          |
    |  0x556936cef000  █▓▓▓▓▓▓▓▓▓▓▓▓·   150.0 MiB   144.0 MiB   130.0 MiB  [heap]                        |
    |  0x7f12a0000000  ▓░░░░░░·······    64.0 MiB     4.0 MiB     4.0 MiB  anon                          |
    |  0x7f12b0000000  ███████·······     2.0 MiB     1.0 MiB         0 B  /usr/lib/libpython3.13.so.1.0 |
    |  █ live  ▓ free  ▒ lazy free  ░ swapped  · reserved                                                |
    |                                                                                                    |
    |                                                                                                    |
    |                                                                                                    |
    |                                                                                                    |
    |                                                                                                    |
    |q quit  ? help  Esc list  Tab next  ↑↓ scroll  Space pause  w walk now  1-5 tab                     |
    ");
}

#[test]
fn regions_are_strips() {
    let mut view = opened();
    press(&mut view, KeyCode::Char('2'));
    assert_snapshot!(screen(&view, 80, 10), @"
    |python3 (pid 4242) is running: 148.0 MiB are resident now, 134.0 MiB of them    |
    |    freed by the program but not reclaimed; a trim would give 130.0 MiB back    |
    |  RSS 148.0 MiB; 300.0 KiB reclaimed/s; 120 faults/s; walked 2 s ago in 12.3 ms |
    |  1 overview  2 regions  3 left by  4 allocators  5 findings                    |
    |  region                          mapped    resident        free  name          |
    |  0x556936cef000  █▓▓▓▓▓▓▓▓▓   150.0 MiB   144.0 MiB   130.0 MiB  [heap]        |
    |  0x7f12a0000000  ▓░░░░·····    64.0 MiB     4.0 MiB     4.0 MiB  anon          |
    |  0x7f12b0000000  █████·····     2.0 MiB     1.0 MiB         0 B  …on3.13.so.1.0|
    |  █ live  ▓ free  ▒ lazy free  ░ swapped  · reserved                            |
    |q quit  ? help  Esc list  Tab next  ↑↓ scroll  Space pause  w walk now  1-5 tab |
    ");
}

#[test]
fn the_other_tabs_follow_each_other() {
    let mut view = opened();
    let mut seen = vec![];
    for _ in Tab::ALL {
        seen.push(view.page.as_ref().map(|page| page.tab));
        press(&mut view, KeyCode::Tab);
    }
    assert_eq!(seen, Tab::ALL.map(Some));
    press(&mut view, KeyCode::Char('3'));
    assert_snapshot!(screen(&view, 80, 9), @"
    |python3 (pid 4242) is running: 148.0 MiB are resident now, 134.0 MiB of them    |
    |    freed by the program but not reclaimed; a trim would give 130.0 MiB back    |
    |  RSS 148.0 MiB; 300.0 KiB reclaimed/s; 120 faults/s; walked 2 s ago in 12.3 ms |
    |  1 overview  2 regions  3 left by  4 allocators  5 findings                    |
    |  left by   operations   zapped    freed  late  kept elsewhere                  |
    |    munmap          12  5.0 MiB  4.0 MiB   0 B         1.0 MiB                  |
    |    all             12  5.0 MiB  4.0 MiB   0 B         1.0 MiB                  |
    |                                                                                |
    |q quit  ? help  Esc list  Tab next  ↑↓ scroll  Space pause  w walk now  1-5 tab |
    ");
}

#[test]
fn scrolling_ends_at_the_last_line() {
    let mut view = opened();
    press(&mut view, KeyCode::End);
    let last = view.page.as_ref().map(|page| page.scroll);
    assert!(last.is_some_and(|last| last > 10 && last < 100), "{last:?}");
    press(&mut view, KeyCode::Down);
    assert_eq!(view.page.as_ref().map(|page| page.scroll), last);
    assert!(screen(&view, 80, 24).contains("reserved  "), "{}", screen(&view, 80, 24));
    press(&mut view, KeyCode::Home);
    assert_eq!(view.page.as_ref().map(|page| page.scroll), Some(0));
}

#[test]
fn what_ended_is_still_there_to_read() {
    let mut view = opened();
    view.take(Arc::new(snapshot(vec![go()], Counting::Starting)));
    let shown = screen(&view, 80, 24);
    assert!(shown.contains("python3 (pid 4242)"), "{shown}");
    assert!(shown.contains("it ended: this is what was known last"), "{shown}");
    press(&mut view, KeyCode::Esc);
    assert!(view.page.is_none());
}

#[test]
fn a_page_that_was_opened_while_paused_shows_that_moment() {
    let mut view = machine();
    press(&mut view, KeyCode::Char(' '));
    press(&mut view, KeyCode::Enter);
    view.take(Arc::new(snapshot(vec![plain(4242, "other", MIB)], Counting::Starting)));
    let shown = screen(&view, 80, 24);
    assert!(shown.contains("python3 (pid 4242)") && shown.contains(" paused "), "{shown}");
}

#[test]
fn a_process_that_cannot_be_walked_says_why() {
    let mut process = plain(9, "sshd", MIB);
    process.looked = Some(Looked {
        at_ns: NOW - SECOND,
        why_not: Some("it cannot be looked at: Permission denied (os error 13)".into()),
        ..Looked::default()
    });
    let mut view = view(vec![process]);
    press(&mut view, KeyCode::Enter);
    assert_snapshot!(screen(&view, 80, 8), @"
    |sshd (pid 9): 1.0 MiB are resident now                                          |
    |  RSS 1.0 MiB; 0 B reclaimed/s; 0 faults/s; not walked                          |
    |  1 overview  2 regions  3 left by  4 allocators  5 findings                    |
    |  it cannot be looked at: Permission denied (os error 13)                       |
    |  nothing was counted of it yet                                                 |
    |                                                                                |
    |                                                                                |
    |q quit  ? help  Esc list  Tab next  ↑↓ scroll  Space pause  w walk now  1-5 tab |
    ");
}
