//! The maps, and the globals that userspace fills before loading. Sizes are defaults: the loader sets them.
//!
//! All hash maps are preallocated: programs of the tracing kind must not allocate (5.10, kernel/bpf/verifier.c,
//! check_map_prog_compatibility warns in the host's log), and memory in use is then known at start.

#![expect(unsafe_code, reason = "the settings are globals that userspace finds by their names")]

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use proxytrace_ebpf::{
    abi::{
        Address, Call, Connection, HELD_OUTSIDE, Loss, Owner, PeerSettings, Process, Proxy, Row, RowKey,
        Seen, Settings, Transition, UnixPath, Usage, capacity,
    },
    hooks::Place,
    offsets::Offsets,
};

/// Read by [`crate::kernel`] only, one offset at a time.
#[unsafe(no_mangle)]
pub(crate) static OFFSETS: Offsets = Offsets::POISON;

/// Read by [`crate::helpers`] only, one setting at a time.
#[unsafe(no_mangle)]
pub(crate) static SETTINGS: Settings = Settings::ZERO;

/// For an insertion: only where there is no such entry yet.
pub(crate) const ONLY_NEW: u64 = 1; // BPF_NOEXIST

/// For an array: userspace reads and writes its memory itself (kernel 5.5).
const MAPPED: u32 = 1 << 10; // BPF_F_MMAPABLE

/// What a row starts as. A row is larger than what fits on the stack beside everything else (512 bytes).
#[unsafe(no_mangle)]
pub(crate) static EMPTY_ROW: Row = Row::ZERO;

/// What a call starts as, likewise.
#[unsafe(no_mangle)]
pub(crate) static EMPTY_CALL: Call = Call::ZERO;

/// What a proxy starts as, likewise.
#[unsafe(no_mangle)]
pub(crate) static EMPTY_PROXY: Proxy = Proxy::ZERO;

/// What an owner holds at first.
#[unsafe(no_mangle)]
pub(crate) static EMPTY_USAGE: Usage = Usage::ZERO;

/// Program names (comm, zero-filled) that make a process the root of a proxy.
#[map]
pub(crate) static NAMES: HashMap<[u8; 16], u32> = HashMap::with_max_entries(64, 0);

/// Traced proxies by id.
#[map]
pub(crate) static PROXIES: HashMap<u64, Proxy> = HashMap::with_max_entries(capacity::PROXIES.least, 0);

/// Traced processes by pid.
#[map]
pub(crate) static PROCESSES: HashMap<u32, Process> = HashMap::with_max_entries(capacity::PROCESSES.least, 0);

/// What the owners of traced processes hold of the tables, but for [`Owner::HOST_ROOT`], by what the programs have counted.
#[map]
pub(crate) static OWNERS: HashMap<Owner, Usage> = HashMap::with_max_entries(capacity::OWNERS, 0);

/// The same by what userspace has counted, which is to be added, wrapping: it has taken entries out, and put some in. A map
/// of its own, because userspace can only replace a value, and not add to it.
#[map]
pub(crate) static OWNERS_OUTSIDE: HashMap<Owner, Usage> = HashMap::with_max_entries(capacity::OWNERS, 0);

/// What all owners hold together: as [`HELD_INSIDE`] by what the programs have counted, as [`HELD_OUTSIDE`] by what userspace has.
#[map]
pub(crate) static HELD: Array<Usage> = Array::with_max_entries(HELD_OUTSIDE + 1, 0);

/// The same of a proxy's rows alone, which userspace takes out.
#[map]
pub(crate) static PROXY_ROWS_OUTSIDE: HashMap<u64, u64> =
    HashMap::with_max_entries(capacity::PROXIES.least, 0);

/// connect() calls under way, by thread (pid_tgid). The first thread of a process of the host's root keeps its
/// entry, so there is a place for each process besides.
#[map]
pub(crate) static CALLS: HashMap<u64, Call> =
    HashMap::with_max_entries(capacity::CALLS.least + capacity::PROCESSES.least, 0);

/// Attempts in flight and established connections, by the address of the `struct sock`. One map with places for both, because an insertion
/// and a removal take longer than all else that is done for an attempt.
#[map]
pub(crate) static CONNECTIONS: HashMap<u64, Connection> =
    HashMap::with_max_entries(capacity::CONNECTIONS.least + capacity::ATTEMPTS.least, 0);

/// The ledger. Shared by all CPUs rather than per CPU: on a host of 128 CPUs that would cost a hundred times the
/// memory for a rate that atomic additions carry easily.
#[map]
pub(crate) static LEDGER: HashMap<RowKey, Row> = HashMap::with_max_entries(capacity::LEDGER.least, 0);

/// Rows of the ledger that userspace is about to take out, by their keys; the values mean nothing. No attempt may begin in one.
#[map]
pub(crate) static RETIRING: HashMap<RowKey, u32> = HashMap::with_max_entries(capacity::RETIRING, 0);

/// The settings of peers by address, as far as a configuration is known. Under the address that is all
/// zeroes: of every other address of that generation.
#[map]
pub(crate) static PEER_SETTINGS: HashMap<RowKey, PeerSettings> =
    HashMap::with_max_entries(capacity::PEER_SETTINGS.least, 0);

/// The paths behind the digests of unix sockets.
#[map]
pub(crate) static UNIX_PATHS: HashMap<Address, UnixPath> =
    HashMap::with_max_entries(capacity::UNIX_PATHS.least, 0);

/// The connections that are to be looked at, by the addresses of their sockets, and what was found of each: userspace writes the one
/// and reads the other, around a run of the program `look`.
#[map]
pub(crate) static LOOKED_AT: Array<u64> = Array::with_max_entries(capacity::LOOKED_AT, MAPPED);

/// See [`LOOKED_AT`].
#[map]
pub(crate) static FOUND: Array<Seen> = Array::with_max_entries(capacity::LOOKED_AT, MAPPED);

/// The transition that the first of the programs there has handled, see [`crate::handled`].
#[map]
pub(crate) static HANDLED: PerCpuArray<Transition> = PerCpuArray::with_max_entries(1, 0);

/// Events for whoever reads.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Whether established attempts are reported as well, and not only counted: 0 or 1. Userspace changes it while programs run.
#[map]
pub(crate) static REPORT_ESTABLISHED: Array<u32> = Array::with_max_entries(1, 0);

/// When the reader of the events was woken last, boot time in nanoseconds.
#[map]
pub(crate) static WOKEN_NS: Array<u64> = Array::with_max_entries(1, 0);

/// What could not be followed, by [`Loss`].
#[map]
pub(crate) static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

/// What was seen of traced processes, by [`Place`]; only where the settings ask for it.
#[map]
pub(crate) static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(Place::ALL.len() as u32, 0);
