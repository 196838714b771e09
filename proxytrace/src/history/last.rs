//! What an agent saw last, for the one that is started after it: nothing in the kernel outlives an agent, and what stood may still stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::tag::Line;
use crate::{
    escape,
    model::{Body, Change, Finding, Record},
};

/// What an agent saw last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When.
    pub time: Timestamp,
    /// In which boot of the host: pids are of that.
    pub boot: Arc<str>,
    /// What stood.
    pub findings: Vec<Left>,
    /// The proxies that ran, by name.
    pub proxies: BTreeMap<Arc<str>, Known>,
}

impl Last {
    /// Whether it says the same.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.findings, &self.proxies) == (&other.findings, &other.proxies)
    }

    /// Whether it says the same, but for evidence.
    pub fn is_like(&self, other: &Self) -> bool {
        let subjects = |last: &Self| {
            last.findings.iter().map(|left| left.finding.subject.clone()).collect::<BTreeSet<_>>()
        };
        self.proxies == other.proxies && subjects(self) == subjects(other)
    }

    /// A line of JSON.
    pub fn line(&self) -> Option<Line> {
        let line = serde_json::to_string(self).ok()?;
        Some(escape::json(&line).into())
    }
}

/// A finding that stood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What.
    #[serde(flatten)]
    pub finding: Finding,
    /// When an agent saw it last that ran even before; missing for what this one saw itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Timestamp>,
    /// Since when it is as severe as it is; missing where it always was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severe_since: Option<Timestamp>,
}

impl Finding {
    /// The record that a finding does not stand any more which an agent before has seen.
    #[must_use]
    pub fn gone(&self, now: Timestamp, because: &str) -> Record {
        let change = Change::cleared(now, self.clone(), self.to_string().into(), because.into());
        Record { time: now, body: Body::Finding(change) }
    }
}

/// A proxy that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The first of its processes that ran.
    pub pid: u32,
    /// When it was last reloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reloaded: Option<Timestamp>,
}
