//! The connect timeouts that are set in the kernel: whether a proxy that closes during the handshake has timed out goes by them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use proxytrace_ebpf::abi::{Owner, RowKey};

use crate::{
    capacity::Capacity,
    kernel::{self, Tracer},
    reader::GenerationId,
};

/// The connect timeouts that are set.
#[derive(Debug)]
pub(super) struct Timeouts {
    capacity: Capacity,
    set: BTreeMap<GenerationId, Set>,
}

#[derive(Debug)]
struct Set {
    owner: Owner,
    timeouts: HashMap<RowKey, Duration>,
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

impl Timeouts {
    /// Half of the table is one owner's at most.
    pub(super) fn new(entries: usize) -> Self {
        Self { capacity: Capacity::new(entries / 2), set: BTreeMap::new() }
    }

    /// Sets the connect timeouts of a generation in the kernel: `wanted` holds every address whose timeout differs from the default.
    /// Timeouts that were set before and are not in `wanted` are removed.
    ///
    /// # Errors
    /// Why the first was not set that could not be.
    pub(super) fn set(
        &mut self,
        tracer: &mut Tracer,
        of: GenerationId,
        owner: Owner,
        wanted: &HashMap<RowKey, Duration>,
    ) -> Result<(), Error> {
        let set = self.set.entry(of).or_insert_with(|| Set { owner, timeouts: HashMap::new() });
        for (row, _) in set.timeouts.extract_if(|row, _| !wanted.contains_key(row)) {
            self.capacity.give_back(set.owner);
            tracer.set_connect_timeout(&row, None)?;
        }
        for (row, timeout) in wanted {
            if set.timeouts.get(row) == Some(timeout) {
                continue;
            }
            if !set.timeouts.contains_key(row) && !self.capacity.take(set.owner) {
                return Err(Error::NoCapacity);
            }
            set.timeouts.insert(*row, *timeout);
            tracer.set_connect_timeout(row, Some(*timeout))?;
        }
        Ok(())
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
        for Set { owner, timeouts } in gone.into_iter().filter_map(|of| self.set.remove(&of)) {
            for row in timeouts.keys() {
                self.capacity.give_back(owner);
                tracer.set_connect_timeout(row, None)?;
            }
        }
        Ok(())
    }
}
