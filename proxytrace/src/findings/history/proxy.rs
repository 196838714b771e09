//! What was seen of one proxy: its generations, its upstreams, and the rows that they are counted from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::abi::Owner;

use super::{
    capacity::{Capacity, Limits},
    generations::{Epoch, Generations},
    lacks::Lacks,
    peer::{More, Peer},
    upstream::{Origin, Upstream},
};
use crate::findings::outcomes::{causes, uses};
use crate::model::{
    Address, Counted, Counts, Declared, Gone, Kind, Rejection, Subject, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM,
};

/// What has not been used for so long is forgotten, unless something is proven of it.
const IDLE_TIMEOUT: SignedDuration = SignedDuration::from_hours(1);

/// Fewer upstreams that fail are not a matter of the proxy, however few there are.
const MIN_DESTINATIONS: usize = 5;
/// What was used longer ago says nothing about now.
const OUTAGE_TIMEOUT: SignedDuration = SignedDuration::from_mins(1);
/// An outage shows within so long, or is none: so long each upstream may take to be used, and to show that nothing answers.
const BECOMING: SignedDuration = SignedDuration::from_secs(5);
/// Within so long after an outage there is no other.
const AFTERMATH: SignedDuration = SignedDuration::from_secs(15);

/// Something that a proxy connects to.
#[derive(Debug)]
pub(crate) struct Destination {
    /// The upstream; the address where it has no name.
    pub(crate) name: Arc<str>,
    /// Whether the last that was seen of each of its addresses is a failure, or that nothing answers.
    pub(crate) fails: bool,
    last: Timestamp,
}

/// What was seen of one proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) name: Arc<str>,
    pub(super) owner: Owner,
    pub(crate) generations: Generations,
    pub(crate) upstreams: BTreeMap<Arc<str>, Upstream>,
    pub(crate) rejected: Option<Rejected>,
    /// Since when no worker runs, where none does, and how that came.
    pub(crate) workers_gone: Option<(Timestamp, Gone)>,
    /// Since when hardly anything works that the proxy connects to, where that is proven.
    pub(crate) outage: Option<Timestamp>,
    /// When the last one was over.
    outage_over: Option<Timestamp>,
    /// What it says that it lacks.
    pub(crate) lacks: Lacks,
    /// The first generation that was seen.
    first: Option<Epoch>,
    rows: BTreeMap<(Epoch, Address), Counts>,
    /// Connects of the newest generation in the tick that is going on, to upstreams that the previous one used too.
    fresh: u64,
}

/// What refutes a kind of finding about an address, as the beginning of a sentence that the address ends.
const fn contrary_at(kind: Kind) -> &'static str {
    match kind {
        Kind::BlackHole => "there is an answer from",
        Kind::WrongService | Kind::NoResponse => "a request was answered by",
        Kind::SlowConnect => "handshakes are as quick as before with",
        Kind::Overloaded => "hardly any SYN is lost any more to",
        Kind::PortsExhausted | Kind::BacklogFull | Kind::Denied => "no connect has failed for long to",
        _ => "a connect succeeded to",
    }
}

/// Reloads that were asked for in vain, since the last that was not.
#[derive(Clone, Debug)]
pub(crate) struct Rejected {
    pub(crate) first: Timestamp,
    pub(crate) times: u64,
    pub(crate) reason: Option<Arc<str>>,
}

impl Proxy {
    /// Nothing seen yet.
    pub(super) fn new(name: &Arc<str>, owner: Owner) -> Self {
        Self {
            name: Arc::clone(name),
            owner,
            generations: Generations::default(),
            upstreams: BTreeMap::new(),
            rejected: None,
            workers_gone: None,
            outage: None,
            outage_over: None,
            lacks: Lacks::default(),
            first: None,
            rows: BTreeMap::new(),
            fresh: 0,
        }
    }

    /// A generation began.
    pub(super) fn accept(&mut self, time: Timestamp, (pid, number): (u32, u32), limits: Limits) {
        self.rejected = None;
        let epoch = self.generations.epoch(pid, number);
        self.begin(time, epoch, number, limits);
    }

    /// A reload was rejected.
    pub(super) fn reject(&mut self, time: Timestamp, Rejection { reason, is_late, .. }: Rejection) {
        if is_late {
            if let Some(rejected) = &mut self.rejected {
                rejected.reason = reason;
            }
            return;
        }
        let rejected = self.rejected.get_or_insert(Rejected { first: time, times: 0, reason: None });
        rejected.times += 1;
        rejected.reason = reason;
    }

    /// No worker runs any more, or some do again.
    pub(super) fn note_workers(&mut self, time: Timestamp, gone: Option<Gone>) {
        let since = self.workers_gone.as_ref().map_or(time, |(since, _)| *since);
        self.workers_gone = gone.map(|gone| (since, gone));
    }

    /// The configuration of a generation was read.
    pub(super) fn declare(
        &mut self,
        time: Timestamp,
        (pid, number): (u32, u32),
        declared: Declared,
        limits: Limits,
    ) {
        let epoch = self.generations.epoch(pid, number);
        self.begin(time, epoch, number, limits);
        // What it names was no stranger: it is not to be one again with the next that does without it.
        if let Some(undeclared) = self.upstreams.get_mut(UNDECLARED_UPSTREAM) {
            undeclared.peers.retain(|address, _| declared.upstreams_of(address).next().is_none());
        }
        self.generations.declare(epoch, declared);
        // What is taken out and comes back later is judged anew.
        let peers = self.peers().filter(|(name, address, _)| !self.is_current(name, address));
        let retired: Vec<_> = peers.map(|(name, address, _)| (Arc::clone(name), address.clone())).collect();
        for (name, address) in retired {
            let peer = self.upstreams.get_mut(&name).and_then(|upstream| upstream.peers.get_mut(&address));
            peer.into_iter().for_each(|peer| peer.retire());
        }
    }

    /// How many addresses are kept.
    pub(super) fn addresses(&self) -> usize {
        self.upstreams.values().map(|upstream| upstream.peers().count()).sum()
    }

    /// Adds how much is kept.
    #[cfg(test)]
    pub(super) fn count_kept(&self, kept: &mut super::capacity::Kept) {
        let (generations, instances) = self.generations.count();
        kept.generations += generations;
        kept.instances += instances;
        kept.rows += self.rows.len();
        kept.old_workers += self.upstreams.values().map(Upstream::count_old_workers).sum::<usize>();
    }

    /// Every address of every upstream.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&Arc<str>, &Address, &Peer)> {
        self.upstreams
            .iter()
            .flat_map(|(name, upstream)| upstream.peers().map(move |(address, peer)| (name, address, peer)))
    }

    /// Stores what a kind of finding has proven of an address. It stands until the address accepts a connection or is retired.
    pub(crate) fn note_proven(&mut self, kind: Kind, upstream: &str, address: &Address) {
        let upstream = self.upstreams.get_mut(upstream);
        if let Some(peer) = upstream.and_then(|upstream| upstream.peers.get_mut(address)) {
            peer.proven.add(kind);
        }
    }

    fn begin(&mut self, time: Timestamp, epoch: Epoch, number: u32, limits: Limits) {
        self.first.get_or_insert(epoch);
        let newest = self.generations.newest_epoch();
        if !self.generations.begin(time, epoch, number) {
            return;
        }
        if let Some(newest) = newest.filter(|newest| *newest < epoch) {
            self.supersede(time, newest, epoch);
        }
        self.generations.forget(limits.generations);
        let oldest = self.generations.oldest_epoch();
        self.rows.retain(|(epoch, _), _| *epoch >= oldest);
        self.upstreams.values_mut().for_each(|upstream| upstream.forget_before(oldest));
    }

    /// A generation takes over from the newest one.
    fn supersede(&mut self, time: Timestamp, newest: Epoch, epoch: Epoch) {
        self.forget(time, false);
        let used: Vec<_> = self.upstreams.values().map(|upstream| upstream.used(time)).collect();
        let all = used.iter().fold(0_u64, |sum, used| sum.saturating_add(used.uses));
        for (upstream, used) in self.upstreams.values_mut().zip(used) {
            upstream.superseded((newest, epoch), used, all.saturating_sub(used.uses));
        }
    }

    /// Takes in a row, and says whether it did fit.
    pub(super) fn row(
        &mut self,
        time: Timestamp,
        row: &Counted,
        limits: Limits,
        capacity: &mut Capacity,
    ) -> bool {
        let epoch = self.generations.epoch(row.pid, row.generation);
        if self.generations.has_forgotten(epoch) {
            return true;
        }
        let key = (epoch, row.address.clone());
        if self.rows.len() >= limits.addresses.saturating_mul(2) && !self.rows.contains_key(&key) {
            return false;
        }
        self.begin(time, epoch, row.generation, limits);
        let none = Counts::default();
        let before = self.rows.get(&key).unwrap_or(&none);
        let seen = row.counts.since(before);
        let used = uses(&row.counts).saturating_sub(uses(before));
        let is_old = self.generations.newest_epoch().is_some_and(|newest| newest > epoch);
        let fresh = if is_old { 0 } else { used };
        self.lacks.note_connects(seen.attempts);
        let (mut fits, mut is_kept) = (true, false);
        for name in self.names(epoch, row) {
            let origin = Origin { is_old, was_declared: self.was_declared(epoch, &name, &row.address) };
            let is_known =
                self.upstreams.get(&name).is_some_and(|upstream| upstream.peers.contains_key(&row.address));
            if !is_known && !capacity.take(&self.name, self.owner) {
                fits = false;
                continue;
            }
            is_kept = true;
            let upstream = self.upstreams.entry(name).or_default();
            let more = More { in_flight: row.counts.in_flight(), uses: used, hint: row.hint };
            upstream.row(time, epoch, &row.address, (&seen, more), origin);
            if upstream.was_used_before() {
                self.fresh = self.fresh.saturating_add(fresh);
            }
        }
        if is_kept {
            self.rows.insert(key, row.counts.clone());
        }
        fits
    }

    /// All rows of a tick were taken in.
    pub(super) fn end_tick(&mut self, time: Timestamp) {
        let fresh = std::mem::take(&mut self.fresh);
        let newest = self.generations.newest_epoch().unwrap_or(0);
        let declared = self.generations.last_declared();
        for (name, upstream) in &mut self.upstreams {
            if declared.is_some_and(|declared| declared.is_followed) {
                upstream.note_left(declared.and_then(|declared| declared.upstreams.get(name)));
            }
            upstream.end_tick(time);
            upstream.others_connect(newest, fresh);
        }
        self.lacks.end_tick(time);
        self.note_outage(time);
    }

    /// What the proxy connects to: each upstream that has a name, and each address that has none.
    pub(crate) fn destinations(&self) -> Vec<Destination> {
        let mut destinations = Vec::new();
        for (name, upstream) in self.upstreams.iter().filter(|(name, _)| ***name != *UNDECLARED_UPSTREAM) {
            let live = || upstream.live().filter(|(_, peer)| peer.fails_or_is_silent() || !peer.is_untried());
            if **name == *UNKNOWN_UPSTREAM {
                destinations.extend(live().map(|(address, peer)| Destination {
                    name: address.to_string().into(),
                    fails: peer.fails_or_is_silent(),
                    last: peer.last(),
                }));
            } else if let Some(last) = live().map(|(_, peer)| peer.last()).max() {
                let fails = live().all(|(_, peer)| peer.fails_or_is_silent());
                destinations.push(Destination { name: Arc::clone(name), fails, last });
            }
        }
        destinations
    }

    /// The failures of all addresses that fail, by cause.
    pub(crate) fn causes_of_failing(&self) -> BTreeMap<Arc<str>, u64> {
        causes(self.failing().map(|peer| &peer.causes))
    }

    /// What was seen of the addresses that fail.
    pub(crate) fn failing(&self) -> impl Iterator<Item = &Peer> {
        let live = self.upstreams.values().flat_map(Upstream::live);
        live.map(|(_, peer)| peer).filter(|peer| peer.fails_or_is_silent())
    }

    /// What was used a moment ago shows an outage; what works since shows that it is over.
    fn note_outage(&mut self, time: Timestamp) {
        if self.upstreams.is_empty() {
            self.outage = None;
            return;
        }
        if self.outage.is_none() && !self.upstreams.values().any(Upstream::fails) {
            return;
        }
        let destinations = self.destinations();
        let fail = destinations.iter().filter(|one| one.fails).count();
        match self.outage {
            Some(since) => {
                let work = destinations.iter().filter(|one| !one.fails && one.last >= since).count();
                if fail == 0 || work * 2 > fail {
                    (self.outage, self.outage_over) = (None, Some(time));
                }
            }
            // Connects that began in the last one fail for some time after it.
            None if self.outage_just_over(time).is_some() => {}
            None => {
                let recent = destinations.iter().filter(|one| time.duration_since(one.last) < OUTAGE_TIMEOUT);
                let (fail, work): (Vec<_>, Vec<_>) = recent.partition(|one| one.fails);
                if fail.len() >= MIN_DESTINATIONS && work.len() * 9 <= fail.len() {
                    self.outage = fail.iter().map(|one| one.last).min();
                }
            }
        }
    }

    /// When an outage was over, a moment ago: what has failed since before then may be what is left of it.
    pub(crate) fn outage_just_over(&self, now: Timestamp) -> Option<Timestamp> {
        self.outage_over.filter(|over| now.duration_since(*over) < AFTERMATH)
    }

    /// Whether more and more addresses do not answer, and hardly any has since the first of them: what is not used right now does not show
    /// yet whether it is an outage.
    pub(crate) fn may_become_outage(&self, now: Timestamp) -> bool {
        let peers = || self.upstreams.values().flat_map(Upstream::live).map(|(_, peer)| peer);
        let is_new = |sign: &Timestamp| now.duration_since(*sign) < BECOMING;
        let (mut silent, mut first) = (0, now);
        for sign in peers().filter_map(Peer::first_silent).filter(is_new) {
            (silent, first) = (silent + 1, first.min(sign));
        }
        silent >= MIN_DESTINATIONS
            && peers().filter(|peer| peer.has_answered_since(first)).count() * 9 <= silent
    }

    /// The upstreams that a row counts for. A name that several upstreams share an address under stands for each of them.
    fn names(&self, epoch: Epoch, row: &Counted) -> Vec<Arc<str>> {
        let declared = self.generations.get(epoch).and_then(|begun| begun.declared.as_ref());
        // Most have one name, and need no search.
        let declared = declared.filter(|declared| !declared.has(&row.upstream, &row.address));
        let names: Vec<_> =
            declared.into_iter().flat_map(|declared| declared.upstreams_of(&row.address)).cloned().collect();
        if names.is_empty() { vec![Arc::clone(&row.upstream)] } else { names }
    }

    /// Whether the configuration with which the upstream last worked before this generation has the address as well.
    fn was_declared(&self, epoch: Epoch, name: &str, address: &Address) -> bool {
        let worked = self.upstreams.get(name).and_then(|upstream| upstream.worked_before(epoch));
        let declared = worked.and_then(|worked| self.generations.get(worked)?.declared.as_ref());
        declared.is_some_and(|declared| declared.has(name, address))
    }

    /// Whether the newest generation still connects to an address, as far as that is known. What was taken out by a
    /// configuration does not come back because the next one is not read yet.
    pub(crate) fn is_current(&self, upstream: &str, address: &Address) -> bool {
        let used = self.upstreams.get(upstream).filter(|upstream| upstream.is_current(address));
        let used_in = used.and_then(|upstream| upstream.peer(address)).map(|peer| peer.epoch);
        let Some((read, declared)) = self.generations.last_read() else {
            return used_in.is_some();
        };
        let has_left = |upstream: &str| {
            let peer = self.upstreams.get(upstream).and_then(|upstream| upstream.peer(address));
            peer.is_some_and(|peer| peer.has_left)
        };
        let is_declared = || match upstream {
            // No configuration declares what has no name: it is used until one gives it a name.
            UNDECLARED_UPSTREAM | UNKNOWN_UPSTREAM => {
                used_in.is_some() && declared.upstreams_of(address).next().is_none()
            }
            // What a name resolves to may be something else for the proxy than for us.
            upstream if has_left(upstream) => false,
            // Switched away from, as from blue to green: its block stays, and nothing leads there. What is connected to is led to.
            upstream if !declared.may_lead_to(upstream) && used_in.is_none_or(|epoch| epoch < read) => false,
            upstream if declared.has(upstream, address) => declared.uses(upstream, address),
            upstream => used_in.is_some() && declared.may_have(upstream, address),
        };
        let is_newest = self.generations.newest_epoch() == Some(read);
        if is_newest { is_declared() } else { used_in.is_some_and(|epoch| epoch > read || is_declared()) }
    }

    /// What was seen to the contrary of what stood, in words.
    pub(super) fn contrary(&self, Subject { kind, upstream, address, .. }: &Subject) -> Arc<str> {
        let upstream = upstream.as_ref().map(|name| (name, self.upstreams.get(name)));
        let took_out = "a reload took it out of use";
        let has_left = |of: &Upstream, at: &Address| of.peer(at).is_some_and(|peer| peer.has_left);
        match (kind, upstream, address) {
            (Kind::ProxyFails, ..) => "it has connected for long and said nothing of the kind".into(),
            (Kind::ReloadRejected, ..) => "a reload was accepted".into(),
            (Kind::NoWorkers, ..) => "workers run again".into(),
            (Kind::StaleName, ..) => "a reload looked the name up again, or it is that address again".into(),
            (Kind::SilentUpstream, Some((name, _)), _) if self.is_declared(name) => {
                "it is connected to".into()
            }
            (Kind::UndeclaredDestination, ..) => "the configuration has it, or leads there no more".into(),
            (_, Some((name, Some(_))), Some(address)) if self.is_current(name, address) => {
                format!("{} {address}", contrary_at(*kind)).into()
            }
            (_, Some((_, Some(upstream))), Some(address)) if has_left(upstream, address) => {
                "its name has other addresses now".into()
            }
            (_, Some((_, Some(upstream))), None) => {
                let reached = upstream.live().find(|(_, peer)| peer.is_reached()).map(|(address, _)| address);
                reached.map_or_else(|| took_out.into(), |at| format!("a connect succeeded to {at}").into())
            }
            (Kind::ProxyDown, ..) => "upstreams can be reached again".into(),
            _ => took_out.into(),
        }
    }

    /// Whether connections are passed on to the upstream, and not requests.
    pub(crate) fn is_stream(&self, upstream: &str) -> bool {
        let declared = self.generations.last_declared();
        declared
            .and_then(|declared| declared.upstreams.get(upstream))
            .is_some_and(|upstream| upstream.is_stream)
    }

    /// Whether it had been so with an address for as long as it is known, if it never `was_well`: what was before that nobody saw.
    pub(crate) fn is_start_unseen(&self, peer: &Peer, was_well: bool) -> bool {
        !was_well && Some(peer.entered) == self.first
    }

    fn is_declared(&self, upstream: &str) -> bool {
        self.generations.last_declared().is_some_and(|declared| declared.upstreams.contains_key(upstream))
    }

    /// Forgets what was not used for long; what is proven of it as well, where it `must` leave capacity for others.
    pub(super) fn forget(&mut self, time: Timestamp, must: bool) {
        let declared = self.generations.last_declared();
        let is_silent = |name: &str, upstream: &Upstream| {
            upstream.silence.is_some()
                && declared.is_some_and(|declared| declared.upstreams.contains_key(name))
        };
        let idle = self.peers().filter(|(name, address, peer)| {
            let stands = (peer.is_proof() && self.is_current(name, address))
                || self.upstreams.get(*name).is_some_and(|upstream| is_silent(name, upstream));
            peer.is_idle(time, IDLE_TIMEOUT) && (must || !stands)
        });
        let idle: Vec<_> = idle.map(|(name, address, _)| (Arc::clone(name), address.clone())).collect();
        for (name, address) in idle {
            self.upstreams.get_mut(&name).and_then(|upstream| upstream.peers.remove(&address));
        }
        self.upstreams.retain(|_, upstream| !upstream.peers.is_empty());
        let kept: BTreeSet<_> = self
            .upstreams
            .values()
            .flat_map(|upstream| upstream.peers().map(|(address, _)| address))
            .collect();
        self.rows.retain(|(_, address), _| kept.contains(address));
    }
}
