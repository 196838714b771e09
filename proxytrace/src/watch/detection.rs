//! Findings on a live host: at each tick they are shown what has changed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use proxytrace_ebpf::abi::{self, Event, Row, RowKey};

use super::{
    Watch, clock,
    configurations::{pids, with_processes},
    hints::Hinted,
    looks::Found,
    rejections::Rejection,
    rows::{Destination, RowName},
    workforce::{Exited, Turn},
};
use crate::{
    findings::{Findings, Input, Limits, Living},
    kernel::{Error, Snapshot},
    model::{
        self, Address, Body, Change, Complaint, Complaints, Counted, Counts, Declaration, Declared, Finding,
        Generation, Gone, LastExit, Record, Workforce,
    },
    naming::of_row,
    reader::GenerationId,
};

/// What findings know, and what they have not been shown yet.
pub(super) struct Detection {
    findings: Findings,
    /// Each row as it was at the last tick, with what looks had found of its connections.
    rows: HashMap<RowKey, (Row, Found)>,
    /// What rows had counted that the kernel has forgotten, as long as they are there again: findings see counts that only rise.
    carried: HashMap<RowKey, Row>,
    /// What happened since then.
    happened: VecDeque<Happened>,
    /// The proxies without workers: since when, how the telling one ended, and when that was.
    without_workers: HashMap<u64, (Timestamp, LastExit, u64)>,
    /// Bytes of logs that were not read.
    log_bytes_skipped: u64,
}

/// What findings are shown beside counts.
enum Happened {
    Accepted(Timestamp, GenerationId),
    /// The second time when its reason is known that was not before.
    Rejected(Timestamp, Rejection, bool),
    Declared(Timestamp, GenerationId),
    /// With how the last worker ended, and when: boot time in nanoseconds.
    Workers(Timestamp, u64, Option<(LastExit, u64)>),
    /// What the proxy said of requests that failed before it connected.
    Complained(Timestamp, u64, Vec<Complaint>),
}

impl Happened {
    const fn proxy(&self) -> u64 {
        match self {
            Self::Accepted(_, of) | Self::Declared(_, of) => of.proxy,
            Self::Rejected(_, rejection, _) => rejection.proxy,
            Self::Workers(_, proxy, _) | Self::Complained(_, proxy, _) => *proxy,
        }
    }
}

impl Detection {
    pub(super) fn new() -> Self {
        Self {
            findings: Findings::new(Limits::default()),
            rows: HashMap::new(),
            carried: HashMap::new(),
            happened: VecDeque::new(),
            without_workers: HashMap::new(),
            log_bytes_skipped: 0,
        }
    }

    /// Whether findings have seen the row as it was at the last tick.
    pub(super) fn has_seen(&self, key: &RowKey) -> bool {
        self.rows.contains_key(key)
    }

    /// The kernel has forgotten a row, with these counts.
    pub(super) fn carry(&mut self, key: &RowKey, row: &Row) {
        self.carried.entry(*key).or_insert(Row::ZERO).add(row);
    }

    /// The proxies of which something has happened that findings have not been shown.
    pub(super) fn awaited(&self) -> impl Iterator<Item = u64> {
        self.happened.iter().map(Happened::proxy)
    }

    /// The proxies that findings keep anything of.
    pub(super) fn proxies(&self) -> impl Iterator<Item = &Arc<str>> {
        self.findings.proxies()
    }

    /// Nothing is kept of these proxies any more; what stands of them is cleared at the next tick.
    pub(super) fn forget(&mut self, gone: &HashSet<Arc<str>>) {
        self.findings.forget(gone);
    }

    /// Rows of a proxy are shown again, those whose connects may fail for reasons that are known now.
    pub(super) fn show_again(&mut self, proxy: u64) {
        // Nothing is asked about IPv4.
        const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        let is_ipv4 =
            |key: &RowKey| key.address.family == abi::FAMILY_INET && key.address.bytes.starts_with(&MAPPED);
        let may_be_meant = |key: &RowKey| key.proxy == proxy && !is_ipv4(key);
        self.rows.retain(|key, _| !may_be_meant(key));
    }

    /// What stands.
    pub(super) fn active(&self) -> impl Iterator<Item = &Finding> {
        self.findings.active()
    }

    /// How often something was left out for want of capacity.
    pub(super) const fn left_out(&self) -> u64 {
        self.findings.left_out()
    }

    /// A reload was accepted or rejected.
    pub(super) fn reloaded(&mut self, time: Timestamp, event: &Event) {
        self.happened.push_back(match event.kind {
            Event::RELOADED => {
                Happened::Accepted(time, GenerationId { proxy: event.proxy, generation: event.generation })
            }
            _ => Happened::Rejected(time, Rejection::of(event), false),
        });
    }

    /// A proxy has no worker any more, or has some again.
    pub(super) fn workers_turned(&mut self, proxy: u64, turn: Turn) {
        self.happened.push_back(match turn {
            Turn::Gone(since_ns, Exited { pid, status, time_ns }) => {
                let (signal, code) = match abi::exit_signal(status) {
                    0 => (None, Some(abi::exit_code(status))),
                    signal => (Some(signal), None),
                };
                let exit = LastExit { pid, signal, code };
                self.without_workers.insert(proxy, (clock().at(since_ns), exit.clone(), time_ns));
                Happened::Workers(clock().at(since_ns), proxy, Some((exit, time_ns)))
            }
            Turn::Over => {
                self.without_workers.remove(&proxy);
                Happened::Workers(Timestamp::now(), proxy, None)
            }
        });
    }

    /// It is known what a worker said last that ended then, boot time in nanoseconds: what stands is shown again with it.
    pub(super) fn last_words_known(&mut self, Rejection { proxy, asked_ns }: Rejection) {
        if let Some((time, exit, ended_ns)) = self.without_workers.get(&proxy)
            && *ended_ns == asked_ns
        {
            self.happened.push_back(Happened::Workers(*time, proxy, Some((exit.clone(), asked_ns))));
        }
    }

    /// It is known why a reload was rejected that was shown without.
    pub(super) fn reason_known(&mut self, rejection: Rejection) {
        self.happened.push_back(Happened::Rejected(Timestamp::now(), rejection, true));
    }

    /// A proxy said this in its log, of which so many bytes were not read.
    pub(super) fn complained(&mut self, proxy: u64, complaints: Vec<Complaint>, skipped_bytes: u64) {
        self.log_bytes_skipped = self.log_bytes_skipped.saturating_add(skipped_bytes);
        if !complaints.is_empty() {
            self.happened.push_back(Happened::Complained(Timestamp::now(), proxy, complaints));
        }
    }

    /// How many bytes of proxies' logs were not read, because there were too many.
    pub(super) const fn log_bytes_skipped(&self) -> u64 {
        self.log_bytes_skipped
    }

    /// The configuration was read, or names in it were looked up again.
    pub(super) fn declared(&mut self, of: GenerationId) {
        self.happened.push_back(Happened::Declared(Timestamp::now(), of));
    }
}

impl Watch {
    /// Shows findings what has changed since the last time. Gives what that was, as records from which a replay finds the same, and
    /// which findings came and went.
    ///
    /// # Errors
    /// A map could not be read.
    pub(super) fn detect(
        &mut self,
        snapshot: &Snapshot,
        living: &HashSet<u64>,
    ) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        let mut waiting = HashSet::new();
        for happened in mem::take(&mut self.detection.happened) {
            let proxy = happened.proxy();
            // What comes after it is shown after it.
            if waiting.contains(&proxy) || !self.names.is_settled(proxy) || self.lacks_reason(&happened) {
                waiting.insert(proxy);
                self.detection.happened.push_back(happened);
            } else {
                self.show(&happened, &mut records)?;
            }
        }
        let time = Timestamp::now();
        let rows = self.changed_rows(snapshot)?;
        self.detection.findings.note_living(self.owners(snapshot, living));
        let changes = self.detection.findings.observe(Input::Tick { time, rows: &rows });
        // A replay knows of no other turns of time than those with counts.
        let is_by_time = rows.is_empty() && !changes.is_empty();
        records.extend(is_by_time.then_some(Record { time, body: Body::Tick }));
        records.extend(rows.into_iter().map(|row| Record { time, body: Body::Counts(row) }));
        records.extend(finding_records(time, changes));
        Ok(records)
    }

    /// Whether it is worth waiting for the reason of a rejection.
    fn lacks_reason(&self, happened: &Happened) -> bool {
        match happened {
            Happened::Rejected(_, rejection, _) => self.lifecycle.lacks_reason(*rejection),
            Happened::Workers(_, proxy, Some((_, asked_ns))) => {
                self.lifecycle.lacks_last_words(Rejection { proxy: *proxy, asked_ns: *asked_ns })
            }
            _ => false,
        }
    }

    fn show(&mut self, happened: &Happened, records: &mut Vec<Record>) -> Result<(), Error> {
        let (time, changes) = match *happened {
            Happened::Workers(time, proxy, ref exit) => {
                let gone = exit.clone().map(|(exit, asked_ns)| Gone {
                    exit: Some(exit),
                    reason: self.lifecycle.reason(Rejection { proxy, asked_ns }),
                });
                let workforce = Workforce { proxy: self.proxy_name(proxy)?, gone };
                records.push(Record { time, body: Body::Workers(workforce.clone()) });
                (time, self.detection.findings.observe(Input::Workers { time, workforce }))
            }
            Happened::Complained(time, proxy, ref complaints) => {
                let complaints =
                    Complaints { proxy: self.proxy_name(proxy)?, complaints: complaints.clone() };
                records.push(Record { time, body: Body::Complaints(complaints.clone()) });
                (time, self.detection.findings.observe(Input::Complained { time, complaints }))
            }
            Happened::Accepted(time, of) => {
                let of = self.generation(of)?;
                records.push(Record { time, body: Body::Generation(of.clone()) });
                (time, self.detection.findings.observe(Input::Accepted { time, of }))
            }
            Happened::Rejected(time, rejection, is_late) => {
                let proxy = self.proxy_name(rejection.proxy)?;
                let reason = self.lifecycle.show_reason(rejection);
                let rejected = model::Rejection { proxy, reason, is_late };
                records.push(Record { time, body: Body::Rejection(rejected.clone()) });
                (time, self.detection.findings.observe(Input::Rejected { time, rejected }))
            }
            Happened::Declared(time, of) => {
                let Some((configuration, _)) = self.naming.configuration(of) else { return Ok(()) };
                let mut declared = Declared::new(&configuration.routes, &configuration.resolved);
                declared.is_open |= configuration.changed.is_some();
                declared.note_names(&configuration.routes, &self.naming.names_now(of));
                let of = self.generation(of)?;
                let body = Body::Declared(Declaration::whole(of.clone(), declared.clone()));
                records.push(Record { time, body });
                (time, self.detection.findings.observe(Input::Declared { time, of, declared }))
            }
        };
        records.extend(finding_records(time, changes));
        Ok(())
    }

    fn generation(&mut self, of: GenerationId) -> Result<Generation, Error> {
        let proxy = self.proxy_name(of.proxy)?;
        Ok(Generation { proxy, pid: abi::root_pid(of.proxy), number: of.generation })
    }

    /// The rows that are not as they were at the last tick, and whose names are known.
    fn changed_rows(&mut self, snapshot: &Snapshot) -> Result<Vec<Counted>, Error> {
        let mut before = mem::take(&mut self.detection.rows);
        let mut carried = mem::take(&mut self.detection.carried);
        let (mut rows, mut answered) = (Vec::new(), Vec::new());
        for (key, row) in &snapshot.rows {
            let mut row = *row;
            if let Some(more) = carried.remove(key) {
                row.add(&more);
                self.detection.carried.insert(*key, more);
            }
            let found = self.looks.found(key).copied().unwrap_or_default();
            let seen_before = before.remove(key);
            let seen_row = seen_before.map_or(Row::ZERO, |(before, _)| before);
            if row.answered > seen_row.answered {
                answered.push((*key, row.turns.saturating_sub(seen_row.turns)));
            }
            if seen_before == Some((row, found)) {
                self.detection.rows.insert(*key, (row, found));
            } else {
                let fails = seen_before.map_or(0, |(before, _)| before.failures()) < row.failures();
                rows.push((*key, row, found, fails));
            }
        }
        // A row that is not there any more, and may come again, begins at zero then.
        let generations: HashSet<_> = with_processes(&snapshot.processes).collect();
        let gone = carried.into_keys().filter(|key| generations.contains(&of_row(key)));
        rows.extend(gone.map(|key| (key, Row::ZERO, Found::default(), false)));
        answered.into_iter().for_each(|(key, answers)| self.note_answered(key, answers));
        let (mut changed, mut doubtful) = (Vec::new(), HashMap::<GenerationId, Vec<Address>>::new());
        let (clock, now) = (clock(), Instant::now());
        for (key, row, found, fails) in rows {
            match self.name_row(&key)? {
                // It is looked at again.
                RowName::Pending => continue,
                // `~other` is many destinations: there are no findings about it.
                RowName::Ignored | RowName::Other { .. } => {}
                RowName::Destination(Destination { proxy, upstream, address, .. }) => {
                    if fails {
                        self.naming.note_failing(of_row(&key), &address);
                    }
                    let (pid, generation) = (abi::root_pid(key.proxy), key.generation);
                    let mut counts = Counts::of(&row, &clock);
                    found.add_to(&mut counts);
                    let (hinted, asks) = self.hints.of(now, key.proxy, &address, &counts);
                    if asks {
                        doubtful.entry(of_row(&key)).or_default().push(address.clone());
                    }
                    // It is looked at again when there is an answer.
                    let Hinted::Known(hint) = hinted else { continue };
                    changed.push(Counted { proxy, pid, generation, upstream, address, hint, counts });
                }
            }
            self.detection.rows.insert(key, (row, found));
        }
        for (of, addresses) in doubtful {
            self.naming.ask_for_hints(of, pids(&snapshot.processes, of), addresses);
        }
        Ok(changed)
    }

    /// What was counted of each destination up to now, as far as it has a name.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn counted(&mut self) -> Result<Vec<Counted>, Error> {
        let (snapshot, clock) = (self.tracer.snapshot()?, clock());
        let mut all = Vec::new();
        for (key, row) in &snapshot.rows {
            let RowName::Destination(Destination { proxy, upstream, address, .. }) = self.name_row(key)?
            else {
                continue;
            };
            let mut row = *row;
            if let Some(more) = self.detection.carried.get(key) {
                row.add(more);
            }
            let mut counts = Counts::of(&row, &clock);
            self.looks.found(key).copied().unwrap_or_default().add_to(&mut counts);
            let (pid, generation) = (abi::root_pid(key.proxy), key.generation);
            all.push(Counted { proxy, pid, generation, upstream, address, hint: None, counts });
        }
        Ok(all)
    }

    /// The proxies that there are now, and whose they are.
    fn owners(&self, snapshot: &Snapshot, living: &HashSet<u64>) -> Living {
        let living = snapshot.proxies.iter().filter(|(id, _)| living.contains(id));
        living.filter_map(|(id, proxy)| Some((self.names.given(*id)?, proxy.owner))).collect()
    }
}

fn finding_records(time: Timestamp, changes: Vec<Change>) -> impl Iterator<Item = Record> {
    changes.into_iter().map(move |change| Record { time, body: Body::Finding(change) })
}
