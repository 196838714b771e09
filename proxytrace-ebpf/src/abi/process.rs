//! Proxies, their processes, and what becomes of them.

use super::{
    ledger::Row,
    owner::{Owner, Usage},
    record::abi,
};

/// The value in the map of program names: becoming this program makes a process the root of a proxy. With any other
/// value the name means only, for processes traced by pid, that executing it anew is a reload.
pub const NAME_ENTERS: u32 = 1;

abi! {
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
}

impl Process {
    /// Its program has one of the names that are traced: executing another ends the tracing of this process.
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
    /// A master has forked it, as [`super::Event::WORKER_STARTED`] has reported: it stays a worker, whatever it forks. Another
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
