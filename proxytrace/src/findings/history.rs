//! What was seen of each proxy, kept as far as findings ask for it and within bounds.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use jiff::Timestamp;

use super::{declared::Declared, proxy::Proxy};
use crate::model::Counted;

/// How much is kept, over all proxies. What does not fit is left out, and counted.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Proxies.
    pub proxies: usize,
    /// Generations of each proxy, the newest.
    pub generations: usize,
    /// Addresses, each counted once for each upstream that uses it.
    pub addresses: usize,
}

impl Default for Limits {
    /// As many as the kernel half has room for in its ledger: at most 25 MiB, beside names.
    fn default() -> Self {
        Self { proxies: 256, generations: 8, addresses: 8192 }
    }
}

/// What was seen of all proxies.
#[derive(Debug)]
pub(super) struct History {
    limits: Limits,
    proxies: BTreeMap<Arc<str>, Proxy>,
    left_out: u64,
}

/// How much is kept, each over all proxies.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) proxies: usize,
    pub(super) generations: usize,
    pub(super) instances: usize,
    pub(super) addresses: usize,
    pub(super) rows: usize,
    pub(super) old_workers: usize,
}

impl History {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, proxies: BTreeMap::new(), left_out: 0 }
    }

    pub(super) fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.values()
    }

    /// How often something was left out because there was no room.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many addresses are kept.
    pub(super) fn addresses(&self) -> usize {
        self.proxies
            .values()
            .flat_map(|proxy| proxy.upstreams.values())
            .map(|upstream| upstream.peers.len())
            .sum()
    }

    /// How much is kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Kept {
        let mut kept = Kept { proxies: self.proxies.len(), addresses: self.addresses(), ..Kept::default() };
        self.proxies.values().for_each(|proxy| proxy.count_kept(&mut kept));
        kept
    }

    /// Takes in the rows that a look found changed, in any order.
    pub(super) fn look(&mut self, time: Timestamp, rows: &[Counted]) {
        let mut room = self.limits.addresses.saturating_sub(self.addresses());
        if room == 0 {
            self.proxies.values_mut().for_each(|proxy| proxy.forget(time, true));
            room = self.limits.addresses.saturating_sub(self.addresses());
        }
        let mut rows: Vec<_> = rows.iter().collect();
        // Old workers first, so that what they did before the reload counts as such.
        rows.sort_by_key(|row| row.generation);
        for row in rows {
            let limits = self.limits;
            let seen = self.proxy(&row.proxy).is_some_and(|proxy| proxy.row(time, row, limits, &mut room));
            self.left_out += u64::from(!seen);
        }
        self.proxies.values_mut().for_each(|proxy| proxy.end_look(time));
    }

    /// A generation of a proxy began: its first process, and its number.
    pub(super) fn accept(&mut self, time: Timestamp, name: &Arc<str>, of: (u32, u32)) {
        let limits = self.limits;
        if let Some(proxy) = self.proxy(name) {
            proxy.accept(time, of, limits);
        }
    }

    /// A reload was rejected.
    pub(super) fn reject(&mut self, time: Timestamp, name: &Arc<str>, reason: Option<Arc<str>>) {
        if let Some(proxy) = self.proxy(name) {
            proxy.reject(time, reason);
        }
    }

    /// The configuration of a generation was read.
    pub(super) fn declare(&mut self, time: Timestamp, name: &Arc<str>, of: (u32, u32), declared: Declared) {
        let limits = self.limits;
        if let Some(proxy) = self.proxy(name) {
            proxy.declare(time, of, declared, limits);
        }
    }

    fn proxy(&mut self, name: &Arc<str>) -> Option<&mut Proxy> {
        let has_room = self.proxies.len() < self.limits.proxies;
        match self.proxies.entry(Arc::clone(name)) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => has_room.then(|| entry.insert(Proxy::new(name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::peer::Peer, Limits};
    use crate::model::Counts;

    #[test]
    fn what_is_kept_takes_no_more_than_is_said() {
        // An address has two rows at most, on average: see Proxy::row().
        let of_address = size_of::<Peer>() + 2 * size_of::<Counts>();
        assert!(of_address * Limits::default().addresses <= 25 << 20, "{of_address}");
    }
}
