//! The connect timeouts that the kernel half is told: an attempt that the proxy closes during the handshake is judged by them.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use proxytrace_ebpf::abi::{Owner, RowKey};

use crate::{
    kernel::{self, Tracer},
    reader::Of,
    room::Room,
};

/// What the kernel half was told.
#[derive(Debug)]
pub(super) struct Timeouts {
    room: Room,
    told: BTreeMap<Of, Told>,
}

#[derive(Debug)]
struct Told {
    owner: Owner,
    timeouts: HashMap<RowKey, Duration>,
}

/// Why the kernel half was not told all.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The owner's proxies have many already, or all have.
    #[error("there is no room for more of this owner's proxies")]
    NoRoom,
    /// The kernel refused one.
    #[error("{0}")]
    Kernel(#[from] kernel::Error),
}

impl Timeouts {
    /// Half of the table is one owner's at most.
    pub(super) fn new(capacity: usize) -> Self {
        Self { room: Room::new(capacity / 2), told: BTreeMap::new() }
    }

    /// Tells the kernel half the timeouts of a generation, which are all that differ from that of the options; what it was told of
    /// that generation before holds no more.
    ///
    /// # Errors
    /// Which was the first that it could not be told.
    pub(super) fn tell(
        &mut self,
        tracer: &mut Tracer,
        of: Of,
        owner: Owner,
        wanted: &HashMap<RowKey, Duration>,
    ) -> Result<(), Error> {
        let told = self.told.entry(of).or_insert_with(|| Told { owner, timeouts: HashMap::new() });
        for (row, _) in told.timeouts.extract_if(|row, _| !wanted.contains_key(row)) {
            self.room.give_back(told.owner);
            tracer.set_connect_timeout(&row, None)?;
        }
        for (row, timeout) in wanted {
            if told.timeouts.get(row) == Some(timeout) {
                continue;
            }
            if !told.timeouts.contains_key(row) && !self.room.take(told.owner) {
                return Err(Error::NoRoom);
            }
            told.timeouts.insert(*row, *timeout);
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
        keep: impl Fn(Of) -> bool,
    ) -> Result<(), kernel::Error> {
        let gone: Vec<Of> = self.told.keys().copied().filter(|of| !keep(*of)).collect();
        for Told { owner, timeouts } in gone.into_iter().filter_map(|of| self.told.remove(&of)) {
            for row in timeouts.keys() {
                self.room.give_back(owner);
                tracer.set_connect_timeout(row, None)?;
            }
        }
        Ok(())
    }
}
