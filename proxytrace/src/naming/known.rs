//! What one generation is configured to do, and what it calls an address. Names are looked up again, those that the proxy follows and
//! those that it does not.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::hosts::{Host, Hosts};
use crate::{
    declared::{AddressNames, Configuration, Routes, SettingsByPeer},
    model::{Address, NameNow},
    reader::{FoundName, Lookup, Owner, Resolved},
};

/// For so long it is waited for a look-up that may say what an address is. Then it is called what is known.
const PATIENCE: Duration = Duration::from_secs(10);

/// So many addresses are remembered, of all names together, and of one; with more the oldest answers are forgotten.
const MAX_ADDRESSES: usize = 65_536;
const MAX_ADDRESSES_OF_NAME: usize = 4096;
/// As many are remembered of each name, however many there are.
const MIN_ADDRESSES_OF_NAME: usize = 16;

/// What one generation is configured to do.
pub(super) struct KnownConfig {
    pub(super) configuration: Configuration,
    /// Whose proxy that is.
    pub(super) owner: Owner,
    /// What is kept of it takes so many bytes.
    pub(super) bytes: usize,
    pub(super) names: AddressNames,
    pub(super) peer_settings: SettingsByPeer,
    pub(super) hosts: Hosts,
    /// The configuration does not say where all connects go to.
    is_open: bool,
    /// By port the names that have it.
    by_port: HashMap<u16, AtPort>,
    /// The keys of services, whose ports only their answers say.
    services: Vec<String>,
    /// Addresses that no name had, and when they were first seen: only a lookup that is begun later can say what they are.
    unmatched: HashMap<Address, Instant>,
    /// Of the names at these ports more should be known than their last answers say: of all, or of those that are not followed.
    wanted: HashSet<(u16, bool)>,
    /// What was said of its names last, to findings.
    said: Vec<(String, Option<NameNow>)>,
}

/// The host names that have a port.
#[derive(Default)]
struct AtPort {
    /// Their keys, with the indexes of their upstreams.
    keys: Vec<(String, usize)>,
    /// The upstream of all, where they are of one.
    only: Option<usize>,
    /// The upstream of those that nobody answered for, where they are of one.
    unanswered: Option<usize>,
    is_shared: bool,
    is_unanswered_shared: bool,
}

/// What is found of an address.
pub(super) enum Found<'a> {
    Named(&'a str),
    /// That takes a lookup.
    Pending,
    /// The configuration does not say where it connects to, or more than one name may stand for it.
    Open,
    Undeclared,
}

impl KnownConfig {
    /// All that is known but for what host names resolve to.
    pub(super) fn new(configuration: Configuration, owner: Owner, bytes: usize) -> Self {
        let hosts = Hosts::new(Instant::now(), &configuration.routes);
        let mut known = Self {
            owner,
            bytes,
            names: AddressNames::default(),
            peer_settings: SettingsByPeer::default(),
            hosts,
            is_open: false,
            by_port: HashMap::new(),
            services: Vec::new(),
            configuration,
            unmatched: HashMap::new(),
            wanted: HashSet::new(),
            said: Vec::new(),
        };
        known.derive();
        known
    }

    /// Takes over from an older generation what names resolve to, and when they were looked up. A proxy that follows a name goes on
    /// with what it knew where its name server fails; what it looked up once it has looked up anew, and a look-up says so in its
    /// time.
    pub(super) fn inherit(&mut self, older: &Self) {
        for (key, is_followed) in self.hosts.inherit(&older.hosts) {
            let Some(known) = older.configuration.resolved.get(&key) else { continue };
            let last = || older.hosts.get(&key).and_then(|host| host.answers.now());
            let addresses = match is_followed {
                true => known.clone(),
                false => last().map_or_else(
                    || known.clone(),
                    |last| last.addresses.into_iter().map(|ip| (ip, 0).into()).collect(),
                ),
            };
            self.configuration.resolved.insert(key, addresses);
        }
        self.derive();
    }

    /// No name is ever looked up.
    pub(super) fn give_up_names(&mut self) {
        self.hosts.give_up();
    }

    /// What follows from what names resolve to, so that an address is found without a look at the whole configuration.
    fn derive(&mut self) {
        let Configuration { routes, resolved, .. } = &self.configuration;
        self.names = AddressNames::new(routes, resolved);
        self.peer_settings = SettingsByPeer::new(routes, resolved);
        // What was changed may have other addresses than what runs.
        self.is_open = routes.is_open(resolved) || self.configuration.changed.is_some();
        self.by_port.clear();
        self.services.clear();
        let mut seen = HashSet::new();
        for (index, upstream) in routes.upstreams.iter().enumerate() {
            for peer in &upstream.peers {
                let Some(key) = upstream.key(peer) else { continue };
                if peer.endpoint.host().is_none() {
                    self.services.push(key.into_owned());
                    continue;
                }
                let is_same = |other: usize| is_one_name(routes, index, other);
                let is_answered = upstream.found(peer, resolved).is_some();
                let port = peer.endpoint.port();
                let at_port = self.by_port.entry(port).or_default();
                at_port.add(index, is_answered, is_same);
                if seen.insert((port, key.clone())) {
                    at_port.keys.push((key.into_owned(), index));
                }
            }
        }
    }

    /// What the configuration calls the address. A name may have come to stand for it a moment ago, or have stood for it when the
    /// proxy looked it up.
    pub(super) fn find(&self, address: &Address) -> Found<'_> {
        let now = Instant::now();
        if let Some(named) = self.names.find(address) {
            return Found::Named(&named.upstream);
        }
        let at_port = self.by_port.get(&address.port());
        let name = |index: usize| self.configuration.routes.upstreams.get(index).map(|one| &*one.name);
        // Whatever the answers will be.
        if let Some(upstream) = at_port.and_then(|at| at.only.filter(|_| !self.is_open)).and_then(name) {
            return Found::Named(upstream);
        }
        if self.hosts.is_waiting(now) {
            return Found::Pending;
        }
        if let Some(upstream) = at_port.and_then(|at| at.unanswered).and_then(name) {
            return Found::Named(upstream);
        }
        if self.may_be_looked_up(now, address) {
            return Found::Pending;
        }
        if let Some(upstream) = at_port.and_then(|at_port| self.that_had(at_port, address)).and_then(name) {
            return Found::Named(upstream);
        }
        let is_volatile = |key: &String| self.hosts.get(key).is_some_and(|host| host.answers.have_changed());
        if self.is_open || at_port.is_some() || self.services.iter().any(is_volatile) {
            return Found::Open;
        }
        Found::Undeclared
    }

    /// The upstream whose names had an address in a look-up, where only one had it.
    fn that_had(&self, at_port: &AtPort, address: &Address) -> Option<usize> {
        let Address::Internet(address) = address else { return None };
        let had = |key: &String| self.hosts.get(key).is_some_and(|host| host.answers.has(address.ip()));
        let mut all = at_port.keys.iter().filter(|(key, _)| had(key)).map(|(_, index)| *index);
        let first = all.next()?;
        all.all(|index| is_one_name(&self.configuration.routes, first, index)).then_some(first)
    }

    /// Remembers since when no name is known for the address, where a name may come to stand for it, and that more should be known of
    /// those.
    pub(super) fn note_unmatched(&mut self, address: &Address) {
        if self.hosts.is_empty()
            || self.hosts.is_waiting(Instant::now())
            || self.names.find(address).is_some()
        {
            return;
        }
        if self.unmatched.contains_key(address) {
            return;
        }
        if self.unmatched.len() >= MAX_ADDRESSES_OF_NAME {
            self.unmatched.clear();
        }
        if self.by_port.contains_key(&address.port()) || !self.services.is_empty() {
            self.unmatched.insert(address.clone(), Instant::now());
            self.want(address.port(), true);
        }
    }

    /// Connects to an address fail: it is to be known soon whether its name stands for another now.
    pub(super) fn note_failing(&mut self, address: &Address) {
        self.want(address.port(), false);
    }

    /// More should be known of the names that may stand for an address with that port.
    fn want(&mut self, port: u16, all: bool) {
        if !self.wanted.insert((port, all)) {
            return;
        }
        let which = |host: &Host| all || !host.is_followed;
        let at_port =
            self.by_port.get(&port).into_iter().flat_map(|at_port| &at_port.keys).map(|(key, _)| key);
        at_port.chain(&self.services).for_each(|key| self.hosts.want(key, which));
    }

    /// Whether a look-up that is due, or on its way, may say what an address is.
    fn may_be_looked_up(&self, now: Instant, address: &Address) -> bool {
        let at_port = self.by_port.get(&address.port()).into_iter().flat_map(|at_port| &at_port.keys);
        let mut hosts =
            at_port.map(|(key, _)| key).chain(&self.services).filter_map(|key| self.hosts.get(key));
        let first = self.unmatched.get(address).copied().unwrap_or(now);
        let is_patient = now.saturating_duration_since(first) < PATIENCE;
        is_patient && hosts.any(|host| !host.is_looked_up_since(first))
    }

    /// What is to be looked up now.
    pub(super) fn due(&self) -> Vec<Lookup> {
        self.hosts.due(Instant::now())
    }

    /// Whether names are being looked up.
    pub(super) fn is_asked(&self) -> bool {
        self.hosts.is_asked(Instant::now())
    }

    /// Whether host names have been looked up, with whatever success.
    pub(super) fn is_complete(&self) -> bool {
        self.hosts.is_complete()
    }

    /// These are, from now on.
    pub(super) fn note_asked(&mut self, lookups: &[Lookup]) {
        self.hosts.note_asked(Instant::now(), lookups);
    }

    /// Takes what names resolve to now, and says whether that changes what is known of any, or is the first time. Addresses that a followed
    /// name had before keep it: connects to them may still be under way. One that is not followed is what it was first.
    pub(super) fn update(&mut self, resolved: Resolved) -> bool {
        let is_first = !self.hosts.is_complete();
        self.hosts.note_answer((Instant::now(), Timestamp::now()), &resolved.found);
        self.wanted.clear();
        let known = &mut self.configuration.resolved;
        let names = known.len().max(resolved.found.len()).max(1);
        let max = (MAX_ADDRESSES / names).clamp(MIN_ADDRESSES_OF_NAME, MAX_ADDRESSES_OF_NAME);
        let mut is_new = false;
        for FoundName { key, addresses: found, .. } in resolved.found {
            let Some(host) = self.hosts.get(&key) else { continue };
            // That a name has no address is news as well: before, nobody had answered.
            let is_unknown = !known.contains_key(&key) || (!host.is_followed && host.answers.is_first());
            is_new |= is_unknown;
            let all = known.entry(key).or_default();
            if is_unknown && !host.is_followed {
                *all = found;
                all.truncate(max);
            } else if host.is_followed {
                let before: HashSet<_> = all.iter().copied().collect();
                is_new |= found.iter().any(|one| !before.contains(one));
                let now: HashSet<_> = found.iter().copied().collect();
                all.retain(|one| !now.contains(one));
                all.extend(found);
                all.drain(..all.len().saturating_sub(max));
            }
        }
        if is_new {
            self.derive();
        }
        let said = self.now();
        let is_said_anew = said != self.said;
        self.said = said;
        is_new || is_first || is_said_anew
    }

    /// What the names are now, by key. Of those that are followed no more than [`HostName::now`] has: each change is a new declaration.
    ///
    /// [`HostName::now`]: crate::model::HostName::now
    pub(super) fn now(&self) -> Vec<(String, Option<NameNow>)> {
        let of_followed = |now: NameNow| NameNow { addresses: now.addresses, ..NameNow::default() };
        let now = self.hosts.iter().map(|(key, host)| {
            let now = host.answers.now();
            (key.clone(), if host.is_followed { now.map(of_followed) } else { now })
        });
        let mut now: Vec<_> = now.collect();
        now.sort_by(|(one, _), (other, _)| one.cmp(other));
        now
    }
}

impl AtPort {
    fn add(&mut self, index: usize, is_answered: bool, is_same: impl Fn(usize) -> bool) {
        let differs = |known: Option<usize>| known.is_some_and(|known| !is_same(known));
        self.is_shared |= differs(self.only);
        self.only = if self.is_shared { None } else { Some(index) };
        if !is_answered {
            self.is_unanswered_shared |= differs(self.unanswered);
            self.unanswered = if self.is_unanswered_shared { None } else { Some(index) };
        }
    }
}

/// Whether two upstreams are called the same: one host with several ports is several.
fn is_one_name(routes: &Routes, one: usize, other: usize) -> bool {
    let name = |index: usize| routes.upstreams.get(index).map(|upstream| &upstream.name);
    one == other || name(one) == name(other)
}

#[cfg(test)]
mod tests;
