//! The terms that are set in the kernel: whether a proxy that closes a connection has timed out goes by them.

use std::collections::{BTreeMap, HashMap};

use proxytrace_ebpf::abi::{self, Owner, RowKey};

use crate::{
    capacity::Capacity,
    kernel::{self, Tracer},
    reader::GenerationId,
};

/// The terms that are set.
#[derive(Debug)]
pub(super) struct Terms {
    capacity: Capacity,
    set: BTreeMap<GenerationId, Set>,
}

#[derive(Debug)]
struct Set {
    owner: Owner,
    terms: HashMap<RowKey, abi::Terms>,
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

impl Terms {
    /// Half of the table is one owner's at most.
    pub(super) fn new(entries: usize) -> Self {
        Self { capacity: Capacity::new(entries / 2), set: BTreeMap::new() }
    }

    /// Sets the terms of a generation in the kernel: `wanted` holds those of every address that differ from what holds for all others,
    /// and these. Those that were set before and are not in `wanted` are removed.
    ///
    /// # Errors
    /// Why the first was not set that could not be.
    pub(super) fn set(
        &mut self,
        tracer: &mut Tracer,
        of: GenerationId,
        owner: Owner,
        wanted: &HashMap<RowKey, abi::Terms>,
    ) -> Result<(), Error> {
        let set = self.set.entry(of).or_insert_with(|| Set { owner, terms: HashMap::new() });
        for (row, _) in set.terms.extract_if(|row, _| !wanted.contains_key(row)) {
            self.capacity.give_back(set.owner);
            tracer.set_terms(&row, None)?;
        }
        for (row, terms) in wanted {
            if set.terms.get(row) == Some(terms) {
                continue;
            }
            if !set.terms.contains_key(row) && !self.capacity.take(set.owner) {
                return Err(Error::NoCapacity);
            }
            set.terms.insert(*row, *terms);
            tracer.set_terms(row, Some(terms))?;
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
        for Set { owner, terms } in gone.into_iter().filter_map(|of| self.set.remove(&of)) {
            for row in terms.keys() {
                self.capacity.give_back(owner);
                tracer.set_terms(row, None)?;
            }
        }
        Ok(())
    }
}
