//! How things are: what is wrong, each proxy, each upstream. One truth for whoever shows it: the command `status`, and what the agent
//! serves at `/status`. Pure.

mod inherited;
mod make;
mod quantile;
mod sharing;
mod state;

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use make::{Seen, is_about};
pub use quantile::quantile_us;

use crate::history::RECENT;
use crate::model::{Counts, Finding, Severity, Traced, Waiting};

/// How things are at one moment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The moment.
    pub time: Timestamp,
    /// The version of what saw it.
    pub version: String,
    /// Who saw it.
    pub source: Source,
    /// What is traced; missing where an agent says it that is older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traced: Option<Traced>,
    /// Whether it is known what runs and how that is configured: right after the beginning it is not.
    #[serde(default = "yes")]
    pub started: bool,
    /// Since when it is seen: what was before is known from the history only.
    pub since: Timestamp,
    /// Since when the counts are that are recent: about a minute.
    pub recent_since: Timestamp,
    /// What is wrong, the worst first.
    pub findings: Vec<Standing>,
    /// The proxies that run, by name.
    pub proxies: Vec<Proxy>,
    /// Their upstreams: those first that are worst.
    pub upstreams: Vec<Upstream>,
}

/// Why what is asked for is not traced there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTraced {
    /// Nobody says it.
    #[error("the agent does not say what it traces; restart it after an update")]
    Unknown,
    /// It was not told to.
    #[error("the agent does not trace processes named {0}")]
    Process(String),
}

impl Status {
    /// Whether processes of all these names are traced.
    ///
    /// # Errors
    /// Why not.
    pub fn traces(&self, processes: &BTreeSet<String>) -> Result<(), NotTraced> {
        let traced = self.traced.as_ref().ok_or(NotTraced::Unknown)?;
        let missing = processes.difference(&traced.processes).next();
        missing.map_or(Ok(()), |name| Err(NotTraced::Process(name.clone())))
    }
}

/// Who saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The agent.
    Agent,
    /// A command by itself, in some seconds.
    Trace,
}

/// A finding that stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Standing {
    /// What.
    #[serde(flatten)]
    pub finding: Finding,
    /// What it says, with times in UTC.
    pub sentence: String,
    /// When an agent saw it last that does not run any more; missing for what this one sees.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Timestamp>,
    /// Since when it is as severe as it is; missing where it always was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severe_since: Option<Timestamp>,
}

impl Standing {
    /// Since when it is as severe as it is.
    #[must_use]
    pub fn severe_since(&self) -> Timestamp {
        self.severe_since.unwrap_or(self.finding.since)
    }
}

const fn yes() -> bool {
    true
}

/// A proxy that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proxy {
    /// Its name.
    pub proxy: Arc<str>,
    /// The first of its processes that run, in the host's pid namespace: the master.
    pub pid: u32,
    /// What that is called; empty where nobody says it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub process: String,
    /// Its workers.
    pub workers: u64,
    /// Of these, the ones that run an earlier configuration.
    pub old_workers: u64,
    /// How often it was reloaded since it is seen.
    pub generation: u32,
    /// When it was last reloaded; missing where that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reloaded: Option<Timestamp>,
    /// Reloads that it did not take.
    pub rejected: u64,
    /// Workers that a signal ended.
    pub crashes: u64,
    /// Whether its upstreams can be named; missing for what is no nginx.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names_ready: Option<bool>,
    /// The path of its configuration.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub config: String,
}

/// An upstream of a proxy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Upstream {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// The name in its configuration.
    pub upstream: Arc<str>,
    /// How it is.
    pub state: State,
    /// Since when; missing where that was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Timestamp>,
    /// Where it has addresses that others have as well: the rows where those are counted, by the names of all of them; of such a row, the
    /// upstreams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Arc<str>>,
    /// Whether everything of it is counted in such rows: by itself it has no numbers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_shared: bool,
    /// What is recent.
    pub recent: Counts,
    /// The median of the connect times that are recent, in microseconds; missing where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_p50_us: Option<u64>,
    /// The time that 99 of 100 of them do not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_p99_us: Option<u64>,
    /// Attempts under way.
    pub in_flight: u64,
    /// What waits for an answer.
    #[serde(default)]
    pub waiting: Waiting,
    /// What workers on both sides of the proxy's last reload did there; missing where no reload was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<Sides>,
    /// Where it is connected to.
    pub addresses: Vec<Destination>,
}

/// Both sides of a reload.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sides {
    /// What workers of the configuration before it counted.
    pub old: Counts,
    /// What those of the newest do.
    pub new: Counts,
}

/// An address of an upstream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Destination {
    /// Which.
    pub address: Arc<str>,
    /// Whether the newest configuration names it.
    pub declared: bool,
    /// What was counted since it is seen.
    pub counts: Counts,
    /// When something was last answered on a connection that stays, where a look has found that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Timestamp>,
}

impl Destination {
    /// Whether connections that stay are in use, at that moment.
    #[must_use]
    pub fn is_in_use(&self, time: Timestamp) -> bool {
        self.answered.is_some_and(|answered| time.duration_since(answered) < RECENT)
    }
}

/// How an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A finding says that users get errors.
    Down,
    /// A finding says less than that, something failed within the last minute, or requests wait far longer than answers took.
    Failing,
    /// It is connected to, or answers on connections that it has, and nothing fails.
    Ok,
    /// Neither.
    Quiet,
}

impl Upstream {
    /// Whether that is its name, or one of the names of a row that several upstreams have.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        *self.upstream == *name
            || sharing::names(&self.upstream).any(|part| part == name)
            || self.is_shared_row() && self.shares.iter().any(|one| **one == *name)
    }

    /// Whether it stands for the addresses that several upstreams have.
    #[must_use]
    pub fn is_shared_row(&self) -> bool {
        !self.shares.is_empty() && self.upstream.contains(',')
    }

    /// Whether a finding is about it, or about what it shares with others.
    #[must_use]
    pub fn is_meant(&self, finding: &Finding) -> bool {
        let is_here = || {
            let address = finding.subject.address.as_ref().map(ToString::to_string);
            address.is_none_or(|address| self.addresses.iter().any(|to| *to.address == *address))
        };
        let is_about = |name| is_about(finding, &self.proxy, name);
        is_about(&self.upstream) || self.shares.iter().any(is_about) && is_here()
    }
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Failing => "failing",
            Self::Ok => "ok",
            Self::Quiet => "quiet",
        }
    }
}

impl Status {
    /// Whether something is wrong that hurts somebody.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.findings.iter().any(|standing| standing.finding.severity > Severity::Info)
    }
}
