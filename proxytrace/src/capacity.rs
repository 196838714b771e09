//! The capacity of what the agent keeps, shared so that nobody takes what another owner's proxies need.

use std::collections::HashMap;

use proxytrace_ebpf::abi::Owner;

/// How many entries each owner holds, and how many more it may take.
///
/// An owner gets more while it holds less than is free, as in the kernel's tables (docs/kernel-notes.md, "Quotas"),
/// and less than `max`. The total is twice `max`, so that an owner that is alone gets `max`.
#[derive(Clone, Debug)]
pub struct Capacity {
    max: usize,
    held: usize,
    by_owner: HashMap<Owner, usize>,
}

impl Capacity {
    /// Capacity for `max` entries of one owner, and for twice as many in total.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, held: 0, by_owner: HashMap::new() }
    }

    /// From now on capacity for `max` entries of one owner. Nobody loses what it holds.
    pub const fn limit(&mut self, max: usize) {
        self.max = max;
    }

    /// Takes an entry; gives false where there is none for this owner.
    pub fn take(&mut self, owner: Owner) -> bool {
        let held = self.by_owner.get(&owner).copied().unwrap_or(0);
        let free = (2 * self.max).saturating_sub(self.held);
        let is_within = if owner == Owner::HOST_ROOT { free > 0 } else { held < free };
        let is_taken = held < self.max && is_within;
        if is_taken {
            self.held += 1;
            self.by_owner.insert(owner, held + 1);
        }
        is_taken
    }

    /// Frees an entry that was taken.
    pub fn give_back(&mut self, owner: Owner) {
        if let Some(held) = self.by_owner.get_mut(&owner) {
            self.held -= 1;
            *held -= 1;
            if *held == 0 {
                self.by_owner.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Capacity, Owner};

    fn taken(capacity: &mut Capacity, owner: Owner) -> usize {
        (0..1000).filter(|_| capacity.take(owner)).count()
    }

    #[test]
    fn the_first_owner_gets_max_and_later_ones_get_a_share_and_root_what_is_left() {
        let user = |uid| Owner::new(uid, Owner::HOST_ROOT.pid_namespace);
        let mut capacity = Capacity::new(90);
        assert_eq!(taken(&mut capacity, user(1)), 90);
        assert_eq!([taken(&mut capacity, user(2)), taken(&mut capacity, user(3))], [45, 23]);
        assert_eq!(taken(&mut capacity, Owner::HOST_ROOT), 22, "what the others left");
        (0..90).for_each(|_| capacity.give_back(user(1)));
        assert_eq!(taken(&mut capacity, Owner::HOST_ROOT), 68);
        assert_eq!(capacity.held, 45 + 23 + 90);
        capacity.give_back(user(7));
        assert_eq!(capacity.held, 45 + 23 + 90, "it held none");
    }
}
