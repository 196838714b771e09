//! What rows of the ledger are called, and which series they count for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use proxytrace_ebpf::abi::{Owner, Row, RowKey};

use super::{Limits, Watch};
use crate::{
    kernel::{Error, Snapshot},
    model::{Address, Entry, Key, SeriesStore, UpstreamKey, Waiting},
};

/// What a row is called.
#[derive(Debug)]
pub(super) enum RowName {
    /// It is about no upstream: the C library asks for users and hosts there.
    Ignored,
    /// That is not known yet.
    Pending,
    /// Its proxy had no room for rows of all its destinations, which are counted there.
    Other { proxy: Arc<str>, owner: Owner },
    /// It is a destination of a proxy.
    Destination(Destination),
}

impl RowName {
    /// The series that it counts for, and the owner of its proxy.
    fn series(&self) -> Option<(Key, Owner)> {
        match self {
            Self::Ignored | Self::Pending => None,
            Self::Other { proxy, owner } => Some((Key::other(Arc::clone(proxy)), *owner)),
            Self::Destination(Destination { proxy, owner, upstream, address }) => {
                let (proxy, upstream) = (Arc::clone(proxy), Arc::clone(upstream));
                Some((Key { proxy, upstream, address: address.to_string().into() }, *owner))
            }
        }
    }
}

/// A destination of a proxy.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) proxy: Arc<str>,
    owner: Owner,
    pub(super) upstream: Arc<str>,
    pub(super) address: Address,
}

/// The rows that have names, and the series that they count for.
#[derive(Debug)]
pub(super) struct Rows {
    /// The series of each, and the owner of its proxy.
    named: HashMap<RowKey, (Key, Owner)>,
    store: SeriesStore,
}

impl Rows {
    /// None yet; series as many as `limits` say.
    pub(super) fn new(limits: Limits) -> Self {
        let idle_ns = u64::try_from(limits.series_kept.as_nanos()).unwrap_or(u64::MAX);
        Self { named: HashMap::new(), store: SeriesStore::new(limits.max_addresses, idle_ns) }
    }

    fn name(&mut self, row: &RowKey, key: Key, owner: Owner) {
        self.store.admit(&key, owner);
        self.named.insert(*row, (key, owner));
    }

    /// Takes over what a row counted that the kernel has forgotten. Gives false for one without a name: it is about no upstream.
    pub(super) fn carry(&mut self, row: &RowKey, counts: &Row) -> bool {
        let named = self.named.get(row).cloned();
        if let Some((key, owner)) = named.clone() {
            self.store.carry(&Entry { key, owner, row: *counts });
        }
        named.is_some()
    }

    /// The same of the row `~other` of a proxy that has ended.
    pub(super) fn carry_other(&mut self, proxy: Arc<str>, owner: Owner, counts: &Row) {
        self.store.carry(&Entry { key: Key::other(proxy), owner, row: *counts });
    }

    /// What series counted that have gone away, of upstreams that have others.
    pub(super) const fn departed(&self) -> &BTreeMap<UpstreamKey, Row> {
        self.store.departed()
    }

    /// Forgets the names of all rows but these.
    pub(super) fn retain(&mut self, rows: &HashSet<RowKey>) {
        self.named.retain(|row, _| rows.contains(row));
    }

    /// The proxies that have series.
    pub(super) fn proxies(&self) -> impl Iterator<Item = &Arc<str>> {
        self.store.proxies()
    }

    /// Drops the series that have no row, are not declared and were not used for long, or are of proxies that are `gone`.
    pub(super) fn drop_idle(&mut self, now_ns: u64, declared: &[(Owner, Key)], gone: &HashSet<Arc<str>>) {
        let Self { named, store } = self;
        let kept = named.values().map(|(key, _)| key).chain(declared.iter().map(|(_, key)| key)).collect();
        store.drop_idle(now_ns, &kept, gone);
    }
}

impl Watch {
    /// From now on so many addresses of one owner's proxies get series of their own ([`Limits::max_addresses`]). No count moves.
    ///
    /// # Errors
    /// A map could not be read; nothing has changed.
    pub fn limit_addresses(&mut self, max: usize) -> Result<(), Error> {
        // What was counted since the last tick may have been scraped already, and stays where it was shown.
        for (row, _) in &self.tracer.snapshot()?.rows {
            self.name_row(row)?;
        }
        self.rows.store.limit(max);
        Ok(())
    }

    /// Gives a row its name, and its series room, as soon as that is possible.
    ///
    /// # Errors
    /// A map could not be read.
    pub(super) fn name_row(&mut self, row: &RowKey) -> Result<RowName, Error> {
        let address = self.address(&row.address);
        if !address.is_name_service() {
            if self.is_last {
                self.proxy_name(row.proxy)?;
            }
            let is_named = self.owner(row.proxy).is_some() && self.names.given(row.proxy).is_some();
            if is_named && !Snapshot::is_other(row) {
                self.upstream(row, &address)?;
            }
        }
        let name = self.row_name(row, address);
        if let Some((key, owner)) = name.series() {
            self.rows.name(row, key, owner);
        }
        Ok(name)
    }

    /// What a row is called, as far as that is known now.
    fn row_name(&self, row: &RowKey, address: Address) -> RowName {
        if address.is_name_service() {
            return RowName::Ignored;
        }
        let (Some(proxy), Some(owner)) = (self.names.given(row.proxy), self.names.owner(row.proxy)) else {
            return RowName::Pending;
        };
        if Snapshot::is_other(row) {
            return RowName::Other { proxy, owner };
        }
        match self.naming.upstream_now(row, &address) {
            Some(upstream) => RowName::Destination(Destination { proxy, owner, upstream, address }),
            None if self.is_last => {
                RowName::Destination(Destination { proxy, owner, upstream: self.naming.unknown(), address })
            }
            None => RowName::Pending,
        }
    }

    /// Every series as of `snapshot`; nothing is remembered of it.
    pub(super) fn series(&self, snapshot: &Snapshot, declared: &[(Owner, Key)]) -> BTreeMap<Key, Row> {
        let rows = snapshot.rows.iter().filter_map(|(row, counts)| {
            let (key, owner) = self.series_of(row)?;
            Some((key, owner, counts))
        });
        self.rows.store.view(rows, declared)
    }

    /// The upstreams where requests wait for far longer than is usual.
    pub fn late(&self) -> impl Iterator<Item = UpstreamKey> {
        let late = |(key, waiting): (Key, Waiting)| (waiting.late > 0).then(|| key.of_upstream());
        self.waiting().into_iter().filter_map(late)
    }

    /// What waits for an answer, by series.
    pub(super) fn waiting(&self) -> BTreeMap<Key, Waiting> {
        let mut waiting: BTreeMap<Key, Waiting> = BTreeMap::new();
        for (row, more) in self.looks.waiting() {
            if let Some((key, _)) = self.series_of(row) {
                waiting.entry(self.rows.store.series_of(key)).or_default().add(more);
            }
        }
        waiting
    }

    /// When something was last answered on a connection that stayed, by series.
    pub(super) fn answered(&self) -> BTreeMap<Key, Timestamp> {
        let mut answered = BTreeMap::new();
        for (row, time) in self.looks.answered() {
            if let Some((key, _)) = self.series_of(row) {
                let last = answered.entry(self.rows.store.series_of(key)).or_insert(time);
                *last = time.max(*last);
            }
        }
        answered
    }

    /// The series of a row and the owner of its proxy, as far as that is known now.
    pub(super) fn series_of(&self, row: &RowKey) -> Option<(Key, Owner)> {
        if let Some(named) = self.rows.named.get(row) {
            return Some(named.clone());
        }
        let path = self.tracer.unix_path_now(&row.address);
        self.row_name(row, Address::of_abi(&row.address, path.as_ref())).series()
    }
}
