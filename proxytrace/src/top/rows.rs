//! The rows of the table: an upstream or an address each, sorted and filtered.

use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use crate::{
    model::{Counts, Severity},
    status::{Destination, State, Status, Upstream},
};

/// What rows are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum List {
    /// Upstreams.
    #[default]
    Upstreams,
    /// Each of their addresses.
    Addresses,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// What is worst.
    #[default]
    Trouble,
    /// What is connected to most.
    Rate,
    /// What fails most.
    Failed,
    /// Where most waits for an answer.
    Waiting,
    /// Where connects take longest.
    Slow,
    /// By the alphabet.
    Name,
}

impl Sort {
    /// All of them, in the order in which a key goes through them.
    pub const ALL: [Self; 6] =
        [Self::Trouble, Self::Rate, Self::Failed, Self::Waiting, Self::Slow, Self::Name];

    /// In words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Rate => "connects per second",
            Self::Failed => "failures",
            Self::Waiting => "waiting requests",
            Self::Slow => "p99",
            Self::Name => "name",
        }
    }
}

/// Which row that is, whatever else it says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowKey {
    pub(super) proxy: Arc<str>,
    pub(super) upstream: Arc<str>,
    /// Of one about an address.
    pub(super) address: Option<Arc<str>>,
}

/// A row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: RowKey,
    /// The place of its upstream in the status, and that of its address.
    upstream: usize,
    address: Option<usize>,
    pub(super) state: State,
    /// What is recent, and the time of that in seconds.
    pub(super) attempts: u64,
    pub(super) wrong: u64,
    pub(super) resent: u64,
    pub(super) seconds: f64,
    /// Requests that wait; of addresses that is not known one by one.
    pub(super) waiting: Option<u32>,
    pub(super) p99_us: Option<u64>,
}

/// A look that is long enough ago to compare counts with, and the one that takes its place.
#[derive(Debug, Default)]
pub(super) struct Baseline {
    old: Option<Status>,
    next: Option<Status>,
}

impl Baseline {
    /// Takes the status before the newest one.
    pub(super) fn take(&mut self, status: Status, age: SignedDuration) {
        match (&self.old, &self.next) {
            // Another agent counts from the beginning.
            (Some(old), _) if old.since != status.since => *self = Self { old: Some(status), next: None },
            (None, _) => self.old = Some(status),
            (Some(_), None) => self.next = Some(status),
            (Some(_), Some(next)) if status.time.duration_since(next.time) >= age => {
                self.old = self.next.replace(status);
            }
            _ => {}
        }
    }

    /// Since when what is recent was counted.
    fn since(&self, status: &Status) -> Timestamp {
        self.of(status).map_or(status.since, |old| old.time)
    }

    fn of(&self, status: &Status) -> Option<&Status> {
        self.old.as_ref().filter(|old| old.since == status.since)
    }
}

impl Row {
    /// The upstream in the status that the row was made of.
    pub(super) fn upstream<'a>(&self, status: &'a Status) -> Option<&'a Upstream> {
        status.upstreams.get(self.upstream)
    }

    /// What was counted there lately.
    pub(super) fn recent(&self, status: &Status, baseline: &Baseline) -> Counts {
        let Some(upstream) = self.upstream(status) else { return Counts::default() };
        match self.address.and_then(|place| upstream.addresses.get(place)) {
            None => upstream.recent.clone(),
            Some(to) => {
                let old = baseline.of(status).and_then(|old| {
                    let is_it =
                        |one: &&Upstream| one.upstream == upstream.upstream && one.proxy == upstream.proxy;
                    old.upstreams.iter().find(is_it)
                });
                let old = old.and_then(|old| old.addresses.iter().find(|one| one.address == to.address));
                old.map_or_else(|| to.counts.clone(), |old| to.counts.since(&old.counts))
            }
        }
    }
}

/// The rows of a status that pass the filter.
pub(super) fn rows(status: &Status, baseline: &Baseline, list: List, sort: Sort, filter: &str) -> Vec<Row> {
    let mut rows = match list {
        List::Upstreams => upstreams(status),
        List::Addresses => addresses(status, baseline),
    };
    let filter = filter.to_lowercase();
    let passes = |text: &str| text.to_lowercase().contains(&filter);
    rows.retain(|Row { key: RowKey { proxy, upstream, address }, state, .. }| {
        filter.is_empty()
            || passes(proxy)
            || passes(upstream)
            || passes(state.name())
            || address.as_deref().is_some_and(passes)
    });
    let trouble = |row: &Row| (row.state, Reverse((row.wrong, row.waiting, row.attempts)));
    match sort {
        Sort::Trouble => {
            rows.sort_by(|one, other| {
                trouble(one).cmp(&trouble(other)).then_with(|| one.key.cmp(&other.key))
            });
        }
        Sort::Rate => rows.sort_by_key(|row| Reverse(row.attempts)),
        Sort::Failed => rows.sort_by_key(|row| Reverse(row.wrong)),
        Sort::Waiting => rows.sort_by_key(|row| Reverse(row.waiting)),
        Sort::Slow => rows.sort_by_key(|row| Reverse(row.p99_us)),
        Sort::Name => rows.sort_by(|one, other| {
            let name = |row: &Row| (Arc::clone(&row.key.upstream), row.key.address.clone());
            name(one).cmp(&name(other))
        }),
    }
    rows
}

/// Whether only their proxies tell some of the rows apart.
pub(super) fn differ_by_proxy(rows: &[Row]) -> bool {
    let mut names = HashMap::new();
    rows.iter().any(|Row { key: RowKey { proxy, upstream, address }, .. }| {
        names.insert((upstream, address), proxy).is_some_and(|other| other != proxy)
    })
}

fn upstreams(status: &Status) -> Vec<Row> {
    let seconds = status.time.duration_since(status.recent_since).as_secs_f64();
    let row = |(place, of): (usize, &Upstream)| Row {
        key: RowKey { proxy: of.proxy.clone(), upstream: of.upstream.clone(), address: None },
        upstream: place,
        address: None,
        state: of.state,
        attempts: of.recent.attempts,
        wrong: of.recent.gone_wrong(),
        resent: of.recent.syn_retransmits,
        seconds,
        waiting: Some(of.waiting.connections),
        p99_us: of.connect_p99_us,
    };
    // What is counted elsewhere has a row there.
    status.upstreams.iter().enumerate().filter(|(_, of)| !of.all_shared).map(row).collect()
}

fn addresses(status: &Status, baseline: &Baseline) -> Vec<Row> {
    let seconds = status.time.duration_since(baseline.since(status)).as_secs_f64();
    let mut known: HashMap<(&str, &str, &str), &Counts> = HashMap::new();
    for of in baseline.of(status).into_iter().flat_map(|old| &old.upstreams) {
        known.extend(of.addresses.iter().map(|to| ((&*of.proxy, &*of.upstream, &*to.address), &to.counts)));
    }
    // Another proxy may have another host at that address.
    let worst: HashMap<(&str, String), Severity> = status
        .findings
        .iter()
        .rev()
        .filter_map(|standing| {
            let subject = &standing.finding.subject;
            Some(((&*subject.proxy, subject.address.as_ref()?.to_string()), standing.finding.severity))
        })
        .collect();
    let row = |(place, of): (usize, &Upstream), (index, to): (usize, &Destination)| {
        let old = known.get(&(&*of.proxy, &*of.upstream, &*to.address));
        let before = |count: fn(&Counts) -> u64| {
            let now = count(&to.counts);
            old.map_or(now, |old| now.saturating_sub(count(old)))
        };
        let (attempts, wrong) = (before(|counts| counts.attempts), before(Counts::gone_wrong));
        let state = match worst.get(&(&*of.proxy, to.address.to_string())) {
            Some(Severity::Critical) => State::Down,
            Some(Severity::Warning) => State::Failing,
            // What belongs to an upstream that is down, and only fails, is a part of that.
            _ if wrong > 0 && wrong >= attempts && of.state == State::Down => State::Down,
            _ if wrong > 0 => State::Failing,
            _ if attempts > 0 || to.is_in_use(status.time) => State::Ok,
            _ => State::Quiet,
        };
        Row {
            key: RowKey {
                proxy: of.proxy.clone(),
                upstream: of.upstream.clone(),
                address: Some(to.address.clone()),
            },
            upstream: place,
            address: Some(index),
            state,
            attempts,
            wrong,
            resent: before(|counts| counts.syn_retransmits),
            seconds,
            waiting: None,
            p99_us: None,
        }
    };
    let of_upstream = |of: (usize, &Upstream)| -> Vec<Row> {
        of.1.addresses.iter().enumerate().map(|to| row(of, to)).collect()
    };
    status.upstreams.iter().enumerate().filter(|(_, of)| !of.all_shared).flat_map(of_upstream).collect()
}
