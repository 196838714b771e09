//! Findings: what is wrong with what a proxy connects to, as sentences that an engineer can act on.
//!
//! Nothing here does I/O or knows a clock: times come in with what was seen, so that a live host, a recording and a unit test
//! find the same. [`Findings`] is told what is seen. It keeps a bounded history; and each kind of finding is a pure function
//! over that history, which says what stands. What newly stands is raised, what does not stand any more is cleared.
//!
//! So whether a finding flaps is decided in the history alone: `evidence.rs` says what it takes to prove something and to refute it.
//! Time that passes without connects changes nothing, but that a connection which has been open for a while is taken for answered.

mod declared;
mod display;
mod evidence;
mod history;
mod pace;
mod peer;
mod proxy;
mod replayed;
mod service;
mod upstream;
mod words;

mod black_hole;
mod down;
mod local;
mod misrouted;
mod rejected;
mod silent;
mod slow;
mod undeclared;
mod wrong_service;

#[cfg(test)]
mod docs;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenes;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

pub use display::FindingView;
pub use history::{Limits, Living};
pub use replayed::Replayed;

use crate::model::{Address, Change, Counted, Declared, Evidence, Finding, Generation, Kind, State, Subject};
use history::History;
use proxy::Proxy;

/// What is seen of proxies.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The rows of the ledger that have changed since the look before. More are no harm, nor is none.
    Look {
        /// When it was looked.
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
        /// The proxy's name.
        proxy: Arc<str>,
        /// What the proxy says of its configuration, if that could be had.
        reason: Option<Arc<str>>,
    },
    /// The configuration of a generation was read. Best before its first rows, which are told apart by it; and again when it
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

/// What stands, by kind. Kinds that explain others come first.
const FOUND: &[fn(&Proxy, &mut Vec<Finding>)] = &[
    misrouted::find,
    down::upstreams,
    down::addresses,
    undeclared::find,
    black_hole::find,
    wrong_service::find,
    rejected::find,
    local::find,
    slow::find,
];

/// Follows what is seen of proxies, and says what is wrong.
#[derive(Debug)]
pub struct Findings {
    history: History,
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
            Input::Look { time, rows } => {
                self.history.look(time, rows);
                time
            }
            Input::Accepted { time, of } => {
                self.history.accept(time, &of.proxy, (of.pid, of.number));
                time
            }
            Input::Rejected { time, proxy, reason } => {
                self.history.reject(time, &proxy, reason);
                time
            }
            Input::Declared { time, of, declared } => {
                self.history.declare(time, &of.proxy, (of.pid, of.number), declared);
                time
            }
        };
        self.settle(now)
    }

    /// Which proxies there are now: what is kept of others goes first where room is short, and of these nobody gets more than
    /// is right beside the others. Best before each look.
    pub fn note_living(&mut self, living: Living) {
        self.history.note_living(living);
    }

    /// What is wrong now, each with the newest evidence.
    pub fn active(&self) -> impl Iterator<Item = &Finding> {
        self.active.values()
    }

    /// How often something was left out because there was no room ([`Limits`]).
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.history.left_out()
    }

    fn settle(&mut self, now: Timestamp) -> Vec<Change> {
        let mut found = Vec::new();
        for proxy in self.history.proxies() {
            FOUND.iter().for_each(|find| find(proxy, &mut found));
            silent::find(proxy, now, &mut found);
        }
        let mut before = std::mem::take(&mut self.active);
        let mut changes = Vec::new();
        for mut finding in found {
            match before.remove(&finding.subject) {
                // Right after a reload the new configuration is not known yet.
                Some(known) => finding.place = finding.place.or(known.place),
                None => changes.push(Change { state: State::Raised, finding: finding.clone() }),
            }
            self.active.insert(finding.subject.clone(), finding);
        }
        let cleared = before.into_values().map(|finding| Change { state: State::Cleared, finding });
        cleared.chain(changes).collect()
    }
}

impl Proxy {
    /// A finding about an upstream, or one of its addresses.
    fn finding(
        &self,
        kind: Kind,
        upstream: &Arc<str>,
        address: Option<&Address>,
        since: Timestamp,
        evidence: Evidence,
    ) -> Finding {
        let declared = self.declared().and_then(|declared| declared.upstreams.get(upstream));
        let place = declared.and_then(|declared| match address {
            Some(address) => declared.addresses.get(address),
            None => declared.addresses.values().next(),
        });
        let subject = Subject {
            proxy: Arc::clone(&self.name),
            kind,
            upstream: Some(Arc::clone(upstream)),
            address: address.cloned(),
        };
        Finding { subject, since, place: place.cloned(), evidence }
    }
}
