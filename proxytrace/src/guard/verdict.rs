//! Whether a change works, on what the new generation's connects do. Pure.
//!
//! A request that is answered by another peer than the first one tried hurts nobody. So an address that is dead while others of its
//! upstream work is a note, as long as it is not most of what the upstream does. What failed before as well is no fault of
//! the change, and a note.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proxytrace_ebpf::outcome::{Broken, Outcome};
use serde::Serialize;

use super::{
    options::Criteria,
    probed::Probed,
    seen::{Sides, Upstream, UpstreamKey},
};
use crate::model::{Counts, Declared, Finding, Kind};

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

/// Findings that are no reason to take a change back: requests are answered, or it is what the change is meant to do.
const NOTES: [&str; 6] =
    ["address_down", "undeclared_destination", "silent_upstream", "slow_connect", "overloaded", "stale_name"];

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
    /// What was found since it began.
    pub(super) findings: &'a [Finding],
    /// What probes have shown.
    pub(super) probes: &'a [Probed],
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

/// How connects fared. Here, and nowhere else, it is decided what speaks for an upstream and what against it: requests that get
/// no answer count as connects that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fared {
    /// Established, and not seen to be of no use.
    pub(super) good: u64,
    /// Failed by no doing of the proxy's, or established and closed or reset unanswered.
    pub(super) bad: u64,
    /// Under way, and their SYN was sent again; only where nothing was established.
    pub(super) stuck: u64,
    /// Under way.
    pub(super) in_flight: u64,
}

impl Fared {
    pub(super) fn of(counts: &Counts) -> Self {
        let (established, unanswered) = (counts.established(), counts.unanswered());
        let cancelled = counts.outcome(Outcome::Cancelled);
        let failed = counts.ended().saturating_sub(established).saturating_sub(cancelled);
        let in_flight = counts.in_flight();
        Self {
            good: established.saturating_sub(unanswered),
            bad: failed.saturating_add(unanswered),
            stuck: if established == 0 { in_flight.min(counts.syn_retransmits) } else { 0 },
            in_flight,
        }
    }

    fn is_dead(self) -> bool {
        self.good == 0 && self.bad + self.stuck > 0
    }

    /// Whether it may still turn out to be well.
    fn is_open(self) -> bool {
        self.good == 0 && self.bad + self.stuck == 0 && self.in_flight > 0
    }

    /// The share of those that failed.
    fn ratio(self) -> f64 {
        let bad = self.bad + self.stuck;
        if bad == 0 { 0.0 } else { bad as f64 / (self.good + bad) as f64 }
    }
}

/// The sum over addresses.
pub(super) fn sum<'a>(
    upstream: impl IntoIterator<Item = &'a Sides>,
    side: impl Fn(&Sides) -> &Counts,
) -> Fared {
    upstream.into_iter().map(|sides| Fared::of(side(sides))).fold(Fared::default(), |one, other| Fared {
        good: one.good + other.good,
        bad: one.bad + other.bad,
        stuck: one.stuck + other.stuck,
        in_flight: one.in_flight + other.in_flight,
    })
}

/// The causes of what failed, the most frequent first.
pub(super) fn causes<'a>(counts: impl IntoIterator<Item = &'a Counts>) -> String {
    let mut causes: BTreeMap<&str, u64> = BTreeMap::new();
    for counts in counts {
        let is_failure = |outcome: &Outcome| !matches!(outcome, Outcome::Established | Outcome::Cancelled);
        for outcome in Outcome::ALL.into_iter().filter(is_failure) {
            *causes.entry(outcome.name()).or_default() += counts.outcome(outcome);
        }
        for broken in Broken::ALL {
            *causes.entry(broken.name()).or_default() += counts.broken[broken as usize];
        }
        let Fared { stuck, .. } = Fared::of(counts);
        *causes.entry("no answer yet").or_default() += stuck;
    }
    let mut causes: Vec<_> = causes.into_iter().filter(|(_, n)| *n > 0).collect();
    causes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    causes.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}

/// Judges it.
pub(super) fn judge(criteria: &Criteria, evidence: &Evidence<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    let blamed = findings(evidence, &mut judgement);
    for (key, upstream) in evidence.upstreams {
        if !is_covered(&blamed, &key.1) {
            judge_upstream(criteria, key, upstream, evidence.is_over, &mut judgement);
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

/// Takes over what was found. Gives the upstreams that this says enough of.
fn findings(evidence: &Evidence<'_>, judgement: &mut Judgement) -> BTreeSet<Arc<str>> {
    let mut blamed = BTreeSet::new();
    for finding in evidence.findings {
        let subject = &finding.subject;
        let upstream = subject.upstream.as_ref();
        let seen =
            upstream.and_then(|name| evidence.upstreams.get(&(Arc::clone(&subject.proxy), Arc::clone(name))));
        let failed_before = seen.is_some_and(|seen| sum(seen.values(), |sides| &sides.before).is_dead());
        // Its neighbours answer instead. Where requests are taken and not answered, nginx waits for long before it asks them.
        let is_silent = subject.kind == Kind::NoResponse;
        let has_others = !is_silent
            && seen.zip(subject.address.as_ref()).is_some_and(|(seen, address)| {
                let others = seen.iter().filter(|(other, _)| *other != address);
                sum(others.map(|(_, sides)| sides), |sides| &sides.new).good > 0
            });
        if NOTES.contains(&subject.kind.name()) || failed_before || has_others {
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
    is_over: bool,
    judgement: &mut Judgement,
) {
    let new = || upstream.values().map(|sides| &sides.new);
    if judge_answers(name, upstream, is_over, judgement) {
        return;
    }
    let whole = sum(upstream.values(), |sides| &sides.new);
    let before = sum(upstream.values(), |sides| &sides.before);
    let in_words = || {
        let failed = whole.bad + whole.stuck;
        let failing = upstream.iter().filter(|(_, sides)| Fared::of(&sides.new).ratio() > 0.0);
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
    let living = upstream.values().filter(|sides| !Fared::of(&sides.new).is_dead());
    let living = sum(living, |sides| &sides.new);
    let is_over_limit = living.ratio() > allowed || whole.ratio() > allowed.max(MAX_DEAD_SHARE);
    let (least, for_each) = MIN_AMONG_SUCCESSES;
    let is_certain = is_over || whole.bad >= least && whole.bad >= whole.good.saturating_mul(for_each);
    if is_over_limit && whole.bad + whole.stuck >= MIN_FAILURES && is_certain {
        judgement.reasons.push(in_words());
    } else if is_over {
        for (address, sides) in upstream.iter().filter(|(_, sides)| Fared::of(&sides.new).is_dead()) {
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
    let silent: Vec<_> = upstream.iter().filter(|(_, sides)| is_silent(&sides.new)).collect();
    let waiting: u64 = silent.iter().map(|(_, sides)| u64::from(sides.new.waiting.connections)).sum();
    let answered: u64 = upstream.values().map(|sides| sides.before.answered).sum();
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
            rows.flat_map(|(_, upstream)| upstream.values()).map(|sides| sides.new.attempts).sum();
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
        upstream.iter().filter(move |(address, _)| is_meant(address)).map(|(_, sides)| sides)
    });
    sum(rows, |sides| &sides.new)
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
    for proxy in evidence.proxies.iter().filter(|proxy| !evidence.declared.contains_key(*proxy)) {
        let rows = evidence.upstreams.iter().filter(|((of, _), _)| of == proxy);
        let good = sum(rows.flat_map(|(_, upstream)| upstream.values()), |sides| &sides.new).good;
        if good < needed {
            unproven.push(format!(
                "{proxy} is not proven: its configuration is not known, and {good} connects succeeded"
            ));
        }
    }
    unproven
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proxytrace_ebpf::outcome::{Broken, Outcome};

    use super::{Criteria, Evidence, Fared, Judgement, Verdict, judge};
    use crate::{
        guard::{probed::Probed, seen::Sides},
        model::{Counts, Declared, Finding, Kind},
    };

    const PROXY: &str = "nginx";

    /// `established 3 refused 2 broken 1 flight 1 resent 1`
    fn counts(text: &str) -> Counts {
        let mut counts = Counts::default();
        let words: Vec<_> = text.split_whitespace().collect();
        for pair in words.chunks(2) {
            let n: u64 = pair[1].parse().unwrap();
            match pair[0] {
                "flight" => counts.attempts += n,
                "resent" => counts.syn_retransmits += n,
                "answered" => counts.answered += n,
                "waiting" => counts.waiting.connections += n as u32,
                "ms" => counts.waiting.oldest_ms = n as u32,
                "broken" => counts.broken[Broken::ClosedBeforeResponse as usize] += n,
                name => {
                    let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == name).unwrap();
                    counts.outcomes[outcome as usize] += n;
                    counts.attempts += n;
                }
            }
        }
        counts
    }

    /// A case: lines of `upstream port | before | new`.
    struct Case {
        criteria: Criteria,
        findings: Vec<Finding>,
        probes: Vec<Probed>,
        changed: &'static [&'static str],
        is_over: bool,
        is_known: bool,
    }

    fn case() -> Case {
        Case {
            criteria: Criteria::default(),
            findings: Vec::new(),
            probes: Vec::new(),
            changed: &["api"],
            is_over: true,
            is_known: true,
        }
    }

    fn probed(port: u16, outcome: &str) -> Probed {
        Probed {
            proxy: PROXY.into(),
            upstream: "api".into(),
            place: "/etc/nginx/nginx.conf:4".to_owned(),
            address: format!("10.0.0.5:{port}").parse().unwrap(),
            outcome: outcome.to_owned(),
            meaning: "as it is".to_owned(),
            duration_us: 1,
        }
    }

    impl Case {
        fn judgement(&self, rows: &str) -> Judgement {
            let mut upstreams: BTreeMap<_, BTreeMap<_, Sides>> = BTreeMap::new();
            let mut declared = Declared::default();
            for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
                let [place, before, new] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
                let (name, port) = place.trim().split_once(' ').unwrap();
                let address: crate::model::Address = format!("10.0.0.5:{port}").parse().unwrap();
                for one in name.split(',') {
                    let upstream = declared.upstreams.entry(one.into()).or_default();
                    upstream.addresses.insert(address.clone(), "nginx.conf:1".into());
                }
                let sides = Sides { before: counts(before), old: Counts::default(), new: counts(new) };
                upstreams.entry((PROXY.into(), name.into())).or_default().insert(address, sides);
            }
            let declared = self.is_known.then(|| (PROXY.into(), declared)).into_iter().collect();
            let evidence = Evidence {
                upstreams: &upstreams,
                declared: &declared,
                proxies: &BTreeSet::from([PROXY.into()]),
                changed: &self.changed.iter().map(|name| (PROXY.into(), (*name).into())).collect(),
                findings: &self.findings,
                probes: &self.probes,
                is_over: self.is_over,
            };
            judge(&self.criteria, &evidence)
        }

        #[track_caller]
        fn check(&self, rows: &str, verdict: Option<Verdict>, reasons: &[&str], notes: &[&str]) {
            let judgement = self.judgement(rows);
            assert_eq!(judgement.verdict, verdict, "{judgement:?}");
            let match_all = |found: &[String], expected: &[&str]| {
                assert_eq!(found.len(), expected.len(), "{judgement:?}");
                for (found, expected) in found.iter().zip(expected) {
                    assert!(found.contains(expected), "{found:?} has no {expected:?}");
                }
            };
            match_all(&judgement.reasons, reasons);
            match_all(&judgement.notes, notes);
        }
    }

    #[test]
    fn a_total_failure_is_certain_at_once_and_a_success_after_the_window() {
        let open = Case { is_over: false, ..case() };
        open.check("api 80 | established 9 | established 200", None, &[], &[]);
        open.check("api 80 | established 9 | refused 2", None, &[], &[]);
        let words = "upstream \"api\": 3 of 3 connects failed (refused 3; 10.0.0.5:80)";
        open.check("api 80 | established 9 | refused 3", Some(Verdict::Failed), &[words], &[]);
        open.check("api 80 | | permission_denied 3", Some(Verdict::Failed), &["permission_denied 3"], &[]);
        // Another address of it is being tried.
        open.check("api 80 | | refused 3 \n api 81 | | flight 2", None, &[], &[]);
        open.check(
            "api 80 | | refused 3 \n api 81 | | flight 2 resent 2",
            Some(Verdict::Failed),
            &["5 of 5"],
            &[],
        );
        open.check("api 80 | | refused 3 \n api 81 | | established 1", None, &[], &[]);
        open.check("api 80 | | refused 90 established 10", Some(Verdict::Failed), &["90 of 100"], &[]);
        open.check("api 80 | | cancelled 30", None, &[], &[]);
        open.check("api 80 | | flight 200 resent 2", None, &[], &[]);
        open.check("api 80 | | flight 200 resent 3", Some(Verdict::Failed), &["no answer yet 3"], &[]);
        open.check("api 80 | | flight 1 resent 9", None, &[], &[]);
        case().check("api 80 | | established 1", Some(Verdict::Passed), &[], &[]);
        case().check("api 80 | established 50 | refused 1", Some(Verdict::Failed), &["1 of 1"], &[]);
        case().check(
            "api 80 | established 50 | flight 2 resent 1",
            Some(Verdict::Failed),
            &["no answer yet 1"],
            &[],
        );
    }

    #[test]
    fn connects_that_bring_no_answer_count_as_failed() {
        let open = Case { is_over: false, ..case() };
        let words = "4 of 4 connects failed (closed_before_response 4; 10.0.0.5:80)";
        open.check("api 80 | established 9 | established 4 broken 4", Some(Verdict::Failed), &[words], &[]);
        open.check("api 80 | established 9 | established 50 broken 4", None, &[], &[]);
        assert_eq!(Fared::of(&counts("established 5 broken 2")).good, 3);
    }

    #[test]
    fn requests_that_wait_where_answers_came_before_have_failed() {
        let open = Case { is_over: false, ..case() };
        let hung =
            "upstream \"api\": 10.0.0.5:81 takes requests and does not answer; 9 wait, the oldest for 5 s";
        let before = "api 80 | established 9 answered 9 | ";
        let with = |row: &str| format!("{before}\n{row}");
        open.check(&with("api 81 | | established 20 waiting 9 ms 5400"), Some(Verdict::Failed), &[hung], &[]);
        open.check(&with("api 81 | | established 20 waiting 9 ms 4900"), None, &[], &[]);
        // It is slow, and fine; or only some requests are.
        case().check(&with("api 81 | | established 20 waiting 9 ms 4900"), Some(Verdict::Passed), &[], &[]);
        case().check(
            &with("api 81 | | established 20 answered 2 waiting 9 ms 9000"),
            Some(Verdict::Passed),
            &[],
            &[],
        );
        case().check(
            &with("api 81 | | established 20 waiting 1 ms 9000"),
            Some(Verdict::Failed),
            &["1 wait"],
            &[],
        );
        // One of two: nginx waits for it.
        let both = "api 80 | established 9 answered 9 | established 9 answered 9 \n api 81 | | established 9 waiting 9 ms 5000";
        open.check(both, Some(Verdict::Failed), &["10.0.0.5:81"], &[]);
        // Long polls, perhaps.
        let polls = "api 81 | established 3 | established 9 waiting 9 ms 9000";
        case().check(polls, Some(Verdict::Passed), &[], &["how it was before is not known"]);
    }

    #[test]
    fn what_was_no_better_before_is_no_fault_of_the_change() {
        let note = "3 of 3 connects failed (refused 3; 10.0.0.5:80); so it did before";
        let proven = Case { changed: &[], ..case() };
        proven.check("api 80 | refused 5 | refused 3", Some(Verdict::Passed), &[], &[note]);
        // A third failed before, and does so now.
        proven.check(
            "api 80 | established 20 refused 10 | established 20 refused 11",
            Some(Verdict::Passed),
            &[],
            &[],
        );
        proven.check(
            "api 80 | established 30 | established 20 refused 11",
            Some(Verdict::Failed),
            &["11 of 31"],
            &[],
        );
        proven.check("api 80 | established 30 | established 40 refused 4", Some(Verdict::Passed), &[], &[]);
        let strict = Case {
            criteria: Criteria { max_failure_ratio: 0.0, ..Criteria::default() },
            changed: &[],
            ..case()
        };
        strict.check(
            "api 80 | established 30 | established 40 refused 4",
            Some(Verdict::Failed),
            &["4 of 44"],
            &[],
        );
    }

    #[test]
    fn one_of_two_dead_peers_is_a_note_and_most_of_them_a_failure() {
        let note =
            "upstream \"api\": 10.0.0.5:81 fails (refused 2; 2 of 2 connects); its other addresses work";
        let rows = "api 80 | established 9 | established 6 \n api 81 | | refused 2";
        case().check(rows, Some(Verdict::Passed), &[], &[note]);
        // Without max_fails each second request tries it first.
        let rows = "api 80 | | established 100 \n api 81 | | refused 50";
        case().check(rows, Some(Verdict::Passed), &[], &["50 of 50"]);
        let rows = "api 80 | | established 40 \n api 81 | | refused 41 \n api 82 | | refused 20";
        case().check(rows, Some(Verdict::Failed), &["61 of 101"], &[]);
    }

    #[test]
    fn a_finding_says_it_better_than_counts_and_does_not_count_against_living_neighbours() {
        let mut finding = Finding::sample();
        finding.subject.proxy = PROXY.into();
        finding.subject.address = Some("10.0.0.5:81".parse().unwrap());
        let of = |finding: &Finding| Case { findings: vec![finding.clone()], is_over: false, ..case() };
        let misrouted = of(&finding);
        misrouted.check("api 81 | | refused 7", Some(Verdict::Failed), &["misrouted: "], &[]);
        misrouted.check("api 81 | refused 7 | refused 7", None, &[], &["misrouted: ", "so it did before"]);
        misrouted.check("api 81 | | refused 7 \n api 80 | | established 7", None, &[], &["misrouted: "]);
        finding.subject.kind = Kind::SilentUpstream;
        of(&finding).check("api 80 | | established 7", None, &[], &["silent_upstream: "]);
    }

    #[test]
    fn what_nobody_connects_to_is_not_proven() {
        let none = "web 90 | established 9 | ";
        let words = "upstream \"api\" is not proven: no connect to it succeeded";
        case().check(none, Some(Verdict::Unproven), &[words], &[]);
        let allowed = Case { criteria: Criteria { allow_unproven: true, ..Criteria::default() }, ..case() };
        allowed.check(none, Some(Verdict::Passed), &[], &[words]);
        let probes = |outcomes: &[(u16, &str)]| {
            outcomes.iter().map(|(port, outcome)| probed(*port, outcome)).collect()
        };
        let well = Case { probes: probes(&[(80, "established"), (81, "refused")]), ..case() };
        well.check(none, Some(Verdict::Passed), &[], &["10.0.0.5:81"]);
        let dead = Case { probes: probes(&[(80, "refused")]), is_over: false, ..case() };
        dead.check(none, Some(Verdict::Failed), &["10.0.0.5:80"], &[]);
        // What real workers do says more.
        dead.check("api 80 | | established 1", None, &[], &[]);
        let wanting = Case {
            criteria: Criteria { min_connects: Some(3), ..Criteria::default() },
            probes: probes(&[(80, "established")]),
            ..case()
        };
        let words = "2 of the 3 connects that were asked for succeeded";
        wanting.check("api 80 | | established 2", Some(Verdict::Unproven), &[words], &[]);
        wanting.check("api,web 80 | | established 3", Some(Verdict::Passed), &[], &[]);
        let unknown = Case { changed: &[], is_known: false, ..case() };
        unknown.check(
            "unknown 80 | established 7 |",
            Some(Verdict::Unproven),
            &["configuration is not known"],
            &[],
        );
        unknown.check("unknown 80 | | established 1", Some(Verdict::Passed), &[], &[]);
        let unchanged = Case { changed: &[], ..case() };
        unchanged.check("", Some(Verdict::Passed), &[], &[]);
    }

    #[test]
    fn what_is_expected_must_be_used_and_what_is_forbidden_must_not() {
        let demanding = |is_over| Case {
            criteria: Criteria {
                expected: vec!["green".to_owned()],
                forbidden: vec!["blue".to_owned()],
                ..Criteria::default()
            },
            changed: &[],
            is_over,
            ..case()
        };
        demanding(true).check("green 80 | | established 1", Some(Verdict::Passed), &[], &[]);
        demanding(true).check("green 80 | | ", Some(Verdict::Failed), &["no connect to it succeeded"], &[]);
        demanding(false).check("green 80 | | ", None, &[], &[]);
        demanding(false).check("red 80 | | ", Some(Verdict::Failed), &["has none of that name"], &[]);
        let rows = "green 80 | | established 1 \n blue 81 | established 9 | established 2";
        demanding(false).check(rows, Some(Verdict::Failed), &["connected to it 2 times"], &[]);
        let rows = "blue,green 80 | | established 1";
        demanding(true).check(rows, Some(Verdict::Passed), &[], &[]);
    }
}
