//! `proxytrace guard`: a change that takes itself back.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Call, Run, block_on,
    options::{AskAgent, Tracing, seconds},
    tracing::{self, Wanted},
};
use crate::{
    client::{self, Agent},
    exit::Failure,
    guard::{
        earlier::{Earlier, earlier},
        observer::Means,
        options::{Criteria, Options},
        run,
    },
    programs,
};

pub use crate::guard::run::Missing;

/// Where copies of files are kept.
const STATE: &str = "/var/lib/proxytrace-guard";

/// So many addresses have counts of their own.
const MAX_ADDRESSES: usize = 10_000;

/// Options of `proxytrace guard`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Change the files first, by this command. It is run without a shell where it is plain words.
    #[arg(long, value_name = "CMD")]
    apply: Option<String>,
    /// Take the change back by this command where it fails, also where COMMAND fails or the guard is interrupted.
    #[arg(long, value_name = "CMD")]
    rollback: Option<String>,
    /// Take the change back by putting this directory back as it was, byte for byte; then COMMAND reloads, or what --rollback says.
    #[arg(long, value_name = "DIR")]
    rollback_files: Option<PathBuf>,
    /// Take back the change of a guard that was killed: that of the directory of --rollback-files, where there are several.
    #[arg(long, conflicts_with_all = ["command", "apply", "rollback"])]
    recover: bool,
    /// With --recover: keep that change, and drop the copy from before.
    #[arg(long, requires = "recover", conflicts_with = "command")]
    discard: bool,
    /// Watch for so long how things are without the change.
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = seconds_or_none)]
    baseline: Duration,
    /// Watch the new generation for so long. A failure ends it as soon as it is certain.
    #[arg(long, value_name = "TIME", default_value = "10", value_parser = seconds)]
    window: Duration,
    /// Give each step so long: to wait for another guard, for CMD, for COMMAND, and for the new generation.
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = seconds)]
    timeout: Duration,
    /// Let at most this share of an upstream's connects fail, and at most so much more than before. Addresses that are dead while
    /// others of the upstream work count only where most connects fail.
    #[arg(long, value_name = "RATIO", default_value = "0.1", value_parser = ratio)]
    max_failure_ratio: f64,
    /// Demand so many connects of real requests to each upstream that is changed; otherwise one will do, or a probe.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    min_connects: Option<u64>,
    /// Connect to each address of a changed route, as the proxy's workers would (the default).
    #[arg(long, overrides_with = "no_probe")]
    probe: bool,
    /// Connect to nothing.
    #[arg(long)]
    no_probe: bool,
    /// Pass also where nobody has connected to what is changed.
    #[arg(long)]
    allow_unproven: bool,
    /// Demand that the new generation connects to this upstream, and that this works; give it again for more.
    #[arg(long = "expect-upstream", value_name = "NAME", value_delimiter = ',')]
    expected: Vec<String>,
    /// Demand that the new generation does not connect to this upstream; give it again for more.
    #[arg(long = "forbid-upstream", value_name = "NAME", value_delimiter = ',')]
    forbidden: Vec<String>,
    /// The configuration from before, where the files were changed before the guard began.
    #[arg(long, value_name = "OLD")]
    against: Option<PathBuf>,
    /// Load what is there without `check`, `nginx -t` and probes before.
    #[arg(long)]
    no_check: bool,
    /// Print JSON: one object.
    #[arg(long)]
    json: bool,
    /// Where copies from before are kept, one for each directory; only its owner may look into it.
    #[arg(long, value_name = "DIR", default_value = STATE, env = "PROXYTRACE_GUARD_STATE")]
    state: PathBuf,
    /// Load programs of its own into the kernel also where an agent traces the proxies. Implied by --pid and others that say what is
    /// traced, or how.
    #[arg(long)]
    own: bool,
    #[command(flatten)]
    agent: AskAgent,
    #[command(flatten)]
    tracing: Tracing,
    /// What makes the proxy take the change, such as nginx -s reload, with its arguments.
    #[arg(required_unless_present = "recover", last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Run for Args {
    /// Guards a change. 0 where it works, 1 where it does not, 4 where it does not and could not be taken back.
    ///
    /// # Errors
    /// Nothing was changed.
    fn run(&self, _: Call<'_>) -> anyhow::Result<ExitCode> {
        let report = block_on(async {
            let agent = self.find_agent().await;
            let earlier = earlier_by(agent.as_ref()).await;
            let options = Options { earlier, ..self.options() };
            let means = self.means(agent).await;
            match self.recover {
                true => run::recover(&options, self.discard, means).await,
                false => run::guard(&options, means).await,
            }
        })?;
        let mut out = io::stdout().lock();
        let text = if self.json { report.json()? } else { report.text() };
        // What came of it is the exit status, whether anybody reads more or not.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        Ok(match report.is_stuck() {
            true => Failure::NotTakenBack.into(),
            false if report.is_well() => ExitCode::SUCCESS,
            false => Failure::Failed.into(),
        })
    }
}

/// What was so long ago says nothing of how things are without the change.
const EARLIER: SignedDuration = SignedDuration::from_mins(10);

/// What the agent has counted until now, if there is one.
async fn earlier_by(agent: Option<&Agent>) -> Earlier {
    let Some(agent) = agent else { return Earlier::new() };
    match agent.minutes(Some(Timestamp::now() - EARLIER), None).await {
        Ok(minutes) => earlier(minutes),
        Err(error) => {
            ::tracing::warn!("{error}; how it was before is known of the baseline only");
            Earlier::new()
        }
    }
}

impl Args {
    /// The agent of this host, if there is one.
    async fn find_agent(&self) -> Option<Agent> {
        let found = Agent::find(self.agent.path()?).await;
        let is_worth_saying = |error: &&client::Error| !error.is_absent();
        if let Some(error) = found.as_ref().err().filter(is_worth_saying) {
            ::tracing::warn!("{error}; loads programs of its own instead");
        }
        found.ok()
    }

    /// The agent's programs where it traces what is meant; else its own.
    async fn means(&self, agent: Option<Agent>) -> Means {
        let usual = || BTreeSet::from([programs::NGINX.to_owned()]);
        let processes = self.tracing.processes().unwrap_or_else(usual);
        let agent = match agent.filter(|_| !self.own && self.tracing.given().is_none()) {
            Some(agent) => match agent.traces(&processes).await {
                Ok(()) => Some((agent, processes)),
                Err(why) => {
                    ::tracing::warn!("{why:#}; loads programs of its own instead");
                    None
                }
            },
            None => None,
        };
        let options = self.tracing.clone();
        let start = Box::new(move || {
            let wanted = Wanted {
                records: true,
                soon: false,
                established: false,
                max_addresses: MAX_ADDRESSES,
                series_kept: Duration::MAX,
                ended_kept: Duration::MAX,
            };
            tracing::start(&options, wanted)
        });
        Means { agent, start }
    }

    fn options(&self) -> Options {
        Options {
            command: self.command.clone(),
            apply: self.apply.clone(),
            rollback: self.rollback.clone(),
            files: self.rollback_files.clone(),
            against: self.against.clone(),
            baseline: self.baseline,
            earlier: Earlier::new(),
            window: self.window,
            timeout: self.timeout,
            checks: !self.no_check,
            probes: !self.no_probe,
            criteria: Criteria {
                max_failure_ratio: self.max_failure_ratio,
                min_connects: self.min_connects,
                allow_unproven: self.allow_unproven,
                expected: self.expected.clone(),
                forbidden: self.forbidden.clone(),
            },
            state: self.state.clone(),
        }
    }
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { seconds(text) }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "not a number; write 0.1".to_owned())?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("this must be from 0 to 1".to_owned()) }
}
