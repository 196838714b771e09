//! How much of what was seen is kept.
//!
//! Whoever comes first must not have all of the capacity. So a proxy and an owner's proxies hold only so much of it, as in the
//! kernel half's tables; and a proxy that has ended makes place for one that lives.

use std::{collections::HashMap, sync::Arc};

use proxytrace_ebpf::abi::{Owner, capacity};

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
    /// As many as the kernel half's tables hold where much runs: addresses take at most 25 MiB, beside names.
    fn default() -> Self {
        let (proxies, addresses) = (capacity::PROXIES.most as usize, capacity::LEDGER.most as usize);
        Self { proxies, generations: 8, addresses }
    }
}

/// A proxy gets another address while it has fewer than so many times what is free, as in the kernel half's ledger.
const TIMES_FREE: usize = 8;

/// How many addresses there may be, and who holds them.
#[derive(Debug)]
pub(super) struct Capacity {
    free: usize,
    by_owner: HashMap<Owner, usize>,
    by_proxy: HashMap<Arc<str>, usize>,
}

impl Capacity {
    /// All of it is free.
    pub(super) fn new(addresses: usize) -> Self {
        Self { free: addresses, by_owner: HashMap::new(), by_proxy: HashMap::new() }
    }

    /// Notes how many addresses a proxy has.
    pub(super) fn note(&mut self, proxy: &Arc<str>, owner: Owner, addresses: usize) {
        self.free = self.free.saturating_sub(addresses);
        *self.by_owner.entry(owner).or_default() += addresses;
        self.by_proxy.insert(Arc::clone(proxy), addresses);
    }

    /// Takes another address for a proxy; false where it may not have one.
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

    /// Whether nobody gets another address.
    pub(super) const fn is_used_up(&self) -> bool {
        self.free == 0
    }
}

/// How much is kept, each over all proxies.
#[cfg(test)]
#[derive(Debug, Default)]
pub(in crate::findings) struct Kept {
    pub(in crate::findings) proxies: usize,
    pub(in crate::findings) generations: usize,
    pub(in crate::findings) instances: usize,
    pub(in crate::findings) addresses: usize,
    pub(in crate::findings) rows: usize,
    pub(in crate::findings) old_workers: usize,
}
