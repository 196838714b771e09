//! Events that have become no records yet, by proxy, so that none waits for what another proxy is called. Pure.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;
use proxytrace_ebpf::abi::Event;

/// So many events may wait, of all proxies: about 10 MB. Then those of the proxy that has most are reported as they are.
const MAX_WAITING: usize = 65_536;

/// An event that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Which in the order of all.
    pub(super) number: u64,
    pub(super) time: Timestamp,
    pub(super) event: Event,
}

/// Those that wait, of each proxy the oldest first.
#[derive(Debug, Default)]
pub(super) struct Held {
    of: BTreeMap<u64, VecDeque<Waiting>>,
    pushed: u64,
    waiting: usize,
}

impl Held {
    pub(super) fn push(&mut self, time: Timestamp, event: &Event) {
        let waiting = Waiting { number: self.pushed, time, event: *event };
        self.of.entry(event.proxy).or_default().push_back(waiting);
        self.pushed += 1;
        self.waiting += 1;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// The proxies whose events wait.
    pub(super) fn proxies(&self) -> Vec<u64> {
        self.of.keys().copied().collect()
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.of.values().flatten().map(|waiting| &waiting.event)
    }

    /// The oldest of a proxy.
    pub(super) fn first(&self, proxy: u64) -> Option<Waiting> {
        self.of.get(&proxy).and_then(VecDeque::front).copied()
    }

    pub(super) fn remove_first(&mut self, proxy: u64) {
        let Some(queue) = self.of.get_mut(&proxy) else { return };
        self.waiting -= usize::from(queue.pop_front().is_some());
        if queue.is_empty() {
            self.of.remove(&proxy);
        }
    }

    /// The proxy that has most waiting, where more wait than may.
    pub(super) fn crowding(&self) -> Option<u64> {
        let longest = || self.of.iter().max_by_key(|(_, queue)| queue.len()).map(|(proxy, _)| *proxy);
        (self.waiting > MAX_WAITING).then(longest).flatten()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proxytrace_ebpf::abi::Event;

    use super::{Held, MAX_WAITING};

    fn push(held: &mut Held, proxy: u64, pid: u32) {
        held.push(Timestamp::UNIX_EPOCH, &Event { proxy, pid, ..Event::ZERO });
    }

    #[test]
    fn each_proxy_has_its_own_order_and_all_have_one_together() {
        let mut held = Held::default();
        for (proxy, pid) in [(7, 1), (3, 2), (7, 3)] {
            push(&mut held, proxy, pid);
        }
        assert_eq!(held.proxies(), [3, 7]);
        let mut reported = Vec::new();
        for proxy in held.proxies() {
            while let Some(waiting) = held.first(proxy) {
                reported.push((waiting.number, waiting.event.pid));
                held.remove_first(proxy);
            }
        }
        assert_eq!(reported, [(1, 2), (0, 1), (2, 3)]);
        assert!(held.is_empty() && held.proxies().is_empty() && held.events().next().is_none());
    }

    #[test]
    fn who_has_most_waiting_makes_room() {
        let mut held = Held::default();
        for pid in 0..3 {
            push(&mut held, 1, pid);
        }
        for pid in 3..MAX_WAITING as u32 {
            push(&mut held, 2, pid);
        }
        assert_eq!(held.crowding(), None);
        push(&mut held, 1, 0);
        assert_eq!(held.crowding(), Some(2));
        held.remove_first(2);
        assert_eq!(held.crowding(), None);
    }
}
