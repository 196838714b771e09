//! What was seen of one upstream of a proxy.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proxytrace_ebpf::outcome::Outcome;

use super::{
    generations::Epoch,
    peer::{More, Peer},
    usage::{Silence, Usage, Used},
};
use crate::{
    findings::{
        evidence::Streak,
        outcomes::{ByOutcome, fared, is_failure, is_local, successes, unreached},
    },
    model::{self, Address, Counts, Fared},
};

/// Where no configuration says so, so many connects of a new generation that all go elsewhere show that it has an address no
/// more: nginx tries a peer of its upstream within a few.
const GONE_AFTER: u64 = 10;

/// Where the name that the proxy follows has other addresses now, so many uses of those show that the proxy knows it.
const LEFT_AFTER: u64 = 3;

/// What was seen of one upstream. Outcomes of old workers do not count, but for how the old workers fare.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    /// Boxed: most upstreams have one or two, and a node of the map has places for eleven.
    pub(super) peers: BTreeMap<Address, Box<Peer>>,
    /// How many addresses served at the last tick: an upstream may have thousands, each with a finding.
    pub(crate) serving: usize,
    /// Whether it can be reached at any address.
    pub(crate) reach: Streak,
    /// The newest generation that connected to it.
    pub(crate) epoch: Epoch,
    /// The newest generation that established a connection, and the newest before [`Upstream::epoch`].
    pub(crate) worked: Option<Epoch>,
    worked_before: Option<Epoch>,
    /// Connects of the newest generation.
    connects: u64,
    /// How often any generation has used it, while it was the newest, where its names are now.
    uses: u64,
    /// The failures since the last success at any address, by cause: those that [`Upstream::reach`] counts.
    pub(crate) causes: ByOutcome,
    /// Of the tick that is going on: failures by cause.
    failed_now: ByOutcome,
    /// Of the tick that is going on: established, and not reached.
    now: (u64, u64),
    usage: Usage,
    /// Not connected to since the reload.
    pub(crate) silence: Option<Silence>,
    /// How it was used before the last reload.
    before: Used,
    /// How old workers have fared since each of the generations began that are known: those with which it worked, and not
    /// where it was only led astray.
    old: BTreeMap<Epoch, Fared>,
}

/// What a proxy knows of the workers and the address that a row is of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// A newer generation has begun.
    pub(super) is_old: bool,
    /// The configuration with which the upstream last worked has the address as well.
    pub(super) was_declared: bool,
}

impl Upstream {
    /// Its addresses, and what was seen of each.
    pub(crate) fn peers(&self) -> impl Iterator<Item = (&Address, &Peer)> {
        self.peers.iter().map(|(address, peer)| (address, &**peer))
    }

    /// What was seen of one of its addresses.
    pub(crate) fn peer(&self, address: &Address) -> Option<&Peer> {
        self.peers.get(address).map(|peer| &**peer)
    }

    /// Takes in what was counted of an address between two ticks, by the workers of one generation: the difference, and what
    /// else its row says.
    pub(super) fn row(
        &mut self,
        time: Timestamp,
        epoch: Epoch,
        address: &Address,
        (seen, more): (&Counts, More),
        Origin { is_old, was_declared }: Origin,
    ) {
        if epoch > self.epoch {
            self.worked_before = self.worked;
            self.epoch = epoch;
            self.connects = 0;
            self.now = (0, 0);
        }
        self.usage.add(time, more.uses);
        let worked_before = self.worked_before.filter(|worked| *worked < epoch);
        let is_newcomer = worked_before.is_some() && !was_declared;
        let known = self.peers.get(address).filter(|peer| {
            // Back after a configuration took it out, or the upstream worked without it: that is another time.
            let worked_without = worked_before.is_some_and(|worked| worked > peer.epoch) && !was_declared;
            peer.epoch >= epoch || !(peer.is_retired || worked_without)
        });
        if known.is_none() {
            self.peers.insert(address.clone(), Box::new(Peer::new(time, epoch, is_newcomer)));
        }
        if is_old {
            self.old_row(epoch, address, seen);
        }
        if epoch < self.epoch {
            return;
        }
        let Some(peer) = self.peers.get_mut(address) else {
            return;
        };
        self.silence = self.silence.filter(|silence| epoch < silence.epoch);
        self.connects = self.connects.saturating_add(seen.attempts);
        // What comes on connections from before the name moved says nothing of where it is now.
        let is_late = peer.has_moved && seen.attempts == 0;
        self.now.0 = self.now.0.saturating_add(if is_late { 0 } else { successes(seen) });
        let moved = peer.take_for_unreached(time, more.hint);
        self.now.1 = self.now.1.saturating_add(unreached(seen, more.hint)).saturating_add(moved);
        if successes(seen) > 0 {
            self.worked = Some(epoch);
        }
        // What was taken for a failure of this host is that no address was there to connect from.
        let taken = &mut self.failed_now[Outcome::NoLocalPort as usize];
        *taken = taken.saturating_add(moved);
        for (sum, outcome) in self.failed_now.iter_mut().zip(Outcome::ALL) {
            let is_unreached = is_failure(outcome) && !is_local(outcome, more.hint);
            *sum = sum.saturating_add(if is_unreached { seen.outcome(outcome) } else { 0 });
        }
        if !peer.has_moved {
            self.uses = self.uses.saturating_add(more.uses);
        }
        if more.uses > 0 && !is_late {
            peer.used_at = self.uses;
        }
        peer.row(time, epoch, seen, more);
    }

    /// The same of workers that are old. What the workers of another bad reload do proves nothing for any.
    fn old_row(&mut self, epoch: Epoch, address: &Address, seen: &Counts) {
        let is_astray = self.peer(address).is_some_and(Peer::is_astray) && successes(seen) == 0;
        let works = |newer: Epoch| successes(seen) > 0 || self.worked_before(newer) >= Some(epoch);
        let newer: Vec<_> =
            self.old.keys().copied().filter(|newer| *newer > epoch && !is_astray && works(*newer)).collect();
        for newer in newer {
            *self.old.entry(newer).or_default() += fared(seen);
        }
    }

    /// How old workers have fared since a generation began.
    pub(crate) fn old_workers(&self, epoch: Epoch) -> Option<Fared> {
        self.old.get(&epoch).copied().filter(|old| old.of > 0)
    }

    /// Of how many generations it is known how old workers have fared since.
    #[cfg(test)]
    pub(super) fn count_old_workers(&self) -> usize {
        self.old.len()
    }

    /// Forgets what was before a generation.
    pub(super) fn forget_before(&mut self, oldest: Epoch) {
        self.old = self.old.split_off(&oldest);
    }

    /// All rows of a tick were taken in.
    pub(super) fn end_tick(&mut self, time: Timestamp) {
        let (good, bad) = std::mem::take(&mut self.now);
        self.reach.add_turning(time, good, bad);
        for (sum, failed) in self.causes.iter_mut().zip(std::mem::take(&mut self.failed_now)) {
            // Those of the tick of the last success may be part of the run that follows.
            let before = if good > 0 { 0 } else { *sum };
            *sum = if good > 0 && self.reach.run() == 0 { 0 } else { before.saturating_add(failed) };
        }
        self.peers.values_mut().for_each(|peer| peer.service.mature(time));
        self.serving = self.live().filter(|(_, peer)| peer.serves()).count();
    }

    /// Notes which addresses its name has left, by what is `declared` now: the proxy is believed once it connects elsewhere.
    pub(super) fn note_left(&mut self, declared: Option<&model::Upstream>) {
        let uses = self.uses;
        for (address, peer) in &mut self.peers {
            peer.has_moved = declared.is_some_and(|declared| declared.has_moved_from(address));
            peer.has_left = peer.has_moved && uses - peer.used_at >= LEFT_AFTER;
        }
    }

    /// The newest generation before this one in which it worked.
    pub(super) fn worked_before(&self, epoch: Epoch) -> Option<Epoch> {
        let newest = if epoch > self.epoch { self.worked } else { self.worked_before };
        newest.filter(|worked| *worked < epoch)
    }

    /// Whether the newest generation that connects to this upstream connects to this address, as far as that is known.
    pub(super) fn is_current(&self, address: &Address) -> bool {
        self.peer(address)
            .is_some_and(|peer| !peer.has_left && (peer.epoch == self.epoch || self.connects < GONE_AFTER))
    }

    /// The addresses that it came to from elsewhere, and that no configuration has taken away since.
    pub(crate) fn newcomers(&self) -> impl Iterator<Item = (&Address, &Peer)> {
        self.peers().filter(|(_, peer)| peer.is_newcomer())
    }

    /// The addresses that the newest generation connects to.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&Address, &Peer)> {
        self.peers().filter(|(_, peer)| self.is_live(peer))
    }

    fn is_live(&self, peer: &Peer) -> bool {
        peer.epoch == self.epoch && !peer.has_left
    }

    /// Whether another of its addresses serves, so that the proxy gets around this one.
    pub(crate) fn serves_beside(&self, address: &Address) -> bool {
        let own = self.peer(address).is_some_and(|peer| self.is_live(peer) && peer.serves());
        self.serving > usize::from(own)
    }

    /// Whether the last that was seen of any address is a failure, or that nothing answers.
    pub(super) fn fails(&self) -> bool {
        self.peers().any(|(_, peer)| peer.fails_or_is_silent())
    }

    /// How much it has been used lately.
    pub(super) fn used(&self, time: Timestamp) -> Used {
        self.usage.lately(time)
    }

    /// A newer generation of the proxy began, which may or may not connect to it.
    pub(super) fn superseded(&mut self, (newest, epoch): (Epoch, Epoch), before: Used, others_before: u64) {
        self.before = before;
        self.old.insert(epoch, Fared::default());
        // Where it was silent already, it goes on being so.
        if self.epoch == newest {
            self.silence = Some(Silence { epoch, before, others_before, others: 0 });
        }
    }

    /// Whether it was used when the newest generation began.
    pub(super) const fn was_used_before(&self) -> bool {
        self.before.uses > 0
    }

    /// A generation used another upstream.
    pub(super) const fn others_connect(&mut self, epoch: Epoch, n: u64) {
        if let Some(silence) = &mut self.silence
            && epoch >= silence.epoch
        {
            silence.others = silence.others.saturating_add(n);
        }
    }
}
