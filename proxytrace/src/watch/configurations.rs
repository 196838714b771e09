//! What proxies are configured to do: asked for when they start and reload, and followed where names are.

use std::{
    collections::HashSet,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::{self, Event, Owner, Process, RowKey};

use super::{Watch, living, rejections::Rejection};
use crate::{
    declared::{Configuration, RoutesView, SettingsByPeer},
    escape,
    kernel::{Error, Snapshot},
    model::{Address, Generation, Key},
    naming::of_row,
    reader::{Answer, GenerationId, Reply},
};

/// A proxy that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its newest generation.
    pub of: Generation,
    /// What its process is called; empty for one that ended before it could be read.
    pub process: String,
    /// The process that takes the signals.
    pub master: u32,
    /// The workers of that generation.
    pub workers: Vec<u32>,
    /// Whether it is known how that generation is configured, or that nobody can know it.
    pub is_read: bool,
    /// How that generation is configured, where that is known.
    pub configuration: Option<Configuration>,
}

impl Watch {
    /// Asks for the configuration of a generation that an event shows to be there.
    ///
    /// # Errors
    /// A map that was needed for it could not be read.
    pub(super) fn note(&mut self, event: &Event) -> Result<(), Error> {
        let of = GenerationId { proxy: event.proxy, generation: event.generation };
        self.look_at_process(of, event.pid);
        self.set_connect_timeout(of);
        match event.kind {
            Event::ENTERED => self.naming.ask(of, vec![event.pid], None),
            Event::RELOADED => {
                self.naming.ask(of, vec![event.pid], Some(event.time_ns));
                // Until its configuration is read, what held before is nearer to it than what holds where nothing is known.
                if let Some(before) = self.newest_known(of.proxy, of.generation) {
                    self.set_peer_settings(of, before);
                }
            }
            Event::WORKER_STARTED => self.naming.forked(of, event.pid),
            // Not of an old generation that is forgotten: it may have run another configuration than there is now.
            _ if !self.naming.is_asked(of) => {
                let processes = self.tracer.processes()?;
                if with_processes(&processes).any(|other| other == of) {
                    self.naming.ask(of, pids(&processes, of), None);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes an answer about a configuration, and says once what people should know.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn answer(&mut self, reply: Reply) -> Result<(), Error> {
        let of = reply.id;
        if let Answer::Pod(located) = reply.answer {
            self.names.found(of.proxy, located);
            return Ok(());
        }
        if let Answer::Rejection { asked_ns, reason } = reply.answer {
            let rejection = Rejection { proxy: of.proxy, asked_ns };
            if self.lifecycle.note_reason(rejection, reason) {
                self.detection.reason_known(rejection);
            }
            self.detection.last_words_known(rejection);
            return Ok(());
        }
        if let Answer::Hints(hints) = reply.answer {
            self.hints.answer(Instant::now(), of.proxy, hints);
            self.detection.show_again(of.proxy);
            return Ok(());
        }
        if let Answer::Complaints { complaints, skipped_bytes } = reply.answer {
            self.detection.complained(of.proxy, complaints, skipped_bytes);
            return Ok(());
        }
        match &reply.answer {
            Answer::Configuration(configuration) => {
                self.names.configured(of.proxy, Some(&configuration.path));
                let processes = self.tracer.processes()?;
                self.naming.follow_logs(of, pids(&processes, of));
            }
            Answer::Unreadable(_) => self.names.configured(of.proxy, None),
            _ => {}
        }
        let learned = self.naming.answer(reply);
        if let Some(problem) = in_one_line(&learned.problems) {
            let name = match self.names.is_settled(of.proxy) {
                true => self.proxy_name(of.proxy)?,
                false => format!("process {}", abi::root_pid(of.proxy)).into(),
            };
            tracing::warn!("configuration of {name}, generation {}: {problem}", of.generation);
        }
        for of in learned.anew {
            self.set_peer_settings(of, of);
            // What a host name stands for is not known before that.
            if learned.is_complete {
                self.detection.declared(of);
            }
        }
        Ok(())
    }

    /// Looks names up again whose addresses may have changed.
    ///
    /// # Errors
    /// A map could not be read.
    pub(super) fn follow_names(&mut self) -> Result<(), Error> {
        let due = self.naming.due();
        if due.is_empty() {
            return Ok(());
        }
        let processes = self.tracer.processes()?;
        for of in due {
            self.naming.follow(of, pids(&processes, of));
        }
        Ok(())
    }

    /// Where the configurations of the proxies that run send requests, by proxy: of each the newest that is known.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn routes(&self) -> Result<Vec<RoutesView>, Error> {
        let snapshot = self.tracer.snapshot()?;
        let living = living(&snapshot);
        let mut views = Vec::new();
        for (id, proxy) in snapshot.proxies.iter().filter(|(id, _)| living.contains(id)) {
            let Some(name) = self.names.given(*id) else { continue };
            let Some(of) = self.newest_known(*id, proxy.generation) else { continue };
            if let Some((configuration, _)) = self.naming.configuration(of) {
                views.push(RoutesView::new(name, of.generation, configuration));
            }
        }
        views.sort_by(|one, other| one.proxy.cmp(&other.proxy));
        Ok(views)
    }

    /// The proxies that run, as far as they have names.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn running(&self) -> Result<Vec<Running>, Error> {
        let snapshot = self.tracer.snapshot()?;
        let mut all = Vec::new();
        for (id, proxy) in snapshot.proxies.iter().filter(|(id, _)| !self.names.is_errand(*id)) {
            let own = || snapshot.processes.iter().filter(|(_, process)| process.proxy == *id);
            let Some(name) = self.names.given(*id).filter(|_| own().next().is_some()) else { continue };
            let newest = GenerationId { proxy: *id, generation: proxy.generation };
            let workers: Vec<_> = own().filter(|(_, process)| process.flags & Process::WORKER != 0).collect();
            let root = abi::root_pid(*id);
            let master = workers.first().map_or(root, |(_, worker)| worker.parent);
            let new = workers.iter().filter(|(_, worker)| worker.generation == proxy.generation);
            all.push(Running {
                of: Generation { proxy: name, pid: root, number: proxy.generation },
                process: self.names.process(*id).to_owned(),
                master,
                workers: new.map(|(pid, _)| *pid).collect(),
                is_read: self.naming.is_ready(newest) != Some(false),
                configuration: self
                    .naming
                    .configuration(newest)
                    .map(|(configuration, _)| configuration.clone()),
            });
        }
        all.sort_by(|one, other| (&one.of.proxy, one.of.pid).cmp(&(&other.of.proxy, other.of.pid)));
        Ok(all)
    }

    /// The proxies whose upstreams could not be named at the last tick.
    #[must_use]
    pub fn unnamed(&self) -> &[Arc<str>] {
        &self.unnamed
    }

    pub(super) fn note_unnamed(&mut self, snapshot: &Snapshot, living: &HashSet<u64>) {
        let mut unnamed = Vec::new();
        for (id, proxy) in snapshot.proxies.iter().filter(|(id, _)| living.contains(id)) {
            let of = GenerationId { proxy: *id, generation: proxy.generation };
            if self.naming.is_ready(of) == Some(false) {
                unnamed.extend(self.names.given(*id));
            }
        }
        unnamed.sort();
        self.unnamed = unnamed;
    }

    /// Looks at a process of a proxy, and asks once where that runs: its name depends on it.
    pub(super) fn look_at_process(&mut self, of: GenerationId, pid: u32) {
        if self.names.inspect(of.proxy, pid) && self.naming.locate(of, vec![pid]) {
            self.names.asked(of.proxy);
        }
    }

    /// What the upstream is called; `None` while that is not known.
    pub(super) fn upstream(&mut self, row: &RowKey, address: &Address) -> Result<Option<Arc<str>>, Error> {
        let upstream = self.naming.upstream(row, address);
        let of = of_row(row);
        if upstream.is_none() && self.naming.needs_lookup(of) {
            self.naming.follow(of, pids(&self.tracer.processes()?, of));
        }
        Ok(upstream)
    }

    /// Asks for the configurations of everything that is in use and was not asked for.
    pub(super) fn ask_for_all(&mut self, snapshot: &Snapshot) {
        let generations: HashSet<_> = with_processes(&snapshot.processes).collect();
        for of in self.in_use(snapshot) {
            if self.naming.is_asked(of) {
                continue;
            }
            if generations.contains(&of) {
                self.naming.ask(of, pids(&snapshot.processes, of), None);
            } else {
                self.naming.ended(of);
            }
        }
    }

    /// Every address that the newest known configurations of living proxies name, by the owners of the proxies.
    pub(super) fn declared(&self, snapshot: &Snapshot, living: &HashSet<u64>) -> Vec<(Owner, Key)> {
        let mut keys = Vec::new();
        for (id, state) in snapshot.proxies.iter().filter(|(id, _)| living.contains(id)) {
            let Some(name) = self.names.given(*id) else { continue };
            let newest = self.newest_known(*id, state.generation);
            let Some((_, names)) = newest.and_then(|of| self.naming.configuration(of)) else { continue };
            keys.extend(names.declared().map(|(upstream, address)| {
                let (proxy, address) = (Arc::clone(&name), address.to_string().into());
                (state.owner, Key { proxy, upstream: upstream.into(), address })
            }));
        }
        keys
    }

    /// A reload may have been refused, or its configuration not be read yet: then the one before holds.
    pub(super) fn newest_known(&self, proxy: u64, generation: u32) -> Option<GenerationId> {
        let generations = (0..=generation).rev().map(|generation| GenerationId { proxy, generation });
        generations.take(MOST_GENERATIONS).find(|of| self.naming.configuration(*of).is_some())
    }

    /// Forgets the configurations that nobody uses any more, and what rows are called that are not there any more.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn forget_configurations(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        let mut used = self.in_use(snapshot);
        let newest = snapshot.proxies.iter().map(|(id, proxy)| self.newest_known(*id, proxy.generation));
        used.extend(newest.flatten().collect::<Vec<_>>());
        used.extend(
            snapshot
                .proxies
                .iter()
                .map(|&(proxy, state)| GenerationId { proxy, generation: state.generation }),
        );
        let rows = snapshot.rows.iter().map(|(row, _)| *row).chain(self.held_rows()).collect();
        self.naming.retain(&used, &rows);
        self.rows.retain(&rows);
        let Self { peer_settings, tracer, naming, .. } = self;
        peer_settings.retain(tracer, |of| naming.is_asked(of))
    }

    /// The generations whose configurations are needed: those that have processes, and those of which something waits for its
    /// upstream's name. What has its name keeps it without.
    fn in_use(&self, snapshot: &Snapshot) -> HashSet<GenerationId> {
        let rows = snapshot.rows.iter().map(|(row, _)| *row).chain(self.held_rows());
        let nameless = rows.filter(|row| row.address.family != 0 && !self.naming.is_decided(row));
        with_processes(&snapshot.processes).chain(nameless.map(|row| of_row(&row))).collect()
    }

    /// The connect timeout of a proxy's processes by their name, if they have one. Their name is that of the first, when that was seen
    /// first.
    fn own_connect_timeout(&mut self, proxy: u64) -> Option<Duration> {
        if !self.connect_timeouts.has_names() {
            return None;
        }
        if let Some(known) = self.own_connect_timeouts.get(&proxy) {
            return *known;
        }
        let comm = fs::read_to_string(format!("/proc/{}/comm", abi::root_pid(proxy))).ok()?;
        let own = self.connect_timeouts.of(comm.trim_end_matches('\n'));
        self.own_connect_timeouts.insert(proxy, own);
        own
    }

    /// Sets how long a proxy waits whose configuration is not known, where its name says so.
    pub(super) fn set_connect_timeout(&mut self, of: GenerationId) {
        let is_set = self.peer_settings.has(of) || self.naming.peer_settings(of).is_some();
        if self.connect_timeouts.has_names() && !is_set && self.own_connect_timeout(of.proxy).is_some() {
            self.set_peer_settings(of, of);
        }
    }

    /// Lets the kernel half judge the connections of a generation by what a configuration sets: its own, or that of another.
    fn set_peer_settings(&mut self, of: GenerationId, configured: GenerationId) {
        let row = |address| RowKey { proxy: of.proxy, generation: of.generation, address };
        let own_timeout = self.own_connect_timeout(of.proxy);
        let assumed = own_timeout.unwrap_or_else(|| self.connect_timeouts.of_others());
        let unknown = SettingsByPeer::default();
        let peer_settings = match (self.naming.peer_settings(configured), own_timeout) {
            (Some(peer_settings), _) => peer_settings,
            (None, Some(_)) => &unknown,
            (None, None) => return,
        };
        let (of_others, own) = peer_settings.for_kernel(assumed);
        let own = own.filter_map(|(address, peer_settings)| Some((row(address.to_abi()?), peer_settings)));
        let wanted = own.chain([(row(abi::Address::ZERO), of_others)]).collect();
        // Who is not there any more needs none.
        let Some(owner) = self.owner(of.proxy) else { return };
        if let Err(error) = self.peer_settings.set(&mut self.tracer, of, owner, &wanted) {
            tracing::warn!(
                "set the timeouts of process {} in the kernel: {error}; what times out there may be reported as \
                 cancelled, or not at all: give the table more room with --table-size timeouts=N",
                abi::root_pid(of.proxy)
            );
        }
    }
}

/// Problems of one answer, as many as somebody reads: a configuration may name thousands of hosts that do not resolve.
fn in_one_line(problems: &[String]) -> Option<String> {
    const MAX_SAID: usize = 3;
    let said: Vec<_> = problems.iter().take(MAX_SAID).map(|problem| escape::shortened(problem)).collect();
    let more = match problems.len().saturating_sub(MAX_SAID) {
        0 => String::new(),
        more => format!("; and {more} more problems"),
    };
    (!said.is_empty()).then(|| said.join("; ") + &more)
}

/// So many generations back the newest known configuration is looked for.
const MOST_GENERATIONS: usize = 100;

/// The generations of these processes; one may come several times.
pub(super) fn with_processes(processes: &[(u32, Process)]) -> impl Iterator<Item = GenerationId> {
    processes.iter().map(|(_, process)| GenerationId { proxy: process.proxy, generation: process.generation })
}

/// The processes that may know the configuration of a generation: its own before others, masters before workers.
pub(super) fn pids(processes: &[(u32, Process)], of: GenerationId) -> Vec<u32> {
    let mut candidates: Vec<&(u32, Process)> =
        processes.iter().filter(|(_, process)| process.proxy == of.proxy).collect();
    let is_below = |process: &Process| process.flags & (Process::WORKER | Process::HELPER) != 0;
    candidates.sort_by_key(|(pid, process)| (process.generation != of.generation, is_below(process), *pid));
    candidates.into_iter().take(MOST_CANDIDATES).map(|(pid, _)| *pid).collect()
}

/// Each is looked at until one is an nginx.
const MOST_CANDIDATES: usize = 8;

#[cfg(test)]
mod tests {
    use super::in_one_line;

    #[test]
    fn many_problems_are_one_line() {
        let problems = |count: usize| (1..=count).map(|n| format!("host-{n}: no answer")).collect::<Vec<_>>();
        assert_eq!(in_one_line(&problems(0)), None);
        assert_eq!(in_one_line(&problems(2)).unwrap(), "host-1: no answer; host-2: no answer");
        let many = in_one_line(&problems(5000)).unwrap();
        assert_eq!(many, "host-1: no answer; host-2: no answer; host-3: no answer; and 4997 more problems");
        assert!(in_one_line(&["x".repeat(100_000)]).unwrap().len() < 3000);
    }
}
