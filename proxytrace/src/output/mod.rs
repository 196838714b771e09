//! Records, summaries and diagnoses as text: for people and for programs.

mod active_findings;
mod diagnosis;
mod human;
mod printer;
mod summary;
mod words;

pub use active_findings::ActiveFindings;
pub use diagnosis::diagnosis;
pub use human::Human;
pub use printer::Printer;
pub use summary::{summary, summary_of_records};

/// Whether escape codes for colour are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// To a terminal.
    On,
    /// To anything else, or where NO_COLOR is set.
    Off,
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
