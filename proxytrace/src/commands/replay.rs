//! `proxytrace replay`: recordings, through the same display as `trace`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write as _},
    mem,
    path::{Path, PathBuf},
    process::ExitCode,
};

use flate2::bufread::MultiGzDecoder;

use super::{Call, Run, display::Display, options::Show};
use crate::{
    findings::Replayed,
    model::{Body, RecordTotals},
    output::summary_of_records,
    recording::{Damage, RecordingReader},
};

/// How each file begins that gzip has written (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Options of `proxytrace replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recordings, in the order of their times: FILE.1 before FILE; - is standard input. They may be compressed by gzip.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    show: Show,
}

/// Recordings that were not read to their end.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\nproxytrace: "))]
pub struct Unreadable(Vec<String>);

impl Run for Args {
    /// Shows what is in the recordings, each up to its end or to where it is damaged.
    ///
    /// # Errors
    /// Standard output is gone; or, after all was shown, that some recordings could not be read or are damaged.
    fn run(&self, Call { quiet, .. }: Call<'_>) -> anyhow::Result<ExitCode> {
        let mut replay = Replay {
            display: Display::new(&self.show, quiet),
            totals: RecordTotals::default(),
            findings: Replayed::default(),
            has_findings: false,
        };
        let mut troubles = Vec::new();
        let mut has_begun = false;
        for file in &self.files {
            let name = if is_stdin(file) { "standard input".to_owned() } else { file.display().to_string() };
            match open(file) {
                Ok(input) => {
                    if !mem::replace(&mut has_begun, true) {
                        replay.display.begin(&mut io::stdout().lock())?;
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
        // Where it was told what came and went, what is needed to find that is not there.
        if !replay.has_findings {
            replay.display.renew(replay.findings.active());
        }
        let code = replay
            .display
            .end(|screen, filter| summary_of_records(&replay.totals, screen, |key| filter.passes_key(key)))?;
        if troubles.is_empty() { Ok(code) } else { Err(Unreadable(troubles).into()) }
    }
}

/// Recordings being shown.
struct Replay {
    display: Display,
    totals: RecordTotals,
    findings: Replayed,
    /// Whether findings are among the records: in what `trace --json` printed.
    has_findings: bool,
}

impl Replay {
    /// Shows one; gives where it is damaged, if it is.
    fn file(&mut self, input: impl BufRead, name: &str, quiet: bool) -> io::Result<Option<Damage>> {
        let mut reader = RecordingReader::new(input);
        let mut out = io::BufWriter::new(io::stdout().lock());
        let damage = loop {
            match reader.next_record() {
                Ok(Some(remembered)) => {
                    let record = &remembered.record;
                    self.totals.add(&remembered);
                    self.has_findings |= matches!(record.body, Body::Finding(_));
                    for finding in self.findings.take(record) {
                        self.display.show(&mut out, &finding)?;
                    }
                    self.display.show_remembered(&mut out, &remembered)?;
                }
                Ok(None) => break None,
                Err(damage) => break Some(damage),
            }
        };
        for finding in self.findings.finish() {
            self.display.show(&mut out, &finding)?;
        }
        out.flush()?;
        if !quiet {
            report_skipped(&reader, name)?;
        }
        Ok(damage)
    }
}

fn report_skipped(reader: &RecordingReader<impl BufRead>, name: &str) -> io::Result<()> {
    let why = if reader.is_newer() { "a newer proxytrace wrote it" } else { "they are not understood" };
    if reader.skipped() > 0 {
        writeln!(io::stderr(), "{name}: {} records were skipped: {why}", reader.skipped())?;
    }
    if reader.too_long() > 0 {
        writeln!(io::stderr(), "{name}: {} lines were skipped: too long for a record", reader.too_long())?;
    }
    Ok(())
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Opens a recording, which is compressed where its first bytes say so, whatever it is called.
fn open(file: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut input: Box<dyn BufRead> = if is_stdin(file) {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(file)?))
    };
    if input.fill_buf()?.starts_with(&GZIP) {
        return Ok(Box::new(BufReader::new(MultiGzDecoder::new(input))));
    }
    Ok(input)
}
