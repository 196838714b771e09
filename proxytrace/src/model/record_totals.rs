//! What records add up to: the series that a trace would have read from the kernel, as far as records report them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{Body, Counts, Key, Remembered, Route};

/// Records, counted.
#[derive(Debug, Default)]
pub struct RecordTotals {
    rows: BTreeMap<Key, Counts>,
    span: Option<(Timestamp, Timestamp)>,
    lost: u64,
    lacks_established: bool,
}

impl RecordTotals {
    /// Counts a record, which can stand for many.
    pub fn add(&mut self, remembered: &Remembered) {
        let Remembered { record, times, .. } = remembered;
        let (times, end) = (*times, remembered.end());
        let (first, last) = self.span.unwrap_or((record.time, record.time));
        self.span = Some((first.min(record.time), last.max(end)));
        match &record.body {
            Body::Connect(attempt) => {
                let row = self.row(&attempt.route);
                row.attempts = row.attempts.saturating_add(times);
                if let Some(outcome) = attempt.outcome {
                    let count = &mut row.outcomes[outcome as usize];
                    *count = count.saturating_add(times);
                }
                let resent = u64::from(attempt.syn_retransmits).saturating_mul(times);
                row.syn_retransmits = row.syn_retransmits.saturating_add(resent);
            }
            Body::Broken(connection) => {
                let count = &mut self.row(&connection.route).broken[connection.cause as usize];
                *count = count.saturating_add(times);
            }
            Body::Lost(lost) => self.lost = self.lost.saturating_add(lost.count),
            Body::Header(header) => self.lacks_established |= !header.all,
            Body::Counts(_)
            | Body::Declared(_)
            | Body::Finding(_)
            | Body::Reload(_)
            | Body::Stalled(_)
            | Body::Unanswered(_)
            | Body::WorkerStarted(_)
            | Body::Generation(_)
            | Body::Rejection(_)
            | Body::Workers(_)
            | Body::Complaints(_)
            | Body::Tick
            | Body::WorkerExited(_) => {}
        }
    }

    /// The series that the records make up.
    #[must_use]
    pub const fn series(&self) -> &BTreeMap<Key, Counts> {
        &self.rows
    }

    /// From the first record to the last.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.span.and_then(|(first, last)| last.duration_since(first).try_into().ok()).unwrap_or_default()
    }

    /// How many records are missing, as the records themselves say.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether established connects have no records.
    #[must_use]
    pub const fn lacks_established(&self) -> bool {
        self.lacks_established
    }

    fn row(&mut self, route: &Route) -> &mut Counts {
        let (proxy, upstream) = (Arc::clone(&route.proxy), Arc::clone(&route.upstream));
        let key = Key { proxy, upstream, address: route.address.to_string().into() };
        self.rows.entry(key).or_default()
    }
}
