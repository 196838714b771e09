//! A trace by programs of its own.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;

use super::{Args, HOUSEKEEPING, sink::Sink};
use crate::{
    commands::{
        options::Tracing,
        shutdown::Shutdown,
        tracing::{self, Wanted, give_up_privileges, trees},
    },
    output::summary,
    recording::{self, Kept, Recorder},
    session::Session,
    watch::NAME_TIMEOUT,
};

/// Whoever ends a trace by a signal does not wait longer for names.
const INTERRUPTED_NAME_TIMEOUT: Duration = Duration::from_millis(500);

/// So many addresses are summed up one by one at the end; what they share is summed up under `~other`.
const MAX_ADDRESSES: usize = 10_000;

pub(super) async fn run(args: &Args, quiet: bool) -> anyhow::Result<ExitCode> {
    let Args { show, duration, record, record_max, tracing, .. } = args;
    let shutdown = Shutdown::start()?;
    let established = show.wants_established();
    let wanted = Wanted {
        records: true,
        soon: false,
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
    let mut is_waiting = !quiet && !report_start(&session, tracing)?;
    let mut sink = Sink::new(args, recording, quiet);
    sink.begin(&header)?;
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
                if !sink.keep_house()? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            stepped = pump.step() => if let Err(gone) = stepped {
                ::tracing::error!("{gone}; no upstream is named from now on");
            },
            update = session.next() => match update {
                Some(update) => {
                    let update = update?;
                    if let Some(pid) = update.entered.filter(|_| std::mem::take(&mut is_waiting)) {
                        writeln!(io::stderr(), "it has started: tracing {}", trees(&[pid]))?;
                    }
                    sink.take(&update.records)?;
                }
                None => break,
            },
        }
    }
    let last = session.finish(&mut pump, name_timeout).await?.records;
    sink.take(&last)?;
    // As a replay has it.
    let ended = last.last().map_or(header.time, |record| record.time);
    let took = ended.duration_since(header.time).try_into().unwrap_or_default();
    sink.renew(session.watch().findings());
    let view = session.watch().view()?;
    sink.end(|screen, filter| summary(&view, took, screen, |key| filter.passes_key(key)))
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
