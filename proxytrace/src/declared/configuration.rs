//! The configuration of one proxy: where it is, what it declares, and what its host names resolve to.

use std::{fmt, path::PathBuf, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::routes::{Addresses, Routes};

/// What a proxy is configured to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The main file, a path below the process's root.
    pub path: PathBuf,
    /// The program.
    pub exe: PathBuf,
    /// Where it sends requests. Proxies whose routes are the same share them.
    pub routes: Arc<Routes>,
    /// What was changed of it after the proxy had taken it.
    pub changed: Option<Changed>,
    /// What the host names in it resolve to, once that was asked.
    #[serde(skip)]
    pub resolved: Addresses,
}

/// A file that may not be what the proxy runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Which one, a path below the process's root.
    pub path: PathBuf,
    /// When it was changed.
    pub at: Timestamp,
    /// When the workers had started.
    pub started: Timestamp,
}

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, at, started } = self;
        write!(
            f,
            "{} was changed at {at:.0}, after nginx's workers had started at {started:.0}: upstreams are named by what it \
             says now, which nginx may not have taken (it takes it with the next reload)",
            path.display()
        )
    }
}
