//! `proxytrace trace`: a line for each event, as it happens.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proxytrace_ebpf::abi::Event;
use tokio::time::MissedTickBehavior;

use super::{Shutdown, block_on, give_up_privileges, trees};
use crate::{
    cli::{Tracing, seconds},
    kernel::Events,
    model::{AddressFilter, Body, Cause, FORMAT, Filter, Header, Key, Lost, Record},
    output::{Colour, Human, summary},
    reloads::CHECK,
    watch::Watch,
};

/// Losses, and whether anybody still reads, are looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// Options of `proxytrace trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show established connects too, and workers that start or end in an orderly way; not only what fails.
    #[arg(long)]
    all: bool,
    /// Show only this address, port or network: 10.0.0.5, 10.0.0.5:8080, :8080, 10.0.0.0/8, unix:/run/app.sock; give
    /// it again for more.
    #[arg(long = "address", value_name = "ADDRESS", value_delimiter = ',')]
    addresses: Vec<AddressFilter>,
    /// Show only this cause, such as refused or stalled; give it again for more (all are in the README).
    #[arg(long = "cause", value_name = "CAUSE", value_delimiter = ',')]
    causes: Vec<Cause>,
    /// Print JSON, one object a line.
    #[arg(long)]
    json: bool,
    /// End after so long.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// End after so many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    tracing: Tracing,
}

/// Runs until it is interrupted, or has shown as much as was asked for.
///
/// # Errors
/// The host does not let us trace, or standard output is gone.
pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    block_on(async {
        let Args { all, addresses, causes, json, duration, count, tracing } = args;
        let mut shutdown = Shutdown::new().context("handle signals")?;
        let wants_established = *all || causes.iter().any(Cause::is_established);
        let options = tracing.options(wants_established);
        let (watch, mut events) = Watch::start(&options, usize::MAX)?;
        give_up_privileges(tracing, &watch)?;
        let filter = Filter { addresses: addresses.clone(), causes: causes.clone(), routine: *all };
        let mut session = Session::new(watch, filter, *json, *count);
        if !quiet {
            session.note_start(&options.wanted.names)?;
        }
        session.printer.begin()?;
        let end = async {
            match duration {
                Some(duration) => tokio::time::sleep(*duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        let mut look = tokio::time::interval(LOOK);
        let mut check = tokio::time::interval(CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !session.is_complete() {
            tokio::select! {
                () = shutdown.requested() => break,
                () = &mut end => break,
                _ = look.tick() => {
                    if stdout_is_closed() {
                        return Ok(());
                    }
                    session.note_losses()?;
                }
                _ = check.tick(), if session.watch.is_reload_open() => session.note_rejected_reloads()?,
                result = session.take_batch(&mut events) => result?,
            }
        }
        session.end(&mut events, quiet)
    })
}

/// A trace being shown.
struct Session {
    watch: Watch,
    filter: Filter,
    printer: Printer,
    started: Instant,
    left: Option<u64>,
    lost: u64,
    /// Whether somebody was told that there is no process yet, and is to hear of the first.
    is_waiting: bool,
}

impl Session {
    fn new(watch: Watch, filter: Filter, json: bool, count: Option<u64>) -> Self {
        let printer = if json {
            Printer::Json
        } else {
            Printer::Human(Human::new(Colour::of_stdout(), TimeZone::system()))
        };
        Self { watch, filter, printer, started: Instant::now(), left: count, lost: 0, is_waiting: false }
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
        events.next_batch(|event| batch.push(event)).await;
        self.show(&batch)
    }

    fn show(&mut self, batch: &[Event]) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        for event in batch {
            if self.left == Some(0) {
                break;
            }
            if self.is_waiting && event.kind == Event::ENTERED {
                self.is_waiting = false;
                writeln!(io::stderr(), "it has started: tracing {}", trees(&[event.pid]))?;
            }
            if let Some(record) = self.watch.record(event)? {
                self.show_record(&mut out, &record)?;
            }
        }
        Ok(out.flush()?)
    }

    fn show_record(&mut self, out: &mut impl io::Write, record: &Record) -> anyhow::Result<()> {
        if self.filter.passes(&record.body) && self.printer.print(out, record)? {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        Ok(())
    }

    /// Tells of reloads that turn out to be rejected.
    fn note_rejected_reloads(&mut self) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        for record in self.watch.rejected_reloads()? {
            self.show_record(&mut out, &record)?;
        }
        Ok(out.flush()?)
    }

    /// Tells of records that were lost since the last look.
    fn note_losses(&mut self) -> anyhow::Result<()> {
        let lost = self.watch.events_lost()?;
        if lost > self.lost {
            let body = Body::Lost(Lost { count: lost - self.lost });
            self.lost = lost;
            self.printer.print(&mut io::stdout().lock(), &Record { time: Timestamp::now(), body })?;
        }
        Ok(())
    }

    /// Detaches first, so that what is shown last is all there is, and the summary agrees with it.
    fn end(mut self, events: &mut Events, quiet: bool) -> anyhow::Result<()> {
        let took = self.started.elapsed();
        self.watch.detach();
        let mut batch = Vec::new();
        events.drain(|event| batch.push(event));
        self.show(&batch)?;
        self.note_losses()?;
        let view = self.watch.view()?;
        let wanted =
            |key: &Key| key.address.parse().is_ok_and(|address| self.filter.passes_address(&address));
        match self.printer {
            Printer::Human(_) => {
                let text = summary(&view, took, Colour::of_stdout(), wanted);
                write!(io::stdout(), "\n{text}")?;
            }
            // Standard output is for programs then.
            Printer::Json if !quiet => write!(io::stderr(), "{}", summary(&view, took, Colour::Off, wanted))?,
            Printer::Json => {}
        }
        Ok(())
    }
}

/// Where records go.
enum Printer {
    Human(Human),
    Json,
}

impl Printer {
    /// Tells whoever reads that tracing has begun.
    fn begin(&mut self) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match self {
            Self::Human(human) => writeln!(out, "{}", human.title())?,
            Self::Json => {
                let host = nix::sys::utsname::uname().context("ask for the host's name")?;
                let header = Header {
                    format: FORMAT,
                    host: host.nodename().to_string_lossy().into_owned(),
                    kernel: host.release().to_string_lossy().into_owned(),
                    version: env!("CARGO_PKG_VERSION"),
                };
                self.print(&mut out, &Record { time: Timestamp::now(), body: Body::Header(header) })?;
            }
        }
        Ok(out.flush()?)
    }

    /// Whether there was something to print.
    fn print(&mut self, out: &mut impl io::Write, record: &Record) -> anyhow::Result<bool> {
        match self {
            Self::Human(human) => match human.line(record) {
                Some(line) => writeln!(out, "{line}")?,
                None => return Ok(false),
            },
            Self::Json => {
                serde_json::to_writer(&mut *out, record).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(true)
    }
}

/// Whether the reader of a pipe is gone. Writing would tell, but while all is well there is nothing to write.
fn stdout_is_closed() -> bool {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}
