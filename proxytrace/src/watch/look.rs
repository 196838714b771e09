//! Findings on a live host: from time to time what has changed is shown to them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
};

use jiff::Timestamp;
use proxytrace_ebpf::abi::{self, Event, Row, RowKey};

use super::{Watch, clock, configurations::with_processes, rejections::Rejection};
use crate::{
    findings::{Findings, Input, Limits, Living},
    kernel::{Error, Snapshot},
    model::{Body, Change, Counted, Counts, Declaration, Declared, Finding, Generation, Record},
    naming::of_row,
    reader::Of,
};

/// What findings know, and what they have not been told yet.
pub(super) struct Known {
    findings: Findings,
    /// Each row as it was at the last look.
    rows: HashMap<RowKey, Row>,
    /// What rows had counted that the kernel has forgotten, as long as they are there again: findings see counts that only rise.
    carried: HashMap<RowKey, Row>,
    /// What happened since then.
    happened: VecDeque<Happened>,
}

/// What findings are told beside counts.
enum Happened {
    Accepted(Timestamp, Of),
    Rejected(Timestamp, Rejection),
    Declared(Timestamp, Of),
}

impl Happened {
    const fn proxy(&self) -> u64 {
        match self {
            Self::Accepted(_, of) | Self::Declared(_, of) => of.proxy,
            Self::Rejected(_, rejection) => rejection.proxy,
        }
    }
}

/// What a look has brought.
#[derive(Debug, Default)]
pub struct Look {
    /// What it is based on, as records from which a replay finds the same.
    pub facts: Vec<Record>,
    /// Which findings came and went.
    pub changes: Vec<Record>,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            findings: Findings::new(Limits::default()),
            rows: HashMap::new(),
            carried: HashMap::new(),
            happened: VecDeque::new(),
        }
    }

    /// Whether findings have seen the row as it was at the last look.
    pub(super) fn has_seen(&self, key: &RowKey) -> bool {
        self.rows.contains_key(key)
    }

    /// The kernel has forgotten a row, with these counts.
    pub(super) fn carry(&mut self, key: &RowKey, row: &Row) {
        self.carried.entry(*key).or_insert(Row::ZERO).add(row);
    }

    /// The proxies of which something has happened that findings have not been told.
    pub(super) fn awaited(&self) -> impl Iterator<Item = u64> {
        self.happened.iter().map(Happened::proxy)
    }

    /// How often something was left out for want of room.
    pub(super) const fn left_out(&self) -> u64 {
        self.findings.left_out()
    }

    /// A reload was accepted or rejected.
    pub(super) fn reloaded(&mut self, time: Timestamp, event: &Event) {
        self.happened.push_back(match event.kind {
            Event::RELOADED => {
                Happened::Accepted(time, Of { proxy: event.proxy, generation: event.generation })
            }
            _ => Happened::Rejected(time, Rejection::of(event)),
        });
    }

    /// The configuration was read, or names in it were looked up again.
    pub(super) fn declared(&mut self, of: Of) {
        self.happened.push_back(Happened::Declared(Timestamp::now(), of));
    }
}

impl Watch {
    /// Shows findings what has changed. To be called a few times a second while something happens, and every second otherwise.
    ///
    /// # Errors
    /// A map could not be read.
    pub fn look(&mut self) -> Result<Look, Error> {
        let mut look = Look::default();
        let mut waiting = HashSet::new();
        for happened in mem::take(&mut self.known.happened) {
            let proxy = happened.proxy();
            // What comes after it is told after it.
            if waiting.contains(&proxy) || !self.names.is_settled(proxy) || self.lacks_reason(&happened) {
                waiting.insert(proxy);
                self.known.happened.push_back(happened);
            } else {
                self.tell(&happened, &mut look)?;
            }
        }
        let time = Timestamp::now();
        let snapshot = self.tracer.snapshot()?;
        let living = self.look_at(&snapshot);
        let rows = self.changed_rows(&snapshot, &living)?;
        self.known.findings.note_living(self.owners(&snapshot, &living));
        let changes = self.known.findings.observe(Input::Tick { time, rows: &rows });
        look.add_changes(time, changes);
        look.facts.extend(rows.into_iter().map(|row| Record { time, body: Body::Counts(row) }));
        self.keep_house(&snapshot, &living)?;
        Ok(look)
    }

    /// What is wrong now.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.known.findings.active()
    }

    /// Whether it is worth waiting for the reason of a rejection.
    fn lacks_reason(&self, happened: &Happened) -> bool {
        matches!(happened, Happened::Rejected(_, rejection) if self.rejections.is_pending(*rejection))
    }

    fn tell(&mut self, happened: &Happened, look: &mut Look) -> Result<(), Error> {
        let (time, changes) = match *happened {
            Happened::Accepted(time, of) => {
                let of = self.generation(of)?;
                (time, self.known.findings.observe(Input::Accepted { time, of }))
            }
            Happened::Rejected(time, rejection) => {
                let proxy = self.proxy_name(rejection.proxy)?;
                let reason = self.rejections.reason(rejection);
                (time, self.known.findings.observe(Input::Rejected { time, proxy, reason }))
            }
            Happened::Declared(time, of) => {
                let Some((configuration, _)) = self.naming.configuration(of) else { return Ok(()) };
                let declared = Declared::new(&configuration.routes, &configuration.addresses.of);
                let of = self.generation(of)?;
                let body = Body::Declared(Declaration::whole(of.clone(), declared.clone()));
                look.facts.push(Record { time, body });
                (time, self.known.findings.observe(Input::Declared { time, of, declared }))
            }
        };
        look.add_changes(time, changes);
        Ok(())
    }

    fn generation(&mut self, of: Of) -> Result<Generation, Error> {
        let proxy = self.proxy_name(of.proxy)?;
        Ok(Generation { proxy, pid: abi::root_pid(of.proxy), number: of.generation })
    }

    /// The rows that are not as they were at the last look, and whose upstreams are known.
    fn changed_rows(&mut self, snapshot: &Snapshot, living: &HashSet<u64>) -> Result<Vec<Counted>, Error> {
        self.note_unnamed(snapshot, living);
        let mut before = mem::take(&mut self.known.rows);
        let mut carried = mem::take(&mut self.known.carried);
        let mut rows = Vec::new();
        for (key, row) in &snapshot.rows {
            let mut row = *row;
            if let Some(more) = carried.remove(key) {
                row.add(&more);
                self.known.carried.insert(*key, more);
            }
            if before.remove(key) == Some(row) {
                self.known.rows.insert(*key, row);
            } else {
                rows.push((*key, row));
            }
        }
        // A row that is not there any more, and may come again, begins at zero then.
        let generations: HashSet<_> = with_processes(&snapshot.processes).collect();
        let gone = carried.into_keys().filter(|key| generations.contains(&of_row(key)));
        rows.extend(gone.map(|key| (key, Row::ZERO)));
        let mut changed = Vec::new();
        let clock = clock();
        for (key, row) in rows {
            let address = self.address(&key.address);
            // The row `~other` is many destinations: there are no findings about it.
            if !address.is_name_service() && !Snapshot::is_other(&key) {
                // One that has no name yet is looked at again.
                let Some(proxy) = self.names.given(key.proxy) else { continue };
                let Some(upstream) = self.upstream(&key, &address)? else { continue };
                let (pid, generation) = (abi::root_pid(key.proxy), key.generation);
                let counts = Counts::of(&row, &clock);
                changed.push(Counted { proxy, pid, generation, upstream, address, counts });
            }
            self.known.rows.insert(key, row);
        }
        Ok(changed)
    }

    /// The proxies that there are now, and whose they are.
    fn owners(&self, snapshot: &Snapshot, living: &HashSet<u64>) -> Living {
        let living = snapshot.proxies.iter().filter(|(id, _)| living.contains(id));
        living.filter_map(|(id, proxy)| Some((self.names.given(*id)?, proxy.owner))).collect()
    }
}

impl Look {
    fn add_changes(&mut self, time: Timestamp, changes: Vec<Change>) {
        self.changes.extend(changes.into_iter().map(|change| Record { time, body: Body::Finding(change) }));
    }
}
