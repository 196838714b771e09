//! Records: what `trace --json` prints and a recording holds, one object a line. Fields are only ever added, never changed;
//! readers skip the ones they do not know.

use std::sync::Arc;

use jiff::Timestamp;
use proxytrace_ebpf::{
    abi,
    outcome::{Broken, Outcome},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Address, Change, Complaints, Counted, Declared, Generation, Workforce};
use crate::escape;

/// The version of the record format.
pub const FORMAT: u32 = 2;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When, with nanoseconds, in UTC.
    #[serde(serialize_with = "nanoseconds", deserialize_with = "time")]
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub body: Body,
}

impl Record {
    /// A line of JSON with its end. Nothing in it does anything to a terminal, where such lines are read as well.
    ///
    /// # Errors
    /// It cannot be written as JSON; that does not happen.
    pub fn json_line(&self) -> serde_json::Result<String> {
        let line = serde_json::to_string(self)?;
        Ok(escape::json(&line).into_owned() + "\n")
    }
}

/// What happened, by `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// The first line: tracing has begun.
    Header(Header),
    /// An attempt ended.
    Connect(Attempt),
    /// The first SYN of an attempt still in flight was sent again.
    Stalled(Attempt),
    /// The first sign of a request that gets no answer: it has waited far longer than is usual at this address. One for each
    /// address and minute.
    Unanswered(Unanswered),
    /// An established connection broke.
    Broken(Connection),
    /// A reload was asked for, and is accepted or rejected now; or the binary was upgraded.
    Reload(Reload),
    /// A master forked a worker, or a helper such as a cache manager.
    WorkerStarted(Worker),
    /// Such a process ended.
    WorkerExited(Exit),
    /// A finding was raised or cleared.
    Finding(Change),
    /// What was counted of a destination so far. In recordings only: findings are made of it.
    Counts(Counted),
    /// What a configuration names. In recordings only, likewise.
    Declared(Declaration),
    /// A generation of a proxy began. In recordings only, likewise: findings may be shown a reload later than it is reported.
    Generation(Generation),
    /// A reload was rejected. In recordings only, likewise.
    Rejection(Rejection),
    /// A proxy has no worker, or has some again. In recordings only, likewise.
    Workers(Workforce),
    /// What a proxy says of requests that fail before it connects. In recordings only, likewise.
    Complaints(Complaints),
    /// Time went by. In recordings only, likewise: some findings are raised or cleared by that, and the last one says when the trace ended.
    Tick,
    /// The reader missed records; no count is wrong by that.
    Lost(Lost),
}

impl Body {
    /// The proxy that it is about, if that is one.
    #[must_use]
    pub fn proxy(&self) -> Option<&Arc<str>> {
        match self {
            Self::Connect(attempt) | Self::Stalled(attempt) => Some(&attempt.route.proxy),
            Self::Unanswered(unanswered) => Some(&unanswered.route.proxy),
            Self::Broken(connection) => Some(&connection.route.proxy),
            Self::Reload(reload) => Some(&reload.master.proxy),
            Self::WorkerStarted(worker) => Some(&worker.proxy),
            Self::WorkerExited(exit) => Some(&exit.worker.proxy),
            Self::Finding(change) => Some(&change.finding.subject.proxy),
            Self::Counts(counted) => Some(&counted.proxy),
            Self::Declared(declaration) => Some(&declaration.of.proxy),
            Self::Generation(of) => Some(&of.proxy),
            Self::Rejection(rejection) => Some(&rejection.proxy),
            Self::Workers(workforce) => Some(&workforce.proxy),
            Self::Complaints(complaints) => Some(&complaints.proxy),
            Self::Header(_) | Self::Tick | Self::Lost(_) => None,
        }
    }

    /// Whether it is there for a replay alone, which makes findings of it: people are not shown it.
    #[must_use]
    pub const fn is_for_replay(&self) -> bool {
        matches!(
            self,
            Self::Counts(_)
                | Self::Declared(_)
                | Self::Generation(_)
                | Self::Rejection(_)
                | Self::Workers(_)
                | Self::Complaints(_)
                | Self::Tick
        )
    }
}

/// A reload of a proxy was rejected. The body of a record of kind `rejection`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// What the proxy says of its configuration, if that could be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
    /// It was shown before, when the reason was not known yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_late: bool,
}

/// What the following records are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// The host's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// The version of proxytrace.
    pub version: String,
    /// Whether established connects have records of their own; otherwise they are only counted, elsewhere.
    #[serde(default)]
    pub all: bool,
}

/// What the configuration of one generation names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// Whose.
    #[serde(flatten)]
    pub of: Generation,
    /// What it names, or a part of that.
    pub declared: Declared,
    /// The number of the part, from 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// Whether the next part follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// How many addresses are not in any part: there were too many, or their names are too long.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

impl Declaration {
    /// All that a generation names.
    #[must_use]
    pub const fn whole(of: Generation, declared: Declared) -> Self {
        Self { of, declared, part: 0, more: false, left_out: 0 }
    }
}

/// Who connects, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// The process, in the host's pid namespace.
    pub pid: u32,
    /// The configuration that it runs: how often this proxy was reloaded since it has been known.
    pub generation: u32,
    /// The name in the proxy's configuration.
    pub upstream: Arc<str>,
    /// Where to.
    pub address: Address,
    /// Where from; missing where no address was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Address>,
    /// Where something on this host sent it instead, where that is another address: a service's load balancer in the
    /// kernel, or the host itself where the proxy asked for 0.0.0.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Address>,
}

/// One connect() to an upstream. As a record it has a `cause` as well where it failed: the name of its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Attempt {
    /// Who, and where to.
    #[serde(flatten)]
    pub route: Route,
    /// How it ended; missing while in flight.
    #[serde(default, deserialize_with = "outcome")]
    pub outcome: Option<Outcome>,
    /// The error, 0 for none.
    pub errno: u32,
    /// How long it took, or has taken so far.
    pub duration_us: u64,
    /// SYNs sent again.
    pub syn_retransmits: u32,
}

impl Serialize for Attempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            #[serde(flatten)]
            route: &'a Route,
            #[serde(skip_serializing_if = "Option::is_none")]
            outcome: Option<&'static str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cause: Option<&'static str>,
            errno: u32,
            duration_us: u64,
            syn_retransmits: u32,
        }
        let Self { route, outcome, errno, duration_us, syn_retransmits } = self;
        let (outcome, errno, duration_us) = (outcome.map(Outcome::name), *errno, *duration_us);
        let cause = outcome.filter(|name| *name != Outcome::Established.name());
        Written { route, outcome, cause, errno, duration_us, syn_retransmits: *syn_retransmits }
            .serialize(serializer)
    }
}

/// One established connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Who, and where to.
    #[serde(flatten)]
    pub route: Route,
    /// How it broke.
    #[serde(serialize_with = "broken_name", deserialize_with = "broken")]
    pub cause: Broken,
    /// The error, 0 for none.
    pub errno: u32,
    /// How long it had been established.
    pub duration_us: u64,
    /// Whether earlier requests on it had been answered, as far as that is known; missing where not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
}

/// A request without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// Who, and where to.
    #[serde(flatten)]
    pub route: Route,
    /// How long it has waited.
    pub duration_us: u64,
    /// Whether it was acknowledged: then the host is there, and its application does not answer.
    pub acknowledged: bool,
}

/// A process of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// The process, in the host's pid namespace.
    pub pid: u32,
    /// The configuration that it runs.
    pub generation: u32,
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// The master, and the generation that runs now: after a rejected reload the previous one.
    #[serde(flatten)]
    pub master: Worker,
    /// What the master made of it.
    pub result: ReloadResult,
    /// Why it was rejected, where that is known: what nginx says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

/// What a master makes of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReloadResult {
    /// It forked workers with the new configuration.
    Accepted,
    /// It forked none, and goes on with the previous configuration.
    Rejected,
}

/// How a worker ended: by a signal or with an exit code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The process.
    #[serde(flatten)]
    pub worker: Worker,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u32>,
    /// Whether the signal made it dump its memory; missing where it did not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub core: bool,
    /// The exit code where no signal ended it, 0 for an orderly end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u32>,
}

impl Exit {
    /// The end of `worker` with the status that wait(2) would give.
    #[must_use]
    pub fn of_status(worker: Worker, status: u32) -> Self {
        match abi::exit_signal(status) {
            0 => Self { worker, signal: None, core: false, code: Some(abi::exit_code(status)) },
            signal => Self { worker, signal: Some(signal), core: abi::dumped_core(status), code: None },
        }
    }

    /// Whether it ended as it was meant to.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        self.code == Some(0)
    }
}

/// Records that the reader missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// How many.
    pub count: u64,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

fn nanoseconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.9}"))
}

fn broken_name<S: Serializer>(broken: &Broken, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(broken.name())
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn outcome<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Outcome>, D::Error> {
    named(deserializer, "outcome", |name| Outcome::ALL.into_iter().find(|outcome| outcome.name() == name))
        .map(Some)
}

fn broken<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Broken, D::Error> {
    named(deserializer, "cause", |name| Broken::ALL.into_iter().find(|broken| broken.name() == name))
}

fn named<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    what: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    let name = String::deserialize(deserializer)?;
    find(&name).ok_or_else(|| de::Error::custom(format_args!("there is no {what} {name:?}")))
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::outcome::Outcome;

    use super::{Address, Attempt, Body, Record, Route};

    #[test]
    fn a_record_has_the_fields_of_the_contract_in_their_order() {
        let route = Route {
            proxy: "nginx.service".into(),
            pid: 9694,
            generation: 2,
            upstream: "api".into(),
            address: Address::Internet("10.0.0.5:8080".parse().unwrap()),
            local: Some(Address::Internet("10.0.0.1:47538".parse().unwrap())),
            backend: None,
        };
        let attempt = Attempt {
            route,
            outcome: Some(Outcome::Refused),
            errno: 111,
            duration_us: 330,
            syn_retransmits: 0,
        };
        let time = "2026-11-22T06:39:51.120000000Z".parse().unwrap();
        let line = serde_json::to_string(&Record { time, body: Body::Connect(attempt) }).unwrap();
        let expected = r#"{"time":"2026-11-22T06:39:51.120000000Z","kind":"connect","proxy":"nginx.service","pid":9694,"generation":2,"upstream":"api","address":"10.0.0.5:8080","local":"10.0.0.1:47538","outcome":"refused","cause":"refused","errno":111,"duration_us":330,"syn_retransmits":0}"#;
        assert_eq!(line, expected);
        let read: Record = serde_json::from_str(expected).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), expected);

        let sent_elsewhere = expected.replace(r#""outcome""#, r#""backend":"10.0.7.1:80","outcome""#);
        let read: Record = serde_json::from_str(&sent_elsewhere).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), sent_elsewhere);
    }
}
