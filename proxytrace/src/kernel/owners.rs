//! What owners hold of the tables that they share, see [`Share`]: the half of the account that userspace keeps.

use std::collections::HashMap;

use aya::Ebpf;
use proxytrace_ebpf::abi::{Owner, Settings, Share, Usage, capacity};

use super::{
    Error,
    maps::{HeldMap, OwnerMap},
};

/// What owners hold.
pub(super) struct Owners {
    /// By what the programs have counted.
    inside: OwnerMap,
    /// By what is counted here, which is to be added, wrapping.
    outside: OwnerMap,
    /// Of all of them together, by both.
    all: HeldMap,
    /// What is in `outside`, and what of all of them userspace has counted.
    counted: HashMap<Owner, Usage>,
    /// How many entries the tables have, index [`Share`].
    capacity: [u32; Share::SLOTS],
}

impl Owners {
    pub(super) fn take(ebpf: &mut Ebpf, settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            inside: OwnerMap::take(ebpf, "OWNERS")?,
            outside: OwnerMap::take(ebpf, "OWNERS_OUTSIDE")?,
            all: HeldMap::take(ebpf)?,
            counted: HashMap::new(),
            capacity: settings.capacity,
        })
    }

    /// How many entries an owner holds, or all of them together ([`Owner::ALL`]). Those of the host's root are counted there alone.
    pub(super) fn held(&self, owner: Owner, share: Share) -> u64 {
        let inside = if owner == Owner::ALL { self.all.inside().ok() } else { self.inside.get(&owner) };
        let count = |usage: Option<&Usage>| usage.map_or(0, |usage| usage.held[share as usize]);
        let held = count(inside.as_ref()).wrapping_add(count(self.counted.get(&owner)));
        u64::try_from(held.cast_signed()).unwrap_or(0)
    }

    /// Whether an owner may have another entry.
    pub(super) fn may_take(&self, owner: Owner, share: Share) -> bool {
        let capacity = u64::from(self.capacity[share as usize]);
        owner == Owner::HOST_ROOT
            || self.held(owner, share) < capacity.saturating_sub(self.held(Owner::ALL, share))
    }

    /// Counts entries that were made (above 0) or taken out (below 0) here.
    ///
    /// # Errors
    /// There is no capacity for another owner, or what else the kernel said.
    pub(super) fn count(&mut self, owner: Owner, share: Share, change: i64) -> Result<(), Error> {
        let limited = (owner != Owner::HOST_ROOT).then_some(owner);
        for owner in limited.into_iter().chain([Owner::ALL]) {
            let usage = self.counted.entry(owner).or_insert(Usage::ZERO);
            let held = &mut usage.held[share as usize];
            *held = held.wrapping_add(change.cast_unsigned());
            self.write(owner)?;
        }
        Ok(())
    }

    /// Writes what is counted here of an owner where the programs read it.
    fn write(&mut self, owner: Owner) -> Result<(), Error> {
        let usage = self.counted.get(&owner).copied().unwrap_or(Usage::ZERO);
        if owner == Owner::ALL { self.all.set_outside(&usage) } else { self.outside.insert(&owner, &usage) }
    }

    /// Counts the rows that there are of each owner: userspace takes them out of the ledger, and this is what is known of that for
    /// sure. `made` was read before the rows, so that one made in between counts as held rather than as taken out.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn count_rows(
        &mut self,
        made: &[(Owner, Usage)],
        held: &HashMap<Owner, u64>,
    ) -> Result<(), Error> {
        let rows = Share::Rows as usize;
        for (owner, inside) in made {
            let outside = held.get(owner).copied().unwrap_or(0).wrapping_sub(inside.held[rows]);
            let usage = self.counted.entry(*owner).or_insert(Usage::ZERO);
            if usage.held[rows] != outside && outside.cast_signed() <= 0 {
                usage.held[rows] = outside;
                self.write(*owner)?;
            }
        }
        Ok(())
    }

    /// What the programs have counted of each, and of all.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn made(&self) -> Result<Vec<(Owner, Usage)>, Error> {
        let mut made = self.inside.entries()?;
        made.push((Owner::ALL, self.all.inside()?));
        Ok(made)
    }

    /// Forgets the owners that hold nothing, once there is not much capacity left for others. One that takes an entry in the
    /// microseconds between the check and the removal is counted as holding one fewer.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn forget_idle(&mut self) -> Result<(), Error> {
        let owners = self.inside.entries()?;
        if owners.len() < capacity::OWNERS as usize / 2 {
            return Ok(());
        }
        for (owner, _) in owners {
            if Share::ALL.iter().all(|&share| self.held(owner, share) == 0) {
                self.inside.remove(&owner)?;
                self.outside.remove(&owner)?;
                self.counted.remove(&owner);
            }
        }
        Ok(())
    }
}
