//! The kernel half, from userspace: loaded, attached and read. The only module that knows aya.
//!
//! * [`Tracer::start`] checks what the host allows, loads the programs and attaches them.
//! * [`Tracer::snapshot`] reads the ledger and the losses: when somebody asks, never streamed.
//! * [`Events`] is the ring buffer.

pub mod btf;
pub mod confinement;
pub mod hooks;
pub mod processes;
pub mod requirements;
pub mod tables;

mod attach;
mod batch;
mod clock;
mod connect_timeouts;
mod earlier;
#[cfg(test)]
mod embedded;
mod entering;
mod error;
mod events;
mod fdinfo;
mod loading;
mod look;
mod maps;
mod owners;
mod retiring;
mod rows;
mod snapshot;
#[cfg(test)]
mod stack;
mod tracepoints;
mod types;

use std::{
    collections::{HashMap, HashSet},
    panic::resume_unwind,
    path::Path,
    thread,
    time::Instant,
};

use aya::{Ebpf, EbpfLoader};
use proxytrace_ebpf::{
    abi::{
        Address, Call, Connection, Loss, Owner, PeerSettings, Process, Proxy, Row, RowKey, Seen, Settings,
        Share, UnixPath, capacity,
    },
    hooks::{CONNECT_HOOKS, PROCESS_HOOKS, Place},
};

use crate::memory;
pub use attach::AttachedHook;
pub use clock::{boot_ns, own_boot_ns};
use confinement::{Filter, PidNamespace};
pub use connect_timeouts::{ConnectTimeout, ConnectTimeouts};
pub use error::{Error, USER_NAMESPACE, USER_NAMESPACE_FIX};
pub use events::Events;
use fdinfo::Figures;
use hooks::Forced;
use look::Look;
use maps::{
    CallMap, ConnectionMap, LedgerMap, NameMap, PathMap, PeerSettingsMap, Plain, ProcessMap, ProxyMap,
    RetiringMap, Switch,
};
use owners::Owners;
use processes::Wanted;
pub use retiring::Idle;
use retiring::{Retiring, Tables};
use rows::Held;
pub use snapshot::Snapshot;
use snapshot::other_row;
use tables::{Filled, Resized, Sizes, TABLES, Table};
pub use types::check_type_information;
use types::{KernelTypes, type_information};

/// The programs, as build.rs made them.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxytrace-programs"));

/// What to trace, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The processes.
    pub wanted: Wanted,
    /// The proxies' connect timeouts, where no configuration sets them.
    pub connect_timeouts: ConnectTimeouts,
    /// Whether established attempts are reported, or only counted.
    pub report_established: bool,
    /// The size of the ring buffer in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Hooks that are to be attached in one way only.
    pub hook_via: Vec<Forced>,
    /// Tables that are to have another size than usual.
    pub table_sizes: Vec<Resized>,
    /// Whether what each hook sees of traced processes is counted: for a self-test.
    pub count_seen: bool,
}

/// The kernel half at work. Dropping it detaches and frees everything: nothing is pinned.
pub struct Tracer {
    ebpf: Ebpf,
    hooks: Vec<AttachedHook>,
    /// Dropped before the programs: they are attached to these.
    attached_to: attach::Held,
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
    look: Result<Look, Error>,
    earlier: Result<(), Error>,
    held: Held,
    sizes: Sizes,
    /// What userspace itself could not enter, index [`Loss`].
    refused: [u64; Loss::ALL.len()],
    paths: PathMap,
    peer_settings: PeerSettingsMap,
    report_established: Switch,
    path_cache: HashMap<Address, Option<UnixPath>>,
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
        // The library's reader of type information and ours take as long as each other.
        let (types, btf, loader) = thread::scope(|scope| {
            let btf = scope.spawn(aya::Btf::from_sys_fs);
            let types = scope.spawn(|| KernelTypes::read(&type_information()?));
            let loader = EbpfLoader::new();
            (types.join(), btf.join(), loader)
        });
        let KernelTypes { offsets, has_preemptible_tracepoints, has_task_registers } =
            types.unwrap_or_else(|panic| resume_unwind(panic))?;
        let btf =
            btf.unwrap_or_else(|panic| resume_unwind(panic)).map_err(|error| Error::Load(error.into()))?;
        let offsets = Plain(offsets);
        let sizes = Sizes::new(&options.table_sizes, processes::expected_connections(&options.wanted));
        let settings = Plain(settings(options, &sizes, has_task_registers, has_preemptible_tracepoints));
        let mut loader = loader;
        loader
            .override_global("OFFSETS", &offsets, true)
            .override_global("SETTINGS", &settings, true)
            .map_max_entries("EVENTS", options.ring_bytes);
        for (map, entries) in sizes.maps() {
            loader.map_max_entries(map, entries);
        }
        let proxies = settings.0.capacity[Share::Proxies as usize];
        for map in ["PROXY_ROWS_OUTSIDE", "OWNERS", "OWNERS_OUTSIDE"] {
            loader.map_max_entries(map, proxies.max(capacity::OWNERS));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| Error::Load(error.into()))?;
        let ways = loading::Ways { btf: &btf, forced: &options.hook_via, has_preemptible_tracepoints };
        loading::load(&mut ebpf, hooks::all(), &ways);

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
            look: Look::take(&mut ebpf),
            earlier: Ok(()),
            held: Held::take(&mut ebpf)?,
            sizes,
            refused: Default::default(),
            paths: PathMap::take(&mut ebpf, "UNIX_PATHS")?,
            peer_settings: PeerSettingsMap::take(&mut ebpf, "PEER_SETTINGS")?,
            report_established: Switch::take(&mut ebpf, "REPORT_ESTABLISHED")?,
            path_cache: HashMap::new(),
            hooks: Vec::new(),
            attached_to: attach::Held::new(),
            memory_bytes: None,
            ebpf,
        };
        tracer.set_names(&options.wanted.names)?;
        tracer.report_established(options.report_established)?;
        let events = Events::take(&mut tracer.ebpf)?;
        // First the hooks that follow processes, then the processes that run, then the rest: from a process's first
        // connect that is seen on it is known whether it is traced.
        let attach = |tracer: &mut Self, hooks| -> Result<(), Error> {
            let attached = attach::attach(&mut tracer.ebpf, hooks, &ways, &mut tracer.attached_to)?;
            tracer.hooks.extend(attached);
            Ok(())
        };
        attach(&mut tracer, PROCESS_HOOKS)?;
        tracer.enter_running(&options.wanted)?;
        attach(&mut tracer, CONNECT_HOOKS)?;
        // A socket that is destroyed without anybody noticing must not be looked at.
        if tracer.hooks.iter().any(|attached| attached.hook.name == "destroy" && attached.rung.is_none()) {
            tracer.look = Err(Error::Look("the hook destroy is not attached".into()));
        }
        // A host may have a million open files, at a microsecond each.
        if !tracer.processes()?.is_empty() {
            tracer.earlier = earlier::find(&mut tracer.ebpf, &btf);
        }
        earlier::unload(&mut tracer.ebpf);
        tracer.memory_bytes = Figures::of_this_process().ok().map(|figures| figures.memory_bytes);
        // It takes 20 MB (6.18), which the allocator would keep for good.
        drop(btf);
        memory::give_back_what_the_start_took(OBJECT);
        Ok((tracer, events))
    }

    /// From now on established attempts are reported as well, or only counted again.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn report_established(&mut self, are_wanted: bool) -> Result<(), Error> {
        self.report_established.set(are_wanted)
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

    /// How often the kernel has skipped one of the programs because another was running on that CPU, as it counts that itself
    /// (`recursion_misses`). What such a program would have seen is lost where its duplicate was skipped as well
    /// (docs/kernel-notes.md).
    /// `None` where it does not say: before 5.12, and before 5.14 to file capabilities. Of kprobes it counts it from 6.7 on.
    #[must_use]
    pub fn recursion_misses(&self) -> Option<u64> {
        Figures::of_this_process().ok()?.recursion_misses
    }

    /// How often each hook has seen a traced process at work, index [`Place`]; zero unless that was asked for.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn seen(&self) -> Result<[u64; Place::ALL.len()], Error> {
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

    /// Gives the kernel half the number of rows that are held, so that the places of those that were taken out can be used again.
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
            let entries = match table.name {
                "connections" => held(Share::Connections),
                "attempts" => held(Share::Attempts),
                "ledger" => snapshot.own_rows().count() as u64,
                "processes" => held(Share::Processes),
                "proxies" => held(Share::Proxies),
                "timeouts" => self.peer_settings.count()?,
                "calls" => self.calls_under_way()?,
                _ => self.paths.count()?,
            };
            Ok(Filled { name: table.name, entries, capacity: table.capacity(&self.sizes).into() })
        };
        TABLES.iter().map(filled).collect()
    }

    fn calls_under_way(&self) -> Result<u64, Error> {
        let calls = self.calls.entries()?.into_iter();
        Ok(calls.filter(|(_, call)| call.state != Call::NONE).count() as u64)
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
        let connections = self.connections()?.into_iter();
        Ok(connections.map(|(_, connection)| connection.attempt.row.first()).collect())
    }

    /// Every established connection, by the address of its socket.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn connections(&self) -> Result<Vec<(u64, Connection)>, Error> {
        let mut connections = self.connections.entries()?;
        connections.retain(|(_, connection)| !connection.is_in_flight());
        Ok(connections)
    }

    /// Looks at connections, by the addresses of their sockets: gives what is found of each, of as many from the first on as one run takes.
    ///
    /// # Errors
    /// What the kernel said, be it when tracing began.
    pub fn look(&mut self, ids: &[u64]) -> Result<Vec<Seen>, Error> {
        match &mut self.look {
            Ok(look) => look.at(ids).map_err(|error| Error::Look(error.into())),
            Err(error) => Err(Error::Look(error.to_string().into())),
        }
    }

    /// Why connections cannot be looked at, where they cannot.
    #[must_use]
    pub fn cannot_look(&self) -> Option<&Error> {
        self.look.as_ref().err()
    }

    /// Why connections that were established before tracing began are not watched, where they are not.
    #[must_use]
    pub fn cannot_find_earlier(&self) -> Option<&Error> {
        self.earlier.as_ref().err()
    }

    /// Counts something that userspace could not follow.
    pub const fn count_loss(&mut self, loss: Loss, n: u64) {
        self.refused[loss as usize] += n;
    }

    /// How many addresses can have settings of their own.
    #[must_use]
    pub const fn peer_settings_capacity(&self) -> usize {
        self.peer_settings.capacity
    }

    /// How many rows the ledger can hold.
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

    /// Sets the timeouts and the protocol of an address; `None` forgets them. How a connection ended
    /// that the proxy closes is judged by it. The address that is all zeroes stands for every other one of the generation.
    ///
    /// # Errors
    /// There is no capacity for another, or what else the kernel said.
    pub fn set_peer_settings(
        &mut self,
        row: &RowKey,
        peer_settings: Option<&PeerSettings>,
    ) -> Result<(), Error> {
        match peer_settings {
            Some(peer_settings) => self.peer_settings.insert(row, peer_settings),
            None => self.peer_settings.remove(row).map(drop),
        }
    }

    /// The path behind a unix socket's digest, if the table of paths had a place for it.
    pub fn unix_path(&mut self, address: &Address) -> Option<UnixPath> {
        // Asked for again where it is not there: its row may be seen before it.
        if let Some(Some(path)) = self.path_cache.get(address) {
            return Some(*path);
        }
        let path = self.paths.get(address);
        self.path_cache.insert(*address, path);
        path
    }

    /// The same; nothing is remembered of it.
    #[must_use]
    pub fn unix_path_now(&self, address: &Address) -> Option<UnixPath> {
        self.path_cache.get(address).copied().flatten().or_else(|| self.paths.get(address))
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
        // The sockets that are destroyed from now on are not taken out any more.
        self.look = Err(Error::Look("detached".into()));
        self.attached_to.clear();
        attach::detach(&mut self.ebpf);
    }
}

fn check_host() -> Result<(), Error> {
    if let Some(missing) = requirements::missing_capabilities()? {
        return Err(Error::NotPermitted(missing));
    }
    if !confinement::in_host_user_namespace() {
        return Err(Error::OtherUserNamespace);
    }
    match PidNamespace::own() {
        PidNamespace::Host if Filter::own() == Filter::RefusesBpf => Err(Error::Filtered),
        PidNamespace::Host => Ok(()),
        other => Err(Error::OtherPidNamespace(other)),
    }
}

fn settings(
    options: &Options,
    sizes: &Sizes,
    has_task_registers: bool,
    has_preemptible_tracepoints: bool,
) -> Settings {
    let mut capacity = [0; Share::SLOTS];
    for share in Share::ALL {
        capacity[share as usize] = sizes.shared(share);
    }
    Settings {
        connect_timeout_ns: options.connect_timeouts.of_others().as_nanos() as u64,
        connect_syscall: libc::SYS_connect as u32,
        sendto_syscall: libc::SYS_sendto as u32,
        sendmsg_syscall: libc::SYS_sendmsg as u32,
        count_seen: u32::from(options.count_seen),
        capacity,
        has_task_registers: u32::from(has_task_registers),
        jiffy_ns: clock::jiffy_ns(),
        has_preemptible_tracepoints: u32::from(has_preemptible_tracepoints),
        reserved: 0,
    }
}
