//! What a subscriber knows that has read the agent's lines: as if it traced by itself, from the first line on.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{Change, Configured, Runs};
use crate::{
    declared::Configuration,
    model::{Address, Body, Counted, Counts, Finding},
    session::Update,
    watch::Running,
};

/// What is known of the proxies whose processes have one of some names.
#[derive(Debug)]
pub struct Mirror {
    processes: BTreeSet<String>,
    /// Whether it is known what runs, and how that is configured.
    pub has_started: bool,
    /// The proxies that run.
    pub running: Vec<Running>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// The proxies that were asked to reload, where it is not known what became of that.
    pub reloading: BTreeSet<Arc<str>>,
    configurations: BTreeMap<u64, Configuration>,
    /// Proxies of other names.
    others: BTreeSet<Arc<str>>,
    /// What was counted before the first line.
    before: HashMap<Row, Counts>,
    has_begun: bool,
}

/// A proxy with its first process, a generation, and a destination.
type Row = (Arc<str>, u32, u32, Arc<str>, Address);

impl Mirror {
    /// Nothing yet, and later what is about processes of these names.
    #[must_use]
    pub fn new(processes: BTreeSet<String>) -> Self {
        Self {
            processes,
            has_started: false,
            running: Vec::new(),
            findings: Vec::new(),
            reloading: BTreeSet::new(),
            configurations: BTreeMap::new(),
            others: BTreeSet::new(),
            before: HashMap::new(),
            has_begun: false,
        }
    }

    /// Takes a line, and gives what has happened by that.
    pub fn take(&mut self, change: Change) -> Update {
        let Change { whole, started, tick, entered, mut records, configurations, running, .. } = change;
        self.has_started = started;
        for Configured { number, configuration, addresses } in configurations {
            self.configurations.insert(number, Configuration { resolved: addresses, ..configuration });
        }
        if let Some(running) = running {
            self.note_running(running);
        }
        self.findings = change.findings.unwrap_or(std::mem::take(&mut self.findings));
        self.reloading = change.reloading.unwrap_or(std::mem::take(&mut self.reloading));
        let is_first = whole.is_some() && !std::mem::replace(&mut self.has_begun, true);
        records.retain_mut(|record| match &mut record.body {
            Body::Counts(counted) if is_first => {
                self.before.insert(row(counted), counted.counts.clone());
                false
            }
            Body::Counts(counted) => {
                self.leave_out_what_was_before(counted);
                !self.others.contains(&counted.proxy)
            }
            _ => true,
        });
        Update { records, entered, is_tick: tick || whole.is_some() }
    }

    fn note_running(&mut self, all: Vec<Runs>) {
        let used: BTreeSet<_> = all.iter().filter_map(|runs| runs.configuration).collect();
        self.configurations.retain(|number, _| used.contains(number));
        let is_meant = |runs: &Runs| self.processes.contains(&runs.process);
        let (meant, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_meant);
        self.others = others.into_iter().map(|runs| runs.of.proxy).collect();
        let running = |runs: Runs| {
            let Runs { of, process, master, workers, is_read, configuration } = runs;
            let configuration = configuration.and_then(|number| self.configurations.get(&number)).cloned();
            Running { of, process, master, workers, is_read, configuration }
        };
        self.running = meant.into_iter().map(running).collect();
    }

    fn leave_out_what_was_before(&mut self, counted: &mut Counted) {
        let row = row(counted);
        let Some(before) = self.before.get(&row) else { return };
        // The kernel had forgotten the row, and it began anew.
        if counted.counts.attempts < before.attempts {
            self.before.remove(&row);
        } else {
            counted.counts = counted.counts.since(before);
        }
    }
}

fn row(Counted { proxy, pid, generation, upstream, address, .. }: &Counted) -> Row {
    (Arc::clone(proxy), *pid, *generation, Arc::clone(upstream), address.clone())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Change, Configured, Counted, Counts, Mirror, Runs};
    use crate::{
        declared::{Addresses, Configuration},
        feed::Whole,
        model::{Body, Generation, Record},
        nginx::tests::routes_of,
    };

    fn counts(attempts: u64) -> Record {
        let counts = Counts { attempts, ..Counts::default() };
        let (upstream, address) = ("api".into(), "10.0.0.5:80".parse().unwrap());
        let (proxy, hint) = ("nginx".into(), None);
        let counted = Counted { proxy, pid: 7, generation: 0, upstream, address, hint, counts };
        Record { body: Body::Counts(counted), ..serde_json::from_str(TICK).unwrap() }
    }

    const TICK: &str = r#"{"time":"2026-11-22T06:39:51Z","kind":"tick"}"#;

    fn runs(process: &str, configuration: Option<u64>) -> Runs {
        let of = Generation { proxy: process.into(), pid: 7, number: 0 };
        Runs { of, process: process.to_owned(), master: 7, workers: vec![8], is_read: true, configuration }
    }

    fn configured(number: u64) -> Configured {
        let routes = routes_of("http { server { listen 80; location / { proxy_pass http://app; } } }");
        let configuration = Configuration {
            path: PathBuf::from("/etc/nginx/nginx.conf"),
            exe: PathBuf::from("/usr/sbin/nginx"),
            routes: routes.into(),
            changed: None,
            resolved: Addresses::new(),
        };
        let addresses = Addresses::from([("app".to_owned(), vec![([10, 0, 0, 1], 0).into()])]);
        Configured { number, configuration, addresses }
    }

    fn whole() -> Change {
        Change { whole: Some(Whole { pid_namespace: 1 }), ..Change::default() }
    }

    /// As it comes over the socket.
    fn sent(change: &Change) -> Change {
        serde_json::from_str(&serde_json::to_string(change).unwrap()).unwrap()
    }

    #[test]
    fn what_was_counted_before_the_first_line_is_left_out() {
        let mut mirror = Mirror::new(["nginx".to_owned()].into());
        let mut attempts = |change: Change| {
            let records = mirror.take(sent(&change)).records;
            let counted = records.iter().filter_map(|record| match &record.body {
                Body::Counts(counted) => Some(counted.counts.attempts),
                _ => None,
            });
            counted.collect::<Vec<_>>()
        };
        let with = |attempts| vec![counts(attempts)];
        assert_eq!(attempts(Change { records: with(100), ..whole() }), [0; 0]);
        assert_eq!(attempts(Change { records: with(103), ..Change::default() }), [3]);
        assert_eq!(attempts(Change { records: with(110), ..whole() }), [10], "a whole line came again");
        assert_eq!(attempts(Change { records: with(5), ..Change::default() }), [5], "the row began anew");
        assert_eq!(attempts(Change { records: with(250), ..Change::default() }), [250]);
    }

    #[test]
    fn what_runs_is_known_with_its_configuration_until_a_line_says_otherwise() {
        let mut mirror = Mirror::new(["nginx".to_owned()].into());
        let running = Some(vec![runs("nginx", Some(1)), runs("haproxy", None)]);
        mirror.take(sent(&Change { running, configurations: vec![configured(1)], ..whole() }));
        let known = mirror.running[0].configuration.clone().unwrap();
        assert_eq!((mirror.running.len(), known.resolved.len()), (1, 1));
        mirror.take(sent(&Change { tick: true, started: true, ..Change::default() }));
        assert!(mirror.has_started && mirror.running[0].configuration.as_ref() == Some(&known));
        mirror.take(sent(&Change { running: Some(Vec::new()), ..Change::default() }));
        assert!(mirror.running.is_empty() && mirror.configurations.is_empty());
    }
}
