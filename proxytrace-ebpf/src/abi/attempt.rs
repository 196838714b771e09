//! An attempt, while something of it is under way: the attempt in flight, the call that makes it, the connection it becomes.

use super::{address::UnixPath, ledger::RowKey, owner::Owner, record::abi};

abi! {
    /// An attempt in flight.
    pub struct Attempt {
        /// The row that counts it.
        pub row: RowKey,
        /// Its start, boot time in nanoseconds.
        pub started_ns: u64,
        /// The error that the socket had reported without closing (ICMP) when connect() returned, see [`Attempt::soft_errno`].
        pub soft_error: u64,
        /// The process that made it, in the host's pid namespace.
        pub pid: u32,
        /// SYNs sent again so far, as counted in the ledger.
        pub syn_retransmits: u32,
    }

    /// A connect() that has been entered and not yet returned, by thread.
    pub struct Call {
        /// The address of its `struct sock`.
        pub sock: u64,
        /// The `struct sockaddr` in the caller's memory.
        pub user_address: u64,
        /// The length of that in bytes, as the caller gave it.
        pub user_length: u32,
        /// [`Call::SENT`] and so on.
        pub state: u32,
        /// The attempt that it makes, if the return value of this call decides its outcome. Which of its members count is in
        /// [`Call::ADDRESSED`] and [`Call::HOLDS_ATTEMPT`].
        pub attempt: Attempt,
        /// Whose share of the table it takes; zero for none's.
        pub owner: Owner,
        /// Where the path of a unix socket is put together: it would take too much of a program's stack.
        pub path: UnixPath,
    }

    /// An established connection that is watched for breaking.
    pub struct Connection {
        /// The row that counts it.
        pub row: RowKey,
        /// When it was established, boot time in nanoseconds.
        pub established_ns: u64,
        /// The process that made it, in the host's pid namespace.
        pub pid: u32,
        /// Not used; zero.
        pub reserved: u32,
    }
}

impl Attempt {
    /// What [`Attempt::soft_error`] is set to where the attempt that began at `started_ns` has this error. Its writer holds no
    /// lock, so the entry may have become another attempt's: the error goes together with the time, in one store.
    #[inline(always)]
    #[must_use]
    pub const fn soft_error_of(started_ns: u64, errno: u32) -> u64 {
        (started_ns << 32) | errno as u64
    }

    /// The soft error of this very attempt, 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn soft_errno(&self) -> u32 {
        let errno = self.soft_error as u32;
        if self.soft_error == Self::soft_error_of(self.started_ns, errno) { errno } else { 0 }
    }
}

impl Call {
    /// The call has sent a SYN: the socket's transitions show how the attempt ends.
    pub const SENT: u32 = 1;
    /// The attempt is held here: its socket does not show why it ended (a unix socket; no local port was left).
    pub const HOLDS_ATTEMPT: u32 = 2;
    /// The socket is a unix socket.
    pub const UNIX: u32 = 4;
    /// The row and the process of the attempt are known.
    pub const ADDRESSED: u32 = 8;
    /// A signal has interrupted the call; it begins again, or its caller gets EINTR.
    pub const INTERRUPTED: u32 = 16;
    /// The first of the programs at the entry has seen it.
    pub const ENTERED: u32 = 32;
    /// The second has.
    pub const ENTERED_AGAIN: u32 = 64;
    /// The third has.
    pub const ENTERED_THIRD: u32 = 128;
    /// It is a socket of multipath TCP: another one connects for it.
    pub const MULTIPATH: u32 = 256;
    /// It is no connect(), but a send that connects (MSG_FASTOPEN).
    pub const SENDS: u32 = 512;
}

#[cfg(test)]
mod tests {
    use super::Attempt;

    #[test]
    fn a_soft_error_counts_for_the_attempt_that_it_was_stored_for() {
        let started_ns = 0x1234_5678_9abc_def0;
        let attempt = |soft_error: u64| Attempt { started_ns, soft_error, ..Attempt::ZERO };
        assert_eq!(attempt(0).soft_errno(), 0);
        assert_eq!(attempt(Attempt::soft_error_of(started_ns, 113)).soft_errno(), 113);
        assert_eq!(attempt(Attempt::soft_error_of(started_ns + 1, 113)).soft_errno(), 0);
    }
}
