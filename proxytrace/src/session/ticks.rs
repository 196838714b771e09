//! When findings are brought up to date.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Soon after something happened, and every second otherwise.
#[derive(Debug)]
pub(super) struct Ticks {
    has_news: bool,
    last: Instant,
}

impl Ticks {
    const AFTER_NEWS: Duration = Duration::from_millis(100);
    const OTHERWISE: Duration = Duration::from_secs(1);

    /// The first tick comes soon where somebody waits for it, as for an agent to be ready.
    pub(super) fn new(is_waited_for: bool) -> Self {
        Self { has_news: is_waited_for, last: Instant::now() }
    }

    pub(super) const fn note_news(&mut self) {
        self.has_news = true;
    }

    /// Waits for the next one. Safe to cancel.
    pub(super) async fn due(&self) {
        sleep_until(self.last + if self.has_news { Self::AFTER_NEWS } else { Self::OTHERWISE }).await;
    }

    /// That was it.
    pub(super) fn note_tick(&mut self) {
        *self = Self { has_news: false, last: Instant::now() };
    }
}
