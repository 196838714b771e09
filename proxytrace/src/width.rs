//! How wide lines may be, and text in lines that fit.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm, core::display_width};

/// Lines are not broken to fit less: a terminal that is narrower breaks them itself, in columns.
const NARROWEST: u16 = 60;

/// How wide lines may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// A line for each record: for files, pipes and `less -S`.
    Endless,
    /// In columns of a terminal.
    Columns(u16),
}

impl Width {
    /// The last column.
    pub(crate) fn end(self) -> Option<usize> {
        match self {
            Self::Endless => None,
            Self::Columns(columns) => Some(columns.max(NARROWEST).into()),
        }
    }

    /// Whether a line of `needed` columns has room.
    pub(crate) fn has_room_for(self, needed: usize) -> bool {
        self.end().is_none_or(|end| needed <= end)
    }

    /// Text with `first` blanks in front, broken between words; further lines have `others` in front.
    pub(crate) fn wrapped(self, text: &str, first: usize, others: usize) -> String {
        match self.end() {
            Some(end) => filled(text, end, first, others),
            None => " ".repeat(first) + text,
        }
    }
}

/// The text in lines of at most `width` columns of a terminal, broken between words; a word that is longer is broken as well. All but
/// the first begin with `indent` blanks, for which the first has room.
pub(crate) fn wrapped(text: &str, width: usize, indent: usize) -> String {
    filled(text, width, indent, indent).split_off(indent)
}

/// The same with `first` blanks before the first line, and `others` before all others.
pub(crate) fn filled(text: &str, width: usize, first: usize, others: usize) -> String {
    let (first, others) = (" ".repeat(first), " ".repeat(others));
    if text.is_empty() {
        return first;
    }
    let options = Options::new(width)
        .initial_indent(&first)
        .subsequent_indent(&others)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::fill(text, options)
}

/// The text cut to `width` columns of a terminal.
#[must_use]
pub fn fit(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    for c in text.chars() {
        if display_width(&shown) + display_width(c.encode_utf8(&mut [0; 4])) >= width {
            break;
        }
        shown.push(c);
    }
    if width > 0 { shown + "…" } else { shown }
}

/// The same of a text whose end tells more than its beginning.
#[must_use]
pub fn fit_end(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let mut shown = String::new();
    for c in text.chars().rev() {
        if display_width(&shown) + display_width(c.encode_utf8(&mut [0; 4])) >= width {
            break;
        }
        shown.insert(0, c);
    }
    if width > 0 { format!("…{shown}") } else { shown }
}

/// The text with blanks behind it, up to `width` columns of a terminal.
pub(crate) fn padded(text: &str, width: usize) -> String {
    text.to_owned() + &" ".repeat(width.saturating_sub(display_width(text)))
}

/// Words behind a name, which has `first` columns.
#[must_use]
pub fn columned(name: &str, words: &str, first: usize, width: usize) -> String {
    let words = filled(words, width, first, first);
    padded(name, first) + words.get(first..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{columned, filled, fit, fit_end, padded, wrapped};

    #[test]
    fn lines_end_between_words() {
        assert_eq!(wrapped("one two three", 9, 2), "one two\n  three");
        assert_eq!(wrapped("abcdefghijkl m", 9, 2), "abcdefg\n  hijkl m");
        assert_eq!(filled("one two three", 9, 0, 2), "one two\n  three");
        assert_eq!(wrapped("", 9, 2), "");
    }

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(
            [fit("backend", 7), fit("backends", 7), fit("字字字", 5), fit("a", 0)],
            ["backend", "backen…", "字字…", ""]
        );
        assert_eq!(
            [fit_end("backend", 7), fit_end("a/backend", 7), fit_end("字字字", 5), fit_end("a", 0)],
            ["backend", "…ackend", "…字字", ""]
        );
        assert_eq!([padded("字", 4), padded("long", 2)], ["字  ", "long"]);
        assert_eq!(columned("q", "one two", 4, 9), "q   one\n    two");
    }
}
