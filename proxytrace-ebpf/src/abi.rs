//! The records that cross between kernel and userspace, in maps and in the ring buffer.
//!
//! Only integers and arrays of them: userspace reads these from raw bytes, so every bit pattern must be a valid value.

#![expect(
    unsafe_code,
    reason = "what crosses between kernel and userspace is bytes, and the macro proves that any are fine"
)]

use crate::outcome::Broken;

/// Declares a record: C layout, and a proof at compile time that it holds no padding (whose bytes would be
/// uninitialised: the verifier refuses them in a map key, and they would leak kernel stack to userspace).
macro_rules! abi {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)+ }

        const _: () = assert!(
            size_of::<$name>() == 0 $(+ size_of::<$ty>())+,
            concat!(stringify!($name), " holds padding")
        );

        impl $name {
            /// All zeroes.
            // SAFETY: integers and arrays of them: zero is a value of each.
            pub const ZERO: Self = unsafe { core::mem::zeroed() };
        }

        // SAFETY: C layout, integers and arrays of them, no padding as asserted above.
        unsafe impl Abi for $name {}
    )+};
}

/// A record that crosses between kernel and userspace as bytes.
///
/// # Safety
/// Every pattern of its bytes is a valid value, and it has no padding.
pub unsafe trait Abi: Copy + 'static {}

// SAFETY: integers and an array of them.
unsafe impl Abi for u32 {}
// SAFETY: as above.
unsafe impl Abi for u64 {}
// SAFETY: as above.
unsafe impl Abi for [u8; 16] {}

/// The family in an [`Address`] of TCP, over IPv4 (v4-mapped) and IPv6 alike: AF_INET6.
pub const FAMILY_INET: u16 = 10;
/// The family in an [`Address`] of a unix socket: AF_UNIX.
pub const FAMILY_UNIX: u16 = 1;

/// The value in the map of program names: becoming this program makes a process the root of a proxy. With any other
/// value the name only tells, for processes traced by pid, that executing it anew is a reload.
pub const NAME_ENTERS: u32 = 1;

/// The room in `struct sockaddr_un` for the path, in bytes.
pub const UNIX_PATH_MAX: usize = 108;

/// Where the C library asks for users, groups and hosts: how the paths begin. nginx does so when it starts, at each reload and
/// for `nginx -t`, and mostly nobody answers: no upstream, and no failure.
const NAME_SERVICES: [Beginning; 4] = [
    Beginning::new(b"/var/run/nscd/"),
    Beginning::new(b"/run/systemd/userdb/"),
    Beginning::new(b"/run/systemd/resolve/"),
    Beginning::new(b"/var/lib/sss/pipes/"),
];

/// Whether a unix socket's path, zero-filled, is the C library's doing and not the proxy's.
#[inline(always)]
#[must_use]
pub const fn is_name_service(path: &[u8; UNIX_PATH_MAX]) -> bool {
    NAME_SERVICES[0].is_of(path)
        || NAME_SERVICES[1].is_of(path)
        || NAME_SERVICES[2].is_of(path)
        || NAME_SERVICES[3].is_of(path)
}

/// How a path begins: words of four bytes, and which of their bits count. Compared without a loop that ends early, which costs
/// the verifier more than the program.
#[derive(Clone, Copy)]
struct Beginning {
    words: [u32; Self::WORDS],
    masks: [u32; Self::WORDS],
}

impl Beginning {
    const WORDS: usize = 6;

    const fn new(text: &[u8]) -> Self {
        let mut beginning = Self { words: [0; Self::WORDS], masks: [0; Self::WORDS] };
        let mut at = 0;
        while at < text.len() {
            let shift = 8 * (at as u32 % 4);
            beginning.words[at / 4] |= (text[at] as u32) << shift;
            beginning.masks[at / 4] |= 0xff << shift;
            at += 1;
        }
        beginning
    }

    #[inline(always)]
    const fn is_of(self, path: &[u8; UNIX_PATH_MAX]) -> bool {
        let mut differences = 0;
        let mut index = 0;
        while index < Self::WORDS {
            let at = 4 * index;
            let word = u32::from_le_bytes([path[at], path[at + 1], path[at + 2], path[at + 3]]);
            differences |= (word & self.masks[index]) ^ self.words[index];
            index += 1;
        }
        differences == 0
    }
}

/// Upper bounds of the connect duration histogram in nanoseconds; what is above the last is counted in one bucket
/// more. Fine below a second, where healthy handshakes are; then where SYNs are sent again (1 s, 3 s, 7 s after the
/// first, tcp(7)), and at nginx's default `proxy_connect_timeout` of 60 s.
pub const DURATION_BOUNDS_NS: [u64; 19] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    3_000_000_000,
    7_000_000_000,
    15_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// The number of duration buckets, the one above the last bound included.
pub const DURATION_BUCKETS: usize = DURATION_BOUNDS_NS.len() + 1;

/// The room for outcomes in a [`Row`]: a power of two, so that masking an index proves it in bounds to the verifier.
pub const OUTCOME_SLOTS: usize = 16;

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

    /// One proxy: the root of a process tree. Its id is made by [`proxy_id`].
    pub struct Proxy {
        /// Its row `~other`, over all generations: it counts what has no row of its own for want of room. A part of the proxy,
        /// as nothing can be inserted by then. First, so that the address of both is one: the compiler would add an offset before
        /// it asks whether there is a proxy, which the verifier refuses.
        pub other: Row,
        /// Whose it is: of the process at its root.
        pub owner: Owner,
        /// How often its configuration was reloaded since it has been known: accepted reloads and binary upgrades.
        pub generation: u32,
        /// Not used; zero.
        pub reserved: u32,
        /// Reloads that were asked for and after which no worker came. One that is still open is not among them, see
        /// [`Process::reload_asked_ns`].
        pub rejected: u64,
        /// Workers that a signal ended.
        pub crashes: u64,
        /// When the generation was last raised, boot time in nanoseconds; 0 for never.
        pub reloaded_ns: u64,
        /// What it holds itself; of processes and proxies that is not counted.
        pub held: Usage,
    }

    /// One traced process (thread group).
    pub struct Process {
        /// The proxy that it belongs to.
        pub proxy: u64,
        /// Whose proxy that is.
        pub owner: Owner,
        /// When a reload was asked for of which it is not known yet whether it is accepted, boot time in nanoseconds; 0
        /// where there is none.
        pub reload_asked_ns: u64,
        /// The generation of the configuration that it runs, and that its children will.
        pub generation: u32,
        /// The process that forked it, in the host's pid namespace; 0 where it was found already running at the root.
        pub parent: u32,
        /// [`Process::NAMED`] and so on.
        pub flags: u32,
        /// How often it and those it was forked by had become another program, when that was last seen; 0 where it never was.
        pub exec_id: u32,
        /// Whether its proxy is in the table of proxies: 0 for not yet, [`Process::STANDS`] or [`Process::REFUSED`].
        pub standing: u32,
        /// The child that got no place at its last fork that was refused one: two programs see each fork.
        pub refused_child: u32,
    }

    /// A destination.
    pub struct Address {
        /// The IPv6 or v4-mapped address in network order, or the digest of a unix path.
        pub bytes: [u8; 16],
        /// The port in host order; 0 for a unix socket.
        pub port: u16,
        /// [`FAMILY_INET`] or [`FAMILY_UNIX`].
        pub family: u16,
    }

    /// The key of a ledger [`Row`].
    pub struct RowKey {
        /// The proxy.
        pub proxy: u64,
        /// Its generation.
        pub generation: u32,
        /// The destination.
        pub address: Address,
    }

    /// What one generation of one proxy saw of one destination.
    pub struct Row {
        /// Ended attempts by outcome, index [`crate::outcome::Outcome`].
        pub outcomes: [u64; OUTCOME_SLOTS],
        /// Broken connections, index [`Broken`].
        pub broken: [u64; Broken::ALL.len()],
        /// SYNs sent again.
        pub syn_retransmits: u64,
        /// When a handshake was last completed, boot time in nanoseconds; 0 for never.
        pub last_established_ns: u64,
        /// The sum of the durations of completed handshakes in nanoseconds.
        pub duration_sum_ns: u64,
        /// Completed handshakes by duration, not cumulative, see [`DURATION_BOUNDS_NS`].
        pub durations: [u64; DURATION_BUCKETS],
        /// When an attempt last started, boot time in nanoseconds.
        pub last_attempt_ns: u64,
        /// Attempts started. Last, because the kernel copies a row from its start: see [`Row::balanced`].
        pub attempts: u64,
    }

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
        /// The attempt that it makes, if it is one that this call's return value tells the outcome of; which of its
        /// members count is told by [`Call::ADDRESSED`] and [`Call::HOLDS_ATTEMPT`].
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

    /// The path behind the digest of a unix [`Address`].
    pub struct UnixPath {
        /// As in `sockaddr_un`, zero-filled; an abstract name starts with a zero byte.
        pub bytes: [u8; UNIX_PATH_MAX],
        /// How many of the bytes count.
        pub length: u32,
    }

    /// What the ring buffer tells. What a field means depends on the kind; unused ones are zero.
    pub struct Event {
        /// When, boot time in nanoseconds.
        pub time_ns: u64,
        /// Which proxy.
        pub proxy: u64,
        /// How long the attempt has taken, the connection has lived, or it is since the reload was asked for, in
        /// nanoseconds.
        pub duration_ns: u64,
        /// The upstream's address, as the proxy asked for it.
        pub remote: Address,
        /// The proxy's own address; family 0 where there is none.
        pub local: Address,
        /// Where the socket goes: mostly to `remote`; family 0 where there is no socket.
        pub backend: Address,
        /// The generation of the process.
        pub generation: u32,
        /// The process, in the host's pid namespace.
        pub pid: u32,
        /// [`Event::CONNECT`] and so on.
        pub kind: u32,
        /// The [`crate::outcome::Outcome`] or [`Broken`]; the status of an exit as wait(2) gives it; for a reload that was
        /// asked for [`Process::WAITS_FOR_SIGNALS`], [`Process::UPGRADES`] or 0.
        pub what: u32,
        /// The error, 0 where there was none.
        pub errno: u32,
        /// SYNs sent again.
        pub syn_retransmits: u32,
        /// Not used; zero.
        pub reserved: u32,
    }

    /// What userspace tells the programs once, before they are loaded.
    pub struct Settings {
        /// The proxy's connect timeout where nothing better is known, in nanoseconds.
        pub connect_timeout_ns: u64,
        /// The numbers of the system calls that open connections on this machine.
        pub connect_syscall: u32,
        /// Likewise, with MSG_FASTOPEN.
        pub sendto_syscall: u32,
        /// Likewise.
        pub sendmsg_syscall: u32,
        /// Whether established attempts are told of as well: 0 or 1.
        pub tell_established: u32,
        /// Whether what each hook sees of traced processes is counted: 0 or 1.
        pub count_seen: u32,
        /// How many entries the tables have that owners share, index [`Share`].
        pub capacity: [u32; Share::SLOTS],
        /// Not used; zero.
        pub reserved: u32,
    }
}

impl Owner {
    /// The root of the host itself: it can end the tracing anyway, and is not limited.
    pub const HOST_ROOT: Self = Self { uid: 0, pid_namespace: 0xefff_fffc }; // PROC_PID_INIT_INO
    /// Nobody: in the map of owners, what all of them hold together.
    pub const ALL: Self = Self { uid: u32::MAX, pid_namespace: u32::MAX };

    /// The owner of a process of the real user `uid` in a pid namespace.
    #[inline(always)]
    #[must_use]
    pub const fn new(uid: u32, pid_namespace: u32) -> Self {
        Self { uid, pid_namespace: if uid == 0 { pid_namespace } else { 0 } }
    }
}

/// A table that owners share. The discriminant is the index in [`Usage::held`] and [`Settings::capacity`].
///
/// An owner other than the host's root gets another entry while it holds fewer than are free. So one alone gets half of a
/// table, two a third each, and there is always room for who comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Share {
    /// Traced processes.
    Processes = 0,
    /// Traced proxies.
    Proxies,
    /// Rows of the ledger.
    Rows,
    /// Attempts in flight.
    Attempts,
    /// Established connections.
    Connections,
    /// connect() calls under way. Those of the host's root are not counted: most proxies are its, and an entry and a return of
    /// connect() would each take longer.
    Calls,
}

impl Share {
    /// Every one of them, in the order of their indices.
    pub const ALL: [Self; 6] =
        [Self::Processes, Self::Proxies, Self::Rows, Self::Attempts, Self::Connections, Self::Calls];

    /// Room for each of them, a power of two: a mask keeps an index in bounds.
    pub const SLOTS: usize = Self::ALL.len().next_power_of_two();
}

impl Row {
    /// Adds the counts of another row.
    pub fn add(&mut self, row: &Self) {
        fn add<const N: usize>(sums: &mut [u64; N], more: &[u64; N]) {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        self.attempts += row.attempts;
        add(&mut self.outcomes, &row.outcomes);
        add(&mut self.broken, &row.broken);
        add(&mut self.durations, &row.durations);
        self.syn_retransmits += row.syn_retransmits;
        self.duration_sum_ns += row.duration_sum_ns;
        self.last_established_ns = self.last_established_ns.max(row.last_established_ns);
        self.last_attempt_ns = self.last_attempt_ns.max(row.last_attempt_ns);
    }

    /// Attempts that ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.outcomes.iter().sum()
    }
}

impl RowKey {
    /// Set in the generation of a spare row: where an attempt is counted that begins while userspace takes the other row of the
    /// same destination out of the ledger. Together they are one row.
    pub const SPARE: u32 = 1 << 31;

    /// Set in the generation of an attempt or a connection whose start was counted in its proxy's row `~other`: there the rest
    /// is counted as well, also when a row of its own would find room by then, or neither would balance.
    pub const IN_OTHER: u32 = 1 << 30;

    /// Whether [`Proxy::other`] is the row.
    #[must_use]
    pub const fn is_in_other(&self) -> bool {
        self.generation & Self::IN_OTHER != 0
    }

    /// The key of the other row of the same destination: of the spare one, or, of that, of the first.
    #[must_use]
    pub const fn other(self) -> Self {
        Self { generation: self.generation ^ Self::SPARE, ..self }
    }

    /// The key of the first row of the destination, whichever this is, and wherever it is counted.
    #[must_use]
    pub const fn first(self) -> Self {
        Self { generation: self.generation & !(Self::SPARE | Self::IN_OTHER), ..self }
    }

    /// Whether this is the spare row.
    #[must_use]
    pub const fn is_spare(&self) -> bool {
        self.generation & Self::SPARE != 0
    }
}

/// A row that was used more recently, in nanoseconds, is not taken out while it can be used again. Then who uses it often need
/// not ask whether it is being taken out.
pub const RETIRES_AFTER_NS: u64 = 10_000_000_000;

impl Process {
    /// Its program's name is one of those that are looked for: executing another ends the tracing of this process.
    pub const NAMED: u32 = 1;
    /// It was asked for by pid: it and its descendants stay, whatever they execute.
    pub const KEPT: u32 = 2;
    /// It was forked by another process of its proxy and does not act as a master itself: a worker, or what a master has
    /// beside them, as a cache manager.
    pub const WORKER: u32 = 4;
    /// It holds signals back but for the moment at which it waits for one, as nginx's master does: a signal that it gets
    /// proves that it is done with what an earlier one asked for.
    pub const WAITS_FOR_SIGNALS: u32 = 8;
    /// It was told by SIGUSR2 to execute its program anew, or to have a child do so.
    pub const TOLD_TO_EXECUTE: u32 = 16;
    /// It has executed its program anew, for a reload of which it is not known yet whether it is accepted.
    pub const EXECUTED: u32 = 32;
    /// It has forked since it executed its program last.
    pub const FORKED: u32 = 64;
    /// One of the programs that see signals has seen the one that is being delivered.
    pub const SIGNALLED: u32 = 128;
    /// The other has.
    pub const SIGNALLED_AGAIN: u32 = 256;
    /// It has forked, whatever it has executed since.
    pub const PARENT: u32 = 512;
    /// A master has forked it, as was told by [`Event::WORKER_STARTED`]: it stays a worker, whatever it forks. Another
    /// worker that forks was only a program's way into the background.
    pub const STARTED: u32 = 1024;
    /// It was forked by a worker, or by such a process: no worker, and no master of any.
    pub const HELPER: u32 = 2048;
    /// It is the new master of a binary upgrade: it forks a worker, or its end shows that it has refused to.
    pub const UPGRADES: u32 = 4096;
    /// What holds for a process itself, and not for those that it forks.
    pub const OWN: u32 = Self::WORKER
        | Self::WAITS_FOR_SIGNALS
        | Self::TOLD_TO_EXECUTE
        | Self::EXECUTED
        | Self::FORKED
        | Self::SIGNALLED
        | Self::SIGNALLED_AGAIN
        | Self::PARENT
        | Self::STARTED
        | Self::UPGRADES;

    /// Its proxy has a place in the table of proxies.
    pub const STANDS: u32 = 1;
    /// There was none for it.
    pub const REFUSED: u32 = 2;
}

impl Row {
    /// The row as a reader takes it: no attempt has ended that has not begun. The kernel copies a row while other CPUs add to it,
    /// and processors with weak memory ordering (arm64) need not keep the order: an end may be in the copy without its beginning.
    /// The next copy has at least as many of both.
    #[must_use]
    pub fn balanced(self) -> Self {
        let ended = self.outcomes.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
        Self { attempts: self.attempts.max(ended), ..self }
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
    /// The call has sent a SYN: the socket's transitions tell how the attempt ends.
    pub const SENT: u32 = 1;
    /// The attempt is held here: its socket cannot tell why it ended (a unix socket; no local port was left).
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

impl Event {
    /// An attempt ended.
    pub const CONNECT: u32 = 1;
    /// The first SYN of an attempt in flight was sent again.
    pub const STALLED: u32 = 2;
    /// An established connection broke.
    pub const BROKEN: u32 = 3;
    /// A process that runs a program of such a name has forked or connected for the first time: there is a new proxy.
    pub const ENTERED: u32 = 4;
    /// The generation of a proxy was raised, to `generation`: a reload was accepted, or the binary upgraded.
    pub const RELOADED: u32 = 5;
    /// A reload was asked for; whether it is accepted is not known yet.
    pub const RELOAD_ASKED: u32 = 6;
    /// No worker came after a reload was asked for: the configuration of before stays.
    pub const RELOAD_REJECTED: u32 = 7;
    /// A master forked a process: a worker, or a helper.
    pub const WORKER_STARTED: u32 = 8;
    /// Such a process ended.
    pub const WORKER_EXITED: u32 = 9;
}

/// Where something could not be followed. The discriminant is the index in the loss array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// The ring buffer had no room: the reader missed an event, no count is wrong.
    RingFull = 0,
    /// No room for an attempt in flight: it is in no count.
    AttemptTableFull,
    /// No room for a ledger row: the attempt is counted in its proxy's row `~other`.
    LedgerFull,
    /// No room for a traced process, or not for another of its owner's: its attempts are in no count.
    ProcessTableFull,
    /// No room for a proxy, or not for another of its owner's: its attempts, reloads and crashes are in no count.
    ProxyTableFull,
    /// No room for a connect() under way: what it returns at once is in no count.
    CallTableFull,
    /// No room for an established connection: its breaking would not be seen.
    ConnectionTableFull,
    /// No room for a unix socket's path: it shows as a digest.
    PathTableFull,
    /// Kernel or user memory could not be read: the attempt is in no count.
    ReadFailed,
    /// The end of an attempt was not seen: its socket was destroyed or connected anew, or its thread exited or called
    /// connect() again, while it was believed in flight. It is counted as `other`.
    EndMissed,
    /// The upstream has closed a connection whose data does not pass through TCP (it is in a sockmap), so whether it had
    /// answered is not known: if it had not, this is in no count of broken connections.
    Bypassed,
}

impl Loss {
    /// Every place, in the order of their indices.
    pub const ALL: [Self; 11] = [
        Self::RingFull,
        Self::AttemptTableFull,
        Self::LedgerFull,
        Self::ProcessTableFull,
        Self::ProxyTableFull,
        Self::CallTableFull,
        Self::ConnectionTableFull,
        Self::PathTableFull,
        Self::ReadFailed,
        Self::EndMissed,
        Self::Bypassed,
    ];

    /// The value of the label `why`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::AttemptTableFull => "attempt_table_full",
            Self::LedgerFull => "ledger_full",
            Self::ProcessTableFull => "process_table_full",
            Self::ProxyTableFull => "proxy_table_full",
            Self::CallTableFull => "call_table_full",
            Self::ConnectionTableFull => "connection_table_full",
            Self::PathTableFull => "path_table_full",
            Self::ReadFailed => "read_failed",
            Self::EndMissed => "end_missed",
            Self::Bypassed => "bypassed",
        }
    }

    /// What it costs the counts, as the end of a sentence about what could not be followed.
    #[must_use]
    pub const fn effect(self) -> &'static str {
        match self {
            Self::RingFull => "no count is wrong, only records are missing",
            Self::AttemptTableFull | Self::ReadFailed => "the attempts are in no count",
            Self::LedgerFull => "the attempts are counted in ~other",
            Self::ProcessTableFull => "the processes' attempts are in no count",
            Self::ProxyTableFull => "the proxies' attempts, reloads and crashes are in no count",
            Self::CallTableFull => "attempts that connect() itself tells the end of are in no count",
            Self::ConnectionTableFull => "the attempts are counted, but not whether their connections break",
            Self::PathTableFull => "the attempts are counted under a digest of the path",
            Self::EndMissed => "the attempts are counted as failures of cause other",
            Self::Bypassed => {
                "the attempts are counted, but not whether their connections were closed unanswered"
            }
        }
    }
}

/// A place in the kernel where a program looks on. The discriminant is the index in the array of what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    /// A process forks.
    Fork = 0,
    /// A process executes a program.
    Exec,
    /// A thread exits.
    Exit,
    /// A SIGHUP is delivered.
    Signal,
    /// connect() is entered.
    ConnectEntered,
    /// connect() returns.
    ConnectReturned,
    /// A TCP socket goes into SYN_SENT.
    State,
    /// The same, seen by the second program.
    StateAgain,
    /// A SYN is sent again.
    Retransmit,
    /// A TCP socket is destroyed.
    Destroy,
    /// The kernel is about to send the first SYN.
    TcpConnect,
}

impl Place {
    /// How many there are.
    pub const COUNT: usize = Self::TcpConnect as usize + 1;
}

/// How many entries the tables have where nothing else is asked for, in the order of what a proxy host has most of.
pub mod room {
    /// Established connections that are watched for breaking.
    pub const CONNECTIONS: u32 = 65_536;
    /// Attempts in flight.
    pub const ATTEMPTS: u32 = 16_384;
    /// Rows of the ledger: an address for each generation that used it.
    pub const LEDGER: u32 = 8_192;
    /// Rows of the ledger that are being taken out while they can still be used.
    pub const RETIRING: u32 = 1_024;
    /// Connect timeouts: an address for each generation that waits another time for it than usual.
    pub const TIMEOUTS: u32 = 16_384;
    /// Traced processes.
    pub const PROCESSES: u32 = 8_192;
    /// connect() calls under way.
    pub const CALLS: u32 = 2_048;
    /// Traced proxies.
    pub const PROXIES: u32 = 1_024;
    /// Owners of traced processes.
    pub const OWNERS: u32 = 1_024;
    /// Paths of unix sockets: one for a row at most, so that whoever has no room for more rows takes no more of them either.
    pub const UNIX_PATHS: u32 = LEDGER;
}

/// The id of the proxy whose root is `pid`, entered at `boot_ns`: the pid in the low half, in the high half the time
/// in units of about a millisecond, so that a pid used again is another proxy.
#[inline(always)]
#[must_use]
pub const fn proxy_id(pid: u32, boot_ns: u64) -> u64 {
    ((boot_ns >> 20) << 32) | pid as u64
}

/// The signal in the status of an exit, as wait(2) gives it; 0 where the process ended by itself.
#[inline(always)]
#[must_use]
pub const fn exit_signal(status: u32) -> u32 {
    status & 0x7f
}

/// The exit code in such a status.
#[must_use]
pub const fn exit_code(status: u32) -> u32 {
    status >> 8 & 0xff
}

/// Whether memory was dumped, in such a status.
#[must_use]
pub const fn dumped_core(status: u32) -> bool {
    status & 0x80 != 0
}

/// The pid of the root process of a proxy, in the host's pid namespace.
#[must_use]
pub const fn root_pid(proxy: u64) -> u32 {
    proxy as u32
}

#[cfg(test)]
mod tests {
    use super::{Attempt, Row};

    #[test]
    fn an_end_whose_beginning_was_copied_too_early_has_begun() {
        let check = |attempts: u64, ended: [u64; 2], expected: u64| {
            let mut row = Row { attempts, ..Row::ZERO };
            row.outcomes[..2].copy_from_slice(&ended);
            assert_eq!(row.balanced().attempts, expected, "{attempts} attempts, {ended:?} ended");
        };
        check(5, [2, 1], 5);
        check(5, [4, 2], 6);
        check(u64::MAX, [u64::MAX, 1], u64::MAX);
    }

    #[test]
    fn a_soft_error_counts_for_the_attempt_that_it_was_stored_for() {
        let started_ns = 0x1234_5678_9abc_def0;
        let attempt = |soft_error: u64| Attempt { started_ns, soft_error, ..Attempt::ZERO };
        assert_eq!(attempt(0).soft_errno(), 0);
        assert_eq!(attempt(Attempt::soft_error_of(started_ns, 113)).soft_errno(), 113);
        assert_eq!(attempt(Attempt::soft_error_of(started_ns + 1, 113)).soft_errno(), 0);
    }
}
