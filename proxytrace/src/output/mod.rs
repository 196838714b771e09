//! Records, summaries and diagnoses as text: for people and for programs.

mod active_findings;
mod columns;
mod detail;
mod diagnosis;
mod fold;
mod human;
mod overview;
mod printer;
mod summary;
mod together;
mod words;

pub use crate::width::{Width, columned, fit, fit_end};
pub use active_findings::ActiveFindings;
pub use columns::display_width;
pub use detail::{Detail, detail};
pub use diagnosis::diagnosis;
pub use fold::Fold;
pub use human::{Human, Look, duration};
pub use overview::{Layout, causes, clock, headline, overview, proxy_line, rate, sentence_of_all, sides};
pub use printer::Printer;
pub use summary::{summary, summary_of_counts, summary_of_records};
pub use together::{Together, together};

/// Whether escape codes for colour are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// To a terminal.
    On,
    /// To anything else, or where NO_COLOR is set.
    Off,
}

/// What lines are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Whether there is colour.
    pub colour: Colour,
    /// How wide lines may be.
    pub width: Width,
}

impl Screen {
    /// A file or a pipe.
    pub const PLAIN: Self = Self { colour: Colour::Off, width: Width::Endless };
}

impl Colour {
    fn paint(self, paint: Paint, text: &str) -> String {
        match self {
            Self::On => format!("\x1b[{}m{text}\x1b[0m", paint as u8),
            Self::Off => text.to_owned(),
        }
    }
}

/// Select Graphic Rendition codes (ECMA-48).
#[derive(Clone, Copy)]
enum Paint {
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
}
