//! Places for children: how many there are, and who holds them. Pure.
//!
//! A place is held from a child's start until it is reaped. There are places for reading files, which few need at once, and
//! for asking name servers, where children mostly wait. A child that even SIGKILL does not end counts for its owner alone, and of
//! the host's root for its proxy alone: most proxies are its, and one whose files are on a dead server must not hold up the rest.

use std::{collections::HashMap, time::Duration};

use super::holder::Owner;

/// Children that read files at once, of all owners and of one.
pub(super) const FILES: Capacity = Capacity { of_all: 4, of_owner: 2, time: Duration::from_secs(3) };

/// Children that ask name servers at once.
pub(super) const NAMES: Capacity = Capacity { of_all: 32, of_owner: 8, time: Duration::from_secs(1) };

/// How many children of one owner can be left that do not end, and how many of the host's root, one of a proxy.
const MAX_STUCK: usize = FILES.of_owner;
pub(super) const MAX_STUCK_OF_HOST_ROOT: usize = 16;

/// How many children may do something at once.
#[derive(Debug)]
pub(super) struct Capacity {
    pub(super) of_all: usize,
    pub(super) of_owner: usize,
    /// For so long a child keeps its place when others wait.
    pub(super) time: Duration,
}

/// What children hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) files: usize,
    pub(super) names: usize,
    /// They do not end.
    pub(super) stuck: usize,
}

/// What all children hold, and those of each owner.
#[derive(Debug, Default)]
pub(super) struct Places {
    all: Held,
    of_owners: HashMap<Owner, Held>,
}

impl Places {
    /// A child of `owner` holds this from now on.
    pub(super) fn take(&mut self, owner: Owner, held: Held) {
        self.all.add(held);
        self.of_owners.entry(owner).or_default().add(held);
    }

    /// A child of `owner` holds this no longer.
    pub(super) fn give_back(&mut self, owner: Owner, held: Held) {
        self.all.remove(held);
        if let Some(of_owner) = self.of_owners.get_mut(&owner) {
            of_owner.remove(held);
            if *of_owner == Held::default() {
                self.of_owners.remove(&owner);
            }
        }
    }

    /// What the children of `owner` hold.
    pub(super) fn held_by(&self, owner: Owner) -> Held {
        self.of_owners.get(&owner).copied().unwrap_or_default()
    }

    /// Whether another child may read files.
    pub(super) const fn has_files(&self) -> bool {
        self.all.files < FILES.of_all
    }

    /// Whether another child may ask name servers.
    pub(super) const fn has_names(&self) -> bool {
        self.all.names < NAMES.of_all
    }

    /// Whether `owner` has not as many children that read files as it may, those that do not end among them.
    pub(super) fn has_files_of(&self, owner: Owner) -> bool {
        let Held { files, stuck, .. } = self.held_by(owner);
        let stuck = if owner == Owner::HOST_ROOT { 0 } else { stuck };
        files + stuck < FILES.of_owner
    }

    /// Whether `owner` has not as many children that ask name servers as it may.
    pub(super) fn has_names_of(&self, owner: Owner) -> bool {
        self.held_by(owner).names < NAMES.of_owner
    }

    /// Whether nothing more is done for `owner`, as so many of its children do not end.
    pub(super) fn is_given_up(&self, owner: Owner) -> bool {
        self.held_by(owner).stuck
            >= if owner == Owner::HOST_ROOT { MAX_STUCK_OF_HOST_ROOT } else { MAX_STUCK }
    }
}

impl Held {
    const fn add(&mut self, other: Self) {
        self.files += other.files;
        self.names += other.names;
        self.stuck += other.stuck;
    }

    const fn remove(&mut self, other: Self) {
        self.files -= other.files;
        self.names -= other.names;
        self.stuck -= other.stuck;
    }
}
