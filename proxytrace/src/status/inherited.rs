//! What an agent before this one saw, as far as it still holds: a finding stands until the contrary is seen, also when the agent is started
//! anew. Nothing in the kernel outlives an agent, so the contrary is what was counted since this one began.

use std::sync::Arc;

use proxytrace_ebpf::{abi::Row, outcome::Outcome};

use super::{
    Standing,
    make::{Seen, reloaded},
};
use crate::{
    history::{Known, Last, Left},
    model::{Finding, Key, Kind, Record},
    watch::View,
};

/// So many handshakes without a new finding refute one about how long they take.
const MANY: u64 = 20;

impl Seen {
    /// Adds what an agent before this one saw last, and gives what of that still holds, and what went.
    #[must_use]
    pub fn inherit(&mut self, mut last: Last) -> (Last, Vec<Record>) {
        let Self { time, started, view, findings, reloads, .. } = self;
        let mut gone = Vec::new();
        last.findings.retain(|Left { finding, .. }| {
            // From now on this agent says how long it stands.
            if findings.iter().any(|own| own.seen.is_none() && own.finding.subject == finding.subject) {
                return false;
            }
            let known = last.proxies.get(&finding.subject.proxy);
            let because = end(finding, known, view, *started);
            gone.extend(because.map(|because| finding.gone(*time, because)));
            because.is_none()
        });
        last.proxies.retain(|name, known| view.proxies.get(name).is_none_or(|now| now.pid == known.pid));
        for Left { finding, seen, severe_since } in &last.findings {
            if view.proxies.contains_key(&finding.subject.proxy) {
                findings.push(Standing {
                    sentence: finding.to_string(),
                    finding: finding.clone(),
                    seen: Some(seen.unwrap_or(last.time)),
                    severe_since: *severe_since,
                });
            }
        }
        let known = last.proxies.iter().filter(|(name, _)| view.proxies.contains_key(*name));
        reloads.extend(known.filter_map(|(name, known)| Some((Arc::clone(name), known.reloaded?))));
        (last, gone)
    }

    /// What an agent after this one is to know, in that boot of the host.
    #[must_use]
    pub fn last(&self, boot: Arc<str>) -> Last {
        let proxies = self.view.proxies.iter().map(|(name, proxy)| {
            let reloaded = reloaded(name, proxy, &self.view, &self.reloads);
            (Arc::clone(name), Known { pid: proxy.pid, reloaded })
        });
        let left = |Standing { finding, seen, severe_since, .. }: &Standing| Left {
            finding: finding.clone(),
            seen: *seen,
            severe_since: *severe_since,
        };
        Last {
            time: self.time,
            boot,
            findings: self.findings.iter().map(left).collect(),
            proxies: proxies.collect(),
        }
    }
}

/// Why a finding of an agent before does not stand any more; `None` where it does.
fn end(finding: &Finding, known: Option<&Known>, view: &View, started: bool) -> Option<&'static str> {
    match (view.proxies.get(&finding.subject.proxy), known) {
        (Some(now), Some(known)) if now.pid == known.pid => {
            is_refuted(finding, view).then_some("an agent that began later has seen the contrary")
        }
        (Some(_), _) => Some("the proxy was started anew while no agent ran"),
        (None, _) if started => Some("the proxy has ended while no agent ran"),
        // One that has no name yet may be found in a moment.
        (None, _) => None,
    }
}

/// Whether the contrary was seen.
fn is_refuted(finding: &Finding, view: &View) -> bool {
    let subject = &finding.subject;
    let address: Option<Arc<str>> = subject.address.as_ref().map(|address| address.to_string().into());
    let is_about = |key: &Key| {
        key.proxy == subject.proxy
            && subject.upstream.as_ref().is_none_or(|upstream| *upstream == key.upstream)
            && address.as_ref().is_none_or(|address| *address == key.address)
    };
    let rows = || view.series.iter().filter(|(key, _)| is_about(key)).map(|(_, row)| row);
    let established = || rows().map(|row| row.outcome(Outcome::Established)).sum::<u64>();
    let Some(proxy) = view.proxies.get(&subject.proxy) else { return true };
    let is_declared = || view.declared.iter().any(is_about);
    let is_taken_away = || address.is_some() && proxy.names_ready == Some(true) && !is_declared();
    match subject.kind {
        Kind::UndeclaredDestination => is_declared(),
        Kind::SilentUpstream => rows().any(|row| row.attempts > 0),
        Kind::ReloadRejected => proxy.generation > 0,
        Kind::NoWorkers => proxy.workers > 0,
        Kind::WrongService | Kind::NoResponse => rows().any(|row| row.answered > 0) || is_taken_away(),
        Kind::SlowConnect | Kind::Overloaded => established() >= MANY || is_taken_away(),
        Kind::ProxyDown => works_again(view, &subject.proxy),
        _ => established() > 0 || is_taken_away(),
    }
}

/// Whether a third of what a proxy connects to works.
fn works_again(view: &View, proxy: &Arc<str>) -> bool {
    let sums = view.sums();
    let used = || sums.iter().filter(|((of, _), row)| of == proxy && row.attempts > 0).map(|(_, row)| row);
    let works = |row: &&Row| row.outcome(Outcome::Established) > 0;
    let (working, all) = (used().filter(works).count(), used().count());
    all > 0 && working * 3 >= all
}
