//! Finds in a recording what was found while it was made: the facts are the same, and so are the functions.

use std::{collections::HashMap, mem, sync::Arc};

use jiff::Timestamp;

use super::{
    history::Limits,
    observe::{Findings, Input},
};
use crate::model::{Body, Change, Counted, Generation, Record, ReloadResult};

/// Findings of what records report.
#[derive(Debug)]
pub struct Replayed {
    findings: Findings,
    /// The rows of one tick, which have one time.
    rows: Vec<Counted>,
    time: Timestamp,
    /// The first process of each proxy, where records have reported it: reloads name the master, which may be another.
    roots: HashMap<Arc<str>, u32>,
}

impl Default for Replayed {
    fn default() -> Self {
        Self {
            findings: Findings::new(Limits::default()),
            rows: Vec::new(),
            time: Timestamp::UNIX_EPOCH,
            roots: HashMap::new(),
        }
    }
}

impl Replayed {
    /// Takes the next record, and gives the findings that came and went before it or by it.
    pub fn take(&mut self, record: &Record) -> Vec<Record> {
        let time = record.time;
        let is_of_same_tick = matches!(record.body, Body::Counts(_)) && time == self.time;
        let mut changes = if is_of_same_tick { Vec::new() } else { self.finish() };
        match &record.body {
            Body::Counts(counted) => {
                self.roots.insert(Arc::clone(&counted.proxy), counted.pid);
                self.rows.push(counted.clone());
                self.time = time;
            }
            Body::Declared(declaration) => {
                self.roots.insert(Arc::clone(&declaration.of.proxy), declaration.of.pid);
                let (of, declared) = (declaration.of.clone(), declaration.declared.clone());
                changes.extend(self.observe(time, Input::Declared { time, of, declared }));
            }
            Body::Workers(workforce) => {
                changes.extend(self.observe(time, Input::Workers { time, workforce: workforce.clone() }));
            }
            Body::Reload(reload) => {
                let proxy = Arc::clone(&reload.master.proxy);
                let pid = self.roots.get(&proxy).copied().unwrap_or(reload.master.pid);
                let input = match reload.result {
                    ReloadResult::Accepted => Input::Accepted {
                        time,
                        of: Generation { proxy, pid, number: reload.master.generation },
                    },
                    ReloadResult::Rejected => Input::Rejected { time, proxy, reason: reload.reason.clone() },
                };
                changes.extend(self.observe(time, input));
            }
            _ => {}
        }
        changes
    }

    /// There is no more record of the same moment.
    pub fn finish(&mut self) -> Vec<Record> {
        let rows = mem::take(&mut self.rows);
        if rows.is_empty() {
            Vec::new()
        } else {
            self.observe(self.time, Input::Tick { time: self.time, rows: &rows })
        }
    }

    fn observe(&mut self, time: Timestamp, input: Input<'_>) -> Vec<Record> {
        let record = |change: Change| Record { time, body: Body::Finding(change) };
        self.findings.observe(input).into_iter().map(record).collect()
    }
}
