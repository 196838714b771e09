//! A trace that knows names: joins the kernel half, the identities of proxies and the book.

mod configurations;
mod held;
mod housekeeping;
mod look;
mod records;
mod rejections;
mod timeouts;
mod view;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;
use proxytrace_ebpf::abi::{self, Event, Loss, Owner, Process};

use crate::{
    identity::{Identity, Names},
    kernel::{AttachedHook, Error, Events, Options, Snapshot, Tracer, boot_ns, hooks::Rung},
    model::{Address, Book, Clock, Entry, Key, Series, Worker},
    naming::Naming,
    reader::{
        GenerationId,
        client::{self, Replies},
    },
    reloads::{Open, Reloads},
};

pub use look::Look;
pub use records::PATIENCE;
pub use view::{ProxyInfo, ProxyView, View};

/// A running trace.
pub struct Watch {
    tracer: Tracer,
    names: Names,
    book: Book,
    reloads: Reloads,
    naming: Naming,
    held: held::Held,
    rejections: rejections::Rejections,
    known: look::Known,
    housekeeping: housekeeping::Housekeeping,
    has_started: bool,
    /// The proxies whose upstreams could not be named at the last look.
    unnamed: Vec<Arc<str>>,
    /// Where no configuration tells one.
    connect_timeout: Duration,
    timeouts: timeouts::Timeouts,
}

impl Watch {
    /// Starts tracing. At most `most_addresses` addresses get series of their own, each until it was neither declared nor used for
    /// `series_kept`. Also starts the process that reads the
    /// proxies' configurations, or `config` instead of what they name; it keeps privileges that a trace gives up.
    ///
    /// # Errors
    /// Why that is not possible here.
    pub fn start(
        options: &Options,
        config: Option<PathBuf>,
        most_addresses: usize,
        series_kept: Duration,
    ) -> anyhow::Result<(Self, Events, Replies)> {
        let (tracer, events) = Tracer::start(options)?;
        let timeouts = timeouts::Timeouts::new(tracer.timeouts_capacity());
        let (reader, replies) =
            client::start().context("start the process that reads nginx's configuration")?;
        let fallback = options.wanted.names.first().map_or("proxy", String::as_str).to_owned();
        let mut watch = Self {
            tracer,
            names: Names::new(fallback),
            book: Book::new(most_addresses, u64::try_from(series_kept.as_nanos()).unwrap_or(u64::MAX)),
            reloads: Reloads::default(),
            naming: Naming::new(reader, config),
            held: held::Held::default(),
            rejections: rejections::Rejections::default(),
            known: look::Known::new(),
            housekeeping: housekeeping::Housekeeping::new(),
            has_started: false,
            unnamed: Vec::new(),
            connect_timeout: options.connect_timeout,
            timeouts,
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

    /// Whether there is a reload of which it is not known what became of it: then [`Watch::note_rejected_reloads`] is
    /// to be asked again and again.
    #[must_use]
    pub fn is_reload_open(&self) -> bool {
        self.reloads.is_any_open()
    }

    /// Notes the reloads that turn out to be rejected now, and gives them as events that the kernel half has not seen.
    pub fn note_rejected_reloads(&mut self) -> Vec<(Timestamp, Event)> {
        let (time, time_ns) = (Timestamp::now(), boot_ns());
        let rejected = self.reloads.rejected(time_ns, |open| is_open(&self.tracer, open));
        let event = |Open { proxy, pid, generation, asked_ns, .. }| {
            let duration_ns = time_ns.saturating_sub(asked_ns);
            let event = Event { proxy, pid, generation, time_ns, duration_ns, ..Event::ZERO };
            (time, Event { kind: Event::RELOAD_REJECTED, ..event })
        };
        let events: Vec<_> = rejected.into_iter().map(event).collect();
        for (time, event) in &events {
            self.note_end_of_reload(*time, event);
        }
        events
    }

    /// What is known now.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn view(&mut self) -> Result<View, Error> {
        let snapshot = self.tracer.snapshot()?;
        let living = self.look_at(&snapshot);
        let (series, declared) = self.series(&snapshot, &living)?;
        let proxies = self.proxies(&snapshot, &living);
        let memory_bytes = self.tracer.memory_bytes();
        let findings = self.findings().map(|finding| finding.subject.clone()).collect();
        Ok(View {
            series,
            declared,
            findings,
            proxies,
            losses: snapshot.losses,
            tables: self.tracer.tables(&snapshot)?,
            findings_left_out: self.known.left_out(),
            memory_bytes,
            passed_over: self.tracer.passed_over(),
            clock: clock(),
        })
    }

    /// Everything that was counted and is declared, and what is declared.
    fn series(
        &mut self,
        snapshot: &Snapshot,
        living: &HashSet<u64>,
    ) -> Result<(BTreeMap<Key, Series>, Vec<Key>), Error> {
        let mut rows = Vec::with_capacity(snapshot.rows.len());
        for (row_key, row) in &snapshot.rows {
            let address = self.address(&row_key.address);
            if address.is_name_service() {
                continue;
            }
            // Its counts show as soon as the names are known.
            let Some(proxy) = self.names.given(row_key.proxy) else { continue };
            let Some(owner) = self.owner(row_key.proxy) else { continue };
            if Snapshot::is_other(row_key) {
                rows.push(Entry { key: Key::other(proxy), owner, row: *row });
                continue;
            }
            let Some(upstream) = self.upstream(row_key, &address)? else { continue };
            let key = Key { proxy, upstream, address: address.to_string().into() };
            rows.push(Entry { key, owner, row: *row });
        }
        let declared = self.declared(snapshot, living);
        let series = self.book.update(boot_ns(), &rows, &declared);
        Ok((series, declared.into_iter().map(|(_, key)| key).collect()))
    }

    /// Whether it has been found out, or given up, where the proxies run that were there at the start, and how they are
    /// configured.
    pub fn has_started(&mut self) -> bool {
        self.has_started |= !self.naming.is_asking() && !self.names.is_asking();
        self.has_started
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

    /// Looks at the proxies that have processes, and says which those are; also gives names to all whose names are settled.
    /// A proxy is called by its first process, where that is still there.
    fn look_at(&mut self, snapshot: &Snapshot) -> HashSet<u64> {
        let is_root = |(pid, process): &&(u32, Process)| *pid == abi::root_pid(process.proxy);
        let (roots, others): (Vec<_>, Vec<_>) = snapshot.processes.iter().partition(is_root);
        for (pid, process) in roots.into_iter().chain(others) {
            let of = GenerationId { proxy: process.proxy, generation: process.generation };
            self.look_at_process(of, pid);
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

    fn proxies(&mut self, snapshot: &Snapshot, living: &HashSet<u64>) -> BTreeMap<Arc<str>, ProxyView> {
        let now_ns = boot_ns();
        let mut rejected: HashMap<u64, u64> = HashMap::new();
        for open in snapshot.processes.iter().filter_map(|(pid, process)| Open::of_process(*pid, process)) {
            if self.reloads.is_rejected(&open, now_ns, |open| is_open(&self.tracer, open)) {
                *rejected.entry(open.proxy).or_default() += 1;
            }
        }
        // One look at all processes: a proxy may have thousands.
        let proxy_of: HashMap<u32, u64> =
            snapshot.processes.iter().map(|(pid, process)| (*pid, process.proxy)).collect();
        let mut workers: HashMap<u64, u64> = HashMap::new();
        for (_, Process { proxy, parent, flags, .. }) in &snapshot.processes {
            if flags & Process::WORKER != 0 && proxy_of.get(parent) == Some(proxy) {
                *workers.entry(*proxy).or_default() += 1;
            }
        }
        let mut views: BTreeMap<Arc<str>, ProxyView> = BTreeMap::new();
        for (id, proxy) in snapshot.proxies.iter().filter(|(id, _)| living.contains(id)) {
            let Some(name) = self.names.given(*id) else { continue };
            let view = ProxyView {
                workers: workers.get(id).copied().unwrap_or(0),
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

fn living(snapshot: &Snapshot) -> HashSet<u64> {
    snapshot.processes.iter().map(|(_, process)| process.proxy).collect()
}

/// Whether the kernel half has not seen what became of the reload.
fn is_open(tracer: &Tracer, open: &Open) -> bool {
    tracer.process(open.pid).is_some_and(|process| process.reload_asked_ns == open.asked_ns)
}

fn clock() -> Clock {
    Clock::new(boot_ns(), Timestamp::now())
}
