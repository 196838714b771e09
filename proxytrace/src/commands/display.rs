//! Records on standard output, as `trace` and `replay` show them, and the summary that ends both.

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
};

use jiff::tz::TimeZone;

use super::options::Show;
use crate::{
    exit::Failure,
    model::{Filter, Finding, Record},
    output::{ActiveFindings, Colour, Human, Printer},
};

/// Where records go.
pub(super) struct Display {
    filter: Filter,
    printer: Printer,
    findings: ActiveFindings,
    is_quiet: bool,
    fails_on_finding: bool,
}

impl Display {
    /// As the options ask for.
    pub(super) fn new(show: &Show, is_quiet: bool) -> Self {
        let printer = match show.json {
            true => Printer::Json,
            false => Printer::Human(Human::new(stdout_colour(), TimeZone::system())),
        };
        Self {
            filter: show.filter(),
            printer,
            findings: ActiveFindings::default(),
            is_quiet,
            fails_on_finding: show.fail_on_finding,
        }
    }

    /// Writes what stands above all records.
    pub(super) fn begin(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(self.printer.title().as_bytes())
    }

    /// Writes a record; gives whether there was something to write.
    pub(super) fn show(&mut self, out: &mut impl Write, record: &Record) -> io::Result<bool> {
        self.findings.note(&record.body);
        if !self.filter.passes(&record.body) {
            return Ok(false);
        }
        let Some(line) = self.printer.line(record)? else { return Ok(false) };
        out.write_all(line.as_bytes())?;
        Ok(true)
    }

    /// Takes the findings that stand with newer evidence than when they were raised.
    pub(super) fn renew<'a>(&mut self, active: impl Iterator<Item = &'a Finding>) {
        self.findings.renew(active);
    }

    /// Writes the summary, and below it what was found. Where standard output is for programs, people read it on standard error.
    pub(super) fn end(self, summary: impl Fn(Colour, &Filter) -> String) -> io::Result<ExitCode> {
        let zone = TimeZone::system();
        let text =
            |colour| summary(colour, &self.filter) + &self.findings.summary(colour, &zone, &self.filter);
        match self.printer {
            Printer::Human(_) => write!(io::stdout(), "\n{}", text(stdout_colour()))?,
            Printer::Json if !self.is_quiet => write!(io::stderr(), "{}", text(Colour::Off))?,
            Printer::Json => {}
        }
        let is_failure = self.fails_on_finding && self.findings.were_raised();
        Ok(if is_failure { Failure::Failed.into() } else { ExitCode::SUCCESS })
    }
}

/// What is right for this process's standard output.
pub(super) fn stdout_colour() -> Colour {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if is_wanted && io::stdout().is_terminal() { Colour::On } else { Colour::Off }
}
