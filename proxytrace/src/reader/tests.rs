//! What tests of several parts need.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::protocol::{GenerationId, Question, Request};

/// How long this thread has run: what time something takes, whatever else the machine does.
pub(crate) fn time_of_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// A question about a proxy of whose processes nothing is known.
pub(super) fn request(proxy: u64, generation: u32, question: Question) -> Request {
    Request {
        id: GenerationId { proxy, generation },
        pids: Vec::new(),
        taken_ns: None,
        config: None,
        question,
    }
}
