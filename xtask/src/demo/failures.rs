//! The two failures of the story, as data: how each is meant to look to everybody who can notice it.

use std::time::SystemTime;

/// A way to fail.
pub(super) struct Failure {
    pub(super) title: &'static str,
    /// The upstream's port that the failing connects go to.
    pub(super) port: u16,
    pub(super) users: usize,
    /// What nginx answers to each of them.
    pub(super) status: u16,
    /// What becomes of each connect.
    pub(super) outcome: &'static str,
    /// Whether each of them is reported as `stalled` long before that.
    pub(super) stalls: bool,
    /// The finding that it proves.
    pub(super) finding: &'static str,
    /// The metric that tells of it first.
    pub(super) metric: &'static str,
    /// What nginx's error log says at last.
    pub(super) in_log: &'static str,
}

pub(super) const RIGHT_PORT: u16 = 8080;

pub(super) const WRONG_PORT: Failure = Failure {
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

pub(super) const BLACK_HOLE: Failure = Failure {
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
pub(super) struct Seen {
    pub(super) failure: &'static Failure,
    pub(super) address: String,
    pub(super) since: SystemTime,
    /// What each of the users got.
    pub(super) statuses: Vec<u16>,
    pub(super) metric: Option<SystemTime>,
    pub(super) log: Option<SystemTime>,
}
