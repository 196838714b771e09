//! Waits for what a change brings, and watches it until it is certain whether it works.

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{
    changes,
    interrupts::Interrupts,
    known::{Configurations, Known, differences},
    options::Criteria,
    probe,
    probed::Probed,
    report::{self, Row},
    seen::UpstreamKey,
    verdict::{Evidence, Judgement, Verdict, judge},
    watching::Watching,
};
use crate::{
    model::{Declared, Finding, Generation},
    watch::Running,
};

/// A new configuration is read by then, or will not be.
const READING: Duration = Duration::from_secs(10);
/// What was asked for at the end of a command shows by then.
const ASKED: Duration = Duration::from_millis(50);
/// `no_workers` has nginx's own words, and comes a little later than what shows that none is left.
const WORDS: Duration = Duration::from_millis(700);

/// What is asked of a change.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub(super) criteria: &'a Criteria,
    /// How the proxies were configured, where that is known: what differs from any of these is to be proven.
    pub(super) before: &'a [&'a Configurations],
    /// How long the new generation is watched.
    pub(super) window: Duration,
    /// How long it is waited for.
    pub(super) timeout: Duration,
    /// Whether addresses are connected to.
    pub(super) probes: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) judgement: Judgement,
    pub(super) generations: Vec<Generation>,
    /// Since when the newest of them runs.
    pub(super) loaded: Option<Instant>,
    /// How they are configured.
    pub(super) configurations: Configurations,
    pub(super) changes: Option<Vec<String>>,
    pub(super) upstreams: Vec<Row>,
    pub(super) findings: Vec<Finding>,
    pub(super) probes: Vec<Probed>,
}

/// Watches until it is certain. A signal of `interrupts` ends it as a failure.
pub(super) async fn judged(
    watching: &mut Watching,
    interrupts: Option<&mut Interrupts>,
    question: &Question<'_>,
) -> Judged {
    let mut judging = Judging {
        question,
        started: Instant::now(),
        facts: Facts::default(),
        reloads: 0,
        probing: Probing::Not,
        lost: None,
    };
    let interrupted = async {
        match interrupts {
            Some(interrupts) => interrupts.next().await,
            None => future::pending().await,
        }
    };
    tokio::pin!(interrupted);
    let mut interrupted_by = None;
    let judgement = loop {
        judging.look(watching);
        if let Some(signal) = interrupted_by {
            break failure(format!("interrupted by {signal}"));
        }
        let is_open = (watching.is_reload_open() || judging.may_be_asked()) && !judging.is_overdue();
        if let Some(judgement) = judging.judgement(watching).filter(|_| !is_open) {
            break judgement;
        }
        let stepped = tokio::select! {
            stepped = watching.step() => stepped,
            () = sleep_until(judging.next_look()) => Ok(()),
            () = judging.probing.done() => Ok(()),
            signal = &mut interrupted => {
                interrupted_by = Some(signal);
                Ok(())
            }
        };
        if let Err(error) = stepped {
            break failure(format!("{error:#}"));
        }
    };
    judging.end(watching, judgement)
}

/// How much of the time has passed, by what was counted.
fn elapsed(since: Instant, ticked: Option<Instant>, window: Duration) -> f64 {
    let counted = ticked.map_or(Duration::ZERO, |ticked| ticked.saturating_duration_since(since));
    let part = counted.as_secs_f64() / window.as_secs_f64();
    if part.is_finite() { part.min(1.0) } else { 1.0 }
}

fn failure(reason: String) -> Judgement {
    Judgement { verdict: Some(Verdict::Failed), reasons: vec![reason], notes: Vec::new() }
}

struct Judging<'a> {
    question: &'a Question<'a>,
    started: Instant,
    facts: Facts,
    /// How often something was loaded.
    reloads: u32,
    probing: Probing,
    /// Since when no worker is left.
    lost: Option<Instant>,
}

/// What the new generations are.
#[derive(Debug, Default)]
struct Facts {
    generations: Vec<Generation>,
    /// Since when they run.
    since: Option<Instant>,
    /// How many configurations are known of them, and whether no more is awaited.
    read: (usize, bool),
    configurations: Configurations,
    declared: BTreeMap<Arc<str>, Declared>,
    changed: BTreeSet<UpstreamKey>,
    /// What is changed and leads where only a request says.
    open: BTreeSet<(Arc<str>, Arc<str>)>,
}

#[derive(Debug)]
enum Probing {
    Not,
    Under(JoinHandle<anyhow::Result<Vec<Probed>>>),
    Over(Vec<Probed>, Option<String>),
}

impl Probing {
    /// Waits until it is over; for ever where nothing is under way. Safe to cancel.
    async fn done(&mut self) {
        let Self::Under(task) = self else { return future::pending().await };
        *self = match task.await {
            Ok(Ok(probes)) => Self::Over(probes, None),
            Ok(Err(error)) => Self::Over(Vec::new(), Some(format!("not probed: {error:#}"))),
            Err(error) => Self::Over(Vec::new(), Some(format!("not probed: {error}"))),
        };
    }

    fn probes(&self) -> &[Probed] {
        match self {
            Self::Over(probes, _) => probes,
            Self::Not | Self::Under(_) => &[],
        }
    }

    fn stop(&mut self) {
        if let Self::Under(task) = std::mem::replace(self, Self::Not) {
            task.abort();
        }
    }
}

impl Judging<'_> {
    /// Takes up what is new about generations and their configurations.
    fn look(&mut self, watching: &Watching) {
        let running = &watching.generations;
        let generations: Vec<_> = running.values().map(|running| running.of.clone()).collect();
        if self.facts.generations != generations {
            self.probing.stop();
            // Of several proxies one comes after the other; that is no second time.
            let again = self
                .facts
                .generations
                .iter()
                .any(|of| generations.iter().any(|new| new.proxy == of.proxy && new != of));
            self.reloads += u32::from(again || self.facts.generations.is_empty());
            self.facts = Facts { generations, since: watching.loaded, ..Facts::default() };
        }
        let known = running.values().filter(|running| running.configuration.is_some()).count();
        let read = (known, running.values().all(|running| running.is_read));
        if self.facts.read != read {
            self.facts.read = read;
            self.take_configurations(running);
        }
        let is_read = read.1 || self.facts.since.is_some_and(|since| since.elapsed() >= READING);
        if is_read && self.question.probes && matches!(self.probing, Probing::Not) {
            self.probe(running);
        }
    }

    fn take_configurations(&mut self, running: &BTreeMap<Arc<str>, Running>) {
        let Facts { configurations, declared, changed, open, .. } = &mut self.facts;
        changed.clear();
        open.clear();
        for (proxy, running) in running {
            let Some(known) = Known::of(running) else { continue };
            let before: Vec<_> = self.question.before.iter().filter_map(|all| all.get(proxy)).collect();
            let routes: Vec<_> = before.iter().map(|before| &*before.routes).collect();
            let of_proxy = changes::open(&routes, &known.routes);
            open.extend(of_proxy.into_iter().map(|text| (Arc::clone(proxy), text.into())));
            let of_proxy = match before.is_empty() {
                true => known.changed(None),
                false => before.into_iter().flat_map(|before| known.changed(Some(before))).collect(),
            };
            changed.extend(of_proxy.into_iter().map(|name| (Arc::clone(proxy), name.into())));
            declared.insert(Arc::clone(proxy), Declared::new(&known.routes, &known.addresses));
            configurations.insert(Arc::clone(proxy), known);
        }
    }

    /// Connects to what is changed, from one of the new workers' place.
    fn probe(&mut self, running: &BTreeMap<Arc<str>, Running>) {
        let mut requests = Vec::new();
        for (proxy, known) in &self.facts.configurations {
            let changed = self.facts.changed.iter().filter(|(of, _)| of == proxy);
            let changed: BTreeSet<_> = changed.map(|(_, name)| name.to_string()).collect();
            if let Some(running) = running.get(proxy).filter(|_| !changed.is_empty()) {
                let pid = running.workers.first().copied().unwrap_or(running.master);
                let (routes, addresses) = (changes::only(&known.routes, &changed), known.addresses.clone());
                requests.push((Arc::clone(proxy), pid, routes, addresses));
            }
        }
        self.probing = match requests.is_empty() {
            true => Probing::Over(Vec::new(), None),
            false => Probing::Under(tokio::spawn(async move {
                let mut probes = Vec::new();
                for (proxy, pid, routes, addresses) in requests {
                    probes.extend(probe::all(&proxy, pid, routes, Some(addresses)).await?);
                }
                Ok(probes)
            })),
        };
    }

    /// Whether what runs was loaded before the command ended, which may have asked for more at its end.
    fn may_be_asked(&self) -> bool {
        self.facts.since.is_none_or(|since| since <= self.started) && self.started.elapsed() < ASKED
    }

    /// Whether it has taken longer than all that is waited for: whatever is still open is not waited for.
    fn is_overdue(&self) -> bool {
        self.started.elapsed() >= self.question.timeout + self.question.window
    }

    /// When it is to be looked at the latest.
    fn next_look(&self) -> Instant {
        let over = self
            .facts
            .since
            .map_or(self.started + self.question.timeout, |since| since + self.question.window);
        let soon = Instant::now() + Duration::from_millis(250);
        match over <= Instant::now() || self.lost.is_some() {
            _ if self.may_be_asked() => self.started + ASKED,
            true => soon,
            false => over,
        }
    }

    fn judgement(&mut self, watching: &Watching) -> Option<Judgement> {
        if let Some(rejection) = watching.rejection() {
            return Some(failure(rejection));
        }
        if let Some(lost) = watching.lost_workers() {
            let since = *self.lost.get_or_insert_with(Instant::now);
            let has_words = |finding: &Finding| finding.subject.kind.name() == "no_workers";
            let words = watching.findings().into_iter().find(has_words);
            if words.is_some() || since.elapsed() >= WORDS {
                return Some(failure(words.map_or(lost, |finding| finding.to_string())));
            }
            return None;
        }
        let Some(since) = self.facts.since.filter(|_| !self.facts.generations.is_empty()) else {
            let timeout = self.question.timeout;
            let is_late = self.started.elapsed() >= timeout;
            return is_late.then(|| {
                failure(format!("no new generation came within {} s (--timeout)", timeout.as_secs_f64()))
            });
        };
        let end = since + self.question.window;
        let is_settled = self.facts.read.1 || since.elapsed() >= READING;
        // What was counted until then is known after the next tick.
        let is_counted = watching.ticked.is_some_and(|ticked| ticked >= end);
        let is_over = is_counted && is_settled && !matches!(self.probing, Probing::Under(_));
        let upstreams = watching.seen.upstreams();
        let findings = watching.findings();
        let judgement = judge(
            self.question.criteria,
            &Evidence {
                upstreams: &upstreams,
                declared: &self.facts.declared,
                proxies: &self.facts.generations.iter().map(|of| Arc::clone(&of.proxy)).collect(),
                changed: &self.facts.changed,
                open: &self.facts.open,
                findings: &findings,
                probes: self.probing.probes(),
                elapsed: elapsed(since, watching.ticked, self.question.window),
                is_over,
            },
        );
        judgement.verdict.is_some().then_some(judgement)
    }

    fn end(mut self, watching: &Watching, mut judgement: Judgement) -> Judged {
        if self.reloads > 1 {
            judgement
                .notes
                .push("it was reloaded more than once; the newest generation is judged".to_owned());
        }
        judgement.notes.extend(watching.others.iter().map(|other| {
            format!("{other} took a new configuration meanwhile; it is no proxy of this change, and was not judged")
        }));
        if let Probing::Over(_, problem) = &self.probing {
            judgement.notes.extend(problem.clone());
        }
        let (upstreams, findings) = (watching.seen.upstreams(), watching.findings());
        let probes = self.probing.probes().to_vec();
        self.probing.stop();
        let Facts { generations, since, configurations, .. } = self.facts;
        let changes = self.question.before.first().and_then(|before| differences(before, &configurations));
        Judged {
            judgement,
            generations,
            loaded: since,
            configurations,
            changes,
            upstreams: report::rows(&upstreams),
            findings,
            probes,
        }
    }
}
