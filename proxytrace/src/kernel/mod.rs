//! The kernel half, from userspace: loaded, attached and read. The only module that knows aya.
//!
//! * [`Tracer::start`] checks what the host allows, loads the programs and attaches them.
//! * [`Tracer::snapshot`] reads the ledger and the losses: when somebody looks, never streamed.
//! * [`Events`] is the ring buffer.

pub mod btf;
pub mod hooks;
pub mod processes;
pub mod requirements;
pub mod tables;

mod attach;
mod batch;
mod events;
mod fdinfo;
mod maps;
mod owners;
mod retiring;
mod rows;
#[cfg(test)]
mod stack;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::LazyLock,
    time::{Duration, Instant},
};

use aya::{Ebpf, EbpfLoader};
use nix::time::{ClockId, clock_gettime};
use proxytrace_ebpf::{
    abi::{
        Address, Loss, NAME_ENTERS, Owner, Place, Process, Proxy, Row, RowKey, Settings, Share, UnixPath,
        Usage, room,
    },
    offsets::Offsets,
};

use crate::{memory, programs};
pub use attach::AttachedHook;
pub use events::Events;
use fdinfo::Figures;
use hooks::Forced;
use maps::{
    CallMap, ConnectionMap, Inserted, LedgerMap, NameMap, PathMap, Plain, ProcessMap, ProxyMap, RetiringMap,
    TimeoutMap,
};
use owners::Owners;
use processes::Wanted;
pub use retiring::Idle;
use retiring::{Retiring, Tables};
use rows::Held;
use tables::{Filled, Resized, TABLES, Table};

/// Where the kernel shows its type information.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// The programs, as build.rs made them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxytrace-programs"));

/// What to trace, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The processes.
    pub wanted: Wanted,
    /// The proxies' connect timeout, where no configuration tells it.
    pub connect_timeout: Duration,
    /// Whether established attempts are told of, or only counted.
    pub tell_established: bool,
    /// The size of the ring buffer in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Hooks that are to be attached in one way only.
    pub hook_via: Vec<Forced>,
    /// Tables that are to have other room than usual.
    pub table_sizes: Vec<Resized>,
    /// Whether what each hook sees of traced processes is counted: for a self-test.
    pub count_seen: bool,
}

/// Why tracing did not start, or a map could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not do it.
    #[error("cannot trace: missing capability {0}")]
    NotPermitted(requirements::Missing),
    /// Pids would be those of a container and mean other processes to the kernel.
    #[error(
        "cannot trace: this is not the host's pid namespace; start the container with the host's (hostPID: true in \
         Kubernetes, --pid=host with a container engine)"
    )]
    OtherPidNamespace,
    /// The kernel lacks its type information.
    #[error(
        "cannot trace: the kernel shows no BTF type information at {BTF_PATH} ({0}); use a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y, as distributions' kernels are, and mount /sys in a container"
    )]
    NoBtf(std::io::Error),
    /// The type information is not as expected.
    #[error("cannot trace: {BTF_PATH}: {0}")]
    BadBtf(#[from] btf::Error),
    /// A structure member is not there.
    #[error(
        "cannot trace: this kernel has no {0}, which the programs read; please report it with `uname -r`"
    )]
    NoMember(&'static str),
    /// Before 5.8.
    #[error("cannot trace: this kernel is too old, it has no BPF ring buffer; 5.8 or newer is needed")]
    KernelTooOld,
    /// The programs or maps were refused.
    #[error("cannot trace: load the kernel programs: {0}")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A hook without which nothing works.
    #[error("cannot trace: attach hook {hook}: {reason}; without it {without}")]
    Attach {
        /// The hook.
        hook: &'static str,
        /// What each way to attach it was refused with.
        reason: String,
        /// What is lost.
        without: &'static str,
    },
    /// A hook could not be attached in the way that was asked for.
    #[error(
        "cannot trace: attach hook {hook} as --hook-via asks: {reason}; without that option the best way is taken that \
         this host allows"
    )]
    Forced {
        /// The hook.
        hook: &'static str,
        /// What that way was refused with.
        reason: String,
    },
    /// A process to trace is not there.
    #[error("no process has the pid {0}; it may have ended: look it up again (pgrep -o nginx)")]
    NoSuchProcess(u32),
    /// /proc is not readable.
    #[error("read /proc: {0}")]
    Proc(#[from] procfs::ProcError),
    /// A map operation failed.
    #[error("kernel map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
}

impl Error {
    /// Whether it is this host that does not let us trace, rather than a mistake in what was asked for.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        !matches!(self, Self::NoSuchProcess(_) | Self::Proc(_) | Self::Map { .. })
    }
}

/// The kernel half at work. Dropping it detaches and frees everything: nothing is pinned.
pub struct Tracer {
    ebpf: Ebpf,
    hooks: Vec<AttachedHook>,
    memory_bytes: Option<u64>,
    names: NameMap,
    ledger: LedgerMap,
    retiring_rows: RetiringMap,
    retiring: Retiring,
    connections: ConnectionMap,
    processes: ProcessMap,
    proxies: ProxyMap,
    owners: Owners,
    calls: CallMap,
    held: Held,
    table_sizes: Vec<Resized>,
    /// What userspace itself could not enter, index [`Loss`].
    refused: [u64; Loss::ALL.len()],
    paths: PathMap,
    timeouts: TimeoutMap,
    path_cache: HashMap<Address, Option<UnixPath>>,
}

/// What the kernel half has counted.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The ledger, and the rows `~other` of the proxies that used theirs: see [`Snapshot::is_other`].
    pub rows: Vec<(RowKey, Row)>,
    /// The traced processes of these proxies. One that has neither forked nor connected is none's yet.
    pub processes: Vec<(u32, Process)>,
    /// Traced proxies; some may have no process left.
    pub proxies: Vec<(u64, Proxy)>,
    /// How many rows each owner's proxies ever made, and whatever else the programs count of owners.
    pub made: Vec<(Owner, Usage)>,
    /// What could not be followed, index [`Loss`].
    pub losses: [u64; Loss::ALL.len()],
}

impl Snapshot {
    /// Whether this is a row `~other`: of a proxy's attempts whose destinations had no room for rows of their own.
    #[must_use]
    pub const fn is_other(row: &RowKey) -> bool {
        row.address.family == 0
    }

    /// The rows of the ledger itself.
    fn own_rows(&self) -> impl Iterator<Item = RowKey> + Clone {
        self.rows.iter().map(|(row, _)| *row).filter(|row| !Self::is_other(row))
    }
}

/// The row `~other` of a proxy, as a snapshot has it; `None` where it was not used.
fn other_row(id: u64, proxy: &Proxy) -> Option<(RowKey, Row)> {
    let key = RowKey { proxy: id, generation: proxy.generation, ..RowKey::ZERO };
    (proxy.other != Row::ZERO).then(|| (key, proxy.other.balanced()))
}

impl Tracer {
    /// Checks the host, loads and attaches the programs and enters the processes that already run.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub fn start(options: &Options) -> Result<(Self, Events), Error> {
        check_host()?;
        for &pid in &options.wanted.pids {
            if !Path::new(&format!("/proc/{pid}")).exists() {
                return Err(Error::NoSuchProcess(pid));
            }
        }
        let types = type_information()?;
        let KernelTypes { offsets, has_preemptible_tracepoints } = KernelTypes::read(&types)?;
        drop(types);
        let offsets = Plain(offsets);
        let settings = Plain(settings(options));
        let mut loader = EbpfLoader::new();
        loader
            .override_global("OFFSETS", &offsets, true)
            .override_global("SETTINGS", &settings, true)
            .map_max_entries("EVENTS", options.ring_bytes);
        for table in TABLES {
            loader.map_max_entries(table.map, table.capacity(&options.table_sizes));
        }
        let proxies = settings.0.capacity[Share::Proxies as usize];
        for map in ["PROXY_ROWS_OUTSIDE", "OWNERS", "OWNERS_OUTSIDE"] {
            loader.map_max_entries(map, proxies.max(room::OWNERS));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| Error::Load(error.into()))?;
        let btf = aya::Btf::from_sys_fs().map_err(|error| Error::Load(error.into()))?;

        let mut tracer = Self {
            names: NameMap::take(&mut ebpf, "NAMES")?,
            ledger: LedgerMap::take(&mut ebpf, "LEDGER")?,
            retiring_rows: RetiringMap::take(&mut ebpf, "RETIRING")?,
            retiring: Retiring::default(),
            connections: ConnectionMap::take(&mut ebpf, "CONNECTIONS")?,
            processes: ProcessMap::take(&mut ebpf, "PROCESSES")?,
            proxies: ProxyMap::take(&mut ebpf, "PROXIES")?,
            owners: Owners::take(&mut ebpf, &settings.0)?,
            calls: CallMap::take(&mut ebpf, "CALLS")?,
            held: Held::take(&mut ebpf)?,
            table_sizes: options.table_sizes.clone(),
            refused: Default::default(),
            paths: PathMap::take(&mut ebpf, "UNIX_PATHS")?,
            timeouts: TimeoutMap::take(&mut ebpf, "TIMEOUTS")?,
            path_cache: HashMap::new(),
            hooks: Vec::new(),
            memory_bytes: None,
            ebpf,
        };
        tracer.set_names(&options.wanted.names)?;
        let events = Events::take(&mut tracer.ebpf)?;
        // First the hooks that follow processes, then the processes that run, then the rest: from a process's first
        // connect that is seen on it is known whether it is traced.
        let ways = attach::Ways { btf: &btf, forced: &options.hook_via, has_preemptible_tracepoints };
        tracer.hooks.extend(attach::attach(&mut tracer.ebpf, hooks::PROCESS_HOOKS, &ways)?);
        tracer.enter_running(&options.wanted)?;
        tracer.hooks.extend(attach::attach(&mut tracer.ebpf, hooks::CONNECT_HOOKS, &ways)?);
        tracer.memory_bytes = Figures::of_this_process().ok().map(|figures| figures.memory_bytes);
        drop(btf);
        give_back_memory();
        Ok((tracer, events))
    }

    /// Every hook, and how it was attached.
    #[must_use]
    pub fn hooks(&self) -> &[AttachedHook] {
        &self.hooks
    }

    /// What the kernel holds in memory for the maps and programs, in bytes. It does not change while they are there.
    /// `None` where it does not say: before 5.14 it keeps a process with file capabilities from reading that of itself.
    #[must_use]
    pub const fn memory_bytes(&self) -> Option<u64> {
        self.memory_bytes
    }

    /// How often the kernel has passed over one of the programs, because another was at work on that CPU, as it counts that
    /// itself. What such a program would have seen is lost where its twin was passed over as well (docs/architecture.md).
    /// `None` where it does not say: before 5.12, and before 5.14 to file capabilities. Of kprobes it counts it from 6.7 on.
    #[must_use]
    pub fn passed_over(&self) -> Option<u64> {
        Figures::of_this_process().ok()?.passed_over
    }

    /// How often each hook has seen a traced process at work, index [`Place`]; zero unless that was asked for.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn seen(&self) -> Result<[u64; Place::COUNT], Error> {
        maps::sums(&self.ebpf, "SEEN")
    }

    /// Reads everything that is counted.
    ///
    /// # Errors
    /// The map that the kernel did not let us read.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        // Proxies before processes: one that starts in between then has a process, or is not seen yet.
        let proxies = self.proxies.entries()?;
        let known: HashSet<u64> = proxies.iter().map(|(id, _)| *id).collect();
        let mut processes = self.processes.entries()?;
        processes.retain(|(_, process)| known.contains(&process.proxy));
        let made = self.owners.made()?;
        let own = retiring::joined(self.ledger.entries()?).into_iter();
        let own = own.map(|(key, row)| (key, row.balanced()));
        let rows = own.chain(proxies.iter().filter_map(|(id, proxy)| other_row(*id, proxy))).collect();
        Ok(Snapshot { rows, processes, proxies, made, losses: self.losses()? })
    }

    /// Tells the kernel half how many rows are held, so that the room of those that were taken out can be used again.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn count_rows(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let by_owner = self.held.count(&snapshot.proxies, snapshot.own_rows())?;
        self.owners.count_rows(&snapshot.made, &by_owner)
    }

    /// How full the tables are.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn tables(&self, snapshot: &Snapshot) -> Result<Vec<Filled>, Error> {
        let held = |share| self.owners.held(Owner::ALL, share);
        let filled = |table: &Table| {
            let entries = match table.map {
                "CONNECTIONS" => held(Share::Connections),
                "ATTEMPTS" => held(Share::Attempts),
                "LEDGER" => snapshot.own_rows().count() as u64,
                "PROCESSES" => held(Share::Processes),
                "PROXIES" => held(Share::Proxies),
                "TIMEOUTS" => self.timeouts.count()?,
                "CALLS" => self.calls.count()?,
                _ => self.paths.count()?,
            };
            Ok(Filled { name: table.name, entries, capacity: table.capacity(&self.table_sizes).into() })
        };
        TABLES.iter().map(filled).collect()
    }

    /// Traced processes, by pid.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn processes(&self) -> Result<Vec<(u32, Process)>, Error> {
        self.processes.entries()
    }

    /// The rows in which a break of a connection that is established would be counted.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn connected_rows(&self) -> Result<HashSet<RowKey>, Error> {
        Ok(self.connections.entries()?.into_iter().map(|(_, connection)| connection.row.first()).collect())
    }

    /// How many connect timeouts there is room for.
    #[must_use]
    pub const fn timeouts_capacity(&self) -> usize {
        self.timeouts.capacity
    }

    /// How many rows the ledger has room for.
    #[must_use]
    pub const fn ledger_capacity(&self) -> usize {
        self.ledger.capacity
    }

    /// Whether a row was found idle, and is taken out when it is found idle again.
    #[must_use]
    pub fn is_retiring(&self, row: &RowKey) -> bool {
        self.retiring.has(row)
    }

    /// A traced proxy, if it is one; it may have ended.
    #[must_use]
    pub fn proxy(&self, id: u64) -> Option<Proxy> {
        self.proxies.get(&id)
    }

    /// A traced process, if it is one and lives.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<Process> {
        self.processes.get(&pid)
    }

    /// What could not be followed, index [`Loss`].
    ///
    /// # Errors
    /// What the kernel said.
    pub fn losses(&self) -> Result<[u64; Loss::ALL.len()], Error> {
        let mut losses: [u64; Loss::ALL.len()] = maps::sums(&self.ebpf, "LOSSES")?;
        for (loss, refused) in losses.iter_mut().zip(self.refused) {
            *loss += refused;
        }
        Ok(losses)
    }

    /// Takes those of these rows out of the ledger that were idle at an earlier call as well, and gives what they counted. Whatever
    /// begins meanwhile is counted elsewhere: no count is lost. To be called every second, with all rows that are idle then.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn retire(&mut self, idle: &[Idle]) -> Result<Vec<(RowKey, Row)>, Error> {
        let mut tables = Tables { ledger: &mut self.ledger, retiring: &mut self.retiring_rows };
        self.retiring.turn(Instant::now(), idle, &mut tables)
    }

    /// Forgets the proxies that have no process left and hold nothing: their ids are not used again. Gives their rows `~other`; one
    /// that has such a row stays until it `is_named`, as the row is to be shown under its name.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn forget_ended_proxies(
        &mut self,
        snapshot: &Snapshot,
        is_named: impl Fn(u64) -> bool,
    ) -> Result<Vec<(RowKey, Row)>, Error> {
        let living: HashSet<u64> = snapshot.processes.iter().map(|(_, process)| process.proxy).collect();
        // When an attempt or a connection ends, that is counted in the proxy.
        let holds = |proxy: &Proxy| {
            [Share::Attempts, Share::Connections].into_iter().any(|share| proxy.held.held[share as usize] > 0)
        };
        let mut others = Vec::new();
        for (id, _) in snapshot.proxies.iter().filter(|(id, _)| !living.contains(id)) {
            // Read anew: it may have ended after the snapshot of it.
            let Some(proxy) = self.proxies.get(id).filter(|proxy| !holds(proxy)) else { continue };
            if proxy.other != Row::ZERO && !is_named(*id) {
                continue;
            }
            if self.proxies.remove(id)? {
                self.owners.count(proxy.owner, Share::Proxies, -1)?;
                others.extend(other_row(*id, &proxy));
            }
        }
        self.owners.forget_idle()?;
        Ok(others)
    }

    /// Sets how long a proxy waits for a connect to an address, where that is not the time of the options; `None` forgets
    /// it. A TCP connect that the proxy closes during the handshake is judged by it.
    ///
    /// # Errors
    /// There is no room for another, or what else the kernel said.
    pub fn set_connect_timeout(&mut self, row: &RowKey, timeout: Option<Duration>) -> Result<(), Error> {
        match timeout {
            Some(timeout) => self.timeouts.insert(row, &(timeout.as_nanos() as u64)),
            None => self.timeouts.remove(row).map(drop),
        }
    }

    /// The path behind a unix socket's digest, if the kernel half had room to note it.
    pub fn unix_path(&mut self, address: &Address) -> Option<UnixPath> {
        // Asked for again where it is not there: its row may be seen before it.
        if let Some(Some(path)) = self.path_cache.get(address) {
            return Some(*path);
        }
        let path = self.paths.get(address);
        self.path_cache.insert(*address, path);
        path
    }

    /// Forgets the paths of unix sockets that no row is about. One whose row comes meanwhile is known until the next call still, and
    /// is noted anew by the attempt after that.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn forget_paths(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let used: HashSet<Address> = snapshot.rows.iter().map(|(row, _)| row.address).collect();
        self.path_cache.retain(|address, _| used.contains(address) || self.paths.get(address).is_some());
        for (address, path) in self.paths.entries()? {
            if !used.contains(&address) {
                self.paths.remove(&address)?;
                self.path_cache.insert(address, Some(path));
            }
        }
        Ok(())
    }

    /// Detaches every program; what was counted can still be read.
    pub fn detach(&mut self) {
        attach::detach(&mut self.ebpf);
    }

    fn set_names(&mut self, wanted: &[String]) -> Result<(), Error> {
        // With processes given by pid, executing nginx anew is a reload still.
        self.names.insert(&comm(programs::NGINX), &0)?;
        wanted.iter().try_for_each(|name| self.names.insert(&comm(name), &NAME_ENTERS))
    }

    /// Enters the processes that already run. Repeated until nothing new is found: a child forked before its parent
    /// was entered is in /proc by the next turn, one forked after that is entered by the kernel half.
    fn enter_running(&mut self, wanted: &Wanted) -> Result<(), Error> {
        let boot_ns = boot_ns();
        let mut seen = HashSet::new();
        loop {
            let mut is_complete = true;
            for (pid, process) in wanted.select(&processes::running()?, boot_ns) {
                if self.processes.get(&pid).is_some() || !seen.insert(pid) {
                    continue;
                }
                is_complete = false;
                // What the kernel half knows of its parent by now is newer.
                let process = match self.processes.get(&process.parent) {
                    Some(Process { proxy, owner, generation, .. }) => {
                        Process { proxy, owner, generation, ..process }
                    }
                    None => process,
                };
                self.enter(pid, process)?;
                if !Path::new(&format!("/proc/{pid}")).exists() && self.processes.remove(&pid)? {
                    // It ended before it was entered, so its exit went unseen.
                    self.owners.count(process.owner, Share::Processes, -1)?;
                }
            }
            if is_complete {
                return Ok(());
            }
        }
    }

    /// Enters a process and its proxy, where there is room for them; otherwise that is counted.
    fn enter(&mut self, pid: u32, process: Process) -> Result<(), Error> {
        let Process { proxy, owner, .. } = process;
        let standing = if self.proxies.get(&proxy).is_some() || self.enter_proxy(proxy, owner)? {
            Process::STANDS
        } else {
            Process::REFUSED
        };
        if !self.owners.may_take(owner, Share::Processes) {
            self.refused[Loss::ProcessTableFull as usize] += 1;
            return Ok(());
        }
        match self.processes.insert_new(&pid, &Process { standing, ..process })? {
            Inserted::New => self.owners.count(owner, Share::Processes, 1)?,
            Inserted::There => {} // by the kernel half, in between
            Inserted::NoRoom => self.refused[Loss::ProcessTableFull as usize] += 1,
        }
        Ok(())
    }

    /// Enters a proxy that runs already; whether it did nothing but wait so far is not known.
    fn enter_proxy(&mut self, proxy: u64, owner: Owner) -> Result<bool, Error> {
        if self.owners.may_take(owner, Share::Proxies)
            && self.proxies.insert_new(&proxy, &Proxy { owner, ..Proxy::ZERO })? == Inserted::New
        {
            self.owners.count(owner, Share::Proxies, 1)?;
            return Ok(true);
        }
        self.refused[Loss::ProxyTableFull as usize] += 1;
        Ok(false)
    }
}

/// Nanoseconds since boot, the clock of the kernel half: that of the host, also where this process has another.
#[must_use]
pub fn boot_ns() -> u64 {
    static OFFSET_NS: LazyLock<i64> = LazyLock::new(|| {
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        boot_offset_ns(&offsets).unwrap_or(0)
    });
    own_boot_ns().saturating_add_signed(OFFSET_NS.saturating_neg())
}

/// Nanoseconds since boot as this process is shown them, in /proc too.
#[must_use]
pub fn own_boot_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| Duration::from(time).as_nanos() as u64)
}

/// What the clock since boot shows more than the host's in the time namespace of these offsets (time_namespaces(7)); `None` where
/// the kernel has no time namespaces.
fn boot_offset_ns(offsets: &str) -> Option<i64> {
    let mut words = offsets.lines().map(str::split_whitespace).find_map(|mut words| {
        let clock = words.next()?;
        matches!(clock, "boottime" | "7").then_some(words)
    })?;
    let (seconds, ns): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(ns)
}

/// The kernel's type information takes 20 MB while it is read (6.18), which the allocator would keep for good. The object of the
/// kernel half, which is part of this program's file, is read once, and would stay resident.
fn give_back_memory() {
    const PAGE: usize = 4096;
    let start = OBJECT.as_ptr().addr().next_multiple_of(PAGE);
    // Whole pages: the last one may hold something else.
    let length = (OBJECT.as_ptr().addr() + OBJECT.len()).saturating_sub(start) / PAGE * PAGE;
    #[expect(unsafe_code, reason = "a plain call into the kernel")]
    // SAFETY: a read-only mapping of a file, whose pages are read again when they are used. Where pages are larger than
    // assumed, or that is refused, nothing changes.
    unsafe {
        libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
    }
    memory::give_back();
}

/// A program name as the kernel keeps it: 15 bytes, zero-filled.
fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    let length = name.len().min(15);
    comm[..length].copy_from_slice(&name.as_bytes()[..length]);
    comm
}

fn check_host() -> Result<(), Error> {
    if let Some(missing) = requirements::missing_capabilities()? {
        return Err(Error::NotPermitted(missing));
    }
    if requirements::in_host_pid_namespace() { Ok(()) } else { Err(Error::OtherPidNamespace) }
}

/// Checks that the kernel's type information is all that is needed; gives its size in bytes.
///
/// # Errors
/// What is missing.
pub fn check_type_information() -> Result<usize, Error> {
    let types = type_information()?;
    KernelTypes::read(&types)?;
    Ok(types.len())
}

fn type_information() -> Result<Vec<u8>, Error> {
    std::fs::read(BTF_PATH).map_err(Error::NoBtf)
}

/// What the kernel's type information tells of it.
#[derive(Debug)]
struct KernelTypes {
    offsets: Offsets,
    has_preemptible_tracepoints: bool,
}

impl KernelTypes {
    fn read(data: &[u8]) -> Result<Self, Error> {
        let btf = btf::Btf::parse(data)?;
        if !btf.has_enum_value("BPF_MAP_TYPE_RINGBUF") {
            return Err(Error::KernelTooOld);
        }
        let offsets = Offsets::resolve(|path| btf.offset(path)).map_err(Error::NoMember)?;
        Ok(Self { offsets, has_preemptible_tracepoints: btf.has_preemptible_tracepoints() })
    }
}

fn settings(options: &Options) -> Settings {
    let mut capacity = [0; Share::SLOTS];
    for share in Share::ALL {
        capacity[share as usize] = tables::capacity_shared(share, &options.table_sizes);
    }
    Settings {
        connect_timeout_ns: options.connect_timeout.as_nanos() as u64,
        connect_syscall: libc::SYS_connect as u32,
        sendto_syscall: libc::SYS_sendto as u32,
        sendmsg_syscall: libc::SYS_sendmsg as u32,
        tell_established: u32::from(options.tell_established),
        count_seen: u32::from(options.count_seen),
        capacity,
        reserved: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, KernelTypes, boot_offset_ns};

    #[test]
    fn the_offset_of_a_time_namespace_is_read_in_both_forms() {
        assert_eq!(
            boot_offset_ns("monotonic      5000         0\nboottime     100000         7\n"),
            Some(100_000_000_000_007)
        );
        assert_eq!(boot_offset_ns("1 0 0\n7 -3 0\n"), Some(-3_000_000_000));
        assert_eq!(boot_offset_ns(""), None);
    }

    #[test]
    fn a_kernel_without_ring_buffer_is_too_old() {
        // A header (magic, version 1, flags, its length, where types and strings are) and the empty string.
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        btf.extend([24_u32, 0, 0, 0, 1].into_iter().flat_map(u32::to_le_bytes));
        btf.push(0);
        assert!(matches!(KernelTypes::read(&btf), Err(Error::KernelTooOld)));
    }
}
