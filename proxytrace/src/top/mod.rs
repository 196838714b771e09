//! `proxytrace top`: what its table shows, what keys do to it, and how it is drawn. Pure: commands/top.rs has the terminal and asks
//! for what is shown.

mod columns;
mod detail;
mod keys;
mod look;
mod rows;
mod trend;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::SignedDuration;

use columns::Content;
pub use detail::Details;
pub use keys::{Key, Reaction};
pub use look::Look;
use rows::{Baseline, Row, RowKey};
pub use rows::{List, Sort};
pub use trend::MINUTES;
use trend::Trend;
pub use view::{draw, height, lines};

use crate::{
    model::{Minute, UpstreamKey},
    status::Status,
};

/// Counts of addresses are compared with those of a look that is so long ago, up to twice as long.
const BASELINE: SignedDuration = SignedDuration::from_secs(30);

/// What was seen at one moment.
#[derive(Debug)]
pub struct Glimpse {
    /// How things are.
    pub status: Status,
    /// What was counted in each of the last minutes; `None` where that was not asked again.
    pub minutes: Option<Vec<Minute>>,
    /// More about the upstream that is looked at.
    pub details: Option<Details>,
}

/// What is shown, and how.
#[derive(Debug, Default)]
pub struct Top {
    status: Option<Status>,
    trends: BTreeMap<UpstreamKey, Trend>,
    baseline: Baseline,
    /// All rows, sorted.
    rows: Vec<Row>,
    content: Content,
    list: List,
    sort: Sort,
    filter: String,
    /// The filter as it was before it was edited.
    is_filtering: Option<String>,
    selected: Option<RowKey>,
    /// The first row on the screen.
    offset: usize,
    /// How many rows the screen had room for.
    room: usize,
    /// The upstream that is looked at.
    looked_at: Option<UpstreamKey>,
    details: Option<Details>,
    /// How many lines of its details are above the screen, and how many could be.
    scrolled: usize,
    scrollable: usize,
    has_help: bool,
    is_paused: bool,
    /// What came while it was paused.
    waiting: Option<Glimpse>,
    trouble: Option<String>,
}

impl Top {
    /// Shows what was seen, or keeps it for when it is no longer paused.
    pub fn show(&mut self, glimpse: Glimpse) {
        self.trouble = None;
        if self.is_paused && self.status.is_some() {
            let minutes = self.waiting.take().and_then(|earlier| earlier.minutes);
            let minutes = glimpse.minutes.or(minutes);
            // What was asked for while it is paused is shown.
            self.take_details(glimpse.details);
            self.waiting = Some(Glimpse { minutes, details: None, ..glimpse });
            return;
        }
        let Glimpse { status, minutes, details } = glimpse;
        if let Some(minutes) = minutes {
            self.trends = trend::trends(&minutes, status.time);
        }
        self.take_details(details);
        if let Some(before) = self.status.replace(status) {
            self.baseline.take(before, BASELINE);
        }
        self.arrange();
    }

    /// Says why nothing newer is shown.
    pub fn note_trouble(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// The upstream of which details are wanted.
    #[must_use]
    pub const fn looked_at(&self) -> Option<&UpstreamKey> {
        self.looked_at.as_ref()
    }

    fn take_details(&mut self, details: Option<Details>) {
        if let Some(details) = details.filter(|details| Some(&details.of) == self.looked_at.as_ref()) {
            self.details = Some(details);
        }
    }

    /// Makes the rows of what is to be shown.
    fn arrange(&mut self) {
        let Some(status) = &self.status else { return };
        self.rows = rows::rows(status, &self.baseline, self.list, self.sort, &self.filter);
        self.content = Content::of(&self.rows, self.list);
        let is_there = |key: &RowKey| self.rows.iter().any(|row| row.key == *key);
        if !self.selected.as_ref().is_some_and(is_there) {
            self.selected = self.rows.first().map(|row| row.key.clone());
        }
    }

    /// The place of the row that is selected.
    fn place(&self) -> usize {
        let selected = self.selected.as_ref();
        selected.and_then(|key| self.rows.iter().position(|row| row.key == *key)).unwrap_or(0)
    }
}
