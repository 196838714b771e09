//! `proxytrace replay`: recordings, through the same display as `trace`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    mem,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    cli::Show,
    findings::Replayed,
    model::{Filter, Key, Record, Tally},
    output::{Colour, Found, Printer, summary_of_records},
    recording::{Damage, Reader},
};

/// Options of `proxytrace replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recordings, in the order of their times: FILE.1 before FILE; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    show: Show,
}

/// Recordings that were not read to their end.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\nproxytrace: "))]
pub struct Unreadable(Vec<String>);

/// Shows what is in the recordings, each up to its end or to where it is damaged.
///
/// # Errors
/// Standard output is gone; or, after all was shown, that some recordings could not be read or are damaged.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<ExitCode> {
    let Args { files, show } = args;
    let mut replay = Replay {
        filter: show.filter(),
        printer: show.printer(),
        tally: Tally::default(),
        findings: Replayed::default(),
        found: Found::default(),
    };
    let mut troubles = Vec::new();
    let mut has_begun = false;
    for file in files {
        let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
        match open(file) {
            Ok(input) => {
                if !mem::replace(&mut has_begun, true) {
                    replay.printer.begin(&mut io::stdout().lock())?;
                }
                let damage = replay.file(input, &name, quiet)?;
                troubles.extend(damage.map(|damage| format!("{name}: {damage}")));
            }
            Err(error) => troubles.push(format!("open {name}: {error}")),
        }
    }
    if !has_begun {
        // A summary of nothing would look as if nothing had happened.
        return Err(Unreadable(troubles).into());
    }
    let found = replay.end(quiet)?;
    if troubles.is_empty() {
        Ok(found.status(show.fail_on_finding))
    } else {
        Err(Unreadable(troubles).into())
    }
}

/// Recordings being shown.
struct Replay {
    filter: Filter,
    printer: Printer,
    tally: Tally,
    findings: Replayed,
    found: Found,
}

impl Replay {
    /// Shows one; gives where it is damaged, if it is.
    fn file(&mut self, input: impl BufRead, name: &str, quiet: bool) -> io::Result<Option<Damage>> {
        let mut reader = Reader::new(input);
        let mut out = io::BufWriter::new(io::stdout().lock());
        let damage = loop {
            match reader.next_record() {
                Ok(Some(record)) => {
                    self.tally.add(&record);
                    for finding in self.findings.take(&record) {
                        self.show(&mut out, &finding)?;
                    }
                    self.show(&mut out, &record)?;
                }
                Ok(None) => break None,
                Err(damage) => break Some(damage),
            }
        };
        for finding in self.findings.finish() {
            self.show(&mut out, &finding)?;
        }
        out.flush()?;
        if reader.skipped() > 0 && !quiet {
            let why =
                if reader.is_newer() { "a newer proxytrace wrote it" } else { "they are not understood" };
            writeln!(io::stderr(), "{name}: {} records were skipped: {why}", reader.skipped())?;
        }
        if reader.too_long() > 0 && !quiet {
            writeln!(
                io::stderr(),
                "{name}: {} lines were skipped: too long for a record",
                reader.too_long()
            )?;
        }
        Ok(damage)
    }

    fn show(&mut self, out: &mut impl io::Write, record: &Record) -> io::Result<()> {
        self.found.note(&record.body);
        if self.filter.passes(&record.body) {
            self.printer.print(out, record)?;
        }
        Ok(())
    }

    fn end(self, quiet: bool) -> io::Result<Found> {
        let wanted = |key: &Key| self.filter.passes_key(key);
        let summary = |colour: Colour| {
            summary_of_records(&self.tally, colour, wanted) + &self.found.summary(colour, &self.filter)
        };
        match self.printer {
            Printer::Human(_) => write!(io::stdout(), "\n{}", summary(Colour::of_stdout()))?,
            // Standard output is for programs then.
            Printer::Json if !quiet => write!(io::stderr(), "{}", summary(Colour::Off))?,
            Printer::Json => {}
        }
        Ok(self.found)
    }
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    if is_stdin(file) {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::new(File::open(file)?)))
}
