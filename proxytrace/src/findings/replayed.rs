//! Finds in a recording what was found while it was made: the facts are the same, and so are the functions.

use std::{collections::HashMap, mem, sync::Arc};

use jiff::Timestamp;

use super::{
    history::Limits,
    observe::{Findings, Input},
};
use crate::model::{Body, Change, Counted, Finding, Generation, Record, Rejection, Reload, ReloadResult};

/// From this format on recordings have the records `generation` and `rejection`. Before that, findings are made of `reload`, which may be
/// earlier than findings were shown it.
const WITH_GENERATIONS: u32 = 2;

/// Findings of what records report.
#[derive(Debug)]
pub struct Replayed {
    findings: Findings,
    /// The rows of one tick, which have one time.
    rows: Vec<Counted>,
    time: Timestamp,
    /// The first process of each proxy, where records have reported it: reloads name the master, which may be another.
    roots: HashMap<Arc<str>, u32>,
    /// Whether all that it has of reloads is what people are shown.
    lacks_generations: bool,
}

impl Default for Replayed {
    fn default() -> Self {
        Self {
            findings: Findings::new(Limits::default()),
            rows: Vec::new(),
            time: Timestamp::UNIX_EPOCH,
            roots: HashMap::new(),
            lacks_generations: false,
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
            Body::Header(header) => self.lacks_generations = header.format < WITH_GENERATIONS,
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
            Body::Tick => changes.extend(self.observe(time, Input::Tick { time, rows: &[] })),
            Body::Complaints(complaints) => {
                changes
                    .extend(self.observe(time, Input::Complained { time, complaints: complaints.clone() }));
            }
            Body::Generation(of) => {
                changes.extend(self.observe(time, Input::Accepted { time, of: of.clone() }));
            }
            Body::Rejection(rejected) => {
                changes.extend(self.observe(time, Input::Rejected { time, rejected: rejected.clone() }));
            }
            Body::Reload(reload) if self.lacks_generations => {
                changes.extend(self.take_reload(time, reload));
            }
            _ => {}
        }
        changes
    }

    /// As findings were shown it, as far as the first format tells.
    fn take_reload(&mut self, time: Timestamp, reload: &Reload) -> Vec<Record> {
        let proxy = Arc::clone(&reload.master.proxy);
        let pid = self.roots.get(&proxy).copied().unwrap_or(reload.master.pid);
        let number = reload.master.generation;
        self.observe(
            time,
            match reload.result {
                ReloadResult::Accepted => Input::Accepted { time, of: Generation { proxy, pid, number } },
                ReloadResult::Rejected => {
                    let rejected = Rejection { proxy, reason: reload.reason.clone(), is_late: false };
                    Input::Rejected { time, rejected }
                }
            },
        )
    }

    /// What is wrong after the last record, each with the newest evidence.
    pub fn active(&self) -> impl Iterator<Item = &Finding> {
        self.findings.active()
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

#[cfg(test)]
mod tests {
    use super::Replayed;
    use crate::model::Record;

    /// How many proxies findings know after these lines.
    fn known(lines: &[&str]) -> usize {
        let mut replayed = Replayed::default();
        for line in lines {
            let line = line.replacen('{', r#"{"time":"2026-11-25T14:19:47Z","#, 1);
            let record: Record = serde_json::from_str(&line).unwrap();
            replayed.take(&record);
        }
        replayed.findings.proxies().count()
    }

    #[test]
    fn a_reload_is_taken_in_when_findings_were_shown_it() {
        let header = |format| {
            format!(
                r#"{{"kind":"header","format":{format},"host":"h","kernel":"k","version":"v","all":true}}"#
            )
        };
        let (first, second) = (header(1), header(2));
        let reload = r#"{"kind":"reload","proxy":"nginx","pid":7,"generation":1,"result":"accepted"}"#;
        let rejection = r#"{"kind":"rejection","proxy":"nginx"}"#;
        let generation = r#"{"kind":"generation","proxy":"nginx","pid":7,"generation":1}"#;
        assert_eq!(known(&[&second, reload]), 0);
        assert_eq!(known(&[&second, reload, generation]), 1);
        assert_eq!(known(&[&second, reload, rejection]), 1);
        assert_eq!(known(&[&first, reload]), 1, "the first format has nothing else");
    }
}
