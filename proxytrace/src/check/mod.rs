//! What would misroute: findings about a configuration, without tracing. Pure but for `source`, `resolve` and `probe`.

mod addresses;
pub mod difference;
pub mod probe;
pub mod report;
pub mod resolve;
mod rules;
mod servers;
pub mod source;
mod timeouts;
mod upstreams;

#[cfg(test)]
mod docs;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod properties;

use nginx_conf::Config;
use serde::Serialize;

pub use rules::{ALL, Rule, Severity};

use crate::{
    declared::{Addresses, Routes},
    nginx::upstreams::Fault,
};

/// Something that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind it is.
    #[serde(flatten)]
    pub rule: &'static Rule,
    /// The file, as nginx names it.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// What will happen, in a sentence.
    pub what: String,
    /// How to mend it, in a sentence.
    pub mend: String,
    /// The line itself, where that says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
}

/// A line with a place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// At most 200 bytes of the line, from its beginning.
    pub text: String,
    /// In characters, from 1.
    pub column: usize,
}

impl Finding {
    /// `place` is `path:line`.
    fn new(rule: &'static Rule, place: &str, what: String, mend: impl Into<String>) -> Self {
        let (file, line) = place.rsplit_once(':').unwrap_or((place, ""));
        Self {
            rule,
            file: file.to_owned(),
            line: line.parse().unwrap_or(0),
            what,
            mend: mend.into(),
            shown: None,
        }
    }
}

/// A configuration with what was read from it.
pub struct Subject<'a> {
    pub(crate) config: &'a Config,
    /// Its routes.
    pub routes: Routes,
    faults: Vec<Fault>,
}

impl<'a> Subject<'a> {
    /// Reads the routes.
    #[must_use]
    pub fn new(config: &'a Config) -> Self {
        let (routes, faults) = crate::nginx::read::read(config);
        Self { config, routes, faults }
    }

    /// What would misroute. `resolved` has the host names that were looked up: one without an address does not resolve.
    /// `has_socket` says whether a unix socket is there.
    #[must_use]
    pub fn findings(&self, resolved: &Addresses, has_socket: &dyn Fn(&str) -> bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        addresses::find(self, resolved, has_socket, &mut findings);
        upstreams::find(self, resolved, &mut findings);
        servers::find(self.config, &mut findings);
        timeouts::find(&self.routes, &mut findings);
        findings
    }
}
