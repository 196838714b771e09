//! What was counted, by upstream and address: before the change, and since then by old workers and by new ones.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::earlier::Earlier;
use crate::model::{Address, Counted, Counts, Generation};

/// A proxy's name and its first process: after a restart the name is the same.
type ProxyKey = (Arc<str>, u32);

/// A proxy's name and that of an upstream.
pub(super) type UpstreamKey = (Arc<str>, Arc<str>);

/// Everything that was counted.
#[derive(Debug, Default)]
pub(super) struct Seen {
    rows: HashMap<Row, Counts>,
    /// As it was before anything was changed.
    before: HashMap<Row, Counts>,
    /// What an agent had counted before that.
    earlier: Earlier,
    /// As it was when the change began that is looked at.
    begun: HashMap<Row, Counts>,
    /// The generations that ran then.
    old: BTreeMap<ProxyKey, u32>,
    /// Those that run now.
    newest: BTreeMap<ProxyKey, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    of: Generation,
    upstream: Arc<str>,
    address: Address,
}

/// What was counted at one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sides {
    /// Before the change began.
    pub(super) before: Counts,
    /// Since then, by workers that ran before.
    pub(super) old: Counts,
    /// Since then, by workers of the newest generation.
    pub(super) new: Counts,
}

/// How an upstream fared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) addresses: BTreeMap<Address, Sides>,
    /// What an agent had counted before, where nothing was seen of it here before the change: it is known of all addresses together only.
    pub(super) earlier: Counts,
}

impl Upstream {
    /// At its addresses.
    pub(super) fn sides(&self) -> impl Iterator<Item = &Sides> {
        self.addresses.values()
    }

    /// What was counted before the change, wherever.
    pub(super) fn before(&self) -> impl Iterator<Item = &Counts> {
        self.sides().map(|sides| &sides.before).chain([&self.earlier])
    }
}

impl Seen {
    /// Takes what was counted of a row.
    pub(super) fn note(&mut self, counted: &Counted) {
        let Counted { proxy, pid, generation, upstream, address, counts, .. } = counted;
        let row = Row {
            of: Generation { proxy: Arc::clone(proxy), pid: *pid, number: *generation },
            upstream: Arc::clone(upstream),
            address: address.clone(),
        };
        self.rows.insert(row, counts.clone());
    }

    /// All that was counted until now is how things are without the change; and `earlier` where nothing was.
    pub(super) fn end_baseline(&mut self, earlier: Earlier) {
        self.before = self.rows.clone();
        self.earlier = earlier;
    }

    /// A change begins now, while these generations run.
    pub(super) fn begin(&mut self, running: impl Iterator<Item = Generation>) {
        self.begun = self.rows.clone();
        self.old = running.map(|of| ((of.proxy, of.pid), of.number)).collect();
        self.newest = BTreeMap::new();
    }

    /// These generations run now. Gives those that are newer than what ran before, where there are others than last time.
    pub(super) fn running(&mut self, running: impl Iterator<Item = Generation>) -> Option<Vec<Generation>> {
        let new: Vec<_> = running.filter(|of| self.is_new(of)).collect();
        let newest = new.iter().map(|of| ((Arc::clone(&of.proxy), of.pid), of.number)).collect();
        let is_news = self.newest != newest && !new.is_empty();
        if is_news {
            self.newest = newest;
        }
        is_news.then_some(new)
    }

    /// Whether it is newer than what ran before.
    pub(super) fn is_new(&self, of: &Generation) -> bool {
        let old = self.old.get(&(Arc::clone(&of.proxy), of.pid));
        old.is_none_or(|old| *old < of.number)
    }

    /// Whether it is of the change.
    pub(super) fn is_newest(&self, of: &Generation) -> bool {
        self.newest.get(&(Arc::clone(&of.proxy), of.pid)) == Some(&of.number)
    }

    /// By proxy and upstream, what was counted at each address.
    pub(super) fn upstreams(&self) -> BTreeMap<UpstreamKey, Upstream> {
        let mut upstreams: BTreeMap<UpstreamKey, Upstream> = BTreeMap::new();
        for (row, counts) in &self.rows {
            let Row { of, upstream, address } = row;
            let proxy = (Arc::clone(&of.proxy), of.pid);
            let is_newest = self.newest.get(&proxy) == Some(&of.number);
            let is_old = self.old.get(&proxy).is_some_and(|old| of.number <= *old);
            let key = (Arc::clone(&of.proxy), Arc::clone(upstream));
            let sides = upstreams.entry(key).or_default().addresses.entry(address.clone()).or_default();
            let none = Counts::default();
            sides.before += self.before.get(row).unwrap_or(&none);
            // What a generation did that was reloaded away again says nothing of the one that runs.
            if is_newest {
                sides.new += counts;
            } else if is_old {
                sides.old += &counts.since(self.begun.get(row).unwrap_or(&none));
            }
        }
        for (key, counts) in &self.earlier {
            let Some(upstream) = upstreams.get_mut(key) else { continue };
            if !upstream.before().any(|before| before.ended() > 0 || before.answered > 0) {
                upstream.earlier = counts.clone();
            }
        }
        upstreams
    }
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::outcome::Outcome;

    use super::{Counted, Counts, Earlier, Generation, Seen};

    fn of(pid: u32, number: u32) -> Generation {
        Generation { proxy: "nginx".into(), pid, number }
    }

    fn counted(pid: u32, generation: u32, refused: u64) -> Counted {
        let mut counts = Counts { attempts: refused, ..Counts::default() };
        counts.outcomes[Outcome::Refused as usize] = refused;
        let (proxy, upstream) = ("nginx".into(), "api".into());
        let address = "10.0.0.5:80".parse().unwrap();
        Counted { proxy, pid, generation, upstream, address, hint: None, counts }
    }

    /// What was counted before, by old workers and by new ones.
    fn sides(seen: &Seen) -> [u64; 3] {
        let upstreams = seen.upstreams();
        let sum = |of: fn(&super::Upstream) -> u64| upstreams.values().map(of).sum();
        [
            sum(|upstream| upstream.before().map(|counts| counts.attempts).sum()),
            sum(|upstream| upstream.sides().map(|sides| sides.old.attempts).sum()),
            sum(|upstream| upstream.sides().map(|sides| sides.new.attempts).sum()),
        ]
    }

    #[test]
    fn what_the_agent_has_counted_stands_for_a_baseline_without_connects() {
        let earlier = |attempts| {
            let mut counts = Counts { attempts, ..Counts::default() };
            counts.outcomes[Outcome::Refused as usize] = attempts;
            Earlier::from([(("nginx".into(), "api".into()), counts)])
        };
        let mut seen = Seen::default();
        seen.end_baseline(earlier(30));
        assert_eq!(sides(&seen), [0, 0, 0], "it is no upstream of the change yet");
        seen.begin([of(7, 0)].into_iter());
        seen.running([of(7, 1)].into_iter());
        seen.note(&counted(7, 1, 3));
        assert_eq!(sides(&seen), [30, 0, 3]);
        let upstream = seen.upstreams().into_values().next().unwrap();
        assert!(upstream.sides().all(|sides| sides.before.attempts == 0), "at which address is not known");

        let mut seen = Seen::default();
        seen.note(&counted(7, 0, 10));
        seen.end_baseline(earlier(30));
        assert_eq!(sides(&seen), [10, 0, 0], "what was seen is newer");
    }

    #[test]
    fn what_each_generation_did_is_told_apart() {
        let mut seen = Seen::default();
        seen.note(&counted(7, 0, 10));
        seen.end_baseline(Earlier::new());
        seen.begin([of(7, 0)].into_iter());
        assert_eq!(seen.running([of(7, 0)].into_iter()), None);
        assert_eq!(sides(&seen), [10, 0, 0]);

        assert_eq!(seen.running([of(7, 1)].into_iter()), Some(vec![of(7, 1)]));
        assert_eq!(seen.running([of(7, 1)].into_iter()), None, "it is no news any more");
        seen.note(&counted(7, 0, 12));
        seen.note(&counted(7, 1, 3));
        assert_eq!(sides(&seen), [10, 2, 3]);

        // One reload upon the other, and a restart.
        assert_eq!(seen.running([of(7, 2)].into_iter()), Some(vec![of(7, 2)]));
        assert_eq!(sides(&seen), [10, 2, 0]);
        assert_eq!(seen.running([of(8, 0)].into_iter()), Some(vec![of(8, 0)]));
        seen.note(&counted(8, 0, 4));
        assert_eq!(sides(&seen), [10, 2, 4]);

        // What is undone is a change as well, and is compared with how it was before all of that.
        seen.begin([of(8, 0)].into_iter());
        assert_eq!(sides(&seen), [10, 0, 0]);
        seen.note(&counted(8, 0, 5));
        assert_eq!(sides(&seen), [10, 1, 0]);
    }
}
