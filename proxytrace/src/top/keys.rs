//! What keys do.

use super::{List, RowKey, Sort, Top};

/// A key, as far as any means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Char(char),
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// To the first.
    Home,
    /// To the last.
    End,
    /// Return.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
}

/// What whoever reads keys is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Draw.
    Draw,
    /// Draw, and ask for the details of what is looked at.
    Ask,
    /// End.
    Quit,
}

/// The keys, for whoever asks.
pub(super) const HELP: &[(&str, &str)] = &[
    ("up, down, k, j", "select a row; page up and down, home (g), end (G)"),
    ("enter", "look into the upstream: addresses, routes, the last hour, records"),
    ("esc", "back; clear the filter"),
    ("/", "show only rows with this in a name, an address or the state"),
    ("s, S", "sort by what comes next: trouble, rate, failures, waiting, p99, name"),
    ("a", "a row for each address, or for each upstream"),
    ("space, p", "pause, and go on"),
    ("?, h", "this help"),
    ("q, ctrl-c", "end"),
];

impl Top {
    /// Does what a key means now.
    pub fn press(&mut self, key: Key) -> Reaction {
        if self.is_filtering.is_some() {
            self.edit_filter(key);
            return Reaction::Draw;
        }
        if std::mem::take(&mut self.has_help) {
            return if key == Key::Char('q') { Reaction::Quit } else { Reaction::Draw };
        }
        match key {
            Key::Char('q') => return Reaction::Quit,
            Key::Char('?' | 'h') => self.has_help = true,
            Key::Char(' ' | 'p') => self.pause(),
            _ if self.looked_at.is_some() => self.look(key),
            key => return self.walk(key),
        }
        Reaction::Draw
    }

    /// In the table.
    fn walk(&mut self, key: Key) -> Reaction {
        match key {
            Key::Up | Key::Char('k') => self.select(|place, _| place.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(|place, _| place + 1),
            Key::PageUp => self.select(usize::saturating_sub),
            Key::PageDown => self.select(|place, room| place + room),
            Key::Home | Key::Char('g') => self.select(|_, _| 0),
            Key::End | Key::Char('G') => self.select(|_, _| usize::MAX),
            Key::Enter => {
                if let Some(RowKey { proxy, upstream, .. }) = self.selected.clone() {
                    (self.looked_at, self.details, self.scrolled) = (Some((proxy, upstream)), None, 0);
                    return Reaction::Ask;
                }
            }
            Key::Escape => {
                self.filter.clear();
                self.arrange();
            }
            Key::Char('/') => self.is_filtering = Some(self.filter.clone()),
            Key::Char('s') => self.sort_by(1),
            Key::Char('S') => self.sort_by(Sort::ALL.len() - 1),
            Key::Char('a') => {
                self.list = match self.list {
                    List::Upstreams => List::Addresses,
                    List::Addresses => List::Upstreams,
                };
                self.selected = None;
                self.arrange();
            }
            _ => {}
        }
        Reaction::Draw
    }

    /// In the details of an upstream.
    fn look(&mut self, key: Key) {
        let page = self.room.saturating_sub(1).max(1);
        let to = match key {
            Key::Escape | Key::Backspace => {
                (self.looked_at, self.details) = (None, None);
                return;
            }
            Key::Up | Key::Char('k') => self.scrolled.saturating_sub(1),
            Key::Down | Key::Char('j') => self.scrolled + 1,
            Key::PageUp => self.scrolled.saturating_sub(page),
            Key::PageDown => self.scrolled + page,
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => self.scrollable,
            _ => return,
        };
        self.scrolled = to.min(self.scrollable);
    }

    fn select(&mut self, to: impl Fn(usize, usize) -> usize) {
        let place = to(self.place(), self.room.max(1)).min(self.rows.len().saturating_sub(1));
        self.selected = self.rows.get(place).map(|row| row.key.clone());
    }

    fn sort_by(&mut self, steps: usize) {
        let now = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or(0);
        self.sort = Sort::ALL[(now + steps) % Sort::ALL.len()];
        (self.selected, self.offset) = (None, 0);
        self.arrange();
    }

    fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if let Some(waiting) = self.waiting.take() {
            self.show(waiting);
        }
    }

    fn edit_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.is_filtering = None,
            Key::Escape => self.filter = self.is_filtering.take().unwrap_or_default(),
            Key::Backspace => drop(self.filter.pop()),
            Key::Char(c) => self.filter.push(c),
            _ => return,
        }
        self.arrange();
    }
}
