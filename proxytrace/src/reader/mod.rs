//! Reads the configuration that a running nginx uses, in a process of its own.
//!
//! It takes privileges that a trace does not keep: to look below the roots of other processes, and to ask for names in
//! their network namespaces. And what it reads may be hostile, large or slow. So it is another process, started before
//! the trace gives up its own privileges, and each request is worked on by yet another one, with bounds on time and
//! memory. They speak JSON, an object a line, through pipes.
//!
//! * [`client`]: starts it, asks, and hears answers.
//! * [`serve`]: the process; `queue`, `pending`, `holder`: who is served next.
//! * `lines`: what both sides take from a pipe, of bounded length.
//! * `confine`, `owner`: what such a process may take, and whose rights it has: those of the proxy's own user.
//! * `configuration`, `master`, `root`, `mounts`: what nginx reads, from where.
//! * `changed`: what was changed after nginx had read it.
//! * `names`, `dns`: host names, as they resolve where nginx runs.
//! * `rejection`: why nginx did not take a configuration.
//! * `pod`: where in Kubernetes a proxy runs, be it an nginx or not.

pub mod client;
pub mod serve;

mod changed;
mod configuration;
mod confine;
mod dns;
mod holder;
mod lines;
pub(crate) mod master;
mod mounts;
mod names;
mod owner;
mod pending;
mod pod;
mod queue;
mod rejection;
mod root;

use std::{collections::HashSet, path::PathBuf};

pub use holder::Owner;
use serde::{Deserialize, Serialize};

use crate::{
    declared::{Configuration, Endpoint, Resolved, Resolver, Routes},
    identity::pod::Pod,
};

/// How long a question may be, in bytes as JSON.
const MAX_REQUEST: usize = 4 << 20;

/// How long an answer may be, in bytes as JSON. What is kept of it takes two to three times as much.
pub const MAX_ANSWER: usize = 8 << 20;

/// One generation of one proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GenerationId {
    /// The proxy's id.
    pub proxy: u64,
    /// Its generation.
    pub generation: u32,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Whom it is about.
    pub of: GenerationId,
    /// Processes of it, in the host's pid namespace, the most likely master first.
    pub pids: Vec<u32>,
    /// The configuration that is to be read instead of the one that the process names, a path below its root.
    pub config: Option<PathBuf>,
    /// What about it.
    pub question: Question,
}

/// Kinds of questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What it is configured to do.
    Configuration,
    /// What these names resolve to now.
    Addresses(Vec<Lookup>),
    /// Why the first of the processes did not take the configuration that it was asked for then, boot time in nanoseconds.
    Rejection(u64),
    /// Where it runs.
    Pod,
}

/// Kinds of questions: of each kind a proxy has one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Configuration,
    Addresses,
    Rejection,
    Pod,
}

impl Question {
    const fn kind(&self) -> Kind {
        match self {
            Self::Configuration => Kind::Configuration,
            Self::Addresses(_) => Kind::Addresses,
            Self::Rejection(_) => Kind::Rejection,
            Self::Pod => Kind::Pod,
        }
    }

    /// The answer where it could not be worked on, and why.
    #[must_use]
    pub fn unanswered(&self, why: String) -> Answer {
        match self {
            Self::Configuration | Self::Addresses(_) => Answer::Unreadable(why),
            Self::Rejection(asked_ns) => Answer::Rejection { asked_ns: *asked_ns, reason: None },
            Self::Pod => Answer::Pod(None),
        }
    }
}

/// A name to look up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// Its SRV records are asked for, and the addresses of what they name.
    pub is_service: bool,
    /// Whom to ask (`resolver`); nobody in particular where nginx would ask the system.
    pub servers: Vec<Endpoint>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whom it is about.
    pub of: GenerationId,
    /// Whose that is.
    pub owner: Owner,
    /// What was found.
    pub answer: Answer,
}

/// What the process that works on one question says: lines, of which the answer is the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// All files that the answer needs were read: what is left is to wait for name servers.
    FilesRead,
    Answer(Answer),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Question::Configuration`].
    Configuration(Box<Configuration>),
    /// To [`Question::Addresses`].
    Addresses(Resolved),
    /// To [`Question::Rejection`].
    Rejection {
        /// When the reload was asked for, boot time in nanoseconds.
        asked_ns: u64,
        /// One line: what nginx says, or what stands in the configuration. `None` where neither could be had.
        reason: Option<String>,
    },
    /// To [`Question::Pod`]: in Kubernetes, or elsewhere, or that cannot be told.
    Pod(Option<Pod>),
    /// The configuration could not be read, and why, with file and line where there is one.
    Unreadable(String),
    /// None of the processes is an nginx that is still there.
    NoNginx,
}

impl Lookup {
    /// All names in `routes`, each once: of those that nginx follows while it runs, from the servers that it asks.
    pub fn all(routes: &Routes) -> Vec<Self> {
        let followed: HashSet<_> = routes.followed().filter_map(|(endpoint, _)| endpoint.name()).collect();
        let system = routes.hosts().filter(|host| !followed.contains(host));
        let lookup = |host: &str| Self { name: host.to_owned(), is_service: false, servers: Vec::new() };
        let mut all = Self::followed(routes);
        all.extend(system.map(lookup));
        all
    }

    /// The names that nginx follows while it runs.
    pub fn followed(routes: &Routes) -> Vec<Self> {
        let lookup = |(endpoint, resolver): (&Endpoint, Option<&Resolver>)| {
            Some(Self {
                name: endpoint.name()?.to_owned(),
                is_service: endpoint.host().is_none(),
                servers: resolver.map(|resolver| resolver.servers.clone()).unwrap_or_default(),
            })
        };
        routes.followed().filter_map(lookup).collect()
    }
}

/// Reads an answer of a name server in each of the ways in which one is read.
#[cfg(any(fuzzing, test))]
pub(crate) fn read_dns_answer(message: &[u8]) {
    dns::read_any(message);
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use nix::time::{ClockId, clock_gettime};

    use super::{GenerationId, Question, Request};

    /// How long this thread has run: what time something takes, whatever else the machine does.
    pub(crate) fn time_of_thread() -> Duration {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
    }

    /// A question about a proxy of whose processes nothing is known.
    pub(super) fn request(proxy: u64, generation: u32, question: Question) -> Request {
        Request { of: GenerationId { proxy, generation }, pids: Vec::new(), config: None, question }
    }
}
