//! What a running trace knows at one moment.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use proxytrace_ebpf::abi::{Loss, Row};

use crate::kernel::tables::Filled;
use crate::model::{Clock, Key, Severity, Subject, Traced, UpstreamKey, Waiting};
#[cfg(test)]
use crate::model::{Entry, SeriesStore};

/// What a running trace knows at one moment.
#[derive(Clone, Debug)]
pub struct View {
    /// What is traced.
    pub traced: Traced,
    /// What was counted, and of what is declared.
    pub series: BTreeMap<Key, Row>,
    /// What waits for an answer, where anything does, by series.
    pub waiting: BTreeMap<Key, Waiting>,
    /// When something was last answered on connections that stay, as looks have found it.
    pub answered: BTreeMap<Key, Timestamp>,
    /// What series counted that have gone away, of upstreams that have others.
    pub departed: BTreeMap<UpstreamKey, Row>,
    /// Both sides of the last reload, of each upstream of the proxies that were reloaded.
    pub sides: BTreeMap<UpstreamKey, Sides>,
    /// The addresses that the newest known configurations name.
    pub declared: Vec<Key>,
    /// What is wrong.
    pub findings: Vec<(Subject, Severity)>,
    /// The proxies that have processes.
    pub proxies: BTreeMap<Arc<str>, ProxyView>,
    /// What could not be followed, index [`Loss`].
    pub losses: [u64; Loss::ALL.len()],
    /// How full the tables in the kernel are.
    pub tables: Vec<Filled>,
    /// How often findings left out counts for want of room.
    pub findings_left_out: u64,
    /// Bytes of proxies' logs that were not read.
    pub log_bytes_skipped: u64,
    /// What the kernel holds in memory for the programs and tables, in bytes, if it says.
    pub memory_bytes: Option<u64>,
    /// How often the kernel has skipped one of the programs because another was running on that CPU, if it says.
    pub recursion_misses: Option<u64>,
    /// From the kernel half's clock to the time of day.
    pub clock: Clock,
}

/// A side of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Workers of the configuration before it.
    Old,
    /// Those of the newest.
    New,
}

/// What workers of each side counted, index [`Side`].
pub type Sides = [Row; 2];

/// What is known of one proxy.
#[derive(Clone, Debug, Default)]
pub struct ProxyView {
    /// What its process is called.
    pub process: String,
    /// The first of its processes that run, in the host's pid namespace: the master.
    pub pid: u32,
    /// Its processes below the master.
    pub workers: u64,
    /// Of these, the ones that run an earlier configuration.
    pub old_workers: u64,
    /// How often it was reloaded since it has been known.
    pub generation: u32,
    /// Reloads that were asked for and that it did not take.
    pub rejected: u64,
    /// When the generation was last raised, boot time in nanoseconds; 0 for never.
    pub reloaded_ns: u64,
    /// Workers that a signal ended.
    pub crashes: u64,
    /// Whether its upstreams can be named; `None` for what is no nginx.
    pub names_ready: Option<bool>,
    /// What it is.
    pub info: ProxyInfo,
}

/// What a proxy is. Empty where that is not known, or does not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyInfo {
    /// The path of its program.
    pub exe: String,
    /// The path of its configuration, as it sees it.
    pub config: String,
    /// Its systemd unit.
    pub unit: String,
    /// Its namespace in Kubernetes.
    pub namespace: String,
    /// Its pod there.
    pub pod: String,
    /// The name of its container there, else the first 12 digits of its container's id.
    pub container: String,
    /// Who says what it is called: see [`crate::identity::Source`].
    pub name_source: &'static str,
}

impl View {
    /// What was counted of each upstream, and never falls as long as it has a series.
    #[must_use]
    pub fn sums(&self) -> BTreeMap<UpstreamKey, Row> {
        sums(&self.series, &self.departed)
    }
}

/// What was counted of each upstream, of which these are the series.
pub fn sums(
    series: &BTreeMap<Key, Row>,
    departed: &BTreeMap<UpstreamKey, Row>,
) -> BTreeMap<UpstreamKey, Row> {
    let mut sums = departed.clone();
    for (key, row) in series {
        sums.entry(key.of_upstream()).or_insert(Row::ZERO).add(row);
    }
    sums
}

#[cfg(test)]
impl View {
    /// A view of what these rows counted, with room for as many addresses, and of nothing else.
    pub(crate) fn of(rows: &[Entry], clock: Clock) -> Self {
        let all = rows.iter().map(|Entry { key, owner, row }| (key.clone(), *owner, row));
        let series = SeriesStore::new(rows.len(), u64::MAX).view(all, &[]);
        Self {
            traced: Traced::default(),
            series,
            waiting: BTreeMap::new(),
            answered: BTreeMap::new(),
            departed: BTreeMap::new(),
            sides: BTreeMap::new(),
            declared: Vec::new(),
            findings: Vec::new(),
            proxies: BTreeMap::new(),
            losses: Default::default(),
            tables: Vec::new(),
            findings_left_out: 0,
            log_bytes_skipped: 0,
            memory_bytes: None,
            recursion_misses: None,
            clock,
        }
    }
}
