//! A trace that knows names: joins the kernel half, the identities of proxies and the book.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use proxytrace_ebpf::{
    abi::{self, Event, Loss, Process},
    outcome::{Broken, Outcome},
};

use crate::{
    identity::Names,
    kernel::{AttachedHook, Error, Events, Options, Snapshot, Tracer, boot_ns, hooks::Rung},
    model::{
        Address, Attempt, Body, Book, Clock, Connection, Exit, Key, Record, Reload, ReloadResult, Route,
        Series, UNKNOWN_UPSTREAM, Worker,
    },
    reloads::{Open, Reloads},
};

/// Series of addresses that were not used for so long go away.
const IDLE: Duration = Duration::from_secs(3600);

/// A running trace.
pub struct Watch {
    tracer: Tracer,
    names: Names,
    book: Book,
    reloads: Reloads,
    unknown_upstream: Arc<str>,
}

/// What a running trace knows at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// What was counted.
    pub series: BTreeMap<Key, Series>,
    /// The proxies that have processes.
    pub proxies: BTreeMap<Arc<str>, ProxyView>,
    /// What could not be followed, index [`Loss`].
    pub losses: [u64; Loss::ALL.len()],
    /// What the kernel holds in memory for the programs and tables, in bytes, if it says.
    pub memory_bytes: Option<u64>,
    /// From the kernel half's clock to the time of day.
    pub clock: Clock,
}

/// What is known of one proxy.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProxyView {
    /// Its processes below the master.
    pub workers: u64,
    /// How often it was reloaded since it has been known.
    pub generation: u32,
    /// Reloads that were asked for and that it did not take.
    pub rejected: u64,
    /// When the generation was last raised, boot time in nanoseconds; 0 for never.
    pub reloaded_ns: u64,
    /// Workers that a signal ended.
    pub crashes: u64,
}

impl Watch {
    /// Starts tracing. At most `most_addresses` addresses get series of their own.
    ///
    /// # Errors
    /// Why that is not possible here.
    pub fn start(options: &Options, most_addresses: usize) -> Result<(Self, Events), Error> {
        let (tracer, events) = Tracer::start(options)?;
        let fallback = options.wanted.names.first().map_or("proxy", String::as_str).to_owned();
        let mut watch = Self {
            tracer,
            names: Names::new(fallback),
            book: Book::new(most_addresses, IDLE.as_nanos() as u64),
            reloads: Reloads::default(),
            unknown_upstream: UNKNOWN_UPSTREAM.into(),
        };
        let snapshot = watch.tracer.snapshot()?;
        watch.look_at(&snapshot);
        watch.log_hooks();
        Ok((watch, events))
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

    /// Notes what an event tells of proxies.
    pub fn note(&mut self, event: &Event) {
        if event.kind == Event::ENTERED {
            self.names.look(event.proxy, event.pid);
        }
    }

    /// The record of an event; `None` for one that is only of use here.
    ///
    /// # Errors
    /// A map that was needed for it could not be read.
    pub fn record(&mut self, event: &Event) -> Result<Option<Record>, Error> {
        if event.remote.family != 0 && self.address(&event.remote).is_name_service() {
            return Ok(None);
        }
        let body = match event.kind {
            Event::CONNECT => Body::Connect(self.attempt(event, Outcome::from_index(event.what))?),
            Event::STALLED => Body::Stalled(self.attempt(event, None)?),
            Event::BROKEN => match Broken::from_index(event.what) {
                Some(cause) => Body::Broken(self.connection(event, cause)?),
                None => return Ok(None),
            },
            Event::RELOADED | Event::RELOAD_REJECTED if self.reloads.note(event) => {
                let accepted = event.kind == Event::RELOADED;
                let result = if accepted { ReloadResult::Accepted } else { ReloadResult::Rejected };
                Body::Reload(Reload { master: self.worker(event)?, result })
            }
            Event::WORKER_STARTED => Body::WorkerStarted(self.worker(event)?),
            Event::WORKER_EXITED => Body::WorkerExited(Exit::of_status(self.worker(event)?, event.what)),
            Event::RELOAD_ASKED => {
                self.reloads.note(event);
                return Ok(None);
            }
            _ => {
                self.note(event);
                return Ok(None);
            }
        };
        Ok(Some(Record { time: clock().at(event.time_ns), body }))
    }

    /// Whether there is a reload of which it is not known what became of it: then [`Watch::rejected_reloads`] is to be
    /// asked again and again.
    #[must_use]
    pub fn is_reload_open(&self) -> bool {
        self.reloads.is_any_open()
    }

    /// The reloads that turn out to be rejected now.
    ///
    /// # Errors
    /// A map that was needed for it could not be read.
    pub fn rejected_reloads(&mut self) -> Result<Vec<Record>, Error> {
        let rejected = self.reloads.rejected(boot_ns(), |open| is_open(&self.tracer, open));
        let record = |Open { proxy, pid, generation, .. }| {
            let event = Event { proxy, pid, generation, ..Event::ZERO };
            let reload = Reload { master: self.worker(&event)?, result: ReloadResult::Rejected };
            Ok(Record { time: Timestamp::now(), body: Body::Reload(reload) })
        };
        rejected.into_iter().map(record).collect()
    }

    /// What is known now. Also the moment at which what is no longer needed is forgotten.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn view(&mut self) -> Result<View, Error> {
        let snapshot = self.tracer.snapshot()?;
        let living = self.look_at(&snapshot);
        let mut rows = Vec::with_capacity(snapshot.rows.len());
        for (row_key, row) in &snapshot.rows {
            let address = self.address(&row_key.address);
            if address.is_name_service() {
                continue;
            }
            let proxy = self.names.name(row_key.proxy, &living);
            let upstream = Arc::clone(&self.unknown_upstream);
            rows.push((*row_key, *row, Key { proxy, upstream, address: address.to_string().into() }));
        }
        let (series, idle) = self.book.update(boot_ns(), &rows);
        for (row_key, key) in idle {
            if let Some(row) = self.tracer.take_idle(&row_key)? {
                self.book.carry(&key, &row);
            }
        }
        let proxies = self.proxies(&snapshot, &living);
        self.tracer.forget_ended_proxies(&snapshot)?;
        let counted: HashSet<u64> = snapshot.rows.iter().map(|(key, _)| key.proxy).collect();
        self.names.retain(|proxy| living.contains(&proxy) || counted.contains(&proxy));
        let memory_bytes = self.tracer.memory_bytes();
        Ok(View { series, proxies, losses: snapshot.losses, memory_bytes, clock: clock() })
    }

    /// How many events were lost so far because the ring buffer was full.
    ///
    /// # Errors
    /// The losses could not be read.
    pub fn events_lost(&self) -> Result<u64, Error> {
        Ok(self.tracer.losses()?[Loss::RingFull as usize])
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
    }

    fn attempt(&mut self, event: &Event, outcome: Option<Outcome>) -> Result<Attempt, Error> {
        Ok(Attempt {
            route: self.route(event)?,
            outcome,
            errno: event.errno,
            duration_us: event.duration_ns / 1000,
            syn_retransmits: event.syn_retransmits,
        })
    }

    fn connection(&mut self, event: &Event, cause: Broken) -> Result<Connection, Error> {
        let route = self.route(event)?;
        Ok(Connection { route, cause, errno: event.errno, duration_us: event.duration_ns / 1000 })
    }

    fn route(&mut self, event: &Event) -> Result<Route, Error> {
        Ok(Route {
            proxy: self.proxy(event)?,
            pid: event.pid,
            generation: event.generation,
            upstream: Arc::clone(&self.unknown_upstream),
            address: self.address(&event.remote),
            local: local(event),
        })
    }

    fn worker(&mut self, event: &Event) -> Result<Worker, Error> {
        Ok(Worker { proxy: self.proxy(event)?, pid: event.pid, generation: event.generation })
    }

    fn proxy(&mut self, event: &Event) -> Result<Arc<str>, Error> {
        if let Some(name) = self.names.given(event.proxy) {
            return Ok(name);
        }
        self.names.look(event.proxy, event.pid);
        let living = living(&self.tracer.snapshot()?);
        Ok(self.names.name(event.proxy, &living))
    }

    fn address(&mut self, address: &abi::Address) -> Address {
        let path = match address.family {
            abi::FAMILY_UNIX => self.tracer.unix_path(address),
            _ => None,
        };
        Address::of_abi(address, path.as_ref())
    }

    /// Looks at the proxies that have processes, and says which those are. A proxy is called by its first process, where
    /// that is still there.
    fn look_at(&mut self, snapshot: &Snapshot) -> HashSet<u64> {
        let is_root = |(pid, process): &&(u32, Process)| *pid == abi::root_pid(process.proxy);
        let (roots, others): (Vec<_>, Vec<_>) = snapshot.processes.iter().partition(is_root);
        for (pid, process) in roots.into_iter().chain(others) {
            self.names.look(process.proxy, pid);
        }
        living(snapshot)
    }

    fn proxies(&mut self, snapshot: &Snapshot, living: &HashSet<u64>) -> BTreeMap<Arc<str>, ProxyView> {
        self.reloads.retain(|pid| snapshot.processes.iter().any(|(other, _)| *other == pid));
        let now_ns = boot_ns();
        let mut rejected: HashMap<u64, u64> = HashMap::new();
        for open in snapshot.processes.iter().filter_map(|(pid, process)| Open::of_process(*pid, process)) {
            if self.reloads.is_rejected(&open, now_ns, |open| is_open(&self.tracer, open)) {
                *rejected.entry(open.proxy).or_default() += 1;
            }
        }
        let mut views: BTreeMap<Arc<str>, ProxyView> = BTreeMap::new();
        for (id, proxy) in snapshot.proxies.iter().filter(|(id, _)| living.contains(id)) {
            let of_proxy = || snapshot.processes.iter().filter(|(_, process)| process.proxy == *id);
            // A master that was started by a master (a binary upgrade) has workers, and is none.
            let workers = of_proxy().filter(|(_, process)| {
                process.children == 0 && of_proxy().any(|(pid, _)| *pid == process.parent)
            });
            let view = ProxyView {
                workers: workers.count() as u64,
                generation: proxy.generation,
                rejected: proxy.rejected + rejected.get(id).copied().unwrap_or(0),
                reloaded_ns: proxy.reloaded_ns,
                crashes: proxy.crashes,
            };
            views.insert(self.names.name(*id, living), view);
        }
        views
    }
}

fn living(snapshot: &Snapshot) -> HashSet<u64> {
    snapshot.processes.iter().map(|(_, process)| process.proxy).collect()
}

/// Whether the kernel half has not seen what became of the reload.
fn is_open(tracer: &Tracer, open: &Open) -> bool {
    tracer.process(open.pid).is_some_and(|process| process.reload_asked_ns == open.asked_ns)
}

fn local(event: &Event) -> Option<Address> {
    let has_address = event.local.family != 0 && event.local.port != 0;
    has_address.then(|| Address::of_abi(&event.local, None))
}

fn clock() -> Clock {
    Clock::new(boot_ns(), Timestamp::now())
}
