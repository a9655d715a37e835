//! Any size of terminal, and colours.

use insta::assert_snapshot;
use ratatui::style::{Color, Modifier};

use super::*;

#[test]
fn a_tiny_terminal_shows_what_fits() {
    assert_snapshot!(screen(&machine(), 38, 4), @"
    |    PID  name                   ▾freed|
    |   4242  python3             134.0 MiB|
    |     77  gopher               60.0 MiB|
    |q quit  ? help  Enter look  / filter  |
    ");
}

#[test]
fn no_size_is_too_small_or_too_large() {
    let mut view = machine();
    for on_page in [false, true] {
        if on_page {
            press(&mut view, KeyCode::Enter);
        }
        for key in ['1', '2', '3', '4', '5', '?'] {
            press(&mut view, KeyCode::Char(key));
            for width in [1, 2, 7, 20, 79, 500] {
                for height in [1, 2, 3, 5, 25, 200] {
                    buffer(&view, width, height);
                }
            }
        }
        press(&mut view, KeyCode::Esc);
    }
}

#[test]
fn the_help_fits_80_columns() {
    let mut view = machine();
    press(&mut view, KeyCode::Char('?'));
    let shown = screen(&view, 80, 24);
    assert!(shown.lines().all(|line| line.ends_with(" |")), "{shown}");
    assert!(shown.contains("░ swapped"), "{shown}");
}

/// The sixteen colours of the terminal, on its own background.
#[test]
fn colours_are_the_terminals_own() {
    let mut view = machine();
    view.color = true;
    let own = [Color::Reset, Color::Yellow, Color::Red, Color::Cyan];
    let mut used = vec![];
    for key in [KeyCode::Home, KeyCode::Enter, KeyCode::Char('2')] {
        press(&mut view, key);
        for cell in buffer(&view, 100, 40).content {
            assert_eq!(cell.bg, Color::Reset);
            assert!(own.contains(&cell.fg), "{:?}", cell.fg);
            used.push(cell.fg);
        }
    }
    assert!(own.iter().all(|color| used.contains(color)));
}

#[test]
fn without_colours_the_same_is_seen() {
    let (mut view, mut colored) = (machine(), machine());
    colored.color = true;
    for key in [KeyCode::Home, KeyCode::Enter, KeyCode::Char('2')] {
        press(&mut view, key);
        press(&mut colored, key);
        assert_eq!(screen(&view, 100, 40), screen(&colored, 100, 40));
        let buffer = buffer(&view, 100, 40);
        assert!(buffer.content.iter().all(|cell| cell.fg == Color::Reset));
    }
    // What is pointed at is still told apart.
    let buffer = buffer(&machine(), 80, 10);
    assert!(buffer[(0, 3)].modifier.contains(Modifier::REVERSED));
    assert!(!buffer[(0, 4)].modifier.contains(Modifier::REVERSED));
}
