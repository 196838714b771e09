//! Room in what the agent keeps, shared so that nobody takes what another owner's proxies need.

use std::collections::HashMap;

use proxytrace_ebpf::abi::Owner;

/// How much of it each owner holds.
///
/// An owner gets more while it holds less than is free, as in the kernel's tables (docs/kernel-notes.md, "Quotas"),
/// and less than `most`. There is twice as much in all, so that one who is alone gets `most`.
#[derive(Clone, Debug)]
pub struct Room {
    most: usize,
    all: usize,
    by_owner: HashMap<Owner, usize>,
}

impl Room {
    /// Room for `most` of one owner, and twice as many in all.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, all: 0, by_owner: HashMap::new() }
    }

    /// Takes room for one more; gives false where there is none.
    pub fn take(&mut self, owner: Owner) -> bool {
        let held = self.by_owner.get(&owner).copied().unwrap_or(0);
        let free = (2 * self.most).saturating_sub(self.all);
        let is_within = if owner == Owner::HOST_ROOT { free > 0 } else { held < free };
        let has_room = held < self.most && is_within;
        if has_room {
            self.all += 1;
            self.by_owner.insert(owner, held + 1);
        }
        has_room
    }

    /// One that was taken is free again.
    pub fn give_back(&mut self, owner: Owner) {
        if let Some(held) = self.by_owner.get_mut(&owner) {
            self.all -= 1;
            *held -= 1;
            if *held == 0 {
                self.by_owner.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Owner, Room};

    fn taken(room: &mut Room, owner: Owner) -> usize {
        (0..1000).filter(|_| room.take(owner)).count()
    }

    #[test]
    fn one_gets_all_and_whoever_comes_later_gets_a_share_and_root_its_own() {
        let user = |uid| Owner::new(uid, Owner::HOST_ROOT.pid_namespace);
        let mut room = Room::new(90);
        assert_eq!(taken(&mut room, user(1)), 90);
        assert_eq!([taken(&mut room, user(2)), taken(&mut room, user(3))], [45, 23]);
        assert_eq!(taken(&mut room, Owner::HOST_ROOT), 22, "what the others left");
        (0..90).for_each(|_| room.give_back(user(1)));
        assert_eq!(taken(&mut room, Owner::HOST_ROOT), 68);
        assert_eq!(room.all, 45 + 23 + 90);
        room.give_back(user(7));
        assert_eq!(room.all, 45 + 23 + 90, "it held none");
    }
}
