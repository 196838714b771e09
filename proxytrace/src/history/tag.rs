//! Lines with what they are, as they stand in a file.

use std::sync::Arc;

/// A line of JSON with its end.
pub type Line = Arc<str>;

/// What a line is: its first character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// The beginning of a file.
    Begin = b'B',
    /// The end of what is kept longest, taken over from another file.
    Whole = b'W',
    /// A record that is kept longest.
    First = b'F',
    /// Another record.
    Repeat = b'R',
    /// What was counted of an upstream in a minute.
    Minute = b'M',
    /// What stands.
    Standing = b'S',
}

impl Tag {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Begin, Self::Whole, Self::First, Self::Repeat, Self::Minute, Self::Standing];
}

/// A line with its tag.
pub type Tagged = (Tag, Line);

/// The first of these lines, of about `bytes` in all.
pub fn first(lines: impl Iterator<Item = Line>, bytes: usize) -> Vec<Line> {
    let mut size = 0;
    let fits = |line: &Line| {
        size += line.len();
        size <= bytes
    };
    lines.take_while(fits).collect()
}
