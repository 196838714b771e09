//! What was seen of one proxy: its generations, its upstreams, and the rows that they are counted from.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::abi::Owner;

use super::{
    history::{Limits, Room},
    misrouted,
    peer::Peer,
    upstream::{Upstream, Whose},
};
use crate::model::{Address, Counted, Counts, Declared, UNDECLARED_UPSTREAM};

/// What has not been used for so long is forgotten, unless something is proven of it.
const IDLE: SignedDuration = SignedDuration::from_hours(1);

/// What was seen of one proxy.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) name: Arc<str>,
    pub(super) owner: Owner,
    pub(super) upstreams: BTreeMap<Arc<str>, Upstream>,
    pub(super) rejected: Option<Rejected>,
    generations: BTreeMap<Epoch, Generation>,
    /// The epoch in which the generations of each instance begin, by its first process.
    instances: BTreeMap<u32, Epoch>,
    rows: BTreeMap<(Epoch, Address), Counts>,
    /// Connects of the newest generation in the look that is going on, to upstreams that the one before used too.
    fresh: u64,
}

/// Generations of a proxy in a row that goes on over its restarts: to findings, a restart is a reload.
pub(super) type Epoch = u32;

/// One generation of a proxy.
#[derive(Debug)]
pub(super) struct Generation {
    /// When it was first known of.
    pub(super) began: Timestamp,
    /// What the proxy itself counts.
    pub(super) number: u32,
    /// What its configuration says, if that could be read.
    pub(super) declared: Option<Declared>,
}

/// Reloads that were asked for in vain, since the last that was not.
#[derive(Clone, Debug)]
pub(super) struct Rejected {
    pub(super) first: Timestamp,
    pub(super) times: u64,
    pub(super) reason: Option<Arc<str>>,
}

impl Proxy {
    /// Nothing seen yet.
    pub(super) fn new(name: &Arc<str>, owner: Owner) -> Self {
        Self {
            name: Arc::clone(name),
            owner,
            upstreams: BTreeMap::new(),
            rejected: None,
            generations: BTreeMap::new(),
            instances: BTreeMap::new(),
            rows: BTreeMap::new(),
            fresh: 0,
        }
    }

    /// A generation began.
    pub(super) fn accept(&mut self, time: Timestamp, (pid, number): (u32, u32), limits: Limits) {
        self.rejected = None;
        let epoch = self.epoch(pid, number);
        self.begin(time, epoch, number, limits);
    }

    /// A reload was rejected.
    pub(super) fn reject(&mut self, time: Timestamp, reason: Option<Arc<str>>) {
        let rejected = self.rejected.get_or_insert(Rejected { first: time, times: 0, reason: None });
        rejected.times += 1;
        rejected.reason = reason;
    }

    /// The configuration of a generation was read.
    pub(super) fn declare(
        &mut self,
        time: Timestamp,
        (pid, number): (u32, u32),
        declared: Declared,
        limits: Limits,
    ) {
        let epoch = self.epoch(pid, number);
        self.begin(time, epoch, number, limits);
        if let Some(generation) = self.generations.get_mut(&epoch) {
            generation.declared = Some(declared);
        }
        // What is taken out and comes back later is judged anew.
        let peers = self.peers().filter(|(name, address, _)| !self.is_current(name, address));
        let retired: Vec<_> = peers.map(|(name, address, _)| (Arc::clone(name), address.clone())).collect();
        for (name, address) in retired {
            let peer = self.upstreams.get_mut(&name).and_then(|upstream| upstream.peers.get_mut(&address));
            peer.into_iter().for_each(Peer::retire);
        }
    }

    /// How many addresses are kept.
    pub(super) fn addresses(&self) -> usize {
        self.upstreams.values().map(|upstream| upstream.peers.len()).sum()
    }

    /// Adds how much is kept.
    #[cfg(test)]
    pub(super) fn count_kept(&self, kept: &mut super::history::Kept) {
        kept.generations += self.generations.len();
        kept.instances += self.instances.len();
        kept.rows += self.rows.len();
        kept.old_workers += self.upstreams.values().map(Upstream::count_old_workers).sum::<usize>();
    }

    /// The newest generation.
    pub(super) fn newest(&self) -> Option<&Generation> {
        self.generations.values().next_back()
    }

    /// A generation, if it is still known.
    pub(super) fn generation(&self, epoch: Epoch) -> Option<&Generation> {
        self.generations.get(&epoch)
    }

    /// What the newest configuration says, if it could be read.
    pub(super) fn declared(&self) -> Option<&Declared> {
        self.newest()?.declared.as_ref()
    }

    /// What the proxy itself counts a generation as.
    pub(super) fn number(&self, epoch: Epoch) -> Option<u32> {
        self.generation(epoch).map(|generation| generation.number)
    }

    /// Every address of every upstream.
    pub(super) fn peers(&self) -> impl Iterator<Item = (&Arc<str>, &Address, &Peer)> {
        self.upstreams.iter().flat_map(|(name, upstream)| {
            upstream.peers.iter().map(move |(address, peer)| (name, address, peer))
        })
    }

    /// What the newest configuration says that could be read. Right after a reload that is the one before.
    pub(super) fn last_declared(&self) -> Option<&Declared> {
        self.generations.values().rev().find_map(|generation| generation.declared.as_ref())
    }

    /// What the configuration of a generation says; the newest, where that one is not known any more.
    pub(super) fn declared_in(&self, epoch: Epoch) -> Option<&Declared> {
        self.generation(epoch).or_else(|| self.newest())?.declared.as_ref()
    }

    fn epoch(&mut self, pid: u32, generation: u32) -> Epoch {
        let next = self.generations.keys().next_back().map_or(0, |newest| newest.saturating_add(1));
        self.instances.entry(pid).or_insert(next).saturating_add(generation)
    }

    fn begin(&mut self, time: Timestamp, epoch: Epoch, number: u32, limits: Limits) {
        let newest = self.generations.keys().next_back().copied();
        match self.generations.entry(epoch) {
            Entry::Vacant(entry) => entry.insert(Generation { began: time, number, declared: None }),
            Entry::Occupied(entry) => {
                let generation = entry.into_mut();
                generation.began = generation.began.min(time);
                return;
            }
        };
        if let Some(newest) = newest.filter(|newest| *newest < epoch) {
            self.forget(time, false);
            let used: BTreeMap<_, _> = self
                .upstreams
                .iter()
                .map(|(name, upstream)| (Arc::clone(name), upstream.used(time)))
                .collect();
            let all = used.values().fold(0_u64, |sum, used| sum.saturating_add(used.connects));
            for (name, upstream) in &mut self.upstreams {
                let used = used[name];
                upstream.superseded((newest, epoch), used, all.saturating_sub(used.connects));
            }
        }
        while self.generations.len() > limits.generations.max(1) {
            self.generations.pop_first();
        }
        let oldest = self.oldest();
        self.rows.retain(|(epoch, _), _| *epoch >= oldest);
        self.upstreams.values_mut().for_each(|upstream| upstream.forget_before(oldest));
        // An instance is known by where it begins as long as there can be more of it.
        while self.instances.len() > limits.generations.max(1) {
            let first = self.instances.iter().min_by_key(|(_, begins)| **begins).map(|(pid, _)| *pid);
            first.and_then(|pid| self.instances.remove(&pid));
        }
    }

    fn oldest(&self) -> Epoch {
        self.generations.keys().next().copied().unwrap_or(0)
    }

    /// Takes in a row, and says whether there was room for it.
    pub(super) fn row(&mut self, time: Timestamp, row: &Counted, limits: Limits, room: &mut Room) -> bool {
        let epoch = self.epoch(row.pid, row.generation);
        if !self.generations.is_empty() && epoch < self.oldest() {
            return true;
        }
        let key = (epoch, row.address.clone());
        if self.rows.len() >= limits.addresses.saturating_mul(2) && !self.rows.contains_key(&key) {
            return false;
        }
        self.begin(time, epoch, row.generation, limits);
        let seen = row.counts.since(self.rows.get(&key).unwrap_or(&Counts::default()));
        let names = self.names(epoch, row);
        let is_old = self.generations.keys().next_back().is_some_and(|newest| *newest > epoch);
        let fresh = if is_old { 0 } else { seen.attempts };
        let (mut had_room, mut is_kept) = (true, false);
        for name in names {
            let whose = Whose { is_old, was_declared: self.was_declared(epoch, &name, &row.address) };
            let is_known =
                self.upstreams.get(&name).is_some_and(|upstream| upstream.peers.contains_key(&row.address));
            if !is_known && !room.take(&self.name, self.owner) {
                had_room = false;
                continue;
            }
            is_kept = true;
            let upstream = self.upstreams.entry(name).or_default();
            upstream.row(time, epoch, &row.address, (&seen, row.counts.in_flight()), whose);
            if upstream.was_used_before() {
                self.fresh = self.fresh.saturating_add(fresh);
            }
        }
        if is_kept {
            self.rows.insert(key, row.counts.clone());
        }
        had_room
    }

    /// All rows of a look were taken in.
    pub(super) fn end_look(&mut self, time: Timestamp) {
        let fresh = std::mem::take(&mut self.fresh);
        let newest = self.generations.keys().next_back().copied().unwrap_or(0);
        for upstream in self.upstreams.values_mut() {
            upstream.end_look(time);
            upstream.others_connect(newest, fresh);
        }
        for (name, address) in misrouted::proven(self) {
            let upstream = self.upstreams.get_mut(&name);
            if let Some(peer) = upstream.and_then(|upstream| upstream.peers.get_mut(&address)) {
                peer.is_misrouted = true;
            }
        }
    }

    /// The upstreams that a row counts for. A name that several upstreams share an address under stands for each of them.
    fn names(&self, epoch: Epoch, row: &Counted) -> Vec<Arc<str>> {
        let declared = self.generation(epoch).and_then(|generation| generation.declared.as_ref());
        // Most have one name, and need no search.
        let declared = declared.filter(|declared| !declared.has(&row.upstream, &row.address));
        let names: Vec<_> =
            declared.into_iter().flat_map(|declared| declared.upstreams_of(&row.address)).cloned().collect();
        if names.is_empty() { vec![Arc::clone(&row.upstream)] } else { names }
    }

    /// Whether the configuration with which the upstream last worked before this generation has the address as well.
    fn was_declared(&self, epoch: Epoch, name: &str, address: &Address) -> bool {
        let worked = self.upstreams.get(name).and_then(|upstream| upstream.worked_before(epoch));
        let declared = worked.and_then(|worked| self.generation(worked)?.declared.as_ref());
        declared.is_some_and(|declared| declared.has(name, address))
    }

    /// Whether the newest generation still connects to an address, as far as that can be told. What was taken out by a
    /// configuration does not come back because the next one is not read yet.
    pub(super) fn is_current(&self, upstream: &str, address: &Address) -> bool {
        let used = self.upstreams.get(upstream).filter(|upstream| upstream.is_current(address));
        let used_in = used.and_then(|upstream| upstream.peers.get(address)).map(|peer| peer.epoch);
        let declared =
            self.generations.iter().rev().find_map(|(epoch, generation)| {
                generation.declared.as_ref().map(|declared| (*epoch, declared))
            });
        let Some((read, declared)) = declared else {
            return used_in.is_some();
        };
        let is_declared = || match upstream {
            UNDECLARED_UPSTREAM => used_in.is_some() && declared.upstreams_of(address).next().is_none(),
            upstream => declared.has(upstream, address),
        };
        let is_newest = self.generations.keys().next_back() == Some(&read);
        if is_newest { is_declared() } else { used_in.is_some_and(|epoch| epoch > read || is_declared()) }
    }

    /// Forgets what was not used for long; what is proven of it as well, where there `must` be room.
    pub(super) fn forget(&mut self, time: Timestamp, must: bool) {
        let declared = self.last_declared();
        let is_silent = |name: &str, upstream: &Upstream| {
            upstream.silence.is_some()
                && declared.is_some_and(|declared| declared.upstreams.contains_key(name))
        };
        let idle = self.peers().filter(|(name, address, peer)| {
            let stands = (peer.is_proof() && self.is_current(name, address))
                || self.upstreams.get(*name).is_some_and(|upstream| is_silent(name, upstream));
            peer.is_idle(time, IDLE) && (must || !stands)
        });
        let idle: Vec<_> = idle.map(|(name, address, _)| (Arc::clone(name), address.clone())).collect();
        for (name, address) in idle {
            self.upstreams.get_mut(&name).and_then(|upstream| upstream.peers.remove(&address));
        }
        self.upstreams.retain(|_, upstream| !upstream.peers.is_empty());
        let kept: BTreeSet<_> = self.upstreams.values().flat_map(|upstream| upstream.peers.keys()).collect();
        self.rows.retain(|(_, address), _| kept.contains(address));
    }
}
