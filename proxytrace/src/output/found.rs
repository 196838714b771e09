//! What was found while records were shown.

use std::{collections::BTreeMap, process::ExitCode};

use jiff::tz::TimeZone;

use super::{Colour, Paint};
use crate::{
    escape::printable,
    exit::Failure,
    model::{Body, Change, Filter, Finding, State, Subject},
};

/// The findings that came and went.
#[derive(Debug, Default)]
pub struct Found {
    raised: u64,
    active: BTreeMap<Subject, Finding>,
}

impl Found {
    /// Takes a record, which may be about a finding.
    pub fn note(&mut self, body: &Body) {
        let Body::Finding(Change { state, finding }) = body else { return };
        match state {
            State::Raised => {
                self.raised += 1;
                self.active.insert(finding.subject.clone(), finding.clone());
            }
            State::Cleared => drop(self.active.remove(&finding.subject)),
        }
    }

    /// With newer evidence than when they were raised.
    pub fn renew<'a>(&mut self, active: impl Iterator<Item = &'a Finding>) {
        self.active = active.map(|finding| (finding.subject.clone(), finding.clone())).collect();
    }

    /// Whether that makes a command fail that was asked to fail on a finding.
    #[must_use]
    pub fn status(&self, fails_on_finding: bool) -> ExitCode {
        if fails_on_finding && self.raised > 0 { Failure::Failed.into() } else { ExitCode::SUCCESS }
    }

    /// Lines for the summary: what still stands, of what `filter` lets pass; nothing where nothing was found.
    #[must_use]
    pub fn summary(&self, colour: Colour, filter: &Filter) -> String {
        if self.raised == 0 && self.active.is_empty() {
            return String::new();
        }
        let standing = self.active.values().filter(|finding| filter.passes_subject(&finding.subject));
        let zone = TimeZone::system();
        let lines = standing.map(|finding| {
            format!("{}  {}\n", colour.paint(Paint::Red, "FINDING"), printable(&finding.in_zone(&zone)))
        });
        format!("findings raised {}, standing {}\n", self.raised, self.active.len())
            + &lines.collect::<String>()
    }
}
