//! What was seen of each proxy, kept as far as findings ask for it and within bounds.
//!
//! Whoever comes first must not have all the room. So a proxy and an owner's proxies hold only so much of it, as in the kernel
//! half's tables; and a proxy that has ended makes room for one that lives.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::Arc,
};

use jiff::Timestamp;
use proxytrace_ebpf::abi::{Owner, room};

use super::proxy::Proxy;
use crate::model::{Counted, Declared};

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
    /// As many as the kernel half has room for in its tables: addresses take at most 25 MiB, beside names.
    fn default() -> Self {
        Self { proxies: room::PROXIES as usize, generations: 8, addresses: room::LEDGER as usize }
    }
}

/// The proxies that have processes now, and whose they are.
pub type Living = HashMap<Arc<str>, Owner>;

/// A proxy gets another address while it has fewer than so many times what is free, as in the kernel half's ledger.
const TIMES_FREE: usize = 8;

/// Room for addresses.
#[derive(Debug)]
pub(super) struct Room {
    free: usize,
    by_owner: HashMap<Owner, usize>,
    by_proxy: HashMap<Arc<str>, usize>,
}

impl Room {
    /// Takes room for another address of a proxy; false where it may not have one.
    pub(super) fn take(&mut self, proxy: &Arc<str>, owner: Owner) -> bool {
        let of_owner = self.by_owner.entry(owner).or_default();
        let of_proxy = self.by_proxy.entry(Arc::clone(proxy)).or_default();
        let is_within =
            *of_proxy < self.free * TIMES_FREE && (owner == Owner::HOST_ROOT || *of_owner < self.free);
        if is_within {
            self.free -= 1;
            *of_owner += 1;
            *of_proxy += 1;
        }
        is_within
    }
}

/// What was seen of all proxies.
#[derive(Debug)]
pub(super) struct History {
    limits: Limits,
    proxies: BTreeMap<Arc<str>, Proxy>,
    /// `None` where nobody knows: in a recording there are no others to be kept apart.
    living: Option<Living>,
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
        Self { limits, proxies: BTreeMap::new(), living: None, left_out: 0 }
    }

    pub(super) fn proxies(&self) -> impl Iterator<Item = &Proxy> {
        self.proxies.values()
    }

    /// How often something was left out because there was no room.
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

    fn room(&self) -> Room {
        let mut room =
            Room { free: self.limits.addresses, by_owner: HashMap::new(), by_proxy: HashMap::new() };
        for proxy in self.proxies.values() {
            let addresses = proxy.addresses();
            room.free = room.free.saturating_sub(addresses);
            *room.by_owner.entry(proxy.owner).or_default() += addresses;
            room.by_proxy.insert(Arc::clone(&proxy.name), addresses);
        }
        room
    }

    /// How much is kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> Kept {
        let addresses = self.proxies.values().map(Proxy::addresses).sum();
        let mut kept = Kept { proxies: self.proxies.len(), addresses, ..Kept::default() };
        self.proxies.values().for_each(|proxy| proxy.count_kept(&mut kept));
        kept
    }

    /// Takes in the rows that a look found changed, in any order.
    pub(super) fn look(&mut self, time: Timestamp, rows: &[Counted]) {
        let mut room = self.room();
        if room.free == 0 {
            self.proxies.values_mut().for_each(|proxy| proxy.forget(time, true));
            room = self.room();
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
        if self.proxies.len() >= self.limits.proxies && !self.proxies.contains_key(name) {
            // As many as live have room: the kernel half has no more, and sees to it whose they are.
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
    use std::{
        sync::Arc,
        time::{Duration, Instant},
    };

    use jiff::Timestamp;
    use proxytrace_ebpf::{abi::Owner, outcome::Outcome};

    use super::{
        super::{Findings, Input, peer::Peer},
        History, Limits,
    };
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
            counts: Counts { attempts: 1, ..Counts::default() },
        };
        (0..addresses).map(row).collect()
    }

    fn look(history: &mut History, owners: &[(&str, Owner)], rows: &[Counted]) {
        history.note_living(owners.iter().map(|(name, owner)| (Arc::from(*name), *owner)).collect());
        history.look(Timestamp::UNIX_EPOCH, rows);
    }

    fn addresses(history: &History, proxy: &str) -> usize {
        history.proxies.get(proxy).map_or(0, super::Proxy::addresses)
    }

    #[test]
    fn the_addresses_of_one_owner_leave_room_for_those_of_another() {
        let mut history = History::new(Limits { proxies: 9, generations: 2, addresses: 100 });
        let owners = [("hostile-0", HOSTILE), ("hostile-1", HOSTILE), ("honest", Owner::HOST_ROOT)];
        look(&mut history, &owners, &rows(|n| format!("hostile-{}", n % 2), 500));
        assert_eq!(addresses(&history, "hostile-0") + addresses(&history, "hostile-1"), 50);
        assert_eq!(history.left_out(), 450);
        look(&mut history, &owners, &rows(|_| "honest".to_owned(), 40));
        assert_eq!((addresses(&history, "honest"), history.left_out()), (40, 450));
    }

    #[test]
    fn one_proxy_leaves_room_for_the_next_of_the_same_owner() {
        let mut history = History::new(Limits { proxies: 9, generations: 2, addresses: 90 });
        let owners = [("greedy", Owner::HOST_ROOT), ("honest", Owner::HOST_ROOT)];
        look(&mut history, &owners, &rows(|_| "greedy".to_owned(), 500));
        assert_eq!(addresses(&history, "greedy"), 80);
        look(&mut history, &owners, &rows(|_| "honest".to_owned(), 5));
        assert_eq!(addresses(&history, "honest"), 5);
    }

    #[test]
    fn a_proxy_that_has_ended_makes_room_for_one_that_lives() {
        let mut history = History::new(Limits { proxies: 3, generations: 2, addresses: 100 });
        let names = ["a", "b", "c"].map(|name| (name, HOSTILE));
        look(&mut history, &names, &rows(|n| ["a", "b", "c", "d"][n as usize].to_owned(), 4));
        assert_eq!((addresses(&history, "d"), history.left_out()), (0, 1), "all three live");
        look(&mut history, &[("a", HOSTILE), ("c", HOSTILE), ("d", HOSTILE)], &rows(|_| "d".to_owned(), 1));
        assert_eq!(["a", "b", "c", "d"].map(|name| addresses(&history, name)), [1, 0, 1, 1]);
    }

    #[test]
    fn what_has_no_room_is_not_kept_in_part() {
        let mut history = History::new(Limits { proxies: 3, generations: 2, addresses: 10 });
        look(&mut history, &[("a", HOSTILE)], &rows(|_| "a".to_owned(), 100));
        assert_eq!((history.kept().addresses, history.kept().rows), (5, 5));
    }

    #[test]
    fn what_is_kept_takes_no_more_than_is_said() {
        // An address has two rows at most, on average: see Proxy::row().
        let of_address = size_of::<Peer>() + 2 * size_of::<Counts>();
        assert!(of_address * Limits::default().addresses <= 25 << 20, "{of_address}");
    }

    #[test]
    fn what_a_look_takes_grows_no_faster_than_the_addresses() {
        let time = Timestamp::UNIX_EPOCH;
        // With a reload an upstream leaves half of its addresses, which all worked, for others, which all refuse.
        let look = |addresses: usize| {
            let mut rows = rows(|_| "crowd".to_owned(), addresses as u32);
            let (before, after) = rows.split_at_mut(addresses / 2);
            for (rows, outcome, generation) in
                [(&mut *before, Outcome::Established, 0), (&mut *after, Outcome::Refused, 1)]
            {
                for row in rows {
                    row.generation = generation;
                    (row.counts.attempts, row.counts.outcomes[outcome as usize]) = (4, 4);
                }
            }
            let mut findings = Findings::new(Limits::default());
            findings.observe(Input::Look { time, rows: before });
            let start = Instant::now();
            let changes = findings.observe(Input::Look { time, rows: after });
            assert!(changes.len() >= addresses / 2, "{} findings", changes.len());
            start.elapsed()
        };
        let (few, many) = (look(750), look(6000));
        // Eight times as many; sixty-four times as long where each is compared with each.
        assert!(many < few * 30 + Duration::from_millis(20), "{few:?} became {many:?}");
    }
}
