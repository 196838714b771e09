//! `proxytrace trace`: a line for each event, as it happens.

mod agent;
mod meant;
mod own;
mod sink;
mod tally;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use jiff::{Timestamp, Zoned};

use super::{
    Call, Run, block_on,
    options::{AskAgent, Moment, Show, Tracing, seconds},
};
use crate::{
    client::{self, Agent},
    logging::Way,
    recording,
};

/// Whether anybody still reads is checked this often, repeated lines are shown, and the recording is written.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Options of `proxytrace trace`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    show: Show,
    /// End after so long.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    duration: Option<Duration>,
    /// End after so many records.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Show first what the agent remembers from then on: 10m or 1d (ago), 14:25, "2026-11-22 14:25".
    #[arg(long, value_name = "WHEN", value_parser = Moment::parse)]
    since: Option<Moment>,
    /// Show only what was until then, and end. Without --since it is all that is remembered.
    #[arg(long, value_name = "WHEN", value_parser = Moment::parse)]
    until: Option<Moment>,
    /// Load programs of its own into the kernel also where an agent runs. Implied by each option that the agent cannot serve: --record,
    /// --pid and others that say what is traced, or how, and a --process that the agent does not trace.
    #[arg(long)]
    own: bool,
    /// Write every record to this file as well, whatever is shown, for `proxytrace replay`; established connects only with
    /// --all. The file must not be there yet; nobody else may read it.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Let the recording take no more than twice this size: when FILE has reached it, what is in it moves to FILE.1, and
    /// FILE begins again. Such as 64M.
    #[arg(long, value_name = "SIZE", requires = "record", value_parser = recording::size)]
    record_max: Option<u64>,
    #[command(flatten)]
    agent: AskAgent,
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
    let wants_past = args.since.is_some() || args.until.is_some();
    if let (Some(option), true) = (args.needs_own(), wants_past) {
        return Err(Contradiction::NotServed(option).into());
    }
    match args.find_agent().await {
        Some(Ok(agent)) => return agent::run(args, &agent, args.span()?, quiet).await,
        Some(Err(error)) if wants_past => return Err(error),
        Some(Err(error)) if !is_absent(&error) => {
            ::tracing::warn!("{error:#}; loads programs of its own instead");
        }
        None if wants_past => return Err(Contradiction::NobodyAsked.into()),
        _ => {}
    }
    own::run(args, quiet).await
}

/// Whether there is simply no agent, which is nothing to report.
fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(client::Error::is_absent)
}

impl Args {
    /// The agent of this host, where it can serve what is asked for.
    async fn find_agent(&self) -> Option<anyhow::Result<Agent>> {
        if self.needs_own().is_some() {
            return None;
        }
        let path = self.agent.path()?;
        let found = async {
            let agent = Agent::find(path).await?;
            if let Some(processes) = self.tracing.processes() {
                agent.traces(&processes).await?;
            }
            Ok(agent)
        };
        Some(found.await)
    }

    /// The option for which there must be programs of our own.
    fn needs_own(&self) -> Option<&'static str> {
        let own = [(self.own, "--own"), (self.record.is_some(), "--record")];
        let own = own.into_iter().find_map(|(is_given, option)| is_given.then_some(option));
        own.or_else(|| self.tracing.given())
    }

    fn span(&self) -> anyhow::Result<Span> {
        let now = Zoned::now();
        let moment = |moment: Option<Moment>| moment.map(|moment| moment.seen_from(&now)).transpose();
        let (since, until) = (moment(self.since)?, moment(self.until)?);
        if since.is_some() && until.is_some() && since > until {
            return Err(Contradiction::Reversed.into());
        }
        Ok(Span { since, until, now: now.timestamp() })
    }
}

/// Options that contradict each other.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Contradiction {
    /// The past is asked for, and what no agent does.
    #[error("--since and --until ask the agent, which cannot serve {0}; leave one of them out")]
    NotServed(&'static str),
    /// The past is asked for, and nobody is to be asked.
    #[error("--since and --until ask the agent; with --socket none there is nobody to ask")]
    NobodyAsked,
    /// It would end before it begins.
    #[error("--since is after --until; exchange them")]
    Reversed,
}

/// What is to be shown.
#[derive(Clone, Copy, Debug)]
struct Span {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    now: Timestamp,
}
