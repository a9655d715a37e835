//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    page,
    view::{Page, Sort, Tab, View},
};

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Show the view again.
    Show,
    /// End.
    Quit,
    /// Stand in the background until the shell says so.
    Suspend,
}

/// Returns the keys that do something now and what they do, the most needed first.
pub(super) fn shown(view: &View) -> Vec<(&'static str, &'static str)> {
    let pause = if view.paused { "go on" } else { "pause" };
    if view.help {
        return vec![("q", "quit"), ("Esc", "back")];
    }
    if view.page.is_some() {
        return vec![
            ("q", "quit"),
            ("?", "help"),
            ("Esc", "list"),
            ("Tab", "next"),
            ("↑↓", "scroll"),
            ("Space", pause),
            ("w", "walk now"),
            ("1-5", "tab"),
        ];
    }
    vec![
        ("q", "quit"),
        ("?", "help"),
        ("Enter", "look"),
        ("/", "filter"),
        ("Space", pause),
        ("1-4", "sort"),
        ("↑↓", "move"),
        ("w", "walk now"),
    ]
}

impl View {
    /// Does what a key says.
    pub fn press(&mut self, key: KeyEvent) -> Step {
        if key.kind == KeyEventKind::Release {
            return Step::Show;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Step::Quit,
                KeyCode::Char('z') => Step::Suspend,
                _ => Step::Show,
            };
        }
        if self.typing {
            self.type_filter(key.code);
            return Step::Show;
        }
        match key.code {
            KeyCode::Char('q') => return Step::Quit,
            KeyCode::Char('?') | KeyCode::F(1) => self.help = !self.help,
            KeyCode::Esc if self.help => self.help = false,
            _ if self.help => {}
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('w') => self.asked += 1,
            code => match self.page.take() {
                Some(page) => self.page = self.press_on_page(page, code),
                None => self.press_in_list(code),
            },
        }
        Step::Show
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(c) if self.filter.chars().count() < MOST_FILTER => self.filter.push(c),
            _ => {}
        }
        self.selected = None;
    }

    fn press_in_list(&mut self, code: KeyCode) {
        let screen = i64::from(self.size.1.saturating_sub(5).max(1));
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-screen),
            KeyCode::PageDown => self.move_by(screen),
            KeyCode::Home | KeyCode::Char('g') => self.selected = None,
            KeyCode::End | KeyCode::Char('G') => self.move_by(i64::MAX),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('s') => {
                let at = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
                self.sort = Sort::ALL[(at + 1) % Sort::ALL.len()];
            }
            KeyCode::Char(digit @ '1'..='4') => {
                self.sort = Sort::ALL[digit as usize - '1' as usize];
            }
            KeyCode::Enter => {
                let listed = self.listed();
                let process = listed.get(self.selected_index(&listed)).copied().cloned();
                if let Some(process) = process {
                    self.selected = Some(process.id);
                    self.page = Some(Page { process, ..Page::default() });
                }
            }
            _ => {}
        }
    }

    fn move_by(&mut self, rows: i64) {
        let listed = self.listed();
        let at = self.selected_index(&listed) as i64;
        let last = listed.len().saturating_sub(1) as i64;
        let to = at.saturating_add(rows).clamp(0, last);
        self.selected = listed.get(to as usize).map(|process| process.id);
    }

    fn press_on_page(&self, mut page: Page, code: KeyCode) -> Option<Page> {
        let screen = usize::from(self.size.1.saturating_sub(6).max(1));
        let at = Tab::ALL.iter().position(|tab| *tab == page.tab).unwrap_or(0);
        let tab = match code {
            KeyCode::Tab | KeyCode::Right | KeyCode::Char('l') => Some(at + 1),
            KeyCode::BackTab | KeyCode::Left | KeyCode::Char('h') => Some(at + Tab::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='5') => Some(digit as usize - '1' as usize),
            _ => None,
        };
        if let Some(tab) = tab {
            page.tab = Tab::ALL[tab % Tab::ALL.len()];
            page.scroll = 0;
        }
        match code {
            KeyCode::Esc | KeyCode::Backspace => return None,
            KeyCode::Up | KeyCode::Char('k') => page.scroll = page.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => page.scroll += 1,
            KeyCode::PageUp => page.scroll = page.scroll.saturating_sub(screen),
            KeyCode::PageDown => page.scroll += screen,
            KeyCode::Home | KeyCode::Char('g') => page.scroll = 0,
            KeyCode::End | KeyCode::Char('G') => page.scroll = usize::MAX,
            _ => {}
        }
        page.scroll = page.scroll.min(page::last_scroll(self, &page, self.size));
        Some(page)
    }
}

/// Characters of a filter.
const MOST_FILTER: usize = 64;
