//! Records as lines: for people or for programs.

use std::io::{self, Write};

use super::Human;
use crate::{escape, model::Record};

/// How records are written.
pub enum Printer {
    /// For people.
    Human(Human),
    /// For programs: an object a line.
    Json,
}

impl Printer {
    /// Writes what stands above all records.
    ///
    /// # Errors
    /// `out` took no more.
    pub fn begin(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Human(human) => writeln!(out, "{}", human.title()),
            Self::Json => Ok(()),
        }
    }

    /// Writes a record; gives whether there was something to write.
    ///
    /// # Errors
    /// `out` took no more.
    pub fn print(&mut self, out: &mut impl Write, record: &Record) -> io::Result<bool> {
        match self {
            Self::Human(human) => match human.line(record) {
                Some(line) => writeln!(out, "{line}")?,
                None => return Ok(false),
            },
            Self::Json => write_json(out, record)?,
        }
        Ok(true)
    }
}

/// Writes a record as a line of JSON.
///
/// # Errors
/// `out` took no more.
pub fn write_json(out: &mut impl Write, record: &Record) -> io::Result<()> {
    let line = serde_json::to_string(record).map_err(io::Error::from)?;
    // A line of JSON is read on terminals as well.
    out.write_all(escape::json(&line).as_bytes())?;
    out.write_all(b"\n")
}
