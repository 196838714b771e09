//! Outcomes in words, for somebody who reads them at 3 a.m.

use nix::sys::signal::Signal;
use proxytrace_ebpf::outcome::Broken;

pub(super) use crate::model::outcome_in_words as outcome;

use crate::model::Route;

/// What a broken connection means.
pub(super) const fn broken(broken: Broken) -> &'static str {
    match broken {
        Broken::ResetBeforeResponse => "connected, then reset before any answer",
        Broken::ClosedBeforeResponse => {
            "connected, then closed without an answer: wrong service, or it crashed"
        }
        Broken::Reset => "reset in the middle of an answer",
    }
}

/// Where an attempt went that did not go where the proxy asked for; nothing for others.
pub(super) fn backend(route: &Route) -> String {
    route.backend.as_ref().map_or_else(String::new, |backend| format!("; this host sent it on to {backend}"))
}

/// What else a cancelled attempt may be that waited long enough for a SYN to be sent again.
pub(super) const CANCELLED_LATE: &str = "; or its connect timeout is shorter than --connect-timeout says";

/// What a first SYN sent again means.
pub(super) const STALLED: &str =
    "no answer yet, SYN sent again: packets are dropped, or the listener's backlog is full";

/// What an accepted reload means.
pub(super) const RELOAD_ACCEPTED: &str = "new workers have started";

/// What a rejected one means.
pub(super) fn reload_rejected(reason: Option<String>) -> String {
    let reason = reason.unwrap_or_else(|| "nginx -t says why".to_owned());
    format!("no new worker came, the configuration of before stays: {reason}")
}

/// The signal that ended a process.
pub(super) fn signal(number: u32, dumped_core: bool) -> String {
    let known = Signal::try_from(number.cast_signed());
    let name = known.map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned());
    format!("ended by {name}{}", if dumped_core { ", memory dumped" } else { "" })
}
