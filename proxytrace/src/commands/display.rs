//! Records on standard output, as `trace` and `replay` show them, and the summary that ends both.

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
};

use jiff::{Timestamp, tz::TimeZone};

use super::options::Show;
use crate::{
    exit::Failure,
    model::{Filter, Finding, Record, Remembered},
    output::{ActiveFindings, Colour, Fold, Human, Look, Printer, Screen, Width},
};

/// Where records go.
pub(super) struct Display {
    filter: Filter,
    printer: Printer,
    /// Where repeated lines are folded.
    fold: Option<Fold>,
    findings: ActiveFindings,
    /// Whether the last line was about what was before.
    is_past: bool,
    is_quiet: bool,
    fails_on_finding: bool,
}

impl Display {
    /// As the options ask for.
    pub(super) fn new(show: &Show, is_quiet: bool) -> Self {
        let printer = match show.json {
            true => Printer::Json,
            false => Printer::Human(Human::new(Look {
                screen: screen(),
                zone: TimeZone::system(),
                date: show.date,
            })),
        };
        let is_folded = !show.json && !show.no_fold && io::stdout().is_terminal();
        Self {
            filter: show.filter(),
            printer,
            fold: is_folded.then(Fold::default),
            findings: ActiveFindings::default(),
            is_past: false,
            is_quiet,
            fails_on_finding: show.fail_on_finding,
        }
    }

    /// Writes what stands above all records.
    pub(super) fn begin(&mut self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(self.printer.title().as_bytes())
    }

    /// Writes a record, or keeps it for a line with others like it; gives whether it is one that is shown.
    pub(super) fn show(&mut self, out: &mut impl Write, record: &Record) -> io::Result<bool> {
        self.findings.note(&record.body);
        if !self.filter.passes(&record.body) {
            return Ok(false);
        }
        if std::mem::take(&mut self.is_past) {
            self.rule(out, "now")?;
        }
        match &mut self.fold {
            None => self.write(out, &Remembered::once(record.clone())),
            Some(fold) => {
                let shown = fold.take(record);
                self.write_all(out, &shown)
            }
        }
    }

    /// The same of one that can stand for several.
    pub(super) fn show_remembered(
        &mut self,
        out: &mut impl Write,
        remembered: &Remembered,
    ) -> io::Result<bool> {
        if remembered.times == 1 {
            return self.show(out, &remembered.record);
        }
        if !self.filter.passes(&remembered.record.body) {
            return Ok(false);
        }
        if std::mem::take(&mut self.is_past) {
            self.rule(out, "now")?;
        }
        // What is gathered was earlier.
        let gathered = self.fold.as_mut().map(Fold::finish).unwrap_or_default();
        self.write_all(out, &gathered)?;
        self.write(out, remembered)
    }

    /// Writes what has happened before, of which several can be one.
    /// Whether its findings stand is known already.
    pub(super) fn show_past(&mut self, out: &mut impl Write, past: &Remembered) -> io::Result<bool> {
        if !self.filter.passes(&past.record.body) {
            return Ok(false);
        }
        self.rule_of_past(out)?;
        self.write(out, past)
    }

    /// A line above the first that is about what was before.
    fn rule_of_past(&mut self, out: &mut impl Write) -> io::Result<()> {
        match std::mem::replace(&mut self.is_past, true) {
            true => Ok(()),
            false => self.rule(out, "before this command, as the agent remembers it"),
        }
    }

    /// Shows, to people, that an agent began then: what happened while none ran is missing.
    pub(super) fn begun(&mut self, out: &mut impl Write, time: Timestamp, is_past: bool) -> io::Result<()> {
        if is_past {
            self.rule_of_past(out)?;
        }
        let Printer::Human(human) = &self.printer else { return Ok(()) };
        let words =
            format!("{} an agent began: what happened before while none ran is not known", human.time(time));
        self.rule(out, &words)
    }

    /// Shows what is wrong already.
    pub(super) fn stand<'a>(
        &mut self,
        out: &mut impl Write,
        active: impl Iterator<Item = &'a Finding>,
    ) -> io::Result<()> {
        self.findings.stand(active);
        if let Printer::Human(_) = self.printer {
            out.write_all(self.findings.summary(screen(), &TimeZone::system(), &self.filter).as_bytes())?;
        }
        Ok(())
    }

    /// A line between others, for people.
    fn rule(&self, out: &mut impl Write, words: &str) -> io::Result<()> {
        match self.printer {
            Printer::Human(_) => writeln!(out, "-- {words} --"),
            Printer::Json => Ok(()),
        }
    }

    /// Writes the lines whose repetitions have been gathered for long enough.
    pub(super) fn show_repeated(&mut self, out: &mut impl Write) -> io::Result<()> {
        let due = self.fold.as_mut().map(|fold| fold.due(Timestamp::now())).unwrap_or_default();
        self.write_all(out, &due).map(drop)
    }

    /// Gives whether there was a line for the last one; what is kept for later has one.
    fn write_all(&mut self, out: &mut impl Write, records: &[Remembered]) -> io::Result<bool> {
        records.iter().try_fold(true, |_, record| self.write(out, record))
    }

    fn write(&mut self, out: &mut impl Write, record: &Remembered) -> io::Result<bool> {
        let Some(line) = self.printer.line(record)? else { return Ok(false) };
        out.write_all(line.as_bytes())?;
        Ok(true)
    }

    /// Takes the findings that stand with newer evidence than when they were raised.
    pub(super) fn renew<'a>(&mut self, active: impl Iterator<Item = &'a Finding>) {
        self.findings.renew(active);
    }

    /// Writes the summary, and below it what was found. Where standard output is for programs, people read it on standard error.
    pub(super) fn end(mut self, summary: impl Fn(Screen, &Filter) -> String) -> io::Result<ExitCode> {
        let repeated = self.fold.as_mut().map(Fold::finish).unwrap_or_default();
        self.write_all(&mut io::stdout().lock(), &repeated)?;
        let zone = TimeZone::system();
        let text =
            |screen| summary(screen, &self.filter) + &self.findings.summary(screen, &zone, &self.filter);
        match self.printer {
            Printer::Human(_) => write!(io::stdout(), "\n{}", text(screen()))?,
            Printer::Json if !self.is_quiet => write!(io::stderr(), "{}", text(Screen::PLAIN))?,
            Printer::Json => {}
        }
        let is_failure = self.fails_on_finding && self.findings.were_raised();
        Ok(if is_failure { Failure::Failed.into() } else { ExitCode::SUCCESS })
    }
}

/// As wide as the terminal is; whatever else reads a line gets it as one.
pub(super) fn screen() -> Screen {
    let size = terminal_size::terminal_size_of(io::stdout());
    let width = size.map_or(Width::Endless, |(terminal_size::Width(columns), _)| Width::Columns(columns));
    Screen { colour: stdout_colour(), width }
}

/// What is right for this process's standard output.
pub(super) fn stdout_colour() -> Colour {
    let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if is_wanted && io::stdout().is_terminal() { Colour::On } else { Colour::Off }
}
