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

    /// A connect() that has been entered and not yet returned, by thread; or the entry of a thread without one.
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

    /// A socket changes its state.
    pub struct Transition {
        /// The address of its `struct sock`, 0 for none.
        pub sock: u64,
        /// The state that it leaves.
        pub from: u32,
        /// The one that it takes.
        pub to: u32,
    }

    /// An attempt in flight, and the connection that it becomes, which is watched for breaking.
    pub struct Connection {
        /// The attempt. Of a connection `syn_retransmits` counts all segments that were sent again, as far as the ledger has them.
        pub attempt: Attempt,
        /// When it was established, boot time in nanoseconds; 0 while the attempt is in flight. Of an [earlier](Connection::EARLIER) one, when
        /// it was found.
        pub established_ns: u64,
        /// What a look has found last, see [`Connection::looked`].
        pub looked: u64,
        /// Since when a request waits, as a look has found it last, see [`Connection::waits`].
        pub waits: u64,
        /// Where the upstream has closed its side while nothing was asked: how much had been written by then, as a sequence number.
        pub written: u32,
        /// [`Connection::CLOSING`], [`Connection::WAITING`] or [`Connection::UNKNOWN`], where one holds, and [`Connection::EARLIER`].
        pub state: u32,
    }
}

/// What is known of a connection: whether a request waits on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Asked {
    /// That cannot be told: the last request and the last byte that came were within one tick of the kernel's clock.
    Unknown,
    /// Nothing waits: what was asked has got its answer, or at least the beginning of one.
    Answered,
    /// A request was sent, and nothing has come since.
    Waiting,
}

impl Connection {
    /// The upstream has closed its side.
    pub const CLOSING: u32 = 1;
    /// The same, when a request seemed to wait: what was sent last may have been what TLS says at the end.
    pub const WAITING: u32 = 2;
    /// The same, when it could not be told whether a request waits.
    pub const UNKNOWN: u32 = 4;

    /// It was established before tracing began.
    pub const EARLIER: u32 = 8;

    const ASKED: u64 = 3;
    const TAG: u64 = (1 << 30) - 1;
    const SHORT_TAG: u64 = (1 << 20) - 1;
    /// Of times in [`Connection::waits`], about a millisecond.
    const UNIT_SHIFT: u32 = 20;

    /// Whether it is an attempt still.
    #[inline(always)]
    #[must_use]
    pub const fn is_in_flight(&self) -> bool {
        self.established_ns == 0
    }

    /// What [`Connection::looked`] is set to where a look finds this of the connection of `established_ns`, which had written up to
    /// the sequence number `written`. A look holds no lock, so the entry may have become another connection's: what it found goes
    /// together with the time, in one store.
    #[inline(always)]
    #[must_use]
    pub const fn looked_of(established_ns: u64, written: u32, asked: Asked) -> u64 {
        ((written as u64) << 32) | ((established_ns & Self::TAG) << 2) | asked as u64
    }

    /// What a look has found of this very connection, if nothing was written since.
    #[inline(always)]
    #[must_use]
    pub const fn asked(&self, written: u32) -> Asked {
        let asked = match self.looked & Self::ASKED {
            1 => Asked::Answered,
            2 => Asked::Waiting,
            _ => return Asked::Unknown,
        };
        if self.looked == Self::looked_of(self.established_ns, written, asked) {
            asked
        } else {
            Asked::Unknown
        }
    }

    /// What [`Connection::waits`] is set to where a look finds that a request waits since `since_ns`; see
    /// [`Connection::looked_of`].
    #[inline(always)]
    #[must_use]
    pub const fn waits_of(established_ns: u64, since_ns: u64) -> u64 {
        ((since_ns >> Self::UNIT_SHIFT) << 20) | (established_ns & Self::SHORT_TAG)
    }

    /// Since when a request waits on this very connection, as a look has found it last, boot time in nanoseconds; 0 where none did.
    #[inline(always)]
    #[must_use]
    pub const fn waiting_since_ns(&self) -> u64 {
        if self.waits & Self::SHORT_TAG == self.established_ns & Self::SHORT_TAG {
            (self.waits >> 20) << Self::UNIT_SHIFT
        } else {
            0
        }
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
    /// There is no call: the last one has returned.
    pub const NONE: u32 = 0;
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
    use super::{Asked, Attempt, Connection};

    #[test]
    fn a_soft_error_counts_for_the_attempt_that_it_was_stored_for() {
        let started_ns = 0x1234_5678_9abc_def0;
        let attempt = |soft_error: u64| Attempt { started_ns, soft_error, ..Attempt::ZERO };
        assert_eq!(attempt(0).soft_errno(), 0);
        assert_eq!(attempt(Attempt::soft_error_of(started_ns, 113)).soft_errno(), 113);
        assert_eq!(attempt(Attempt::soft_error_of(started_ns + 1, 113)).soft_errno(), 0);
    }

    #[test]
    fn what_a_look_has_found_counts_for_the_connection_and_the_request_that_it_was_found_of() {
        let established_ns = 0x1234_5678_9abc_def0;
        let connection =
            |looked: u64, waits: u64| Connection { established_ns, looked, waits, ..Connection::ZERO };
        assert_eq!(connection(0, 0).asked(0), Asked::Unknown);
        for asked in [Asked::Unknown, Asked::Answered, Asked::Waiting] {
            let looked = Connection::looked_of(established_ns, 7_000, asked);
            assert_eq!(connection(looked, 0).asked(7_000), asked);
            assert_eq!(connection(looked, 0).asked(7_001), Asked::Unknown, "more was sent since");
            let looked = Connection::looked_of(established_ns + 1, 7_000, asked);
            assert_eq!(connection(looked, 0).asked(7_000), Asked::Unknown, "of another connection");
        }
        let since_ns = 5_000_000_000_000;
        let waits = connection(0, Connection::waits_of(established_ns, since_ns)).waiting_since_ns();
        assert!((since_ns - 1_048_576..=since_ns).contains(&waits), "within a millisecond: {waits}");
        assert_eq!(connection(0, Connection::waits_of(established_ns + 1, since_ns)).waiting_since_ns(), 0);
    }
}
