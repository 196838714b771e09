//! What is asked, and what is answered: JSON, an object a line.

use std::{collections::HashSet, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::holder::Owner;
use crate::{
    declared::{Configuration, Endpoint, Resolved, Resolver, Routes},
    identity::pod::Located,
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
pub(super) enum Kind {
    Configuration,
    Addresses,
    Rejection,
    Pod,
}

impl Question {
    pub(super) const fn kind(&self) -> Kind {
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
            Self::Pod => Answer::Pod(Located { pod: None, problem: Some(why) }),
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
    /// The configuration could not be read, and why, with file and line where there is one.
    Unreadable(String),
    /// None of the processes is still there and of a proxy whose configuration can be read.
    NoKnownProxy,
}

impl Lookup {
    /// All names in `routes`, each once: of those that the proxy follows while it runs, from the servers that it asks.
    pub fn all(routes: &Routes) -> Vec<Self> {
        let followed: HashSet<_> = routes.followed().filter_map(|(endpoint, _)| endpoint.name()).collect();
        let system = routes.hosts().filter(|host| !followed.contains(host));
        let lookup = |host: &str| Self { name: host.to_owned(), is_service: false, servers: Vec::new() };
        let mut all = Self::followed(routes);
        all.extend(system.map(lookup));
        all
    }

    /// The names that the proxy follows while it runs.
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
