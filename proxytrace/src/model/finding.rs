//! A finding as records carry it: what is wrong, with whom, since when, and the evidence. How it is detected and what it says in
//! words is the part of `findings`.

use std::{collections::BTreeMap, net::IpAddr, ops::AddAssign, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Address, Complaint, Hint};

/// Declares the kinds, each with its name, so that neither the list of all nor a name can be forgotten.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)+) => {
        /// A kind of finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)+
        }

        impl Kind {
            /// All of them.
            pub const ALL: [Self; [$(Self::$kind),+].len()] = [$(Self::$kind),+];

            /// The name in records, in metric labels, and as the anchor in docs/findings.md.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// After a reload an upstream's traffic goes to an address that it did not go to before, and fails there.
    Misrouted = "misrouted",
    /// Nothing that an upstream is connected to at accepts a connection any more.
    UpstreamDown = "upstream_down",
    /// One address of several does not accept a connection any more.
    AddressDown = "address_down",
    /// Connects to an address that the configuration does not name.
    UndeclaredDestination = "undeclared_destination",
    /// An upstream in use before a reload is not connected to any more.
    SilentUpstream = "silent_upstream",
    /// SYNs are sent again, and nothing answers.
    BlackHole = "black_hole",
    /// Connections are established, and then closed or reset unanswered.
    WrongService = "wrong_service",
    /// A reload was asked for, and no new worker came.
    ReloadRejected = "reload_rejected",
    /// No local port is left to connect from.
    PortsExhausted = "ports_exhausted",
    /// A unix socket's listener does not accept fast enough.
    BacklogFull = "backlog_full",
    /// This host does not allow the connect.
    Denied = "denied",
    /// Handshakes take much longer than this address's own past.
    SlowConnect = "slow_connect",
    /// Most handshakes need a SYN sent again or time out, and some succeed.
    Overloaded = "overloaded",
    /// A reload or a crash loop left no worker.
    NoWorkers = "no_workers",
    /// Hardly anything that a proxy connects to works.
    ProxyDown = "proxy_down",
    /// Requests fail before the proxy connects for them.
    ProxyFails = "proxy_fails",
    /// Requests are taken, and not answered.
    NoResponse = "no_response",
    /// A name that the proxy looked up once is another address now.
    StaleName = "stale_name",
}

/// How much a finding matters: whether it is worth waking somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// To be known; nobody is hurt.
    #[default]
    Info,
    /// For the next working day: the proxy gets around it for now, or it slows things down.
    Warning,
    /// Users get errors.
    Critical,
}

impl Severity {
    /// The name in records and in metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a finding is about. There is at most one of a kind about the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// What is wrong. Goes by the name `finding` in a record, where `kind` is the kind of the record.
    #[serde(rename = "finding")]
    pub kind: Kind,
    /// The upstream, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Arc<str>>,
    /// The address, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

/// Something that is wrong. Its `Display`, in `findings`, is a sentence for an engineer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What is wrong, and with whom.
    #[serde(flatten)]
    pub subject: Subject,
    /// How much it matters now. It rises where what the proxy got around by does not work any more.
    #[serde(default)]
    pub severity: Severity,
    /// When it began: the first sign of it, which is before it was proven.
    pub since: Timestamp,
    /// `path:line` of the configuration that is to blame, where one is and is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Arc<str>>,
    /// The directive of that line, such as `proxy_pass`; missing for `server`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directive: Option<Arc<str>>,
    /// Whether other proxies are traced as well, so that the sentence says which it is about.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub several_proxies: bool,
    /// What proves it.
    pub evidence: Evidence,
}

/// How a reason begins that was found in the files of a proxy whose own words are not to be had.
pub const BY_FILES: &str = "nginx refuses ";

/// What proves a finding. Each kind has the members that it needs; the others are zero or missing, and left out of records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Connects that show it, of those in `of`; what that means depends on the kind.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u64,
    /// All connects in question, those aside that the proxy cancelled.
    #[serde(skip_serializing_if = "is_zero")]
    pub of: u64,
    /// The failures, by cause.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub causes: BTreeMap<Arc<str>, u64>,
    /// Where the traffic went before: the first 64 addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Address>,
    /// Where it goes now, where those are several: the first 64 addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Address>,
    /// How many addresses or upstreams show it, where they are several.
    #[serde(skip_serializing_if = "is_zero")]
    pub addresses: u64,
    /// Upstreams that show it, where they are several: the first 64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Arc<str>>,
    /// The backup servers that are all that is left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<Address>,
    /// The host name that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Arc<str>>,
    /// What that resolves to now: the first 64 addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolves_to: Vec<IpAddr>,
    /// The reload that it began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reload: Option<Timestamp>,
    /// The generation that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// How the workers with which the upstream worked before have fared since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_workers: Option<Fared>,
    /// It answered before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub answered_before: bool,
    /// SYNs sent again.
    #[serde(skip_serializing_if = "is_zero")]
    pub syn_retransmits: u64,
    /// Connects that were given up before a SYN was sent again, after far longer than a handshake takes.
    #[serde(skip_serializing_if = "is_zero")]
    pub given_up: u64,
    /// Connects that have no end yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub in_flight: u64,
    /// Connections on which a request waits that is overdue.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting: u64,
    /// How long the oldest request has waited, in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub oldest_ms: u64,
    /// Established connections on which nothing acknowledges what is sent.
    #[serde(skip_serializing_if = "is_zero")]
    pub unheard: u64,
    /// How long handshakes take now, in microseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub handshake_us: u64,
    /// How long they take at most usually, in microseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub usual_us: u64,
    /// How the last worker ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<LastExit>,
    /// What the proxy itself says of it, or its files do ([`BY_FILES`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// What the proxy says that it lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub complaints: Vec<Complaint>,
    /// What was found out besides, where the error has several causes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Hint>,
    /// It never was otherwise as long as it has been watched, so it may have begun earlier.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub start_unseen: bool,
}

/// How the last worker of a proxy ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// Its process id, in the host's pid namespace.
    pub pid: u32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u32>,
    /// The exit code where no signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
}

/// A proxy had workers and has none, or has some again. The body of a record of kind `workers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workforce {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// That none is left; missing where some run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

/// How a proxy lost its workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gone {
    /// How the last one ended, where that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<LastExit>,
    /// What the proxy says of it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

/// Connects, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fared {
    /// Those that failed.
    pub failed: u64,
    /// All that ended, those aside that the proxy cancelled.
    pub of: u64,
}

impl AddAssign for Fared {
    fn add_assign(&mut self, more: Self) {
        self.failed = self.failed.saturating_add(more.failed);
        self.of = self.of.saturating_add(more.of);
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A finding that came or went. The body of a record of kind `finding`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Whether it came or went.
    pub state: State,
    /// The finding: as it was proven, or as it was known last.
    #[serde(flatten)]
    pub finding: Finding,
    /// What it says, with times in UTC: its `Display`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<Arc<str>>,
    /// Of one that went: how long it had stood, from its first sign on, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasted_ms: Option<u64>,
    /// Of one that went: what was seen to the contrary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<Arc<str>>,
}

impl Change {
    /// It was proven.
    #[must_use]
    pub const fn raised(finding: Finding, sentence: Arc<str>) -> Self {
        Self { state: State::Raised, finding, sentence: Some(sentence), lasted_ms: None, because: None }
    }

    /// The contrary was seen by then.
    #[must_use]
    pub fn cleared(now: Timestamp, finding: Finding, sentence: Arc<str>, because: Arc<str>) -> Self {
        let lasted_ms = u64::try_from(now.duration_since(finding.since).as_millis()).ok();
        Self { state: State::Cleared, finding, sentence: Some(sentence), lasted_ms, because: Some(because) }
    }
}

/// Whether a finding came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It was proven.
    Raised,
    /// The contrary was seen.
    Cleared,
}

#[cfg(test)]
impl Finding {
    /// One with all that can be known of it.
    pub(crate) fn sample() -> Self {
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
        Self {
            subject: Subject {
                proxy: "nginx.service".into(),
                kind: Kind::Misrouted,
                upstream: Some("api".into()),
                address: Some("10.0.0.5:8081".parse().unwrap()),
            },
            severity: Severity::Critical,
            since: "2025-03-01T14:30:02Z".parse().unwrap(),
            directive: None,
            several_proxies: false,
            place: Some("/etc/nginx/conf.d/api.conf:4".into()),
            evidence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Finding, Kind};

    #[test]
    fn a_record_has_what_is_known_and_leaves_out_the_rest() {
        let finding = Finding::sample();
        let change = Change::raised(finding, "a sentence".into());
        let line = serde_json::to_string(&change).unwrap();
        let expected = r#"{"state":"raised","proxy":"nginx.service","finding":"misrouted","upstream":"api","address":"10.0.0.5:8081","severity":"critical","since":"2025-03-01T14:30:02Z","place":"/etc/nginx/conf.d/api.conf:4","evidence":{"failed":312,"of":312,"causes":{"refused":312},"from":["10.0.0.5:8080"],"reload":"2025-03-01T14:30:02Z","generation":1,"old_workers":{"failed":0,"of":41}},"sentence":"a sentence"}"#;
        assert_eq!(line, expected);
        assert_eq!(serde_json::from_str::<Change>(&line).unwrap(), change);
        let newer = line
            .replace("\"state\"", "\"mood\":1,\"state\"")
            .replace("{\"failed\"", "{\"odds\":2,\"failed\"");
        assert_eq!(serde_json::from_str::<Change>(&newer).unwrap(), change);
    }

    #[test]
    fn the_name_of_a_kind_is_that_of_records() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
        }
    }
}
