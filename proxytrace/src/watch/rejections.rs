//! Rejected reloads wait a moment, until it is known why.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::Event;

/// Nobody waits longer than that; then it is reported without a reason. To find one takes some milliseconds.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// Who wants to know has asked by then.
const KEPT: Duration = Duration::from_secs(60);

/// One of them: by proxy, and when it was asked for, boot time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rejection {
    /// The proxy's id.
    pub(super) proxy: u64,
    /// When the reload was asked for.
    pub(super) asked_ns: u64,
}

/// Why reloads were rejected.
#[derive(Debug, Default)]
pub(super) struct Rejections(HashMap<Rejection, (Instant, State)>);

#[derive(Debug)]
enum State {
    Asked,
    Known(Option<Arc<str>>),
}

impl Rejection {
    /// The one that an event is about.
    pub(super) const fn of(event: &Event) -> Self {
        Self { proxy: event.proxy, asked_ns: event.time_ns.saturating_sub(event.duration_ns) }
    }
}

impl Rejections {
    /// It was asked why.
    pub(super) fn ask(&mut self, rejection: Rejection) {
        self.0.retain(|_, (since, _)| since.elapsed() < KEPT);
        self.0.insert(rejection, (Instant::now(), State::Asked));
    }

    /// That is the answer.
    pub(super) fn answer(&mut self, rejection: Rejection, reason: Option<String>) {
        if let Some((_, state)) = self.0.get_mut(&rejection) {
            *state = State::Known(reason.map(Into::into));
        }
    }

    /// Whether it is worth waiting for the reason.
    pub(super) fn is_pending(&self, rejection: Rejection) -> bool {
        matches!(self.0.get(&rejection), Some((since, State::Asked)) if since.elapsed() < REASON_TIMEOUT)
    }

    /// The reason, if one is known.
    pub(super) fn reason(&self, rejection: Rejection) -> Option<Arc<str>> {
        match self.0.get(&rejection) {
            Some((_, State::Known(reason))) => reason.clone(),
            _ => None,
        }
    }
}
