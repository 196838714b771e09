//! How much an upstream is used, and whether a reload has put an end to that.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::generations::Epoch;

/// How long a time is looked back on to say how much an upstream is used, and in what steps.
const SLOTS: usize = 30;
const SLOT_SECONDS: i64 = 10;

/// The uses of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Usage(VecDeque<(i64, u64)>);

/// How much an upstream is used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Uses within the last minutes: connects, and answers on connections that were kept.
    pub(crate) uses: u64,
    /// In how many steps of time there were any.
    pub(crate) slots: u64,
    /// Since when, in steps of time.
    pub(crate) of_slots: u64,
}

/// An upstream that is not connected to since a reload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// The generation that does not connect to it.
    pub(crate) epoch: Epoch,
    /// How it was used before that.
    pub(crate) before: Used,
    /// Uses of the proxy's other upstreams in the same time.
    pub(crate) others_before: u64,
    /// And since the reload.
    pub(crate) others: u64,
}

impl Usage {
    /// Takes in how often it was used.
    pub(super) fn add(&mut self, time: Timestamp, uses: u64) {
        let now = slot(time);
        match self.0.back_mut() {
            _ if uses == 0 => {}
            Some((slot, count)) if *slot >= now => *count = count.saturating_add(uses),
            _ => self.0.push_back((now, uses)),
        }
        while self.0.len() > SLOTS {
            self.0.pop_front();
        }
    }

    /// How much it has been used lately.
    pub(super) fn lately(&self, time: Timestamp) -> Used {
        let now = slot(time);
        let lately = self.0.iter().filter(|(slot, _)| now.saturating_sub(*slot) < SLOTS as i64);
        let of_slots =
            lately.clone().next().map_or(0, |(first, _)| now.saturating_sub(*first).max(0) as u64 + 1);
        let uses = lately.clone().fold(0, |sum, (_, n)| n.saturating_add(sum));
        Used { uses, slots: lately.count() as u64, of_slots }
    }
}

fn slot(time: Timestamp) -> i64 {
    time.as_second().div_euclid(SLOT_SECONDS)
}
