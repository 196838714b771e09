//! `proxytrace trace`: a line for each event, as it happens.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    Call, Run, block_on,
    display::Display,
    options::{Show, Tracing, seconds},
    shutdown::Shutdown,
    tracing::{self, Wanted, give_up_privileges, trees},
};
use crate::{
    logging::Way,
    model::{Body, Record},
    output::summary,
    recording::{self, Kept, Recorder},
    session::{Session, Update},
    watch::NAME_TIMEOUT,
};

/// Whether anybody still reads is checked this often, and the recording is written.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Whoever ends a trace by a signal does not wait longer for names.
const INTERRUPTED_NAME_TIMEOUT: Duration = Duration::from_millis(500);

/// So many addresses are summed up one by one at the end; what they share is summed up under `~other`.
const MAX_ADDRESSES: usize = 10_000;

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

impl Run for Args {
    // Whoever reads standard error may be slow.
    const LOG_WAY: Way = Way::Queued;

    /// Runs until it is interrupted, or has shown as much as was asked for.
    fn run(&self, Call { quiet, .. }: Call<'_>) -> anyhow::Result<ExitCode> {
        block_on(run(self, quiet))
    }
}

async fn run(args: &Args, quiet: bool) -> anyhow::Result<ExitCode> {
    let Args { show, duration, count, record, record_max, tracing } = args;
    let shutdown = Shutdown::start()?;
    let established = show.wants_established();
    let wanted = Wanted {
        records: true,
        established,
        max_addresses: MAX_ADDRESSES,
        series_kept: Duration::MAX,
        ended_kept: Duration::MAX,
    };
    let (session, mut pump) = tracing::start(tracing, wanted)?;
    let header = recording::header(established).context("ask for the host's name")?;
    let create = |path: &PathBuf| {
        Recorder::create(path, *record_max, &header).map(|recorder| Kept::new(path.clone(), recorder))
    };
    let recording = record.as_ref().map(create).transpose()?;
    let mut session = match give_up_privileges(tracing, session, Ok) {
        Ok(session) => session,
        Err(error) => {
            recording.into_iter().for_each(Kept::discard);
            return Err(error);
        }
    };
    let mut sink = Sink {
        display: Display::new(show, quiet),
        recording,
        left: *count,
        is_waiting: !quiet && !report_start(&session, tracing)?,
    };
    sink.begin(&header)?;
    let started = Instant::now();
    let end = async {
        match duration {
            Some(duration) => tokio::time::sleep(*duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    let mut name_timeout = NAME_TIMEOUT;
    while !sink.is_complete() {
        tokio::select! {
            () = shutdown.requested() => {
                name_timeout = INTERRUPTED_NAME_TIMEOUT;
                break;
            }
            () = &mut end => break,
            _ = housekeeping.tick() => {
                if stdout_is_closed() {
                    return Ok(ExitCode::SUCCESS);
                }
                sink.flush_recording();
            }
            stepped = pump.step() => if let Err(gone) = stepped {
                ::tracing::error!("{gone}; no upstream is named from now on");
            },
            update = session.next() => match update {
                Some(update) => sink.take(&update?)?,
                None => break,
            },
        }
    }
    let took = started.elapsed();
    sink.take(&session.finish(&mut pump, name_timeout).await?)?;
    sink.end(&session, took)
}

/// Reports what is traced; gives false where there is nothing yet.
fn report_start(session: &Session, tracing: &Tracing) -> anyhow::Result<bool> {
    let pids = session.watch().roots()?;
    if pids.is_empty() {
        let names = tracing.options(false).wanted.names.join(" or ");
        writeln!(io::stderr(), "no process named {names} is running; waiting for one to start")?;
        return Ok(false);
    }
    writeln!(io::stderr(), "tracing {}; ctrl-c ends it", trees(&pids))?;
    Ok(true)
}

/// Where updates go: to the display, and into a recording.
struct Sink {
    display: Display,
    recording: Option<Kept>,
    /// How many records are still to be shown, where that was limited.
    left: Option<u64>,
    /// Whether it was reported that there is no process yet, so that the first is to be.
    is_waiting: bool,
}

impl Sink {
    fn begin(&mut self, header: &Record) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        self.display.begin(&mut out)?;
        self.display.show(&mut out, header)?;
        Ok(out.flush()?)
    }

    fn is_complete(&self) -> bool {
        self.left == Some(0)
    }

    fn take(&mut self, update: &Update) -> anyhow::Result<()> {
        if let Some(pid) = update.entered.filter(|_| std::mem::take(&mut self.is_waiting)) {
            writeln!(io::stderr(), "it has started: tracing {}", trees(&[pid]))?;
        }
        let mut out = io::stdout().lock();
        for record in &update.records {
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

    fn flush_recording(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.flush();
        }
    }

    fn end(mut self, session: &Session, took: Duration) -> anyhow::Result<ExitCode> {
        self.flush_recording();
        let view = session.watch().view()?;
        let recording = self.recording.as_ref().map(Kept::summary).unwrap_or_default();
        self.display.renew(session.watch().findings());
        let code = self
            .display
            .end(|colour, filter| summary(&view, took, colour, |key| filter.passes_key(key)) + &recording)?;
        Ok(code)
    }
}

/// Whether a record is one of those that `--count` is about: something that happened on the host.
const fn is_counted(body: &Body) -> bool {
    !matches!(body, Body::Counts(_) | Body::Declared(_) | Body::Workers(_) | Body::Finding(_) | Body::Lost(_))
}

/// Whether the reader of a pipe is gone. Writing would tell, but while all is well there is nothing to write.
fn stdout_is_closed() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}
