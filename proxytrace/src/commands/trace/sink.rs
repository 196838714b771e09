//! Where the records of a trace go: to the display, and into a recording.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Args;
use crate::{
    commands::display::Display,
    model::{Body, Filter, Finding, Record, Remembered},
    output::Screen,
    recording::Kept,
};

/// Where records go: to the display, and into a recording.
pub(super) struct Sink {
    display: Display,
    recording: Option<Kept>,
    /// How many records are still to be shown, where that was limited.
    left: Option<u64>,
}

impl Sink {
    pub(super) fn new(args: &Args, recording: Option<Kept>, is_quiet: bool) -> Self {
        Self { display: Display::new(&args.show, is_quiet), recording, left: args.count }
    }

    /// Writes what stands above all records.
    pub(super) fn begin(&mut self, header: &Record) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        self.display.begin(&mut out)?;
        self.display.show(&mut out, header)?;
        Ok(out.flush()?)
    }

    /// Whether as much was shown as was asked for.
    pub(super) fn is_complete(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes what happens.
    pub(super) fn take(&mut self, records: &[Record]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        for record in records {
            let is_counted = is_counted(&record.body);
            if is_counted && self.is_complete() {
                continue;
            }
            // A replay finds the same by itself.
            let is_recorded = !matches!(record.body, Body::Finding(_));
            if let Some(recording) = self.recording.as_mut().filter(|_| is_recorded) {
                recording.write(record);
            }
            if self.display.show(&mut out, record)? && is_counted {
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
        }
        Ok(out.flush()?)
    }

    /// Takes what happens, of which several can be one: those of a moment in which nobody could be told.
    pub(super) fn take_remembered(&mut self, remembered: &Remembered) -> anyhow::Result<()> {
        if remembered.times == 1 {
            return self.take(std::slice::from_ref(&remembered.record));
        }
        let mut out = io::stdout().lock();
        if self.display.show_remembered(&mut out, remembered)? && is_counted(&remembered.record.body) {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        Ok(out.flush()?)
    }

    /// Takes what has happened before, of which several can be one.
    pub(super) fn take_past(&mut self, past: &Remembered) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        if self.display.show_past(&mut out, past)? && is_counted(&past.record.body) {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        Ok(out.flush()?)
    }

    /// Shows that an agent began then.
    pub(super) fn begun(&mut self, time: Timestamp, is_past: bool) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        self.display.begun(&mut out, time, is_past)?;
        Ok(out.flush()?)
    }

    /// Takes the findings that stand with newer evidence than when they were raised.
    pub(super) fn renew<'a>(&mut self, active: impl Iterator<Item = &'a Finding>) {
        self.display.renew(active);
    }

    /// Shows what is wrong already.
    pub(super) fn stand<'a>(&mut self, active: impl Iterator<Item = &'a Finding>) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        self.display.stand(&mut out, active)?;
        Ok(out.flush()?)
    }

    /// What is due now and then; gives whether anybody still reads.
    pub(super) fn keep_house(&mut self) -> anyhow::Result<bool> {
        if stdout_is_closed() {
            return Ok(false);
        }
        let mut out = io::stdout().lock();
        self.display.show_repeated(&mut out)?;
        out.flush()?;
        self.flush_recording();
        Ok(true)
    }

    fn flush_recording(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.flush();
        }
    }

    /// Writes the summary.
    pub(super) fn end(mut self, summary: impl Fn(Screen, &Filter) -> String) -> anyhow::Result<ExitCode> {
        self.flush_recording();
        let recording = self.recording.as_ref().map(Kept::summary).unwrap_or_default();
        Ok(self.display.end(|screen, filter| summary(screen, filter) + &recording)?)
    }
}

/// Whether a record is one of those that `--count` is about: something that happened on the host.
const fn is_counted(body: &Body) -> bool {
    !body.is_for_replay() && !matches!(body, Body::Finding(_) | Body::Lost(_))
}

/// Whether the reader of a pipe is gone. Writing would tell, but while all is well there is nothing to write.
fn stdout_is_closed() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}
