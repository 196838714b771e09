//! Lines in columns, as wide as the terminal is: what does not fit goes onto lines below, and a long cell moves no other line.

use std::fmt::Write as _;

pub use textwrap::core::display_width;

use super::{Colour, Paint, Screen};
use crate::width::Width;

/// From this width on two blanks stand between two cells, below it one.
const ROOMY: usize = 100;

/// A column: what most of its cells need, and up to where longer ones widen it where lines have no end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) width: usize,
    pub(super) widest: usize,
    /// Numbers are aligned to the right.
    pub(super) is_number: bool,
}

/// What stands in a column.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) text: &'a str,
    pub(super) paint: Option<Paint>,
}

/// Columns, and behind them words.
pub(super) struct Columns<const N: usize> {
    columns: [Column; N],
    screen: Screen,
}

impl<const N: usize> Columns<N> {
    pub(super) const fn new(columns: [Column; N], screen: Screen) -> Self {
        Self { columns, screen }
    }

    /// The line, or lines, of `cells` and `words`; without an end.
    ///
    /// A cell begins where its column does; behind longer ones than usual, later. The last cell stands before the words where
    /// it does not fit behind the others.
    pub(super) fn line(&mut self, cells: &[Cell<'_>; N], words: &str) -> String {
        let Self { columns, screen: Screen { colour, width: room } } = self;
        let gap = if room.has_room_for(ROOMY) { 2 } else { 1 };
        let indent = columns[0].width + gap;
        let mut line = Line::default();
        let mut begin = 0;
        let mut below = String::new();
        for (place, (column, cell)) in columns.iter_mut().zip(cells).enumerate() {
            let width = display_width(cell.text);
            if *room == Width::Endless {
                column.width = column.width.max(width.min(column.widest));
            }
            let end = begin + column.width;
            let free = if column.is_number { end.saturating_sub(width) } else { begin };
            let start = free.max(line.behind(gap));
            begin = end + gap;
            if room.has_room_for(start + width) {
                line.put(start, cell, width, *colour);
            } else if place + 1 == N {
                below = format!("{}: ", cell.text);
            } else {
                line.begin_another();
                line.put(indent, cell, width, *colour);
            }
        }
        let start = begin.max(line.behind(gap));
        if below.is_empty() && room.has_room_for(start + display_width(words)) {
            line.put(start, &Cell { text: words, paint: None }, 0, *colour);
        } else {
            let below = below + words;
            line.begin_another();
            line.text += &room.wrapped(below.trim_end_matches([':', ' ']), indent, indent);
        }
        line.text
    }
}

/// A table whose numbers stand below their titles, whatever names and addresses are: what follows a cell that is longer than its
/// column stands on the line below, where lines have an end.
pub(super) struct Grid<'a> {
    pub(super) columns: &'a [Column],
    /// Blanks before the first column, and between two.
    pub(super) indent: usize,
    pub(super) gap: usize,
    pub(super) width: Width,
}

/// Blanks before what stands below a row.
pub(super) const BELOW: usize = 4;

impl Grid<'_> {
    /// The line, or lines, of a row with words behind it; without an end.
    pub(super) fn row(&self, cells: &[&str], words: &str) -> String {
        let mut line = Line::default();
        let mut begin = self.indent;
        for (column, text) in self.columns.iter().zip(cells) {
            let width = display_width(text);
            let free = begin + if column.is_number { column.width.saturating_sub(width) } else { 0 };
            if line.at > 0 && line.at + self.gap > free && self.width != Width::Endless {
                line.begin_another();
            }
            let start = free.max(line.behind(self.gap));
            begin += column.width + self.gap;
            let cell = Cell { text, paint: None };
            if self.width.has_room_for(start + width) {
                line.put(start, &cell, width, Colour::Off);
            } else {
                // Nothing is behind what takes more than a line.
                if line.at > 0 {
                    line.begin_another();
                }
                line.text += &self.width.wrapped(text, self.indent, BELOW);
                line.at = self.width.end().unwrap_or(0);
            }
        }
        if words.is_empty() {
            return line.text;
        }
        let start = (begin + 2 - self.gap).max(line.behind(2));
        if self.width.has_room_for(start + display_width(words)) {
            line.put(start, &Cell { text: words, paint: None }, 0, Colour::Off);
        } else {
            line.begin_another();
            line.text += &self.width.wrapped(words, BELOW, BELOW);
        }
        line.text
    }
}

/// What is written of a line.
#[derive(Default)]
struct Line {
    text: String,
    /// Columns of the last line.
    at: usize,
}

impl Line {
    fn behind(&self, gap: usize) -> usize {
        if self.at == 0 { 0 } else { self.at + gap }
    }

    /// Writes a cell at column `start`, which is not before what is written.
    fn put(&mut self, start: usize, cell: &Cell<'_>, width: usize, colour: Colour) {
        if cell.text.is_empty() {
            return;
        }
        let blanks = start.saturating_sub(self.at);
        let _ = write!(self.text, "{:blanks$}", "");
        match cell.paint {
            Some(paint) => self.text.push_str(&colour.paint(paint, cell.text)),
            None => self.text.push_str(cell.text),
        }
        self.at = start + width;
    }

    fn begin_another(&mut self) {
        self.text.push('\n');
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, Grid};
    use crate::width::Width;

    #[test]
    fn numbers_stand_below_their_titles_whatever_names_are() {
        let name = Column { width: 6, widest: 6, is_number: false };
        let columns = [name, Column { width: 5, is_number: true, ..name }];
        let row = |width, cells: [&str; 2], words: &str| {
            Grid { columns: &columns, indent: 2, gap: 1, width }.row(&cells, words)
        };
        let narrow = Width::Columns(60);
        assert_eq!(row(narrow, ["NAME", "COUNT"], "WHY"), "  NAME   COUNT  WHY");
        assert_eq!(row(narrow, ["字字", "12"], ""), "  字字      12");
        assert_eq!(row(narrow, ["a longer name", "12"], "why"), "  a longer name\n            12  why");
        assert_eq!(row(Width::Endless, ["a longer name", "12"], "why"), "  a longer name 12  why");
        let (name, words) = (["name"; 20].join("-"), ["why"; 20].join(" "));
        for text in [row(narrow, [&name, "12"], &words), row(narrow, ["字", "12"], &words)] {
            assert!(text.contains(" 12\n    why why"), "{text}");
            assert!(text.lines().all(|line| super::display_width(line) <= 60), "{text}");
        }
    }
}
