//! Findings on a live host: at each tick they are shown what has changed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    sync::Arc,
};

use jiff::Timestamp;
use proxytrace_ebpf::abi::{self, Event, Row, RowKey};

use super::{
    Watch, clock,
    configurations::with_processes,
    looks::Found,
    rejections::Rejection,
    rows::{Destination, RowName},
    workforce::{Exited, Turn},
};
use crate::{
    findings::{Findings, Input, Limits, Living},
    kernel::{Error, Snapshot},
    model::{
        Body, Change, Counted, Counts, Declaration, Declared, Finding, Generation, Gone, LastExit, Record,
        Workforce,
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
}

/// What findings are shown beside counts.
enum Happened {
    Accepted(Timestamp, GenerationId),
    Rejected(Timestamp, Rejection),
    Declared(Timestamp, GenerationId),
    /// With how the last worker ended, and when: boot time in nanoseconds.
    Workers(Timestamp, u64, Option<(LastExit, u64)>),
}

impl Happened {
    const fn proxy(&self) -> u64 {
        match self {
            Self::Accepted(_, of) | Self::Declared(_, of) => of.proxy,
            Self::Rejected(_, rejection) => rejection.proxy,
            Self::Workers(_, proxy, _) => *proxy,
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
            _ => Happened::Rejected(time, Rejection::of(event)),
        });
    }

    /// A proxy has no worker any more, or has some again.
    pub(super) fn workers_turned(&mut self, proxy: u64, turn: Turn) {
        self.happened.push_back(match turn {
            Turn::Gone(Exited { pid, status, time_ns, .. }) => {
                let (signal, code) = match abi::exit_signal(status) {
                    0 => (None, Some(abi::exit_code(status))),
                    signal => (Some(signal), None),
                };
                let exit = LastExit { pid, signal, code };
                Happened::Workers(clock().at(time_ns), proxy, Some((exit, time_ns)))
            }
            Turn::Over => Happened::Workers(Timestamp::now(), proxy, None),
        });
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
        records.extend(rows.into_iter().map(|row| Record { time, body: Body::Counts(row) }));
        records.extend(finding_records(time, changes));
        Ok(records)
    }

    /// Whether it is worth waiting for the reason of a rejection.
    fn lacks_reason(&self, happened: &Happened) -> bool {
        matches!(happened, Happened::Rejected(_, rejection) if self.lifecycle.lacks_reason(*rejection))
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
            Happened::Accepted(time, of) => {
                let of = self.generation(of)?;
                (time, self.detection.findings.observe(Input::Accepted { time, of }))
            }
            Happened::Rejected(time, rejection) => {
                let proxy = self.proxy_name(rejection.proxy)?;
                let reason = self.lifecycle.reason(rejection);
                (time, self.detection.findings.observe(Input::Rejected { time, proxy, reason }))
            }
            Happened::Declared(time, of) => {
                let Some((configuration, _)) = self.naming.configuration(of) else { return Ok(()) };
                let declared = Declared::new(&configuration.routes, &configuration.resolved.addresses);
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
            if seen_before.is_none_or(|(before, _)| before.answered < row.answered) && row.answered > 0 {
                answered.push(*key);
            }
            if seen_before == Some((row, found)) {
                self.detection.rows.insert(*key, (row, found));
            } else {
                rows.push((*key, row, found));
            }
        }
        // A row that is not there any more, and may come again, begins at zero then.
        let generations: HashSet<_> = with_processes(&snapshot.processes).collect();
        let gone = carried.into_keys().filter(|key| generations.contains(&of_row(key)));
        rows.extend(gone.map(|key| (key, Row::ZERO, Found::default())));
        answered.iter().for_each(|key| self.note_answered(key));
        let mut changed = Vec::new();
        let clock = clock();
        for (key, row, found) in rows {
            match self.name_row(&key)? {
                // It is looked at again.
                RowName::Pending => continue,
                // `~other` is many destinations: there are no findings about it.
                RowName::Ignored | RowName::Other { .. } => {}
                RowName::Destination(Destination { proxy, upstream, address, .. }) => {
                    let (pid, generation) = (abi::root_pid(key.proxy), key.generation);
                    let mut counts = Counts::of(&row, &clock);
                    found.add_to(&mut counts);
                    changed.push(Counted { proxy, pid, generation, upstream, address, counts });
                }
            }
            self.detection.rows.insert(key, (row, found));
        }
        Ok(changed)
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
