//! What a running trace knows: joins the kernel half, the names of proxies and upstreams, series and findings. Each tick brings it
//! up to date; [`Watch::view`] and its kin only read.

mod configurations;
mod detection;
mod firsts;
mod held;
mod hints;
mod housekeeping;
mod lifecycle;
mod looks;
mod peer_settings;
mod records;
mod rejections;
mod reloads;
mod rows;
mod sides;
mod usual;
mod view;
mod workforce;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use proxytrace_ebpf::abi::{self, Event, Loss, Owner, Process, Row};

use crate::{
    identity::{Identity, ProxyNames},
    kernel::{
        AttachedHook, ConnectTimeouts, Error, Events, Options, Snapshot, Tracer, boot_ns, hooks::Rung,
        processes::Wanted,
    },
    model::{Address, Clock, Finding, Record, Traced, UpstreamKey, Worker},
    naming::Naming,
    reader::{
        GenerationId,
        client::{self, Replies},
    },
};

pub use configurations::Running;
pub use records::NAME_TIMEOUT;
pub use reloads::CHECK as OPEN_RELOAD_CHECK;
use reloads::Open;
pub use view::{ProxyInfo, ProxyView, Side, View};

/// A running trace.
pub struct Watch {
    traced: Traced,
    tracer: Tracer,
    names: ProxyNames,
    rows: rows::Rows,
    lifecycle: lifecycle::Lifecycle,
    workforces: workforce::Workforces,
    naming: Naming,
    held: held::Held,
    detection: detection::Detection,
    housekeeping: housekeeping::Housekeeping,
    has_started: bool,
    /// Whether names are not waited for any more: what has none yet is reported as it is.
    is_last: bool,
    /// The proxies whose upstreams could not be named at the last tick.
    unnamed: Vec<Arc<str>>,
    /// Where no configuration gives one, and of the proxies that have one of their own.
    connect_timeouts: ConnectTimeouts,
    own_connect_timeouts: HashMap<u64, Option<Duration>>,
    peer_settings: peer_settings::PeerSettings,
    looks: looks::Looks,
    hints: hints::Hints,
    sides: sides::Kept,
}

/// How many series there are, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// So many addresses of one owner's proxies get series of their own.
    pub max_addresses: usize,
    /// Each is kept until it was neither declared nor used for so long.
    pub series_kept: Duration,
    /// What is kept of a proxy, its series and its findings, is kept for so long after it has ended.
    pub ended_kept: Duration,
}

/// Where the names of upstreams come from.
#[derive(Clone, Debug)]
pub struct Names {
    /// What is read instead of the configurations that proxies name.
    pub config: Option<PathBuf>,
    /// Whether host names are looked up.
    pub resolves: bool,
}

impl Watch {
    /// Starts tracing. Also starts the process that reads the proxies' configurations; it keeps privileges that a trace gives up.
    ///
    /// # Errors
    /// Why that is not possible here.
    pub fn start(options: &Options, names: Names, limits: Limits) -> anyhow::Result<(Self, Events, Replies)> {
        let (tracer, events) = Tracer::start(options)?;
        let peer_settings = peer_settings::PeerSettings::new(tracer.peer_settings_capacity());
        let (reader, replies) =
            client::start().context("start the process that reads nginx's configuration")?;
        let fallback = options.wanted.names.first().map_or("proxy", String::as_str).to_owned();
        let mut watch = Self {
            traced: traced(&options.wanted),
            tracer,
            names: ProxyNames::new(fallback),
            rows: rows::Rows::new(limits),
            lifecycle: lifecycle::Lifecycle::default(),
            workforces: workforce::Workforces::default(),
            naming: Naming::new(reader, names.config, names.resolves),
            held: held::Held::default(),
            detection: detection::Detection::new(),
            housekeeping: housekeeping::Housekeeping::new(limits.ended_kept),
            has_started: false,
            is_last: false,
            unnamed: Vec::new(),
            connect_timeouts: options.connect_timeouts.clone(),
            own_connect_timeouts: HashMap::new(),
            peer_settings,
            looks: looks::Looks::new(),
            hints: hints::Hints::default(),
            sides: sides::Kept::default(),
        };
        let snapshot = watch.tracer.snapshot()?;
        watch.look_at(&snapshot);
        watch.ask_for_all(&snapshot);
        watch.log_hooks();
        Ok((watch, events, replies))
    }

    /// Every hook, and how it was attached.
    #[must_use]
    pub fn hooks(&self) -> &[AttachedHook] {
        self.tracer.hooks()
    }

    /// The pids of the traced proxies' first processes.
    ///
    /// # Errors
    /// The processes could not be read.
    pub fn roots(&self) -> Result<Vec<u32>, Error> {
        let mut roots: Vec<_> = living(&self.tracer.snapshot()?).into_iter().map(abi::root_pid).collect();
        roots.sort_unstable();
        Ok(roots)
    }

    /// Brings everything up to date: names, reloads, findings, and what is not used any more is forgotten. To be called a few times
    /// a second while something happens, and every second otherwise. Gives what findings were shown, and which came and went.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn tick(&mut self) -> Result<Vec<Record>, Error> {
        self.follow_names()?;
        let snapshot = self.tracer.snapshot()?;
        let living = self.look_at(&snapshot);
        for doubt in self.names.take_doubts() {
            tracing::warn!("{doubt}");
        }
        self.lifecycle.note_open_reloads(&snapshot);
        self.note_unnamed(&snapshot, &living);
        self.look_at_workers(&snapshot, &living);
        let mut records = self.look_at_connections(&snapshot)?;
        records.extend(self.detect(&snapshot, &living)?);
        self.keep_house(&snapshot, &living)?;
        self.has_started |= !self.naming.is_asking() && !self.names.is_asking();
        Ok(records)
    }

    /// What is known now. The counts are those of this moment, all else is as of the last tick; nothing changes by it.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn view(&self) -> Result<View, Error> {
        self.view_of(&self.tracer.snapshot()?)
    }

    /// The same with both sides of reloads, which Prometheus has no use for.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn view_with_sides(&self) -> Result<View, Error> {
        let snapshot = self.tracer.snapshot()?;
        Ok(View { sides: self.sides(&snapshot), ..self.view_of(&snapshot)? })
    }

    fn view_of(&self, snapshot: &Snapshot) -> Result<View, Error> {
        let living = living(snapshot);
        let declared = self.declared(snapshot, &living);
        Ok(View {
            traced: self.traced.clone(),
            series: self.series(snapshot, &declared),
            waiting: self.waiting(),
            answered: self.answered(),
            departed: self.rows.departed().clone(),
            sides: BTreeMap::new(),
            declared: declared.into_iter().map(|(_, key)| key).collect(),
            findings: self.findings().map(|finding| (finding.subject.clone(), finding.severity)).collect(),
            proxies: self.proxies(snapshot, &living),
            losses: snapshot.losses,
            tables: self.tracer.tables(snapshot)?,
            findings_left_out: self.detection.left_out(),
            log_bytes_skipped: self.detection.log_bytes_skipped(),
            memory_bytes: self.tracer.memory_bytes(),
            recursion_misses: self.tracer.recursion_misses(),
            clock: clock(),
        })
    }

    /// What was counted of each upstream up to now: of a view, what takes least.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn sums(&self) -> Result<BTreeMap<UpstreamKey, Row>, Error> {
        let snapshot = self.tracer.snapshot()?;
        Ok(view::sums(&self.series(&snapshot, &[]), self.rows.departed()))
    }

    /// From the kernel half's clock to the time of day, as of now.
    #[must_use]
    pub fn clock(&self) -> Clock {
        clock()
    }

    /// What is wrong now.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.detection.active()
    }

    /// Whether it has been found out, or given up, where the proxies run that were there at the start, and how they are
    /// configured.
    #[must_use]
    pub const fn has_started(&self) -> bool {
        self.has_started
    }

    /// How many events were lost so far because the ring buffer was full.
    ///
    /// # Errors
    /// The losses could not be read.
    pub fn events_lost(&self) -> Result<u64, Error> {
        Ok(self.tracer.losses()?[Loss::RingFull as usize])
    }

    /// From now on established attempts are reported as well, or only counted again.
    ///
    /// # Errors
    /// The kernel half could not be told.
    pub fn report_established(&mut self, are_wanted: bool) -> Result<(), Error> {
        self.tracer.report_established(are_wanted)
    }

    /// From now on what has no name yet is reported as it is: the trace ends.
    pub fn stop_waiting_for_names(&mut self) {
        self.is_last = true;
    }

    /// Detaches; what was counted can still be read.
    pub fn detach(&mut self) {
        self.tracer.detach();
    }

    fn log_hooks(&self) {
        for AttachedHook { hook, rung, refusals } in self.hooks() {
            for (way, reason) in refusals {
                tracing::debug!("hook {} not by {way}: {reason}", hook.name);
            }
            match rung {
                Some(Rung { via, costs: "", .. }) => tracing::debug!("hook {} attached by {via}", hook.name),
                Some(Rung { via, costs, .. }) => {
                    tracing::info!(
                        "hook {} attached by {via}: {costs}; `proxytrace doctor` says why",
                        hook.name
                    );
                }
                None => tracing::warn!("hook {} not attached; without it {}", hook.name, hook.without),
            }
        }
        if let Some(error) = self.tracer.cannot_find_earlier() {
            tracing::warn!("connections that proxies had before are not watched: {error}");
        }
        if let Some(error) = self.tracer.cannot_look() {
            tracing::warn!("requests without an answer are seen only when they end: {error}");
        }
    }

    fn worker(&mut self, event: &Event) -> Result<Worker, Error> {
        Ok(Worker { proxy: self.proxy_name(event.proxy)?, pid: event.pid, generation: event.generation })
    }

    fn proxy_name(&mut self, proxy: u64) -> Result<Arc<str>, Error> {
        if let Some(name) = self.names.given(proxy) {
            return Ok(name);
        }
        self.owner(proxy);
        let living = living(&self.tracer.snapshot()?);
        Ok(self.names.name(proxy, &living))
    }

    /// Whose the proxy is. The kernel half says it as long as it has the proxy; what it says stays known as long as anything is
    /// counted of it.
    fn owner(&mut self, proxy: u64) -> Option<Owner> {
        if self.names.owner(proxy).is_none()
            && let Some(known) = self.tracer.proxy(proxy)
        {
            self.names.owned(proxy, known.owner);
        }
        self.names.owner(proxy)
    }

    fn address(&mut self, address: &abi::Address) -> Address {
        let path = match address.family {
            abi::FAMILY_UNIX => self.tracer.unix_path(address),
            _ => None,
        };
        Address::of_abi(address, path.as_ref())
    }

    /// Looks at the proxies that have processes, and gives those; also names all whose names are settled.
    /// A proxy is called by its first process, where that is still there.
    fn look_at(&mut self, snapshot: &Snapshot) -> HashSet<u64> {
        let is_root = |(pid, process): &&(u32, Process)| *pid == abi::root_pid(process.proxy);
        let (roots, others): (Vec<_>, Vec<_>) = snapshot.processes.iter().partition(is_root);
        for (pid, process) in roots.into_iter().chain(others) {
            let of = GenerationId { proxy: process.proxy, generation: process.generation };
            self.look_at_process(of, pid);
            self.set_connect_timeout(of);
        }
        let living = living(snapshot);
        let counted = snapshot.rows.iter().map(|(row, _)| row.proxy);
        for proxy in counted.clone().chain(living.iter().copied()) {
            self.owner(proxy);
        }
        self.names.settle(counted.chain(living.iter().copied()), &living);
        living
    }

    fn info(&self, proxy: u64, generation: u32) -> ProxyInfo {
        let Identity { unit, container, pod, source, .. } = self.names.identity(proxy);
        let known = self.newest_known(proxy, generation).and_then(|of| self.naming.configuration(of));
        let path = |path: &Path| path.display().to_string();
        ProxyInfo {
            exe: known.map(|(configuration, _)| path(&configuration.exe)).unwrap_or_default(),
            config: known.map(|(configuration, _)| path(&configuration.path)).unwrap_or_default(),
            unit: unit.unwrap_or_default(),
            container: pod.as_ref().map(|pod| pod.container.clone()).or(container).unwrap_or_default(),
            namespace: pod.as_ref().map(|pod| pod.namespace.clone()).unwrap_or_default(),
            pod: pod.map(|pod| pod.name).unwrap_or_default(),
            name_source: source.name(),
        }
    }

    fn proxies(&self, snapshot: &Snapshot, living: &HashSet<u64>) -> BTreeMap<Arc<str>, ProxyView> {
        // The kernel half counts the others.
        let mut rejected: HashMap<u64, u64> = HashMap::new();
        for open in snapshot.processes.iter().filter_map(|(pid, process)| Open::of_process(*pid, process)) {
            if self.lifecycle.is_rejected(&open) {
                *rejected.entry(open.proxy).or_default() += 1;
            }
        }
        let newest: HashMap<u64, u32> =
            snapshot.proxies.iter().map(|(id, proxy)| (*id, proxy.generation)).collect();
        let mut workers: HashMap<u64, (u64, u64)> = HashMap::new();
        for Process { proxy, generation, .. } in workforce::workers(snapshot) {
            let (all, old) = workers.entry(*proxy).or_default();
            *all += 1;
            *old += u64::from(newest.get(proxy).is_some_and(|newest| generation < newest));
        }
        let firsts = firsts::firsts(&snapshot.processes);
        let mut views: BTreeMap<Arc<str>, ProxyView> = BTreeMap::new();
        let proxies =
            snapshot.proxies.iter().filter(|(id, _)| living.contains(id) && !self.names.is_errand(*id));
        for (id, proxy) in proxies {
            let Some(name) = self.names.given(*id) else { continue };
            let (workers, old_workers) = workers.get(id).copied().unwrap_or_default();
            let view = ProxyView {
                process: self.names.process(*id).to_owned(),
                pid: firsts.get(id).copied().unwrap_or_else(|| abi::root_pid(*id)),
                workers,
                old_workers,
                generation: proxy.generation,
                rejected: proxy.rejected + rejected.get(id).copied().unwrap_or(0),
                reloaded_ns: proxy.reloaded_ns,
                crashes: proxy.crashes,
                names_ready: self.naming.is_ready(GenerationId { proxy: *id, generation: proxy.generation }),
                info: self.info(*id, proxy.generation),
            };
            views.insert(name, view);
        }
        views
    }
}

fn traced(Wanted { names, pids }: &Wanted) -> Traced {
    Traced { processes: names.iter().cloned().collect(), pids: pids.iter().copied().collect() }
}

fn living(snapshot: &Snapshot) -> HashSet<u64> {
    snapshot.processes.iter().map(|(_, process)| process.proxy).collect()
}

fn clock() -> Clock {
    Clock::new(boot_ns(), Timestamp::now())
}
