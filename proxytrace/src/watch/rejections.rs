//! Rejected reloads wait a moment, until it is known why.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::Event;

/// Nobody waits longer than that; then it is reported without a reason. To find one takes some milliseconds.
pub(super) const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// The same of a proxy without workers, whom nobody can do without: the reason is added when it is there.
pub(super) const LAST_WORDS_TIMEOUT: Duration = Duration::from_millis(120);

/// Who wants to know has asked by then.
const KEPT: Duration = Duration::from_secs(60);

/// nginx itself logs no longer lines (NGX_MAX_ERROR_STR), in bytes. What its files tell may quote them, and they may be anybody's.
const MAX_REASON: usize = 2048;

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
    /// Findings were shown it without a reason.
    Shown,
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

    /// That is the answer. Gives whether it comes too late and tells something.
    pub(super) fn answer(&mut self, rejection: Rejection, reason: Option<String>) -> bool {
        let Some((_, state)) = self.0.get_mut(&rejection) else { return false };
        let is_late = reason.is_some() && matches!(state, State::Shown);
        let cut = |mut reason: String| {
            reason.truncate(reason.floor_char_boundary(MAX_REASON));
            reason.into()
        };
        *state = State::Known(reason.map(cut));
        is_late
    }

    /// The reason, if one is known, for findings.
    pub(super) fn show(&mut self, rejection: Rejection) -> Option<Arc<str>> {
        if let Some((_, state @ State::Asked)) = self.0.get_mut(&rejection) {
            *state = State::Shown;
        }
        self.reason(rejection)
    }

    /// Whether it is worth waiting for the reason: `at_most` so long.
    pub(super) fn is_pending(&self, rejection: Rejection, at_most: Duration) -> bool {
        matches!(self.0.get(&rejection), Some((since, State::Asked)) if since.elapsed() < at_most)
    }

    /// The reason, if one is known.
    pub(super) fn reason(&self, rejection: Rejection) -> Option<Arc<str>> {
        match self.0.get(&rejection) {
            Some((_, State::Known(reason))) => reason.clone(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_REASON, Rejection, Rejections};

    const REJECTION: Rejection = Rejection { proxy: 1, asked_ns: 2 };

    #[test]
    fn a_reason_is_late_once_findings_were_shown_the_rejection_without() {
        let mut rejections = Rejections::default();
        rejections.ask(REJECTION);
        assert_eq!(rejections.show(REJECTION), None);
        assert!(rejections.answer(REJECTION, Some("x".to_owned())));
        assert_eq!(rejections.show(REJECTION).as_deref(), Some("x"));
        rejections.ask(REJECTION);
        assert!(!rejections.answer(REJECTION, Some("y".to_owned())), "it came in time");
        rejections.ask(REJECTION);
        assert_eq!(rejections.show(REJECTION), None);
        assert!(!rejections.answer(REJECTION, None), "it tells nothing");
    }

    #[test]
    fn a_reason_is_cut_where_nginx_would_cut_it() {
        let mut rejections = Rejections::default();
        rejections.ask(REJECTION);
        rejections.answer(REJECTION, Some("\u{e9}".repeat(MAX_REASON)));
        assert_eq!(rejections.reason(REJECTION).map(|reason| reason.len()), Some(MAX_REASON));
    }
}
