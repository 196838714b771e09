//! How records, summaries and diagnoses look: for people and for programs.

mod diagnosis;
mod found;
mod human;
mod printer;
mod summary;
mod words;

pub use diagnosis::diagnosis;
pub use found::Found;
pub use human::Human;
pub use printer::{Printer, write_json};
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
    /// What is right for this process's standard output.
    #[must_use]
    pub fn of_stdout() -> Self {
        use std::io::IsTerminal as _;
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if is_wanted && std::io::stdout().is_terminal() { Self::On } else { Self::Off }
    }

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
