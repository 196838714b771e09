//! What records add up to: the series that a trace would have read from the kernel, as far as records report them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use proxytrace_ebpf::abi::Row;

use super::{Body, Key, Record, Route};

/// Records, counted.
#[derive(Debug, Default)]
pub struct RecordTotals {
    rows: BTreeMap<Key, Row>,
    span: Option<(Timestamp, Timestamp)>,
    lost: u64,
    lacks_established: bool,
}

impl RecordTotals {
    /// Counts a record.
    pub fn add(&mut self, record: &Record) {
        let (first, last) = self.span.unwrap_or((record.time, record.time));
        self.span = Some((first.min(record.time), last.max(record.time)));
        match &record.body {
            Body::Connect(attempt) => {
                let row = self.row(&attempt.route);
                row.attempts += 1;
                if let Some(outcome) = attempt.outcome {
                    row.outcomes[outcome as usize] += 1;
                }
                row.syn_retransmits += u64::from(attempt.syn_retransmits);
            }
            Body::Broken(connection) => self.row(&connection.route).broken[connection.cause as usize] += 1,
            Body::Lost(lost) => self.lost = self.lost.saturating_add(lost.count),
            Body::Header(header) => self.lacks_established |= !header.all,
            Body::Counts(_)
            | Body::Declared(_)
            | Body::Finding(_)
            | Body::Reload(_)
            | Body::Stalled(_)
            | Body::Unanswered(_)
            | Body::WorkerStarted(_)
            | Body::Workers(_)
            | Body::WorkerExited(_) => {}
        }
    }

    /// The series that the records make up.
    #[must_use]
    pub const fn series(&self) -> &BTreeMap<Key, Row> {
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

    fn row(&mut self, route: &Route) -> &mut Row {
        let (proxy, upstream) = (Arc::clone(&route.proxy), Arc::clone(&route.upstream));
        let key = Key { proxy, upstream, address: route.address.to_string().into() };
        self.rows.entry(key).or_insert(Row::ZERO)
    }
}
