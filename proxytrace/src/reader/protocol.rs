//! What is asked, and what is answered: JSON, an object a line.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::holder::Owner;
use crate::{
    declared::{self, Configuration, Endpoint, Resolver, Routes},
    identity::pod::Located,
    model::{Address, Complaint, Hint},
};

/// How long a question may be, in bytes as JSON.
pub(super) const MAX_REQUEST: usize = 4 << 20;

/// How long an answer may be, in bytes as JSON. What is kept of it takes two to three times as much.
pub(super) const MAX_ANSWER: usize = 8 << 20;

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
    pub id: GenerationId,
    /// Processes of it, in the host's pid namespace, the most likely master first.
    pub pids: Vec<u32>,
    /// When it took what it runs, boot time in nanoseconds, where that was seen.
    pub taken_ns: Option<u64>,
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
    /// Why the first of the processes did not take the configuration that it was asked for.
    Rejection {
        /// When it was asked for, boot time in nanoseconds.
        asked_ns: u64,
        /// Whether host names may be looked up to find out.
        resolves: bool,
    },
    /// Where it runs.
    Pod,
    /// To follow its error logs from now on: what it says there comes unasked. The first of the processes is the master.
    Log,
    /// What else is known of why connects to these addresses fail.
    Hints(Vec<Address>),
}

/// Kinds of questions: of each kind a proxy has one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Configuration,
    Addresses,
    Rejection,
    Pod,
    Log,
    Hints,
}

impl Question {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Configuration => Kind::Configuration,
            Self::Addresses(_) => Kind::Addresses,
            Self::Rejection { .. } => Kind::Rejection,
            Self::Pod => Kind::Pod,
            Self::Log => Kind::Log,
            Self::Hints(_) => Kind::Hints,
        }
    }

    /// The answer where it could not be worked on, and why.
    #[must_use]
    pub fn unanswered(&self, why: String) -> Answer {
        match self {
            Self::Configuration | Self::Addresses(_) => Answer::Unreadable(why),
            Self::Rejection { asked_ns, .. } => Answer::Rejection { asked_ns: *asked_ns, reason: None },
            Self::Pod => Answer::Pod(Located { pod: None, problem: Some(why) }),
            Self::Hints(addresses) => {
                Answer::Hints(addresses.iter().map(|address| (address.clone(), None)).collect())
            }
            Self::Log => Answer::Log { master: 0, names: Vec::new() },
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
    /// Whom to ask (`resolver`); nobody in particular where the proxy would ask the system.
    pub servers: Vec<Endpoint>,
}

/// What names resolve to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The answers; one is missing where nobody gave any.
    pub found: Vec<FoundName>,
    /// What could not be looked up, and why.
    pub problems: Vec<String>,
}

/// What a name resolves to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundName {
    /// Which one: [`Lookup::key`].
    pub key: String,
    /// Its addresses, in order; none where it has none.
    pub addresses: Vec<SocketAddr>,
    /// For how many seconds that holds, where a server says so.
    pub ttl_seconds: Option<u32>,
    /// It stands in a file (`/etc/hosts`): nobody was asked.
    pub is_of_file: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Whom it is about.
    pub id: GenerationId,
    /// Whose that is.
    pub owner: Owner,
    /// What was found.
    pub answer: Answer,
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
    /// To [`Question::Pod`].
    Pod(Located),
    /// To [`Question::Log`]: how the reader follows them.
    Log {
        /// The master, in the host's pid namespace.
        master: u32,
        /// The names that its configuration has, in lower case.
        names: Vec<String>,
    },
    /// To [`Question::Hints`].
    Hints(Vec<(Address, Option<Hint>)>),
    /// After [`Question::Log`], whenever there are some: what the proxy said within about a second.
    Complaints {
        /// What it lacks, in its own words.
        complaints: Vec<Complaint>,
        /// How many bytes of its logs were not read, because there were too many.
        skipped_bytes: u64,
    },
    /// The configuration could not be read, and why, with file and line where there is one.
    Unreadable(String),
    /// None of the processes is still there and of a proxy whose configuration can be read.
    NoKnownProxy,
}

impl Lookup {
    /// What its answer is found by.
    #[must_use]
    pub fn key(&self) -> String {
        declared::key(&self.name, &self.servers).into_owned()
    }

    /// The names in `routes` that the proxy looks up once, when it reads its configuration.
    pub fn fixed(routes: &Routes) -> impl Iterator<Item = Self> {
        routes.fixed_hosts().map(|host| Self {
            name: host.to_owned(),
            is_service: false,
            servers: Vec::new(),
        })
    }

    /// The names that the proxy follows while it runs, from the servers that it asks, and for how long an answer holds where that is
    /// not left to the answer, in milliseconds.
    pub fn followed(routes: &Routes) -> impl Iterator<Item = (Self, Option<u64>)> {
        let lookup = |(endpoint, resolver): (&Endpoint, Option<&Resolver>)| {
            let lookup = Self {
                name: endpoint.name()?.to_owned(),
                is_service: endpoint.host().is_none(),
                servers: resolver.map(|resolver| resolver.servers.clone()).unwrap_or_default(),
            };
            Some((lookup, resolver.and_then(|resolver| resolver.valid_ms)))
        };
        routes.followed().filter_map(lookup)
    }
}
