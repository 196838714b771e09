//! What the agent sees, for a command on the same host that loads no programs of its own (`GET /changes`): which proxies run and how they
//! are configured, what is counted of each of their generations, and what is found. A line says what has changed since the line before.
//!
//! * [`Publisher`]: makes the lines of a running trace.
//! * [`Channel`]: brings them to subscribers.
//! * [`Mirror`]: what a subscriber knows that has read them.

mod channel;
mod mirror;
mod publisher;

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt as _, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use channel::{Channel, Subscriber};
pub use mirror::Mirror;
pub use publisher::Publisher;

use crate::{
    declared::{Addresses, Configuration},
    model::{Finding, Generation, Record},
};

/// A line: what has changed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Change {
    /// When that was seen.
    pub time: Timestamp,
    /// Only in a line that says everything, whatever was said before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
    /// Whether it is known what runs, and how that is configured.
    pub started: bool,
    /// Whether what was counted and found is up to date with all that happened before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tick: bool,
    /// The first process of a proxy that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entered: Option<u32>,
    /// What happened to masters and workers, and what was counted of each destination so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
    /// Configurations that were not published before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub configurations: Vec<Configured>,
    /// The proxies that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Vec<Runs>>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub findings: Option<Vec<Finding>>,
    /// The proxies that were asked to reload, where it is not known what became of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reloading: Option<BTreeSet<Arc<str>>>,
}

/// What a line that says everything says of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whole {
    /// Where its process ids are those of the processes that it names.
    pub pid_namespace: u64,
}

/// How a generation is configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// What [`Runs::configuration`] calls it.
    pub number: u64,
    /// What it says.
    #[serde(flatten)]
    pub configuration: Configuration,
    /// What the host names in it stand for.
    pub addresses: Addresses,
}

/// A proxy that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// Its newest generation.
    #[serde(flatten)]
    pub of: Generation,
    /// What its process is called.
    pub process: String,
    /// The process that takes the signals.
    pub master: u32,
    /// The workers of that generation.
    pub workers: Vec<u32>,
    /// Whether it is known how that generation is configured, or that nobody can know it.
    pub is_read: bool,
    /// How, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<u64>,
}

/// The pid namespace of this process.
///
/// # Errors
/// `/proc` does not say it.
pub fn pid_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}
