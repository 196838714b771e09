//! What sentences of findings have in common. They are for somebody who reads them at 3 a.m.

use std::borrow::Cow;

use jiff::{Timestamp, tz::TimeZone};

use crate::model::{Evidence, Finding, Hint, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM};

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

    /// Since when, as a time of day; at least since then, where it was never seen to be otherwise.
    pub(super) fn since(&self) -> String {
        let at_least = if self.evidence().start_unseen { "at least " } else { "" };
        format!("{at_least}{}", self.time(self.finding.since))
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
            Some(name) => format!("upstream \"{name}\"{}", self.of_proxy()),
        }
    }

    /// The proxy that it is about: by its name where there are several.
    pub(super) fn proxy(&self) -> &'a str {
        if self.finding.several_proxies { &self.finding.subject.proxy } else { "the proxy" }
    }

    /// Which proxy it is about, where there are several.
    pub(super) fn of_proxy(&self) -> String {
        match self.finding.several_proxies {
            true => format!(" of {}", self.finding.subject.proxy),
            false => String::new(),
        }
    }

    /// Why it is so, where that was found out besides.
    pub(super) const fn because(&self) -> &'static str {
        match self.evidence().hint {
            None => "",
            Some(Hint::NoIpv6) => "; there is no IPv6 address on this host",
            Some(Hint::SocketElsewhere) => {
                "; the socket is on this host, but not in nginx's mount namespace (PrivateTmp?)"
            }
        }
    }

    /// The address that it is about.
    pub(super) fn address(&self) -> String {
        self.finding.subject.address.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string)
    }

    /// The address that it is about, with its upstream where that has a name.
    pub(super) fn address_of_upstream(&self) -> String {
        match self.named_upstream() {
            None => format!("{}{}", self.address(), self.of_proxy()),
            Some(_) => format!("{} of {}", self.address(), self.upstream()),
        }
    }

    fn named_upstream(&self) -> Option<&'a str> {
        let upstream = self.finding.subject.upstream.as_deref();
        upstream.filter(|name| ![UNKNOWN_UPSTREAM, UNDECLARED_UPSTREAM].contains(name))
    }

    /// Where the traffic went before.
    pub(super) fn from(&self) -> String {
        list(&self.evidence().from)
    }

    /// Where it goes now.
    pub(super) fn to(&self) -> String {
        match &self.evidence().to[..] {
            [] => self.address(),
            to => list(to),
        }
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
pub(super) fn line(finding: &Finding) -> Cow<'static, str> {
    let directive = finding.directive.as_deref().unwrap_or("server");
    match &finding.place {
        Some(place) => format!("the \"{directive}\" line at {place}").into(),
        None => format!("its \"{directive}\" line").into(),
    }
}

/// What to do where it was found out besides why it is so.
pub(super) fn mend(finding: &Finding) -> Option<Cow<'static, str>> {
    Some(match finding.evidence.hint? {
        Hint::NoIpv6 => {
            "Have nginx use IPv4 only: `ipv6=off` in its \"resolver\" line, or an IPv4 address in place of the name; or give this host an \
             IPv6 address."
                .into()
        }
        Hint::SocketElsewhere => {
            "Move the socket out of /tmp, to /run, or set PrivateTmp=no in nginx's unit; in a container, mount its directory.".into()
        }
    })
}

/// Whether a configuration gives the upstream a name: without one it has no lines that could be named.
pub(super) fn has_name(finding: &Finding) -> bool {
    let upstream = finding.subject.upstream.as_deref();
    upstream.is_some_and(|name| ![UNKNOWN_UPSTREAM, UNDECLARED_UPSTREAM].contains(&name))
}

/// So many, and what: `1 connect`, `2 connects`.
pub(super) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// How long something took, to the two units that matter.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..10 => format!("{}.{} s", seconds, ms % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// What shows that nothing answers, as the rest of a sentence.
pub(super) fn no_answer(resent: u64, given_up: u64, in_flight: u64) -> String {
    let mut text = String::new();
    if resent > 0 {
        text += &format!("; {} sent again", count(resent, "SYN"));
    }
    if given_up > 0 {
        text += &format!("; {} given up without an answer", count(given_up, "connect"));
    }
    if in_flight > 0 {
        text += &format!("; {} waiting", count(in_flight, "connect"));
    }
    text
}

/// Addresses as a list of which the rest is counted.
pub(super) fn list(addresses: &[impl ToString]) -> String {
    let named: Vec<_> = addresses.iter().take(MAX_NAMED).map(ToString::to_string).collect();
    let rest = addresses.len() - named.len();
    let named = named.join(", ");
    if rest == 0 { named } else { format!("{named} and {rest} more") }
}
