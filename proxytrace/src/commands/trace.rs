//! `proxytrace trace`: a line for each event, as it happens.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proxytrace_ebpf::abi::Event;
use tokio::time::{MissedTickBehavior, timeout};

use super::{Pace, Shutdown, block_on, give_up_privileges, trees};
use crate::{
    cli::{Show, Tracing, seconds},
    kernel::Events,
    model::{Body, Filter, Key, Lost, Record},
    output::{Colour, Found, Printer, summary},
    reader::{Reply, client::Replies},
    recording::{self, Kept, Recorder},
    reloads::CHECK,
    watch::{Look, PATIENCE, Watch},
};

/// Losses, and whether anybody still reads, are looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// Whoever ends a trace by a signal does not wait longer for names.
const HURRY: Duration = Duration::from_millis(500);

/// So many addresses are summed up one by one at the end; what they share is summed up under `~other`.
const MOST_SUMMED_UP: usize = 10_000;

/// Options of `proxytrace trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    show: Show,
    /// End after so long.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// End after so many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Write every record to this file as well, whatever is shown, for `proxytrace replay`; established connects only with
    /// --all. The file must not be there yet; nobody else may read it.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Let the recording take no more than twice this size: when FILE has reached it, what is in it moves to FILE.1, and
    /// FILE begins again. Such as 64M.
    #[arg(long, value_name = "SIZE", requires = "record", value_parser = recording::size)]
    record_max: Option<u64>,
    #[command(flatten)]
    tracing: Tracing,
}

/// Runs until it is interrupted, or has shown as much as was asked for.
///
/// # Errors
/// The host does not let us trace, or standard output is gone.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<ExitCode> {
    block_on(async {
        let Args { show, duration, count, record, record_max, tracing } = args;
        let shutdown = Shutdown::start()?;
        let options = tracing.options(show.wants_established());
        let (watch, mut events, mut replies) =
            Watch::start(&options, tracing.nginx_config.clone(), MOST_SUMMED_UP, Duration::MAX)?;
        let header = recording::header(show.wants_established()).context("ask for the host's name")?;
        let create = |path: &PathBuf| {
            Recorder::create(path, *record_max, &header).map(|recorder| Kept::new(path.clone(), recorder))
        };
        let recording = record.as_ref().map(create).transpose()?;
        let watch = match give_up_privileges(tracing, watch, Ok) {
            Ok(watch) => watch,
            Err(error) => {
                recording.into_iter().for_each(Kept::discard);
                return Err(error);
            }
        };
        let mut session = Session::new(watch, show, recording, *count);
        if !quiet {
            session.note_start(&options.wanted.names)?;
        }
        session.begin(&header)?;
        let end = async {
            match duration {
                Some(duration) => tokio::time::sleep(*duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        let mut look = tokio::time::interval(LOOK);
        let mut pace = Pace::new();
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut patience = PATIENCE;
        while !session.is_complete() {
            tokio::select! {
                () = shutdown.requested() => {
                    patience = HURRY;
                    break;
                }
                () = &mut end => break,
                _ = look.tick() => {
                    if stdout_is_closed() {
                        return Ok(ExitCode::SUCCESS);
                    }
                    session.note_losses()?;
                    session.flush_recording();
                    session.watch.follow_names()?;
                }
                () = pace.due() => {
                    pace.note_look();
                    session.look()?;
                }
                reply = replies.next() => {
                    pace.note_news();
                    match reply {
                        Ok(reply) => session.take_reply(reply)?,
                        Err(gone) => tracing::error!("{gone}; no upstream is named from now on"),
                    }
                }
                _ = check.tick(), if session.watch.is_reload_open() || session.watch.holds_events() => {
                    session.watch.take_rejected_reloads();
                    session.show_known()?;
                }
                result = session.take_batch(&mut events) => {
                    pace.note_news();
                    result?;
                }
            }
        }
        let found = session.end(&mut events, &mut replies, patience, quiet).await?;
        Ok(found.status(show.fail_on_finding))
    })
}

/// A trace being shown.
struct Session {
    watch: Watch,
    filter: Filter,
    printer: Printer,
    recording: Option<Kept>,
    found: Found,
    started: Instant,
    left: Option<u64>,
    lost: u64,
    /// Whether somebody was told that there is no process yet, and is to hear of the first.
    is_waiting: bool,
}

impl Session {
    fn new(watch: Watch, show: &Show, recording: Option<Kept>, count: Option<u64>) -> Self {
        Self {
            watch,
            filter: show.filter(),
            printer: show.printer(),
            recording,
            found: Found::default(),
            started: Instant::now(),
            left: count,
            lost: 0,
            is_waiting: false,
        }
    }

    /// Tells whoever reads that tracing has begun.
    fn begin(&mut self, header: &Record) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        self.printer.begin(&mut out)?;
        self.printer.print(&mut out, header)?;
        Ok(out.flush()?)
    }

    fn is_complete(&self) -> bool {
        self.left == Some(0)
    }

    /// Says what is traced, or that there is nothing yet.
    fn note_start(&mut self, names: &[String]) -> anyhow::Result<()> {
        let mut err = io::stderr().lock();
        match self.watch.roots()?.as_slice() {
            [] => {
                self.is_waiting = true;
                writeln!(
                    err,
                    "no process named {} is running; waiting for one to start",
                    names.join(" or ")
                )?;
            }
            pids => writeln!(err, "tracing {}; ctrl-c ends it", trees(pids))?,
        }
        Ok(())
    }

    async fn take_batch(&mut self, events: &mut Events) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        events.next_batch(usize::MAX, |event| batch.push(event)).await;
        self.take(&batch)?;
        self.show_known()
    }

    fn take(&mut self, batch: &[Event]) -> anyhow::Result<()> {
        for event in batch {
            if self.is_waiting && event.kind == Event::ENTERED {
                self.is_waiting = false;
                writeln!(io::stderr(), "it has started: tracing {}", trees(&[event.pid]))?;
            }
            self.watch.take(event)?;
        }
        Ok(())
    }

    fn take_reply(&mut self, reply: Reply) -> anyhow::Result<()> {
        self.watch.answer(reply)?;
        self.show_known()
    }

    /// Shows everything whose upstream is known, or that has waited long enough.
    fn show_known(&mut self) -> anyhow::Result<()> {
        self.show(false)
    }

    /// The same, or, if `all`, everything.
    fn show(&mut self, all: bool) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        for record in self.watch.records(all)? {
            if self.is_complete() {
                break;
            }
            self.show_record(&mut out, &record)?;
        }
        Ok(out.flush()?)
    }

    fn show_record(&mut self, out: &mut impl io::Write, record: &Record) -> anyhow::Result<()> {
        if let Some(recording) = &mut self.recording {
            recording.write(record);
        }
        if self.filter.passes(&record.body) && self.printer.print(out, record)? {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        Ok(())
    }

    /// Shows which findings came and went.
    fn look(&mut self) -> anyhow::Result<()> {
        let Look { facts, changes } = self.watch.look()?;
        if let Some(recording) = &mut self.recording {
            facts.iter().for_each(|fact| recording.write(fact));
        }
        let mut out = io::stdout().lock();
        for change in &changes {
            self.found.note(&change.body);
            if self.filter.passes(&change.body) {
                self.printer.print(&mut out, change)?;
            }
        }
        Ok(out.flush()?)
    }

    /// Tells of records that were lost since the last look.
    fn note_losses(&mut self) -> anyhow::Result<()> {
        let lost = self.watch.events_lost()?;
        if lost > self.lost {
            let body = Body::Lost(Lost { count: lost - self.lost });
            self.lost = lost;
            let left = self.left;
            self.show_record(&mut io::stdout().lock(), &Record { time: Timestamp::now(), body })?;
            self.left = left;
        }
        Ok(())
    }

    fn flush_recording(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.flush();
        }
    }

    /// Detaches first, so that what is shown last is all there is, and the summary agrees with it.
    /// Names are waited for as long as `patience` says.
    async fn end(
        mut self,
        events: &mut Events,
        replies: &mut Replies,
        patience: Duration,
        quiet: bool,
    ) -> anyhow::Result<Found> {
        let took = self.started.elapsed();
        self.watch.detach();
        let mut batch = Vec::new();
        events.drain(|event| batch.push(event));
        self.take(&batch)?;
        self.show_known()?;
        let answers = async {
            while self.watch.is_naming() {
                self.take_reply(replies.next().await?)?;
            }
            anyhow::Ok(())
        };
        // What is named by then is named.
        let _ = timeout(patience, answers).await;
        self.show(true)?;
        self.look()?;
        self.note_losses()?;
        self.flush_recording();
        let view = self.watch.view()?;
        self.found.renew(self.watch.findings());
        let wanted = |key: &Key| self.filter.passes_key(key);
        let recording = self.recording.as_ref().map(Kept::summary).unwrap_or_default();
        let text = |colour: Colour| {
            summary(&view, took, colour, wanted) + &recording + &self.found.summary(colour, &self.filter)
        };
        match self.printer {
            Printer::Human(_) => write!(io::stdout(), "\n{}", text(Colour::of_stdout()))?,
            // Standard output is for programs then.
            Printer::Json if !quiet => write!(io::stderr(), "{}", text(Colour::Off))?,
            Printer::Json => {}
        }
        Ok(self.found)
    }
}

/// Whether the reader of a pipe is gone. Writing would tell, but while all is well there is nothing to write.
fn stdout_is_closed() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}
