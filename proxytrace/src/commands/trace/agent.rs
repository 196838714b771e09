//! A trace that follows the agent of this host: nothing is loaded into the kernel, and what was before is known.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, interval, sleep};

use super::{Args, HOUSEKEEPING, Span, meant::Meant, sink::Sink, tally::Tally};
use crate::{
    client::{Agent, Error, Lines},
    commands::shutdown::Shutdown,
    escape::printable,
    history::Follows,
    model::{Body, Finding, RecordTotals, Remembered},
    output::{summary_of_counts, summary_of_records},
    recording,
    status::Status,
};

/// An agent that has ended may be restarted: it is waited for so long.
const RETURNS_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked for then.
const LOOKED_FOR: Duration = Duration::from_millis(200);

/// Without it a summary of the past would look as if nothing had succeeded.
const NOT_REMEMBERED: &str =
    "established connects are not remembered and are in no count above; status UPSTREAM counts them\n";

/// The smallest step of time.
const NEXT: SignedDuration = SignedDuration::from_nanos(1);

/// Runs until it is interrupted, or has shown as much as was asked for.
pub(super) async fn run(args: &Args, agent: &Agent, span: Span, quiet: bool) -> anyhow::Result<ExitCode> {
    let shutdown = Shutdown::start()?;
    let mut before = agent.status().await?;
    let mut meant = Meant::of(args.tracing.processes(), &before);
    meant.reduce(&mut before);
    let wanted = Wanted { span, all: args.show.wants_established() };
    // Whatever happens once anything is shown is told one by one.
    let mut source = Source::Lines(wanted.lines(agent, span.since()).await?);
    if !quiet {
        writeln!(io::stderr(), "{}", greeting(&before))?;
    }
    let mut sink = Sink::new(args, None, quiet);
    sink.begin(&recording::header(args.show.wants_established())?)?;
    sink.stand(findings(&before))?;
    // The first line says who answers; others like it say when an agent began.
    let mut is_first = true;
    let started = Instant::now();
    let end = async {
        match args.duration.into_iter().chain(span.rest()).min() {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut housekeeping = interval(HOUSEKEEPING);
    let mut tally = Tally::begin(&before, wanted.all);
    let mut totals = RecordTotals::default();
    let (mut last, mut skipped) = (span.now, 0);
    // Why what was told is all there is.
    let mut failure = None;
    while !sink.is_complete() {
        let told = tokio::select! {
            () = shutdown.requested() => break,
            () = &mut end => break,
            _ = housekeeping.tick() => {
                if !sink.keep_house()? {
                    return Ok(ExitCode::SUCCESS);
                }
                continue;
            }
            told = source.next(agent, wanted, last) => told,
        };
        match told {
            Ok(Told::Back(lines, status)) => {
                ::tracing::warn!("the agent is back");
                tally.renew(&status);
                (source, is_first) = (Source::Lines(lines), true);
            }
            Ok(Told::Record(_)) if std::mem::take(&mut is_first) => {}
            Ok(Told::Record(next)) => match next.record.body {
                Body::Header(_) => sink.begun(next.record.time, next.record.time < span.now)?,
                _ if !meant.has(&next.record.body, agent).await? => {}
                _ => {
                    totals.add(&next);
                    last = last.max(next.end());
                    if next.record.time < span.now {
                        sink.take_past(&next)?;
                    } else {
                        tally.take(&next);
                        sink.take_remembered(&next)?;
                    }
                }
            },
            Ok(Told::End) if span.is_over() => break,
            Ok(Told::End) => {
                ::tracing::warn!("the agent has ended; waits {} s for it", RETURNS_WITHIN.as_secs());
                skipped += source.skipped();
                source = Source::Awaited(Instant::now() + RETURNS_WITHIN);
            }
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    skipped += source.skipped();
    if skipped > 0 && !quiet {
        writeln!(io::stderr(), "{skipped} records were skipped: the agent is newer")?;
    }
    if !span.follows() {
        return sink.end(|screen, filter| {
            summary_of_records(&totals, screen, |key| filter.passes_key(key)) + NOT_REMEMBERED
        });
    }
    let took = started.elapsed();
    let after = match agent.status().await {
        Ok(mut after) => {
            meant.note(&after);
            meant.reduce(&mut after);
            sink.renew(findings(&after));
            Some(after)
        }
        Err(error) if error.is_absent() => None,
        Err(error) => return Err(error.into()),
    };
    let (counts, note) = tally.end(after.as_ref());
    let ended = sink.end(|screen, filter| {
        summary_of_counts(&counts, took, screen, |key| filter.passes_key(key)) + note
    })?;
    failure.map_or(Ok(ended), |error| Err(error.into()))
}

/// Where records come from.
enum Source {
    /// The agent that is followed.
    Lines(Lines),
    /// The one that is there again before that.
    Awaited(Instant),
}

/// What comes next.
enum Told {
    Record(Box<Remembered>),
    /// The agent has ended.
    End,
    /// One is there again.
    Back(Lines, Box<Status>),
}

impl Source {
    /// Safe to cancel.
    async fn next(&mut self, agent: &Agent, wanted: Wanted, last: Timestamp) -> Result<Told, Error> {
        match self {
            Self::Lines(lines) => {
                Ok(lines.next_record().await?.map_or(Told::End, |next| Told::Record(Box::new(next))))
            }
            Self::Awaited(until) => loop {
                sleep(LOOKED_FOR).await;
                match wanted.again(agent, last).await {
                    Err(error) if error.is_absent() && Instant::now() < *until => {}
                    result => return result,
                }
            },
        }
    }

    const fn skipped(&self) -> u64 {
        match self {
            Self::Lines(lines) => lines.skipped(),
            Self::Awaited(_) => 0,
        }
    }
}

impl Span {
    /// From when on it is to be told what happened: without a beginning, what comes or all that was.
    fn since(self) -> Option<Timestamp> {
        self.since.or_else(|| self.follows().then_some(self.now))
    }

    /// Whether it goes beyond what has happened already.
    fn follows(self) -> bool {
        self.until.is_none_or(|until| until > self.now)
    }

    /// How much of it is to come, where it ends.
    fn rest(self) -> Option<Duration> {
        let until = self.until.filter(|_| self.follows())?;
        until.duration_since(self.now).try_into().ok()
    }

    /// Whether there is nothing to come.
    fn is_over(self) -> bool {
        self.until.is_some_and(|until| until <= Timestamp::now())
    }
}

/// What the agent is asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    span: Span,
    /// Established connects as well, of those that come: the agent remembers none.
    all: bool,
}

impl Wanted {
    async fn lines(self, agent: &Agent, since: Option<Timestamp>) -> Result<Lines, Error> {
        let Self { span, all } = self;
        let (until, follows) = match (span.follows(), all) {
            (false, _) => (span.until, Follows::Nothing),
            (true, false) => (None, Follows::Failures),
            (true, true) => (None, Follows::All),
        };
        agent.records(since, until, follows).await
    }

    /// What an agent that is there again tells after `last`, and how things are.
    async fn again(self, agent: &Agent, last: Timestamp) -> Result<Told, Error> {
        let lines = self.lines(agent, Some(last + NEXT)).await?;
        Ok(Told::Back(lines, Box::new(agent.status().await?)))
    }
}

/// What is traced, and how else it could be.
fn greeting(status: &Status) -> String {
    let names: Vec<_> = status.proxies.iter().map(|proxy| printable(&proxy.proxy)).collect();
    let names = if names.is_empty() { "no proxy yet".to_owned() } else { names.join(", ") };
    format!("following the agent, which traces {names}\nctrl-c ends it; --own loads programs of its own")
}

fn findings(status: &Status) -> impl Iterator<Item = &Finding> {
    status.findings.iter().map(|standing| &standing.finding)
}
