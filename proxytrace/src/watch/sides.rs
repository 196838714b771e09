//! The two sides of a reload: what workers of the configuration before it connected to, and what those of the newest do. Old
//! workers are a control group: where only the new ones fail, it is the change.

use std::collections::{BTreeMap, HashMap};

use proxytrace_ebpf::abi::{Row, RowKey};

use super::{
    Watch,
    view::{Side, Sides},
};
use crate::{kernel::Snapshot, model::UpstreamKey};

/// So many upstreams and generations are kept that have no row in the kernel any more: each takes about half a kilobyte.
const MAX_KEPT: usize = 4096;

/// What rows counted that the kernel has forgotten, of the two newest generations of each proxy.
#[derive(Debug, Default)]
pub(super) struct Kept(HashMap<(u64, u32), BTreeMap<UpstreamKey, Row>>);

impl Kept {
    /// Takes what a row of that upstream counted.
    fn carry(&mut self, row: &RowKey, upstream: UpstreamKey, counts: &Row) {
        let has_room = self.0.values().map(BTreeMap::len).sum::<usize>() < MAX_KEPT;
        let of = self.0.entry((row.proxy, row.generation)).or_default();
        match of.get_mut(&upstream) {
            Some(sum) => sum.add(counts),
            None if has_room => drop(of.insert(upstream, *counts)),
            None => {}
        }
    }

    /// Forgets generations that are on no side any more, and proxies that have ended.
    fn forget(&mut self, newest: &HashMap<u64, u32>) {
        self.0.retain(|(proxy, generation), _| {
            newest.get(proxy).is_some_and(|newest| side(*generation, *newest).is_some())
        });
    }
}

impl Watch {
    /// Keeps what a row counted that leaves the kernel.
    pub(super) fn keep_side(&mut self, row: &RowKey, counts: &Row) {
        if let Some((key, _)) = self.series_of(row) {
            self.sides.carry(row, key.of_upstream(), counts);
        }
    }

    /// Forgets what is on no side any more.
    pub(super) fn forget_sides(&mut self, snapshot: &Snapshot) {
        self.sides.forget(&newest(snapshot));
    }

    /// Both sides of each upstream of the proxies that were reloaded.
    pub(super) fn sides(&self, snapshot: &Snapshot) -> BTreeMap<UpstreamKey, Sides> {
        let newest = newest(snapshot);
        let mut sides: BTreeMap<UpstreamKey, Sides> = BTreeMap::new();
        let mut add = |upstream: UpstreamKey, side: Side, row: &Row| {
            sides.entry(upstream).or_insert([Row::ZERO; 2])[side as usize].add(row);
        };
        let side_of = |proxy: u64, generation: u32| {
            newest.get(&proxy).filter(|newest| **newest > 0).and_then(|newest| side(generation, *newest))
        };
        for (row, counts) in &snapshot.rows {
            if let Some(side) = side_of(row.proxy, row.generation)
                && let Some((key, _)) = self.series_of(row)
            {
                add(key.of_upstream(), side, counts);
            }
        }
        for ((proxy, generation), upstreams) in &self.sides.0 {
            if let Some(side) = side_of(*proxy, *generation) {
                upstreams.iter().for_each(|(upstream, row)| add(upstream.clone(), side, row));
            }
        }
        sides
    }
}

/// The newest generation of each proxy.
fn newest(snapshot: &Snapshot) -> HashMap<u64, u32> {
    snapshot.proxies.iter().map(|(id, proxy)| (*id, proxy.generation)).collect()
}

const fn side(generation: u32, newest: u32) -> Option<Side> {
    if generation == newest {
        Some(Side::New)
    } else if generation.saturating_add(1) == newest {
        Some(Side::Old)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use proxytrace_ebpf::abi::{Row, RowKey};

    use super::{Kept, MAX_KEPT};

    #[test]
    fn the_two_newest_generations_are_kept_and_no_more_than_there_is_room_for() {
        let mut kept = Kept::default();
        let counts = Row { attempts: 3, ..Row::ZERO };
        for generation in 0..4 {
            for _ in 0..2 {
                let row = RowKey { proxy: 1, generation, ..RowKey::ZERO };
                kept.carry(&row, ("nginx".into(), "api".into()), &counts);
            }
        }
        kept.forget(&HashMap::from([(1, 3)]));
        let mut generations: Vec<_> = kept.0.keys().copied().collect();
        generations.sort_unstable();
        assert_eq!(generations, [(1, 2), (1, 3)]);
        assert!(kept.0.values().all(|of| of.values().all(|row| row.attempts == 6)));
        for upstream in 0..2 * MAX_KEPT {
            let row = RowKey { proxy: 1, generation: 3, ..RowKey::ZERO };
            kept.carry(&row, ("nginx".into(), upstream.to_string().into()), &counts);
        }
        assert_eq!(kept.0.values().map(BTreeMap::len).sum::<usize>(), MAX_KEPT);
        kept.forget(&HashMap::new());
        assert!(kept.0.is_empty());
    }
}
