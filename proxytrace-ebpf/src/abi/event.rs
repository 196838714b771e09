//! What the ring buffer carries.

use super::{address::Address, record::abi};

/// Who reads events is not woken again before so long, in nanoseconds. After it was woken it looks for events by itself, for twice
/// as long at least.
pub const WAKE_INTERVAL_NS: u64 = 10_000_000;

abi! {
    /// What the ring buffer reports. What a field means depends on the kind; unused ones are zero.
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
        /// The [`crate::outcome::Outcome`] or [`crate::outcome::Broken`]; the status of an exit as wait(2) gives it; for a reload
        /// that was asked for [`super::Process::WAITS_FOR_SIGNALS`], [`super::Process::UPGRADES`] or 0.
        pub what: u32,
        /// The error, 0 where there was none.
        pub errno: u32,
        /// SYNs sent again.
        pub syn_retransmits: u32,
        /// For a broken connection whether earlier requests on it had been answered: 0 or 1.
        pub kept: u32,
    }
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
    /// No worker came after a reload was asked for: the previous configuration stays.
    pub const RELOAD_REJECTED: u32 = 7;
    /// A master forked a process: a worker, or a helper.
    pub const WORKER_STARTED: u32 = 8;
    /// Such a process ended.
    pub const WORKER_EXITED: u32 = 9;
}
