//! Records as lines: for people or for programs.

use super::Human;
use crate::model::Remembered;

/// How records are written.
pub enum Printer {
    /// For people.
    Human(Human),
    /// For programs: an object a line.
    Json,
}

impl Printer {
    /// What stands above all records.
    pub fn title(&mut self) -> String {
        match self {
            Self::Human(human) => human.title() + "\n",
            Self::Json => String::new(),
        }
    }

    /// The line of a record with its end; `None` for one that people need not see.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn line(&mut self, record: &Remembered) -> serde_json::Result<Option<String>> {
        match self {
            Self::Human(human) => Ok(human.line(record).map(|line| line + "\n")),
            Self::Json => record.json_line().map(Some),
        }
    }
}
