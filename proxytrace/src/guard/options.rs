//! What is asked for.

use std::{path::PathBuf, time::Duration};

use super::earlier::Earlier;

/// How a change is guarded.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program that makes the proxy take the change, with its arguments.
    pub command: Vec<String>,
    /// What changes the files first.
    pub apply: Option<String>,
    /// What takes the change back.
    pub rollback: Option<String>,
    /// The directory that is put back as it was.
    pub files: Option<PathBuf>,
    /// A configuration from before the change, where the files are changed already.
    pub against: Option<PathBuf>,
    /// How long it is watched how things are without the change.
    pub baseline: Duration,
    /// How upstreams fared before that, where an agent has counted it.
    pub earlier: Earlier,
    /// How long the new generation is watched.
    pub window: Duration,
    /// How long each step may take.
    pub timeout: Duration,
    /// Whether the configuration is looked at before it is loaded.
    pub checks: bool,
    /// Whether addresses are connected to.
    pub probes: bool,
    /// What is demanded of the new generation.
    pub criteria: Criteria,
    /// Where copies of files are kept.
    pub state: PathBuf,
}

/// What is demanded of the new generation.
#[derive(Clone, Debug)]
pub struct Criteria {
    /// At most this share of an upstream's connects may fail, and at most so much more than before.
    pub max_failure_ratio: f64,
    /// So many connects of an upstream must succeed; where it is not said, one, or a probe.
    pub min_connects: Option<u64>,
    /// Whether what nobody has connected to passes.
    pub allow_unproven: bool,
    /// Upstreams that the new generation must connect to.
    pub expected: Vec<String>,
    /// Upstreams that it must not connect to.
    pub forbidden: Vec<String>,
}

impl Default for Criteria {
    fn default() -> Self {
        Self {
            max_failure_ratio: 0.1,
            min_connects: None,
            allow_unproven: false,
            expected: Vec::new(),
            forbidden: Vec::new(),
        }
    }
}
