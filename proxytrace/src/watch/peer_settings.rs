//! The settings of peers as the kernel half has them: by these it tells a timeout of the proxy from a client that left.

use std::collections::{BTreeMap, HashMap};

use proxytrace_ebpf::abi::{self, Owner, RowKey};

use crate::{
    capacity::Capacity,
    kernel::{self, Tracer},
    reader::GenerationId,
};

/// What is set.
#[derive(Debug)]
pub(super) struct PeerSettings {
    capacity: Capacity,
    set: BTreeMap<GenerationId, Set>,
}

#[derive(Debug)]
struct Set {
    owner: Owner,
    peer_settings: HashMap<RowKey, abi::PeerSettings>,
}

/// Why not all were set.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The owner's proxies have many already, or all have.
    #[error("the capacity for timeouts of this owner's proxies is used up")]
    NoCapacity,
    /// The kernel refused one.
    #[error("{0}")]
    Kernel(#[from] kernel::Error),
}

impl PeerSettings {
    /// Half of the table is one owner's at most.
    pub(super) fn new(entries: usize) -> Self {
        Self { capacity: Capacity::new(entries / 2), set: BTreeMap::new() }
    }

    /// Sets the settings of a generation in the kernel: `wanted` holds those of every address that differ from what holds for all others,
    /// and these. Those that were set before and are not in `wanted` are removed.
    ///
    /// # Errors
    /// Why the first was not set that could not be.
    pub(super) fn set(
        &mut self,
        tracer: &mut Tracer,
        of: GenerationId,
        owner: Owner,
        wanted: &HashMap<RowKey, abi::PeerSettings>,
    ) -> Result<(), Error> {
        let set = self.set.entry(of).or_insert_with(|| Set { owner, peer_settings: HashMap::new() });
        for (row, _) in set.peer_settings.extract_if(|row, _| !wanted.contains_key(row)) {
            self.capacity.give_back(set.owner);
            tracer.set_peer_settings(&row, None)?;
        }
        for (row, peer_settings) in wanted {
            if set.peer_settings.get(row) == Some(peer_settings) {
                continue;
            }
            if !set.peer_settings.contains_key(row) && !self.capacity.take(set.owner) {
                return Err(Error::NoCapacity);
            }
            set.peer_settings.insert(*row, *peer_settings);
            tracer.set_peer_settings(row, Some(peer_settings))?;
        }
        Ok(())
    }

    /// Whether any are set of a generation.
    pub(super) fn has(&self, of: GenerationId) -> bool {
        self.set.contains_key(&of)
    }

    /// Forgets those of all generations but these.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn retain(
        &mut self,
        tracer: &mut Tracer,
        keep: impl Fn(GenerationId) -> bool,
    ) -> Result<(), kernel::Error> {
        let gone: Vec<GenerationId> = self.set.keys().copied().filter(|of| !keep(*of)).collect();
        for Set { owner, peer_settings } in gone.into_iter().filter_map(|of| self.set.remove(&of)) {
            for row in peer_settings.keys() {
                self.capacity.give_back(owner);
                tracer.set_peer_settings(row, None)?;
            }
        }
        Ok(())
    }
}
