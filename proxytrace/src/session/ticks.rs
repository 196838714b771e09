//! When findings are brought up to date.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Soon after something happened, and every second otherwise.
#[derive(Debug)]
pub(super) struct Ticks {
    has_news: bool,
    last: Instant,
    after_news: Duration,
}

impl Ticks {
    const AFTER_NEWS: Duration = Duration::from_millis(100);
    /// For whom each tenth of a second is a failed request.
    const HASTY: Duration = Duration::from_millis(25);
    const OTHERWISE: Duration = Duration::from_secs(1);

    /// The first tick comes soon where somebody waits for it, as for an agent to be ready.
    pub(super) fn new(is_waited_for: bool) -> Self {
        Self { has_news: is_waited_for, last: Instant::now(), after_news: Self::AFTER_NEWS }
    }

    /// From now on they come sooner after something happened, where that `is_wanted`.
    pub(super) const fn hasten(&mut self, is_wanted: bool) {
        self.after_news = if is_wanted { Self::HASTY } else { Self::AFTER_NEWS };
    }

    pub(super) const fn note_news(&mut self) {
        self.has_news = true;
    }

    /// Waits for the next one. Safe to cancel.
    pub(super) async fn due(&self) {
        sleep_until(self.last + if self.has_news { self.after_news } else { Self::OTHERWISE }).await;
    }

    /// That was it.
    pub(super) fn note_tick(&mut self) {
        *self = Self { has_news: false, last: Instant::now(), ..*self };
    }
}
