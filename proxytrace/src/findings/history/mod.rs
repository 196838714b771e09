//! What was seen of each proxy, kept as far as findings ask for it and within bounds.
//!
//! Here is what was seen and what was proven of it; which finding that makes is said in `kinds`, which this knows nothing of.

mod capacity;
mod generations;
mod handshakes;
mod lacks;
mod load;
mod peer;
mod proxy;
mod response;
mod service;
mod upstream;
mod usage;

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    sync::Arc,
};

use jiff::Timestamp;
use proxytrace_ebpf::abi::Owner;

pub use capacity::Limits;
pub(crate) use generations::Epoch;
pub(crate) use lacks::Lacking;
pub(crate) use peer::Peer;
pub(crate) use proxy::Proxy;
pub(crate) use upstream::Upstream;
pub(crate) use usage::Silence;

use crate::model::{Complaint, Counted, Declared, Gone, Rejection, Subject};
use capacity::Capacity;
#[cfg(test)]
use capacity::Kept;

/// The proxies that have processes now, and whose they are.
pub type Living = HashMap<Arc<str>, Owner>;

/// What was seen of all proxies.
#[derive(Debug)]
pub(super) struct History {
    limits: Limits,
    proxies: BTreeMap<Arc<str>, Proxy>,
    /// `None` where nobody knows: in a recording there are no others to be kept apart.
    living: Option<Living>,
    left_out: u64,
}

impl History {
    pub(super) const fn new(limits: Limits) -> Self {
        Self { limits, proxies: BTreeMap::new(), living: None, left_out: 0 }
    }

    pub(super) fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.values()
    }

    pub(super) fn proxies_mut(&mut self) -> impl Iterator<Item = &mut Proxy> {
        self.proxies.values_mut()
    }

    /// How often something was left out because it did not fit.
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Which proxies there are now.
    pub(super) fn note_living(&mut self, living: Living) {
        for (name, owner) in &living {
            if let Some(proxy) = self.proxies.get_mut(name) {
                proxy.owner = *owner;
            }
        }
        self.living = Some(living);
    }

    /// Forgets these proxies.
    pub(super) fn forget(&mut self, gone: &HashSet<Arc<str>>) {
        self.proxies.retain(|name, _| !gone.contains(name));
    }

    fn capacity(&self) -> Capacity {
        let mut capacity = Capacity::new(self.limits.addresses);
        for proxy in self.proxies.values() {
            capacity.note(&proxy.name, proxy.owner, proxy.addresses());
        }
        capacity
    }

    /// How much is kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Kept {
        let addresses = self.proxies.values().map(Proxy::addresses).sum();
        let mut kept = Kept { proxies: self.proxies.len(), addresses, ..Kept::default() };
        self.proxies.values().for_each(|proxy| proxy.count_kept(&mut kept));
        kept
    }

    /// Takes in the rows that have changed since the previous tick, in any order.
    pub(super) fn tick(&mut self, time: Timestamp, rows: &[Counted]) {
        let mut capacity = self.capacity();
        if capacity.is_used_up() {
            self.proxies.values_mut().for_each(|proxy| proxy.forget(time, true));
            capacity = self.capacity();
        }
        let mut rows: Vec<_> = rows.iter().collect();
        // Old workers first, so that what they did before the reload counts as such.
        rows.sort_by_key(|row| row.generation);
        for row in rows {
            let limits = self.limits;
            let seen =
                self.proxy(&row.proxy).is_some_and(|proxy| proxy.row(time, row, limits, &mut capacity));
            self.left_out += u64::from(!seen);
        }
        self.proxies.values_mut().for_each(|proxy| proxy.end_tick(time));
    }

    /// A generation of a proxy began: its first process, and its number.
    pub(super) fn accept(&mut self, time: Timestamp, name: &Arc<str>, of: (u32, u32)) {
        let limits = self.limits;
        if let Some(proxy) = self.proxy(name) {
            proxy.accept(time, of, limits);
        }
    }

    /// A reload was rejected.
    pub(super) fn reject(&mut self, time: Timestamp, rejected: Rejection) {
        if let Some(proxy) = self.proxy(&rejected.proxy) {
            proxy.reject(time, rejected);
        }
    }

    /// No worker of a proxy runs any more, or some do again.
    pub(super) fn note_workers(&mut self, time: Timestamp, name: &Arc<str>, gone: Option<Gone>) {
        if let Some(proxy) = self.proxy(name) {
            proxy.note_workers(time, gone);
        }
    }

    /// A proxy said what it lacks.
    pub(super) fn note_complaints(&mut self, time: Timestamp, name: &Arc<str>, complaints: &[Complaint]) {
        if let Some(proxy) = self.proxy(name) {
            proxy.lacks.add(time, complaints);
        }
    }

    /// The configuration of a generation was read.
    pub(super) fn declare(&mut self, time: Timestamp, name: &Arc<str>, of: (u32, u32), declared: Declared) {
        let limits = self.limits;
        if let Some(proxy) = self.proxy(name) {
            proxy.declare(time, of, declared, limits);
        }
    }

    /// What was seen to the contrary of what stood.
    pub(super) fn contrary(&self, subject: &Subject) -> Arc<str> {
        match self.proxies.get(&subject.proxy) {
            Some(proxy) => proxy.contrary(subject),
            None => "the proxy has ended".into(),
        }
    }

    fn proxy(&mut self, name: &Arc<str>) -> Option<&mut Proxy> {
        if self.proxies.len() >= self.limits.proxies && !self.proxies.contains_key(name) {
            // As many as live do fit: the kernel half has no more, and sees to it whose they are.
            let living = self.living.as_ref()?;
            let ended = self.proxies.keys().find(|name| !living.contains_key(*name)).cloned()?;
            self.proxies.remove(&ended);
        }
        match self.proxies.entry(Arc::clone(name)) {
            Entry::Occupied(entry) => Some(entry.into_mut()),
            Entry::Vacant(entry) => {
                let owner = self.living.as_ref().and_then(|living| living.get(name).copied());
                Some(entry.insert(Proxy::new(name, owner.unwrap_or(Owner::HOST_ROOT))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use proxytrace_ebpf::abi::Owner;

    use super::{History, Limits, Peer, Proxy};
    use crate::model::{Counted, Counts};

    const HOSTILE: Owner = Owner { uid: 65_534, pid_namespace: 0 };

    /// So many addresses, each of a proxy or all of one.
    fn rows(proxy: impl Fn(u32) -> String, addresses: u32) -> Vec<Counted> {
        let row = |n: u32| Counted {
            proxy: proxy(n).into(),
            pid: 1,
            generation: 0,
            upstream: "unknown".into(),
            address: format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255).parse().unwrap(),
            hint: None,
            counts: Counts { attempts: 1, ..Counts::default() },
        };
        (0..addresses).map(row).collect()
    }

    fn tick(history: &mut History, owners: &[(&str, Owner)], rows: &[Counted]) {
        history.note_living(owners.iter().map(|(name, owner)| (Arc::from(*name), *owner)).collect());
        history.tick(Timestamp::UNIX_EPOCH, rows);
    }

    fn addresses(history: &History, proxy: &str) -> usize {
        history.proxies.get(proxy).map_or(0, Proxy::addresses)
    }

    #[test]
    fn the_addresses_of_one_owner_leave_capacity_for_those_of_another() {
        let mut history = History::new(Limits { proxies: 9, generations: 2, addresses: 100 });
        let owners = [("hostile-0", HOSTILE), ("hostile-1", HOSTILE), ("honest", Owner::HOST_ROOT)];
        tick(&mut history, &owners, &rows(|n| format!("hostile-{}", n % 2), 500));
        assert_eq!(addresses(&history, "hostile-0") + addresses(&history, "hostile-1"), 50);
        assert_eq!(history.left_out(), 450);
        tick(&mut history, &owners, &rows(|_| "honest".to_owned(), 40));
        assert_eq!((addresses(&history, "honest"), history.left_out()), (40, 450));
    }

    #[test]
    fn one_proxy_leaves_capacity_for_the_next_of_the_same_owner() {
        let mut history = History::new(Limits { proxies: 9, generations: 2, addresses: 90 });
        let owners = [("greedy", Owner::HOST_ROOT), ("honest", Owner::HOST_ROOT)];
        tick(&mut history, &owners, &rows(|_| "greedy".to_owned(), 500));
        assert_eq!(addresses(&history, "greedy"), 80);
        tick(&mut history, &owners, &rows(|_| "honest".to_owned(), 5));
        assert_eq!(addresses(&history, "honest"), 5);
    }

    #[test]
    fn a_proxy_that_has_ended_makes_place_for_one_that_lives() {
        let mut history = History::new(Limits { proxies: 3, generations: 2, addresses: 100 });
        let names = ["a", "b", "c"].map(|name| (name, HOSTILE));
        tick(&mut history, &names, &rows(|n| ["a", "b", "c", "d"][n as usize].to_owned(), 4));
        assert_eq!((addresses(&history, "d"), history.left_out()), (0, 1), "all three live");
        tick(&mut history, &[("a", HOSTILE), ("c", HOSTILE), ("d", HOSTILE)], &rows(|_| "d".to_owned(), 1));
        assert_eq!(["a", "b", "c", "d"].map(|name| addresses(&history, name)), [1, 0, 1, 1]);
    }

    #[test]
    fn what_does_not_fit_is_not_kept_in_part() {
        let mut history = History::new(Limits { proxies: 3, generations: 2, addresses: 10 });
        tick(&mut history, &[("a", HOSTILE)], &rows(|_| "a".to_owned(), 100));
        assert_eq!((history.kept().addresses, history.kept().rows), (5, 5));
    }

    #[test]
    fn what_is_kept_takes_no_more_than_is_said() {
        // An address has two rows at most, on average: see Proxy::row().
        let of_address = size_of::<Peer>() + 2 * size_of::<Counts>();
        assert!(of_address * Limits::default().addresses <= 25 << 20, "{of_address}");
    }
}
