//! The two failures of the story, as data: how each is meant to appear to everybody who can notice it.

use std::time::SystemTime;

/// A way to fail.
pub(crate) struct Failure {
    pub(crate) title: &'static str,
    /// The upstream's port that the failing connects go to.
    pub(crate) port: u16,
    pub(crate) users: usize,
    /// What nginx answers to each of them.
    pub(crate) status: u16,
    /// What becomes of each connect.
    pub(crate) outcome: &'static str,
    /// Whether each of them is reported as `stalled` long before that.
    pub(crate) stalls: bool,
    /// The finding that it proves.
    pub(crate) finding: &'static str,
    /// The metric that shows it first.
    pub(crate) metric: &'static str,
    /// What nginx's error log says at last.
    pub(crate) in_log: &'static str,
}

pub(crate) const RIGHT_PORT: u16 = 8080;

pub(crate) const WRONG_PORT: Failure = Failure {
    title: "a reload with the wrong upstream port",
    port: 8081,
    users: 20,
    status: 502,
    outcome: "refused",
    stalls: false,
    finding: "misrouted",
    metric: "proxytrace_connect_failures_total",
    in_log: "connect() failed (111",
};

pub(crate) const BLACK_HOLE: Failure = Failure {
    title: "a black-holed upstream",
    port: RIGHT_PORT,
    users: 5,
    status: 504,
    outcome: "proxy_timeout",
    stalls: true,
    finding: "black_hole",
    metric: "proxytrace_syn_retransmits_total",
    in_log: "upstream timed out (110",
};

/// A failure, and what was noticed of it while it lasted.
pub(crate) struct Seen {
    pub(crate) failure: &'static Failure,
    pub(crate) address: String,
    pub(crate) since: SystemTime,
    /// What each of the users got.
    pub(crate) statuses: Vec<u16>,
    pub(crate) metric: Option<SystemTime>,
    pub(crate) log: Option<SystemTime>,
}
