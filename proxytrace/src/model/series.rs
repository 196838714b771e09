//! The kernel half's ledger as series, one for each proxy, upstream and address, over all generations.
//!
//! It keeps the ledger small without losing a count: rows that are not used any more are carried over into the store and
//! forgotten in the kernel, and a series goes away once all its rows have and it was not used for long. Where the capacity
//! for series is used up, addresses are summed, by proxy and upstream; where that for sums is used up, in one sum of all proxies.
//! What a series counted that has gone is kept as long as its upstream has another: a sum over an upstream never falls.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use proxytrace_ebpf::abi::{Owner, Row};

use crate::capacity::Capacity;

/// Stands for the addresses that have no series of their own.
const OTHER: &str = "~other";

/// What a series is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// The address.
    pub address: Arc<str>,
}

/// A proxy's name and that of one of its upstreams.
pub type UpstreamKey = (Arc<str>, Arc<str>);

impl Key {
    /// What a proxy connected to while the kernel had no capacity for the address.
    #[must_use]
    pub fn other(proxy: Arc<str>) -> Self {
        Self { proxy, upstream: OTHER.into(), address: OTHER.into() }
    }

    /// The upstream that it is a part of.
    #[must_use]
    pub fn of_upstream(&self) -> UpstreamKey {
        (Arc::clone(&self.proxy), Arc::clone(&self.upstream))
    }
}

/// All series, and the memory of what is no longer in the kernel.
#[derive(Debug)]
pub struct SeriesStore {
    idle_ns: u64,
    admitted: HashMap<Key, Admitted>,
    /// Capacity for series of their own.
    own: Capacity,
    /// What the others are summed in. A sum is there as long as one of them is, and until it was not used for long.
    sums: BTreeMap<Key, Sum>,
    /// Capacity for sums: names of proxies may come and go without end.
    apart: Capacity,
    /// What series counted that have gone away, of upstreams that have others.
    departed: BTreeMap<UpstreamKey, Row>,
}

/// Sums of so many proxies and upstreams of one owner.
const MAX_SUMS: usize = 128;

#[derive(Debug)]
struct Admitted {
    owner: Owner,
    /// The sum that it is counted in; `None` where it has a series of its own. Decided when the address is first seen and never
    /// changed, because a counter must not jump when an address moves in or out of a sum.
    sum: Option<Key>,
    /// What rows counted that the kernel has forgotten; only of one with a series of its own, else the sum has it.
    carried: Row,
}

#[derive(Debug)]
struct Sum {
    /// `None` for what is counted there of all proxies that the capacity for sums did not cover.
    owner: Option<Owner>,
    /// What rows counted that the kernel has forgotten.
    carried: Row,
    /// When something was counted there last that is not there any more, boot time in nanoseconds.
    last_ns: u64,
}

/// A row of the kernel, and the key that it counts for.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it counts for.
    pub key: Key,
    /// Whose proxy it is.
    pub owner: Owner,
    /// What it has counted.
    pub row: Row,
}

impl SeriesStore {
    /// A store with series of their own for at most so many addresses of one owner's proxies, and twice as many in all, which are
    /// kept until they have not been used for `idle_ns`.
    #[must_use]
    pub fn new(max_addresses: usize, idle_ns: u64) -> Self {
        let (own, apart) = (Capacity::new(max_addresses), Capacity::new(MAX_SUMS));
        Self {
            idle_ns,
            admitted: HashMap::new(),
            own,
            sums: BTreeMap::new(),
            apart,
            departed: BTreeMap::new(),
        }
    }

    /// From now on series of their own for so many addresses of one owner's proxies. Those that have one keep it, and those that are
    /// counted in a sum stay there.
    pub fn limit(&mut self, max_addresses: usize) {
        self.own.limit(max_addresses);
    }

    /// Decides where what is counted of an address goes: into a series of its own, where there is capacity, or into a sum.
    pub fn admit(&mut self, key: &Key, owner: Owner) {
        self.admitted(key, owner);
    }

    /// The series as of `rows`, which are all that the kernel has, with the owners of their proxies. What is `declared` has a series
    /// before it is used, as far as what is used leaves capacity. Nothing is remembered: an address that was not admitted yet is
    /// counted where it will be.
    #[must_use]
    pub fn view<'a>(
        &self,
        rows: impl Iterator<Item = (Key, Owner, &'a Row)>,
        declared: &[(Owner, Key)],
    ) -> BTreeMap<Key, Row> {
        let mut all: BTreeMap<Key, Row> =
            self.sums.iter().map(|(key, sum)| (key.clone(), sum.carried)).collect();
        for (key, admitted) in &self.admitted {
            let series = all.entry(admitted.sum.as_ref().unwrap_or(key).clone()).or_insert(Row::ZERO);
            series.add(&admitted.carried);
        }
        let (mut own, mut apart) = (self.own.clone(), self.apart.clone());
        for (key, owner, row) in rows {
            let place = match self.admitted.get(&key) {
                Some(admitted) => admitted.sum.clone().unwrap_or(key),
                None if all.contains_key(&key) || own.take(owner) => key,
                None => {
                    let sum = sum_of(&key);
                    let fits = all.contains_key(&sum) || apart.take(owner);
                    if fits { sum } else { Key::other(OTHER.into()) }
                }
            };
            all.entry(place).or_insert(Row::ZERO).add(row);
        }
        // A series of zeroes yields to one that counts.
        let unused = declared.iter().filter(|(_, key)| !self.admitted.contains_key(key));
        for (owner, key) in unused {
            if !all.contains_key(key) && own.take(*owner) {
                all.insert(key.clone(), Row::ZERO);
            }
        }
        all
    }

    /// What series counted that have gone away, of upstreams that have others: who sums over an upstream adds it, or the sum
    /// would fall, and Prometheus would take that for a restart.
    #[must_use]
    pub const fn departed(&self) -> &BTreeMap<UpstreamKey, Row> {
        &self.departed
    }

    /// Drops the addresses that are not `kept`, as they have a row or are declared, and were not used for long, or are of proxies
    /// that are `gone`; and the sums that are of none that are left.
    pub fn drop_idle(&mut self, now_ns: u64, kept: &HashSet<&Key>, gone: &HashSet<Arc<str>>) {
        let Self { own, idle_ns, sums, apart, departed, .. } = self;
        let mut has_changed = false;
        let mut leave = |key: &Key, carried: &Row| {
            has_changed = true;
            departed.entry(key.of_upstream()).or_insert(Row::ZERO).add(carried);
        };
        let is_recent =
            |key: &Key, last_ns: u64| now_ns.saturating_sub(last_ns) < *idle_ns && !gone.contains(&key.proxy);
        self.admitted.retain(|key, admitted| {
            let last_ns = admitted.carried.last_attempt_ns;
            let is_recent = admitted.sum.is_none() && is_recent(key, last_ns);
            let is_kept = kept.contains(key) || is_recent;
            if !is_kept && admitted.sum.is_none() {
                own.give_back(admitted.owner);
                leave(key, &admitted.carried);
            }
            if let Some(sum) = admitted.sum.as_ref().and_then(|sum| sums.get_mut(sum)) {
                sum.last_ns = now_ns;
            }
            is_kept
        });
        let used: HashSet<&Key> =
            self.admitted.values().filter_map(|admitted| admitted.sum.as_ref()).collect();
        sums.retain(|key, sum| {
            let is_kept = used.contains(key) || is_recent(key, sum.last_ns);
            if !is_kept {
                leave(key, &sum.carried);
            }
            if let Some(owner) = sum.owner.filter(|_| !is_kept) {
                apart.give_back(owner);
            }
            is_kept
        });
        if has_changed {
            let own = self.admitted.iter().filter(|(_, admitted)| admitted.sum.is_none()).map(|(key, _)| key);
            let left: HashSet<UpstreamKey> = own.chain(self.sums.keys()).map(Key::of_upstream).collect();
            self.departed.retain(|upstream, _| left.contains(upstream));
        }
        if self.admitted.capacity() / 4 > self.admitted.len() {
            self.admitted.shrink_to_fit();
        }
    }

    /// The series that an address counts in.
    #[must_use]
    pub fn series_of(&self, key: Key) -> Key {
        self.admitted.get(&key).and_then(|admitted| admitted.sum.clone()).unwrap_or(key)
    }

    /// The proxies that anything is kept of.
    pub fn proxies(&self) -> impl Iterator<Item = &Arc<str>> {
        self.admitted.keys().chain(self.sums.keys()).map(|key| &key.proxy)
    }

    /// Takes over what a row counted that the kernel has forgotten.
    pub fn carry(&mut self, Entry { key, owner, row }: &Entry) {
        let admitted = self.admitted(key, *owner);
        match admitted.sum.clone().and_then(|sum| self.sums.get_mut(&sum)) {
            Some(sum) => sum.carried.add(row),
            None => self.admitted(key, *owner).carried.add(row),
        }
    }

    fn admitted(&mut self, key: &Key, owner: Owner) -> &mut Admitted {
        let Self { own, admitted, sums, apart, .. } = self;
        admitted.entry(key.clone()).or_insert_with(|| {
            let sum = if own.take(owner) { None } else { Some(sum_for(key, owner, sums, apart)) };
            Admitted { owner, sum, carried: Row::ZERO }
        })
    }
}

/// The sum of all addresses of the same proxy and upstream.
fn sum_of(key: &Key) -> Key {
    Key { address: OTHER.into(), ..key.clone() }
}

/// The sum in which an address without a series of its own is counted: of its proxy and upstream, or of all.
fn sum_for(key: &Key, owner: Owner, sums: &mut BTreeMap<Key, Sum>, apart: &mut Capacity) -> Key {
    let own = sum_of(key);
    let fits = sums.contains_key(&own) || apart.take(owner);
    let (sum, owner) = if fits { (own, Some(owner)) } else { (Key::other(OTHER.into()), None) };
    let new = || Sum { owner, carried: Row::ZERO, last_ns: 0 };
    sums.entry(sum.clone()).or_insert_with(new);
    sum
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use proxytrace_ebpf::{
        abi::{Owner, Row},
        outcome::Outcome,
    };

    use super::{Entry, Key, MAX_SUMS, OTHER, SeriesStore};

    impl SeriesStore {
        /// What a tick does that finds these rows, and a view after it.
        fn update(&mut self, now_ns: u64, rows: &[Entry], declared: &[(Owner, Key)]) -> BTreeMap<Key, Row> {
            rows.iter().for_each(|entry| self.admit(&entry.key, entry.owner));
            let kept: HashSet<&Key> =
                rows.iter().map(|entry| &entry.key).chain(declared.iter().map(|(_, key)| key)).collect();
            self.drop_idle(now_ns, &kept, &HashSet::new());
            self.view(rows.iter().map(Entry::parts), declared)
        }
    }

    impl Entry {
        fn parts(&self) -> (Key, Owner, &Row) {
            (self.key.clone(), self.owner, &self.row)
        }
    }

    #[test]
    fn what_was_not_admitted_yet_is_counted_where_it_will_be() {
        let rows =
            [row("a", 1, 1, 1), row("a", 2, 2, 1), row("b", 3, 3, 1), row("c", 4, 4, 1), row("c", 5, 5, 1)];
        let mut store = SeriesStore::new(2, HOUR);
        let before = store.view(rows.iter().map(Entry::parts), &declared(["d"]));
        assert_eq!(before, store.update(1, &rows, &declared(["d"])));
        assert_eq!((attempts(&before, "a"), attempts(&before, OTHER)), (Some(3), Some(9)));
    }

    const HOUR: u64 = 3_600_000_000_000;

    fn key(address: &str) -> Key {
        Key { proxy: "nginx".into(), upstream: "unknown".into(), address: address.into() }
    }

    fn declared<const N: usize>(addresses: [&str; N]) -> [(Owner, Key); N] {
        addresses.map(|address| (Owner::HOST_ROOT, key(address)))
    }

    /// A row of `attempts`, of which `refused` were and the others are in flight.
    fn row(address: &str, attempts: u64, refused: u64, last_ns: u64) -> Entry {
        let mut row = Row { attempts, last_attempt_ns: last_ns, ..Row::ZERO };
        row.outcomes[Outcome::Refused as usize] = refused;
        Entry { key: key(address), owner: Owner::HOST_ROOT, row }
    }

    fn attempts(series: &BTreeMap<Key, Row>, address: &str) -> Option<u64> {
        series.get(&key(address)).map(|series| series.attempts)
    }

    /// Carries the row over that is first, as if the kernel had forgotten it.
    fn carry_first(store: &mut SeriesStore, rows: &mut Vec<Entry>) {
        store.carry(&rows.remove(0));
    }

    #[test]
    fn generations_are_summed_and_the_sum_balances() {
        let mut store = SeriesStore::new(10, HOUR);
        let series = store.update(5, &[row("a", 7, 7, 1), row("a", 3, 1, 2)], &[]);
        let a = &series[&key("a")];
        assert_eq!((a.attempts, a.failures(), a.in_flight()), (10, 8, 2));
    }

    #[test]
    fn a_row_is_carried_over_and_its_series_goes_on_whoever_scrapes_meanwhile() {
        for is_scraped in [true, false] {
            let mut store = SeriesStore::new(10, HOUR);
            let mut rows = vec![row("a", 7, 7, 1), row("a", 3, 3, HOUR)];
            if is_scraped {
                assert_eq!(attempts(&store.update(2, &rows, &[]), "a"), Some(10));
            }
            carry_first(&mut store, &mut rows);
            assert_eq!(attempts(&store.update(HOUR + 1, &rows, &[]), "a"), Some(10));
            rows[0] = row("a", 4, 4, HOUR);
            assert_eq!(attempts(&store.update(HOUR + 2, &rows, &[]), "a"), Some(11));
        }
    }

    #[test]
    fn a_series_goes_away_when_its_address_has_no_row_and_was_idle_for_long() {
        let mut store = SeriesStore::new(10, HOUR);
        let mut rows = vec![row("a", 7, 7, 1), row("b", 7, 6, 1)];
        carry_first(&mut store, &mut rows);
        let series = store.update(HOUR, &rows, &[]);
        assert_eq!(
            (attempts(&series, "a"), attempts(&series, "b")),
            (Some(7), Some(7)),
            "used within the hour"
        );
        let series = store.update(HOUR + 2, &rows, &[]);
        assert_eq!((attempts(&series, "a"), attempts(&series, "b")), (None, Some(7)));
    }

    /// What an upstream's series sum up to, and what has gone.
    fn of_upstream(store: &SeriesStore, series: &BTreeMap<Key, Row>) -> (u64, u64) {
        let gone = store.departed().values().map(|row| row.attempts).sum();
        (series.values().map(|row| row.attempts).sum::<u64>() + gone, gone)
    }

    #[test]
    fn the_sum_over_an_upstream_never_falls_while_it_has_a_series() {
        let mut store = SeriesStore::new(1, HOUR);
        // One with a series of its own, two in a sum.
        let mut rows = vec![row("a", 7, 7, 1), row("b", 5, 5, 1), row("c", 3, 3, 1)];
        let series = store.update(1, &rows, &[]);
        assert_eq!((series.len(), of_upstream(&store, &series)), (2, (15, 0)));
        carry_first(&mut store, &mut rows);
        let series = store.update(HOUR + 2, &rows, &[]);
        assert_eq!((attempts(&series, "a"), of_upstream(&store, &series)), (None, (15, 7)));
        // There is room for another; the sum ends an hour after what it was of.
        rows.push(row("d", 2, 2, 2 * HOUR));
        store.update(2 * HOUR, &rows, &[]);
        carry_first(&mut store, &mut rows);
        carry_first(&mut store, &mut rows);
        store.update(2 * HOUR, &rows, &[]);
        let series = store.update(4 * HOUR, &rows, &[]);
        assert_eq!((attempts(&series, OTHER), of_upstream(&store, &series)), (None, (17, 15)));
        // With its last series, all of it goes.
        carry_first(&mut store, &mut rows);
        let series = store.update(6 * HOUR, &rows, &[]);
        assert_eq!((series.len(), of_upstream(&store, &series)), (0, (0, 0)));
    }

    #[test]
    fn what_is_kept_of_a_proxy_that_is_gone_goes_away_and_makes_place() {
        let mut store = SeriesStore::new(1, HOUR);
        let mut of = |proxy: &str, address: &str| {
            let Entry { key, owner, row } = row(address, 1, 1, 1);
            let key = Key { proxy: proxy.into(), ..key };
            store.carry(&Entry { key, owner, row });
        };
        of("shop/edge-0/nginx", "a");
        of("shop/edge-0/nginx", "b");
        of("nginx.service", "a");
        let count = |store: &SeriesStore| store.view(std::iter::empty(), &[]).len();
        let gone = HashSet::from(["shop/edge-0/nginx".into()]);
        assert_eq!(count(&store), 3, "an address, a sum, and a sum of the other proxy");
        let held = Key { proxy: "shop/edge-0/nginx".into(), ..key("b") };
        store.drop_idle(2, &HashSet::from([&held]), &gone);
        assert_eq!(count(&store), 2, "something is still counted in its sum");
        store.drop_idle(2, &HashSet::new(), &gone);
        assert_eq!(count(&store), 1);
        assert!(store.proxies().all(|proxy| &**proxy == "nginx.service"));
        store.drop_idle(2, &HashSet::new(), &HashSet::from(["nginx.service".into()]));
        assert_eq!((count(&store), store.apart.take(Owner::HOST_ROOT)), (0, true));
        let series = store.update(3, &[row("a", 4, 4, 3)], &[]);
        assert_eq!(attempts(&series, "a"), Some(4), "there is place for a series again, which begins anew");
    }

    #[test]
    fn a_new_limit_is_for_addresses_that_are_seen_later_and_no_count_moves() {
        let mut store = SeriesStore::new(2, HOUR);
        let mut rows = vec![row("a", 1, 1, 1), row("b", 2, 2, 1), row("c", 4, 4, 1)];
        let before = store.update(1, &rows, &[]);
        for (limit, address, expected) in [(1, "d", (None, Some(12))), (4, "e", (Some(8), Some(12)))] {
            store.limit(limit);
            assert_eq!(
                attempts(&store.update(2, &rows, &[]), "a"),
                attempts(&before, "a"),
                "{limit}: what has a series keeps it"
            );
            rows.push(row(address, 8, 8, 2));
            let after = store.update(2, &rows, &[]);
            assert_eq!((attempts(&after, address), attempts(&after, OTHER)), expected, "{limit}");
        }
        assert!(store.own.take(Owner::HOST_ROOT), "three have series, and a fourth may");
    }

    #[test]
    fn the_rest_is_summed_and_never_decreases() {
        let mut store = SeriesStore::new(1, HOUR);
        let mut rows = vec![row("b", 2, 2, 1), row("a", 1, 1, HOUR), row("c", 4, 4, HOUR)];
        rows.swap(0, 1);
        let series = store.update(HOUR + 1, &rows, &[]);
        assert_eq!((attempts(&series, "a"), attempts(&series, "~other")), (Some(1), Some(6)));
        rows.swap(0, 1);
        carry_first(&mut store, &mut rows);
        for _ in 0..2 {
            let series = store.update(HOUR + 2, &rows, &[]);
            assert_eq!((attempts(&series, "~other"), series.len()), (Some(6), 2));
        }
    }

    #[test]
    fn a_sum_goes_away_when_nothing_is_left_that_it_is_of_and_it_was_not_used_for_long() {
        let mut store = SeriesStore::new(1, HOUR);
        let mut rows = vec![row("a", 1, 1, 1), row("b", 2, 2, 1)];
        assert_eq!(attempts(&store.update(1, &rows, &[]), OTHER), Some(2));
        assert_eq!(attempts(&store.update(2 * HOUR, &rows, &[]), OTHER), Some(2), "its row is there");
        rows.swap(0, 1);
        carry_first(&mut store, &mut rows);
        assert_eq!(attempts(&store.update(3 * HOUR, &rows, &[]), OTHER), Some(2), "carried a moment ago");
        assert_eq!(attempts(&store.update(4 * HOUR, &rows, &[]), OTHER), None);
        assert_eq!(attempts(&store.update(4 * HOUR, &rows, &[]), "a"), Some(1));
    }

    #[test]
    fn a_crowd_of_names_and_addresses_takes_neither_unbounded_capacity_nor_that_of_others() {
        let mut store = SeriesStore::new(10, HOUR);
        let crowd = Owner::new(65_534, Owner::HOST_ROOT.pid_namespace);
        for n in 0..10_000 {
            let Entry { key, row, .. } = row("x", 1, 1, 1);
            let proxy = format!("nginx@65534:{n}").into();
            store.carry(&Entry { key: Key { proxy, ..key }, owner: crowd, row });
        }
        let series = store.update(2, &[row("a", 3, 3, 1), row("b", 4, 4, 1)], &declared(["c"]));
        assert_eq!(["a", "b", "c"].map(|address| attempts(&series, address)), [Some(3), Some(4), Some(0)]);
        assert_eq!(series.len(), 10 + MAX_SUMS + 1 + 3);
        assert_eq!(series.values().map(|series| series.attempts).sum::<u64>(), 10_000 + 7);
    }

    #[test]
    fn what_is_declared_has_a_series_before_and_long_after_it_is_used() {
        let mut store = SeriesStore::new(10, HOUR);
        let declared = declared(["a"]);
        let series = store.update(1, &[], &declared);
        assert_eq!(attempts(&series, "a"), Some(0));
        let mut rows = vec![row("a", 3, 3, 1), row("b", 1, 1, 1)];
        let series = store.update(HOUR + 1, &rows, &declared);
        assert_eq!(attempts(&series, "a"), Some(3));
        carry_first(&mut store, &mut rows);
        carry_first(&mut store, &mut rows);
        let series = store.update(HOUR + 2, &rows, &declared);
        assert_eq!((attempts(&series, "a"), attempts(&series, "b")), (Some(3), None));
        assert!(store.update(HOUR + 3, &rows, &[]).is_empty());
    }

    #[test]
    fn what_is_only_declared_takes_no_capacity_from_what_is_used() {
        let mut store = SeriesStore::new(2, HOUR);
        let declared = declared(["a", "b", "c"]);
        let series = store.update(1, &[], &declared);
        assert_eq!((series.len(), attempts(&series, "a"), attempts(&series, "c")), (2, Some(0), None));
        let rows = [row("c", 3, 3, 1), row("x", 1, 1, 1), row("a", 2, 2, 1)];
        let series = store.update(2, &rows, &declared);
        let counts = ["c", "x", "~other", "a", "b"].map(|address| attempts(&series, address));
        assert_eq!(counts, [Some(3), Some(1), Some(2), None, None]);
    }
}
