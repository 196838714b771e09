//! Who answers for processes, and what each may hold of the tables.

use super::record::abi;
use crate::indexed::indexed;

abi! {
    /// Who answers to the host for a process: what one owner's processes take of the tables, another's do not lack.
    ///
    /// The user is the real one, in the host's user namespace. A set-user-ID program is so its caller's, who can start as
    /// many of them as of any other program.
    pub struct Owner {
        /// The user.
        pub uid: u32,
        /// For user 0 the inode number of the pid namespace, as containers' root and the host's are the same user; else 0.
        pub pid_namespace: u32,
    }

    /// What an owner's processes, or a proxy, hold of the tables.
    pub struct Usage {
        /// Entries, index [`Share`]. Of rows, how many were ever made: userspace removes them, and counts that apart.
        pub held: [u64; Share::SLOTS],
    }
}

/// What all owners hold, by what the programs have counted: its place in that map.
pub const HELD_INSIDE: u32 = 0;
/// By what userspace has, which is to be added, wrapping.
pub const HELD_OUTSIDE: u32 = 1;

impl Owner {
    /// The root of the host itself: it can end the tracing anyway, and is not limited.
    pub const HOST_ROOT: Self = Self { uid: 0, pid_namespace: 0xefff_fffc }; // PROC_PID_INIT_INO
    /// Nobody: what all of them hold together.
    pub const ALL: Self = Self { uid: u32::MAX, pid_namespace: u32::MAX };

    /// The owner of a process of the real user `uid` in a pid namespace.
    #[inline(always)]
    #[must_use]
    pub const fn new(uid: u32, pid_namespace: u32) -> Self {
        Self { uid, pid_namespace: if uid == 0 { pid_namespace } else { 0 } }
    }
}

/// A table that owners share.
struct About {
    table: &'static str,
}

indexed! {
    /// A table that owners share. The discriminant is the index in [`Usage::held`] and [`crate::abi::Settings::capacity`].
    ///
    /// An owner other than the host's root gets another entry while it holds fewer than are free. So one alone gets half of a
    /// table, two a third each, and there is always room for who comes next.
    pub enum Share: About {
        /// Traced processes.
        Processes { table: "processes" }
        /// Traced proxies.
        Proxies { table: "proxies" }
        /// Rows of the ledger.
        Rows { table: "ledger" }
        /// Attempts in flight.
        Attempts { table: "attempts" }
        /// Established connections.
        Connections { table: "connections" }
        /// connect() calls under way. Those of the host's root are not counted: most proxies are its, and an entry and a return of
        /// connect() would each take longer.
        Calls { table: "calls" }
    }
}

impl Share {
    /// A slot for each of them, and a power of two: a mask keeps an index in bounds.
    pub const SLOTS: usize = Self::ALL.len().next_power_of_two();

    /// What `--table-size` takes.
    #[must_use]
    pub const fn table(self) -> &'static str {
        self.about().table
    }
}
