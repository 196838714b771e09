//! Findings as sentences, for somebody who reads them at 3 a.m.

use std::fmt;

use jiff::{Timestamp, tz::TimeZone};

use crate::model::{Evidence, Fared, Finding, Kind, Subject, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM};

/// At most so many addresses are named; the rest is counted.
const NAMED: usize = 3;

impl fmt::Display for Finding {
    /// With times in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Sentence { finding: self, zone: &TimeZone::UTC }, self.advice())
    }
}

/// What a finding says, without what to do, with times as in a time zone.
struct Sentence<'a> {
    finding: &'a Finding,
    zone: &'a TimeZone,
}

impl Finding {
    /// What its `Display` says, with times as in a time zone.
    #[must_use]
    pub fn in_zone(&self, zone: &TimeZone) -> String {
        format!("{} {}", Sentence { finding: self, zone }, self.advice())
    }

    /// What to do about it: a sentence.
    #[must_use]
    pub fn advice(&self) -> String {
        let line = || match &self.place {
            Some(place) => format!("the \"server\" line at {place}"),
            None => "its \"server\" line".to_owned(),
        };
        match self.subject.kind {
            Kind::Misrouted => match &self.place {
                Some(place) => format!("Check the \"server\" line at {place}."),
                None => "Check what the reload changed, or go back to the configuration before it.".to_owned(),
            },
            Kind::UpstreamDown => format!("Check the service behind it, then {}.", line()),
            Kind::AddressDown => {
                format!("Check the service there; mark {} \"down\" until it is back.", line())
            }
            Kind::UndeclaredDestination => {
                "Check which request makes nginx go there, and whether the configuration was changed without a reload.".to_owned()
            }
            Kind::SilentUpstream => "Check the locations that should lead there.".to_owned(),
            Kind::BlackHole => "Check that the host is up, and firewalls and routes on the way.".to_owned(),
            Kind::WrongService => {
                format!(
                    "Check what listens there, whether it expects TLS or another protocol, and {}.",
                    line()
                )
            }
            Kind::ReloadRejected => "Run `nginx -t`, mend what it names, and reload again.".to_owned(),
            Kind::PortsExhausted => {
                "Reuse connections (\"keepalive\"), add source addresses (\"proxy_bind\"), or widen net.ipv4.ip_local_port_range.".to_owned()
            }
            Kind::BacklogFull => {
                "Give the service more workers, or its socket a longer backlog (and net.core.somaxconn).".to_owned()
            }
            Kind::Denied => {
                "Check the socket's file mode, SELinux (httpd_can_network_connect) or AppArmor, and firewall rules for the proxy's own traffic.".to_owned()
            }
            Kind::SlowConnect => "Check the network on the way, and the load of the host.".to_owned(),
        }
    }
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { subject, since, evidence, .. } = self.finding;
        let since = self.time(*since);
        write!(f, "{}: ", subject.kind.name())?;
        match subject.kind {
            Kind::Misrouted => {
                write!(f, "{} moved", whose(subject))?;
                if !evidence.from.is_empty() {
                    write!(f, " from {}", from(evidence))?;
                }
                write!(f, " to {}", address(subject))?;
                if let Some(reload) = evidence.reload {
                    write!(f, " with the reload at {}", self.time(reload))?;
                }
                write!(f, "; {} connects since {}", of(evidence), failed(evidence))?;
                if let Some(Fared { failed, of }) = evidence.old_workers {
                    write!(f, " (old workers: {failed} of {of} failed)")?;
                }
                f.write_str(".")
            }
            Kind::UpstreamDown => write!(
                f,
                "{} cannot be reached since {since}; the last {} connects all {}.",
                whose(subject),
                evidence.of,
                failed(evidence)
            ),
            Kind::AddressDown => write!(
                f,
                "{} cannot be reached since {since}, other addresses can; the last {} connects there all {}.",
                where_(subject),
                evidence.of,
                failed(evidence)
            ),
            Kind::UndeclaredDestination => write!(
                f,
                "the proxy connects to {}, which its configuration does not name; {} connects since {since}, {} failed.",
                address(subject),
                evidence.of,
                evidence.failed
            ),
            Kind::SilentUpstream => write!(
                f,
                "{} is not connected to since the reload at {since}; about {} connects were to be expected by now.",
                whose(subject),
                evidence.of
            ),
            Kind::BlackHole => write!(
                f,
                "nothing answers at {}; {} SYNs were sent again since {since}, {} connects timed out, {} are waiting.",
                where_(subject),
                evidence.syn_retransmits,
                evidence.failed,
                evidence.in_flight
            ),
            Kind::WrongService => write!(
                f,
                "{} accepts connections and does not answer; {} were closed or reset unanswered since {since}.",
                where_(subject),
                evidence.failed
            ),
            Kind::ReloadRejected => {
                write!(f, "{} reload(s) since {since} brought no new worker; ", evidence.failed)?;
                f.write_str("the old configuration is still in use")?;
                match &evidence.reason {
                    Some(reason) => write!(f, ". nginx says: {reason}."),
                    None => f.write_str("."),
                }
            }
            Kind::PortsExhausted => self.local("no local port was left", subject, evidence, &since, f),
            Kind::BacklogFull => self.local("the listener's backlog was full", subject, evidence, &since, f),
            Kind::Denied => self.local("this host did not allow it", subject, evidence, &since, f),
            Kind::SlowConnect => write!(
                f,
                "the last {} handshakes with {} took {} ms on average, 99 of 100 before within {} ms; since {since}.",
                evidence.of,
                where_(subject),
                milliseconds(evidence.handshake_us),
                milliseconds(evidence.usual_us)
            ),
        }
    }
}

impl Sentence<'_> {
    /// The time of day; with the date would be longer, and a finding is read when it is news.
    fn time(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned(self.zone.clone());
        let suffix = if *self.zone == TimeZone::UTC { "Z" } else { "" };
        format!("{}{suffix}", zoned.strftime("%H:%M:%S"))
    }

    fn local(
        &self,
        what: &str,
        subject: &Subject,
        evidence: &Evidence,
        since: &str,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        write!(
            f,
            "{what} for {} of {} connects to {} since {since}.",
            evidence.failed,
            evidence.of,
            where_(subject)
        )
    }
}

/// The upstream that a finding is about, in words.
fn whose(subject: &Subject) -> String {
    match subject.upstream.as_deref() {
        None | Some(UNKNOWN_UPSTREAM | UNDECLARED_UPSTREAM) => format!("traffic of {}", subject.proxy),
        Some(name) => format!("upstream \"{name}\""),
    }
}

fn address(subject: &Subject) -> String {
    subject.address.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string)
}

/// The address that a finding is about, with its upstream where that has a name.
fn where_(subject: &Subject) -> String {
    match subject.upstream.as_deref() {
        None | Some(UNKNOWN_UPSTREAM | UNDECLARED_UPSTREAM) => address(subject),
        Some(name) => format!("{} of upstream \"{name}\"", address(subject)),
    }
}

fn from(evidence: &Evidence) -> String {
    let named: Vec<_> = evidence.from.iter().take(NAMED).map(ToString::to_string).collect();
    let rest = evidence.from.len() - named.len();
    let named = named.join(", ");
    if rest == 0 { named } else { format!("{named} and {rest} more") }
}

fn of(evidence: &Evidence) -> String {
    format!("{} of {}", evidence.failed, evidence.of)
}

/// How connects failed: `were refused`, or `failed (refused 3, timed_out 2)`.
fn failed(evidence: &Evidence) -> String {
    let mut causes: Vec<_> = evidence.causes.iter().collect();
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

/// With one decimal place where that is worth something.
fn milliseconds(us: u64) -> String {
    if us < 10_000 { format!("{:.1}", us as f64 / 1000.0) } else { (us / 1000).to_string() }
}

#[cfg(test)]
mod tests {
    use super::{Evidence, Fared, Finding, Kind, Subject};

    #[test]
    fn a_sentence_says_what_is_known() {
        let subject = Subject {
            proxy: "nginx.service".into(),
            kind: Kind::Misrouted,
            upstream: Some("api".into()),
            address: Some("10.0.0.5:8081".parse().unwrap()),
        };
        let evidence = Evidence {
            failed: 312,
            of: 312,
            causes: [("refused".into(), 312)].into(),
            from: vec!["10.0.0.5:8080".parse().unwrap()],
            reload: Some("2025-03-01T14:30:02Z".parse().unwrap()),
            generation: Some(1),
            old_workers: Some(Fared { failed: 0, of: 41 }),
            ..Evidence::default()
        };
        let finding = Finding {
            subject,
            since: "2025-03-01T14:30:02Z".parse().unwrap(),
            place: Some("/etc/nginx/conf.d/api.conf:4".into()),
            evidence,
        };
        assert_eq!(
            finding.to_string(),
            "misrouted: upstream \"api\" moved from 10.0.0.5:8080 to 10.0.0.5:8081 with the reload at 14:30:02Z; 312 of 312 \
             connects since were refused (old workers: 0 of 41 failed). Check the \"server\" line at \
             /etc/nginx/conf.d/api.conf:4."
        );
    }
}
