//! What sentences of findings have in common. They are for somebody who reads them at 3 a.m.

use std::borrow::Cow;

use jiff::{Timestamp, tz::TimeZone};

use crate::model::{Evidence, Finding, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM};

/// At most so many addresses are named; the rest is counted.
const MAX_NAMED: usize = 3;

/// A finding that is put into words, with times as in a time zone.
pub(super) struct Sentence<'a> {
    pub(super) finding: &'a Finding,
    pub(super) zone: &'a TimeZone,
}

impl<'a> Sentence<'a> {
    pub(super) const fn evidence(&self) -> &'a Evidence {
        &self.finding.evidence
    }

    /// Since when, as a time of day.
    pub(super) fn since(&self) -> String {
        self.time(self.finding.since)
    }

    /// The time of day; with the date would be longer, and a finding is read when it is news.
    pub(super) fn time(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned(self.zone.clone());
        let suffix = if *self.zone == TimeZone::UTC { "Z" } else { "" };
        format!("{}{suffix}", zoned.strftime("%H:%M:%S"))
    }

    /// The upstream that it is about.
    pub(super) fn upstream(&self) -> String {
        match self.named_upstream() {
            None => format!("traffic of {}", self.finding.subject.proxy),
            Some(name) => format!("upstream \"{name}\""),
        }
    }

    /// The address that it is about.
    pub(super) fn address(&self) -> String {
        self.finding.subject.address.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string)
    }

    /// The address that it is about, with its upstream where that has a name.
    pub(super) fn address_of_upstream(&self) -> String {
        match self.named_upstream() {
            None => self.address(),
            Some(name) => format!("{} of upstream \"{name}\"", self.address()),
        }
    }

    fn named_upstream(&self) -> Option<&'a str> {
        let upstream = self.finding.subject.upstream.as_deref();
        upstream.filter(|name| ![UNKNOWN_UPSTREAM, UNDECLARED_UPSTREAM].contains(name))
    }

    /// Where the traffic went before.
    pub(super) fn from(&self) -> String {
        let from = &self.evidence().from;
        let named: Vec<_> = from.iter().take(MAX_NAMED).map(ToString::to_string).collect();
        let rest = from.len() - named.len();
        let named = named.join(", ");
        if rest == 0 { named } else { format!("{named} and {rest} more") }
    }

    /// How connects failed: `were refused`, or `failed (refused 3, timed_out 2)`.
    pub(super) fn failed(&self) -> String {
        let mut causes: Vec<_> = self.evidence().causes.iter().collect();
        causes.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        match &causes[..] {
            [] => "failed".to_owned(),
            [(cause, _)] if ***cause == *"refused" => "were refused".to_owned(),
            causes => {
                let causes: Vec<_> = causes.iter().map(|(cause, n)| format!("{cause} {n}")).collect();
                format!("failed ({})", causes.join(", "))
            }
        }
    }
}

/// The line of the configuration that is to blame, for advice.
pub(super) fn server_line(finding: &Finding) -> Cow<'static, str> {
    match &finding.place {
        Some(place) => format!("the \"server\" line at {place}").into(),
        None => "its \"server\" line".into(),
    }
}
