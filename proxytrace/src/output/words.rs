//! What records say in words, beside the words of outcomes (`proxytrace_ebpf::outcome`).

use nix::sys::signal::Signal;

use crate::model::Route;

/// Where an attempt went that did not go where the proxy asked for; nothing for others.
pub(super) fn backend(route: &Route) -> String {
    route.backend.as_ref().map_or_else(String::new, |backend| format!("; this host sent it on to {backend}"))
}

/// What else may have ended an attempt that was given up without an answer.
pub(super) const GIVEN_UP: &str =
    ": its client left, the worker exits, or its connect timeout is shorter than --connect-timeout says";

/// What a first SYN sent again means.
pub(super) const STALLED: &str =
    "no answer yet, SYN sent again: packets are dropped, or the listener's backlog is full";

/// What an accepted reload means.
pub(super) const RELOAD_ACCEPTED: &str = "new workers have started";

/// What a rejected one means.
pub(super) fn reload_rejected(reason: Option<String>) -> String {
    let reason = reason.unwrap_or_else(|| "nginx -t says why".to_owned());
    format!("no new worker came, the previous configuration stays: {reason}")
}

/// The signal that ended a process.
pub(super) fn signal(number: u32, dumped_core: bool) -> String {
    let known = Signal::try_from(number.cast_signed());
    let name = known.map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned());
    format!("ended by {name}{}", if dumped_core { ", memory dumped" } else { "" })
}

/// What a request means that gets no answer.
pub(super) const fn unanswered(is_acknowledged: bool) -> &'static str {
    if is_acknowledged {
        "a request waits for its answer: it was acknowledged, so the host is there and the application hangs or is slow"
    } else {
        "a request waits, and nothing acknowledges it: the host or the way to it is gone"
    }
}
