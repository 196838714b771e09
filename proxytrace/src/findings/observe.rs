//! Takes in what is seen of proxies, and says which findings that raises and clears.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    history::{History, Limits, Living},
    kinds,
};
use crate::model::{
    Change, Complaints, Counted, Declared, Finding, Generation, Rejection, State, Subject, Workforce,
};

/// What is seen of proxies.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The turn of time in which rows of the ledger are taken in: those that have changed since the previous tick. More do no harm,
    /// nor does none.
    Tick {
        /// When the rows were read.
        time: Timestamp,
        /// The rows, in any order.
        rows: &'a [Counted],
    },
    /// A new configuration is in use.
    Accepted {
        /// When that was seen.
        time: Timestamp,
        /// Whose, and which.
        of: Generation,
    },
    /// A reload was asked for, and the proxy went on with the configuration that it had.
    Rejected {
        /// When that was seen.
        time: Timestamp,
        /// Whose.
        rejected: Rejection,
    },
    /// No worker of a proxy runs any more, or some do again.
    Workers {
        /// When that was seen; for the last worker, when it ended.
        time: Timestamp,
        /// Whose.
        workforce: Workforce,
    },
    /// A proxy said that requests fail before it connects.
    Complained {
        /// When that was read.
        time: Timestamp,
        /// Who, and what.
        complaints: Complaints,
    },
    /// The configuration of a generation was read. Best before its first rows, which are distinguished by it; and again when it
    /// changes by itself, as with names that are followed. Without it, addresses are all that is known.
    Declared {
        /// When it was read.
        time: Timestamp,
        /// Whose, and which.
        of: Generation,
        /// What it says.
        declared: Declared,
    },
}

/// Follows what is seen of proxies, and says what is wrong.
#[derive(Debug)]
pub struct Findings {
    pub(super) history: History,
    active: BTreeMap<Subject, Finding>,
}

impl Findings {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { history: History::new(limits), active: BTreeMap::new() }
    }

    /// Takes in what was seen, in the order of time, and says which findings that raises and clears.
    pub fn observe(&mut self, input: Input<'_>) -> Vec<Change> {
        let now = match input {
            Input::Tick { time, rows } => {
                self.history.tick(time, rows);
                self.history.proxies_mut().for_each(kinds::prove);
                time
            }
            Input::Accepted { time, of } => {
                self.history.accept(time, &of.proxy, (of.pid, of.number));
                time
            }
            Input::Rejected { time, rejected } => {
                self.history.reject(time, rejected);
                time
            }
            Input::Workers { time, workforce: Workforce { proxy, gone } } => {
                self.history.note_workers(time, &proxy, gone);
                time
            }
            Input::Complained { time, complaints: Complaints { proxy, complaints } } => {
                self.history.note_complaints(time, &proxy, &complaints);
                time
            }
            Input::Declared { time, of, declared } => {
                self.history.declare(time, &of.proxy, (of.pid, of.number), declared);
                time
            }
        };
        self.settle(now)
    }

    /// Which proxies there are now: what is kept of others goes first where [`Limits`] are reached, and of these nobody gets more
    /// than is right beside the others. Best before each tick.
    pub fn note_living(&mut self, living: Living) {
        self.history.note_living(living);
    }

    /// The proxies that something is kept of.
    pub fn proxies(&self) -> impl Iterator<Item = &Arc<str>> {
        self.history.proxies().map(|proxy| &proxy.name)
    }

    /// Forgets proxies that have ended and do not come back: nobody will see the contrary of what stands of them, which the next
    /// input clears.
    pub fn forget(&mut self, gone: &HashSet<Arc<str>>) {
        self.history.forget(gone);
    }

    /// What is wrong now, each with the newest evidence.
    pub fn active(&self) -> impl Iterator<Item = &Finding> {
        self.active.values()
    }

    /// How often something was left out because it did not fit ([`Limits`]).
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.history.left_out()
    }

    fn settle(&mut self, now: Timestamp) -> Vec<Change> {
        let several_proxies = self.history.proxies().nth(1).is_some();
        let standing: Vec<_> = self.history.proxies().flat_map(|proxy| kinds::standing(proxy, now)).collect();
        let mut previous = std::mem::take(&mut self.active);
        let mut changes = Vec::new();
        for (mut finding, is_explained) in standing {
            finding.several_proxies = several_proxies;
            // What was raised before stays until its contrary is seen, explained or not.
            if is_explained && !previous.contains_key(&finding.subject) {
                continue;
            }
            match previous.remove(&finding.subject) {
                // Right after a reload the new configuration is not known yet.
                Some(previous) => {
                    finding.place = finding.place.or(previous.place);
                    // What else proves it now began later, perhaps.
                    finding.since = finding.since.min(previous.since);
                }
                None => changes.push(Change::raised(finding.clone(), finding.to_string().into())),
            }
            self.active.insert(finding.subject.clone(), finding);
        }
        let cleared = previous.into_values().map(|finding| {
            let lasted = now.duration_since(finding.since).as_millis();
            Change {
                state: State::Cleared,
                sentence: Some(finding.to_string().into()),
                lasted_ms: u64::try_from(lasted).ok(),
                because: Some(self.history.contrary(&finding.subject)),
                finding,
            }
        });
        cleared.chain(changes).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn what_stands_of_a_proxy_that_is_gone_is_cleared() {
        let scene = check(
            "gone",
            "config 0 api 5:8080
             5 x 0 api 5:8080 refused 2
             => upstream_down api
             wait 600
             =>
             gone
             => not upstream_down api",
        );
        assert_eq!(scene.findings.proxies().count(), 0);
    }
}
