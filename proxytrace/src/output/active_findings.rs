//! The findings that came and went while records were shown.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::{Paint, Screen};
use crate::{
    escape::printable,
    model::{Body, Change, Filter, Finding, State, Subject},
};

/// The findings that stand, and how many were raised.
#[derive(Debug, Default)]
pub struct ActiveFindings {
    raised: u64,
    active: BTreeMap<Subject, Finding>,
}

impl ActiveFindings {
    /// Takes a record, which may be about a finding.
    pub fn note(&mut self, body: &Body) {
        let Body::Finding(Change { state, finding, .. }) = body else { return };
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

    /// Takes those that stand already.
    pub fn stand<'a>(&mut self, active: impl Iterator<Item = &'a Finding>) {
        self.renew(active);
        self.raised += self.active.len() as u64;
    }

    /// Whether there was any.
    pub const fn were_raised(&self) -> bool {
        self.raised > 0
    }

    /// Lines for the summary: what still stands, of what `filter` lets pass; nothing where nothing was found.
    pub fn summary(&self, screen: Screen, zone: &TimeZone, filter: &Filter) -> String {
        if self.raised == 0 && self.active.is_empty() {
            return String::new();
        }
        let standing = self.active.values().filter(|finding| filter.passes_finding(finding));
        let lines = standing.map(|finding| {
            const TITLE: &str = "FINDING";
            let text = format!("{TITLE}  {}", printable(&finding.in_zone(zone)));
            let text = screen.width.wrapped(&text, 0, TITLE.len() + 2);
            text.replacen(TITLE, &screen.colour.paint(Paint::Red, TITLE), 1) + "\n"
        });
        format!("findings raised {}, standing {}\n", self.raised, self.active.len())
            + &lines.collect::<String>()
    }
}
