//! Whether a change works, on what the new generation's connects do. Pure.
//!
//! A request that is answered by another peer than the first one tried hurts nobody. So an address that is dead while others of its
//! upstream work is a note, as long as it is not most of what the upstream does. What failed before as well is no fault of
//! the change, and a note.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(super) use fared::{Fared, causes, sum};
use proxytrace_ebpf::outcome::Broken;
use serde::Serialize;

use super::{
    options::Criteria,
    probed::Probed,
    seen::{Upstream, UpstreamKey},
};
use crate::model::{Counts, Declared, Finding, Kind, Severity};

mod fared;

/// Fewer failures prove nothing before the time is over.
const MIN_FAILURES: u64 = 3;
/// Among successes it takes more, and so many failures for each success.
const MIN_AMONG_SUCCESSES: (u64, u64) = (10, 9);
/// So many addresses are named.
const MAX_ADDRESSES: usize = 3;
/// Where a dead address takes a larger share of an upstream's connects, requests will have failed.
const MAX_DEAD_SHARE: f64 = 0.5;

/// Requests that have waited for so long, while none was answered, are not merely slow where answers came before.
const SILENT_MS: u32 = 5_000;

/// What happens by chance no more often than that is taken for the change's doing.
const BY_CHANCE: f64 = 1e-4;

/// How a change is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It works.
    Passed,
    /// It does not.
    Failed,
    /// Nobody has connected to what it is about.
    Unproven,
}

/// What it is judged by.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    /// What was counted.
    pub(super) upstreams: &'a BTreeMap<UpstreamKey, Upstream>,
    /// By proxy, what the configuration of the new generation names, where that is known.
    pub(super) declared: &'a BTreeMap<Arc<str>, Declared>,
    /// The proxies that have a new generation.
    pub(super) proxies: &'a BTreeSet<Arc<str>>,
    /// The upstreams that the change is about.
    pub(super) changed: &'a BTreeSet<UpstreamKey>,
    /// What it is about and leads where only a request says, as it is written; by proxy.
    pub(super) open: &'a BTreeSet<(Arc<str>, Arc<str>)>,
    /// What was found since it began.
    pub(super) findings: &'a [Finding],
    /// What probes have shown.
    pub(super) probes: &'a [Probed],
    /// How much of the time has passed, at most 1.
    pub(super) elapsed: f64,
    /// Whether the time is over.
    pub(super) is_over: bool,
}

/// What was made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judgement {
    /// `None` while that is not certain.
    pub(super) verdict: Option<Verdict>,
    /// Why it is not passed: sentences.
    pub(super) reasons: Vec<String>,
    /// What else is worth knowing.
    pub(super) notes: Vec<String>,
}

/// Judges it.
pub(super) fn judge(criteria: &Criteria, evidence: &Evidence<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    let blamed = findings(evidence, &mut judgement);
    for (key, upstream) in evidence.upstreams {
        if !is_covered(&blamed, &key.1) {
            judge_upstream(criteria, key, upstream, evidence, &mut judgement);
        }
    }
    demands(criteria, evidence, &mut judgement);
    let unproven = unproven(criteria, evidence, &mut judgement);
    judgement.verdict = match (judgement.reasons.is_empty(), evidence.is_over) {
        (false, _) => Some(Verdict::Failed),
        (true, false) => None,
        (true, true) if unproven.is_empty() => Some(Verdict::Passed),
        (true, true) if criteria.allow_unproven => {
            judgement.notes.extend(unproven);
            Some(Verdict::Passed)
        }
        (true, true) => {
            judgement.reasons = unproven;
            Some(Verdict::Unproven)
        }
    };
    judgement
}

/// Whether one of the names of a row (`api,web`) is among these.
fn is_covered(names: &BTreeSet<Arc<str>>, row: &str) -> bool {
    names.contains(row) || row.split(',').any(|name| names.contains(name))
}

/// Takes over what was found: what hurts users is a reason, the rest a note. Gives the upstreams that this says enough of.
fn findings(evidence: &Evidence<'_>, judgement: &mut Judgement) -> BTreeSet<Arc<str>> {
    let mut blamed = BTreeSet::new();
    for finding in evidence.findings {
        let subject = &finding.subject;
        let upstream = subject.upstream.as_ref();
        let seen =
            upstream.and_then(|name| evidence.upstreams.get(&(Arc::clone(&subject.proxy), Arc::clone(name))));
        let failed_before = seen.is_some_and(|seen| sum(seen.before()).is_dead());
        // Where requests are taken and not answered, nginx waits for long before it asks a neighbour.
        let hurts = finding.severity == Severity::Critical || subject.kind == Kind::NoResponse;
        if !hurts || failed_before {
            judgement.notes.push(finding.to_string());
        } else {
            judgement.reasons.push(finding.to_string());
            blamed.extend(upstream.cloned());
        }
    }
    blamed
}

fn judge_upstream(
    criteria: &Criteria,
    (_, name): &UpstreamKey,
    upstream: &Upstream,
    &Evidence { elapsed, is_over, .. }: &Evidence<'_>,
    judgement: &mut Judgement,
) {
    let new = || upstream.sides().map(|sides| &sides.new);
    if judge_answers(name, upstream, is_over, judgement) || is_over && judge_left(name, upstream, judgement) {
        return;
    }
    let whole = sum(new());
    let before = sum(upstream.before());
    let in_words = || {
        let failed = whole.bad + whole.stuck;
        let failing = upstream.addresses.iter().filter(|(_, sides)| Fared::of(&sides.new).ratio() > 0.0);
        let mut failing: Vec<_> = failing.map(|(address, _)| address.to_string()).collect();
        if failing.len() > MAX_ADDRESSES {
            let more = failing.len() - MAX_ADDRESSES;
            failing.truncate(MAX_ADDRESSES);
            failing.push(format!("{more} more"));
        }
        let (causes, failing) = (causes(new()), failing.join(", "));
        let of = whole.good + failed;
        format!("upstream \"{name}\": {failed} of {of} connects failed ({causes}; {failing})")
    };
    if whole.good == 0 {
        let is_certain =
            whole.bad + whole.stuck >= MIN_FAILURES && new().map(Fared::of).all(|fared| !fared.is_open());
        let is_failed = is_certain || is_over && whole.is_dead();
        match is_failed && before.is_dead() {
            _ if !is_failed => {}
            true => judgement.notes.push(in_words() + "; so it did before"),
            false => judgement.reasons.push(in_words()),
        }
        return;
    }
    // At least so many failures, and they are mostly those of the change.
    let allowed = criteria.max_failure_ratio + before.ratio();
    let living = sum(new().filter(|counts| !Fared::of(counts).is_dead()));
    // Before the time is over it is certain where the ratio will be over its limit even if nothing fails from now on, at as many
    // connects a second as until now.
    let is_over_limit =
        |part: f64| living.ratio() * part > allowed || whole.ratio() * part > allowed.max(MAX_DEAD_SHARE);
    let (least, for_each) = MIN_AMONG_SUCCESSES;
    let is_certain = match is_over {
        true => is_over_limit(1.0),
        false if whole.bad < least => false,
        false if whole.bad >= whole.good.saturating_mul(for_each) => is_over_limit(1.0),
        false => is_over_limit(elapsed),
    };
    if is_certain && whole.bad + whole.stuck >= MIN_FAILURES {
        judgement.reasons.push(in_words());
    } else if is_over {
        for (address, sides) in upstream.addresses.iter().filter(|(_, sides)| Fared::of(&sides.new).is_dead())
        {
            let fared = Fared::of(&sides.new);
            let (failed, causes) = (fared.bad + fared.stuck, causes([&sides.new]));
            judgement.notes.push(format!(
                "upstream \"{name}\": {address} fails ({causes}; {failed} of {failed} connects); its other addresses work"
            ));
        }
    }
}

/// Whether requests are taken and not answered, at whatever address: that is all that is said of the upstream then. Where nobody
/// has seen how long answers take, as those to long polls, it is a note.
fn judge_answers(name: &str, upstream: &Upstream, is_over: bool, judgement: &mut Judgement) -> bool {
    let is_silent = |counts: &Counts| counts.answered == 0 && counts.waiting.oldest_ms >= SILENT_MS;
    let silent: Vec<_> = upstream.addresses.iter().filter(|(_, sides)| is_silent(&sides.new)).collect();
    let waiting: u64 = silent.iter().map(|(_, sides)| u64::from(sides.new.waiting.connections)).sum();
    let answered: u64 = upstream.before().map(|before| before.answered).sum();
    let in_words = || {
        let addresses: Vec<_> = silent.iter().map(|(address, _)| address.to_string()).collect();
        let oldest = silent.iter().map(|(_, sides)| sides.new.waiting.oldest_ms).max().unwrap_or(0);
        format!(
            "upstream \"{name}\": {} takes requests and does not answer; {waiting} wait, the oldest for {} s",
            addresses.join(", "),
            oldest / 1000
        )
    };
    match answered > 0 {
        true if waiting >= MIN_FAILURES || is_over && waiting > 0 => judgement.reasons.push(in_words()),
        false if is_over && waiting > 0 => {
            judgement.notes.push(in_words() + "; how it was before is not known");
            return false;
        }
        _ => return false,
    }
    true
}

/// The same where no client waits for so long, or the proxy does not: what was left is no connect that failed. Only when the time is over,
/// as what was just started is slow at first.
fn judge_left(name: &str, upstream: &Upstream, judgement: &mut Judgement) -> bool {
    let timed_out = |counts: &Counts| counts.broken[Broken::ResponseTimeout as usize];
    let [answered, left, timeouts] =
        upstream.before().fold([0, 0, 0], |[answered, left, timeouts], before| {
            [answered + before.answered, left + before.abandoned, timeouts + timed_out(before)]
        });
    // As often as requests were left before.
    let share = (left + timeouts + 1) as f64 / (answered + left + timeouts + 2) as f64;
    let is_left = |counts: &Counts| {
        let all = counts.abandoned + timed_out(counts);
        let is_by_chance = answered > 0 && share.powf(all as f64) > BY_CHANCE;
        // One that the proxy itself gave up is an error to its client.
        let has_timed_out = answered > 0 && timeouts == 0 && timed_out(counts) > 0;
        counts.answered == 0 && (all >= MIN_FAILURES && !is_by_chance || has_timed_out)
    };
    let all: Vec<_> = upstream.addresses.iter().filter(|(_, sides)| is_left(&sides.new)).collect();
    if all.is_empty() {
        return false;
    }
    let sum = |of: fn(&Counts) -> u64| all.iter().map(|(_, sides)| of(&sides.new)).sum::<u64>();
    let (left, timeouts) = (sum(|counts| counts.abandoned), sum(timed_out));
    let addresses: Vec<_> = all.iter().map(|(address, _)| address.to_string()).collect();
    let in_words = format!(
        "upstream \"{name}\": {} takes requests and answers none; clients have left {left} of them, and {timeouts} timed out",
        addresses.join(", ")
    );
    if answered > 0 {
        judgement.reasons.push(in_words);
        return true;
    }
    judgement.notes.push(in_words + "; how it was before is not known");
    false
}

/// What must be connected to, and what must not.
fn demands(criteria: &Criteria, evidence: &Evidence<'_>, judgement: &mut Judgement) {
    let Evidence { declared, proxies, is_over, .. } = evidence;
    for name in &criteria.expected {
        let is_known = proxies.iter().all(|proxy| declared.contains_key(proxy)) && !proxies.is_empty();
        let is_declared = declared.values().any(|declared| declared.upstreams.contains_key(&**name));
        if is_known && !is_declared {
            judgement.reasons.push(format!(
                "upstream \"{name}\" was expected, and the configuration has none of that name"
            ));
        } else if *is_over && connects(evidence, name).good == 0 {
            let reason = format!("upstream \"{name}\" was expected, and no connect to it succeeded");
            judgement.reasons.push(reason);
        }
    }
    for name in &criteria.forbidden {
        let rows = evidence.upstreams.iter().filter(|((_, row), _)| {
            let is_expected = |one: &str| criteria.expected.iter().any(|expected| expected == one);
            row.split(',').any(|one| one == name) && !row.split(',').any(is_expected)
        });
        let attempts: u64 =
            rows.flat_map(|(_, upstream)| upstream.sides()).map(|sides| sides.new.attempts).sum();
        if attempts > 0 {
            judgement.reasons.push(format!(
                "upstream \"{name}\" was forbidden, and new workers connected to it {attempts} times"
            ));
        }
    }
}

/// What the new generations' connects to an upstream did, by its name or by its addresses: an address that several upstreams have
/// goes by the names of all.
fn connects(evidence: &Evidence<'_>, name: &str) -> Fared {
    let rows = evidence.upstreams.iter().flat_map(|((proxy, row), upstream)| {
        let declared = evidence.declared.get(proxy);
        let is_named = row.split(',').any(|one| one == name);
        let is_meant = move |address| is_named || declared.is_some_and(|all| all.has(name, address));
        upstream.addresses.iter().filter(move |(address, _)| is_meant(address)).map(|(_, sides)| &sides.new)
    });
    sum(rows)
}

/// What nobody has connected to, in sentences.
fn unproven(criteria: &Criteria, evidence: &Evidence<'_>, judgement: &mut Judgement) -> Vec<String> {
    let needed = criteria.min_connects.unwrap_or(1);
    let mut unproven = Vec::new();
    for (proxy, name) in evidence.changed {
        let fared = connects(evidence, name);
        let probes = || evidence.probes.iter().filter(|probe| probe.is_of(proxy, name));
        let (well, all) = (probes().filter(|probe| probe.is_well()).count(), probes().count());
        let failed = probes().filter(|probe| !probe.is_well());
        if fared.good >= needed || criteria.min_connects.is_none() && well > 0 {
            // The real ones say more than a probe.
            if fared.good == 0 {
                judgement.notes.extend(failed.map(|probe| format!("{probe}; other addresses of it work")));
            }
            // A service that accepts and then hangs, or answers nonsense, passes a probe.
            if evidence.is_over && fared.good == 0 {
                judgement.notes.push(format!(
                    "upstream \"{name}\": no request has connected to it; that guard's own connect succeeded is all that proves it"
                ));
            }
        } else if fared.good == 0 && all > 0 && well == 0 {
            judgement.reasons.extend(failed.map(Probed::to_string));
        } else {
            let seen = match fared.good {
                0 => "no connect to it succeeded".to_owned(),
                good => format!("{good} of the {needed} connects that were asked for succeeded"),
            };
            unproven.push(format!("upstream \"{name}\" is not proven: {seen}"));
        }
    }
    for (proxy, text) in evidence.open {
        let declared = evidence.declared.get(proxy);
        let is_declared = |row: &str| {
            row.split(',').any(|name| declared.is_some_and(|all| all.upstreams.contains_key(name)))
        };
        let rows = evidence.upstreams.iter().filter(|((of, row), _)| of == proxy && !is_declared(row));
        let good = sum(rows.flat_map(|(_, upstream)| upstream.sides()).map(|sides| &sides.new)).good;
        if good < needed {
            unproven.push(format!(
                "{text} is not proven: only a request says where it leads, and {good} connects of such succeeded"
            ));
        }
    }
    for proxy in evidence.proxies.iter().filter(|proxy| !evidence.declared.contains_key(*proxy)) {
        let rows = evidence.upstreams.iter().filter(|((of, _), _)| of == proxy);
        let good = sum(rows.flat_map(|(_, upstream)| upstream.sides()).map(|sides| &sides.new)).good;
        if good < needed {
            unproven.push(format!(
                "{proxy} is not proven: its configuration is not known, and {good} connects succeeded"
            ));
        }
    }
    unproven
}

#[cfg(test)]
mod tests;
