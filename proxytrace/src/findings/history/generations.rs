//! The generations of one proxy, in a row that goes on over its restarts: to findings, a restart is a reload.

use std::collections::{BTreeMap, btree_map::Entry};

use jiff::Timestamp;

use crate::model::Declared;

/// The place of a generation in that row.
pub(crate) type Epoch = u32;

/// A generation that has begun.
#[derive(Debug)]
pub(crate) struct Begun {
    /// When it was first known of.
    pub(crate) at: Timestamp,
    /// What the proxy itself counts.
    number: u32,
    /// What its configuration says, if that could be read.
    pub(crate) declared: Option<Declared>,
}

/// The newest generations of a proxy.
#[derive(Debug, Default)]
pub(crate) struct Generations {
    by_epoch: BTreeMap<Epoch, Begun>,
    /// The epoch in which the generations of each instance begin, by its first process.
    instances: BTreeMap<u32, Epoch>,
}

impl Generations {
    /// The epoch of a generation: of which first process, and what the proxy itself counts.
    pub(super) fn epoch(&mut self, pid: u32, number: u32) -> Epoch {
        let next = self.newest_epoch().map_or(0, |newest| newest.saturating_add(1));
        self.instances.entry(pid).or_insert(next).saturating_add(number)
    }

    /// Notes that a generation has begun, and says whether that is news.
    pub(super) fn begin(&mut self, time: Timestamp, epoch: Epoch, number: u32) -> bool {
        match self.by_epoch.entry(epoch) {
            Entry::Vacant(entry) => {
                entry.insert(Begun { at: time, number, declared: None });
                true
            }
            Entry::Occupied(entry) => {
                let begun = entry.into_mut();
                begun.at = begun.at.min(time);
                false
            }
        }
    }

    /// What the configuration of a generation says, which has begun.
    pub(super) fn declare(&mut self, epoch: Epoch, declared: Declared) {
        if let Some(begun) = self.by_epoch.get_mut(&epoch) {
            begun.declared = Some(declared);
        }
    }

    /// Forgets the oldest, so that at most so many are left, and one.
    pub(super) fn forget(&mut self, max: usize) {
        while self.by_epoch.len() > max.max(1) {
            self.by_epoch.pop_first();
        }
        // An instance is known by where it begins as long as there can be more of it.
        while self.instances.len() > max.max(1) {
            let first = self.instances.iter().min_by_key(|(_, begins)| **begins).map(|(pid, _)| *pid);
            first.and_then(|pid| self.instances.remove(&pid));
        }
    }

    /// Whether a generation was forgotten.
    pub(super) fn has_forgotten(&self, epoch: Epoch) -> bool {
        epoch < self.oldest_epoch()
    }

    /// The oldest that is known; before the first it is 0.
    pub(super) fn oldest_epoch(&self) -> Epoch {
        self.by_epoch.keys().next().copied().unwrap_or(0)
    }

    pub(crate) fn newest_epoch(&self) -> Option<Epoch> {
        self.by_epoch.keys().next_back().copied()
    }

    /// When the newest generation began that began with a reload.
    pub(crate) fn last_reload(&self) -> Option<Timestamp> {
        self.newest().filter(|begun| begun.number > 0).map(|begun| begun.at)
    }

    fn newest(&self) -> Option<&Begun> {
        self.by_epoch.values().next_back()
    }

    /// A generation, if it is still known.
    pub(crate) fn get(&self, epoch: Epoch) -> Option<&Begun> {
        self.by_epoch.get(&epoch)
    }

    /// What the proxy itself counts a generation as.
    pub(crate) fn number(&self, epoch: Epoch) -> Option<u32> {
        self.get(epoch).map(|begun| begun.number)
    }

    /// What the newest configuration says, if it could be read.
    pub(crate) fn declared(&self) -> Option<&Declared> {
        self.newest()?.declared.as_ref()
    }

    /// The newest generation whose configuration could be read, and what it says. Right after a reload that is the previous one.
    pub(super) fn last_read(&self) -> Option<(Epoch, &Declared)> {
        self.by_epoch.iter().rev().find_map(|(epoch, begun)| Some((*epoch, begun.declared.as_ref()?)))
    }

    /// What the newest configuration says that could be read.
    pub(crate) fn last_declared(&self) -> Option<&Declared> {
        self.last_read().map(|(_, declared)| declared)
    }

    /// How many generations and instances are known.
    #[cfg(test)]
    pub(super) fn count(&self) -> (usize, usize) {
        (self.by_epoch.len(), self.instances.len())
    }
}
