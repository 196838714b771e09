//! What fails a change and what does not: tables of counts, findings and probes.

use std::collections::{BTreeMap, BTreeSet};

use proxytrace_ebpf::outcome::{Broken, Outcome};

use super::{Criteria, Evidence, Fared, Judgement, Kind, Severity, Verdict, judge};
use crate::{
    guard::{
        probed::Probed,
        seen::{Sides, Upstream},
    },
    model::{Counts, Declared, Finding},
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
            "left" => counts.abandoned += n,
            "timeouts" => counts.broken[Broken::ResponseTimeout as usize] += n,
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
    open: &'static [&'static str],
    elapsed: f64,
    is_over: bool,
    is_known: bool,
}

fn case() -> Case {
    Case {
        criteria: Criteria::default(),
        findings: Vec::new(),
        probes: Vec::new(),
        changed: &["api"],
        open: &[],
        elapsed: 1.0,
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
        let mut upstreams: BTreeMap<_, Upstream> = BTreeMap::new();
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
            upstreams.entry((PROXY.into(), name.into())).or_default().addresses.insert(address, sides);
        }
        let declared = self.is_known.then(|| (PROXY.into(), declared)).into_iter().collect();
        let evidence = Evidence {
            upstreams: &upstreams,
            declared: &declared,
            proxies: &BTreeSet::from([PROXY.into()]),
            changed: &self.changed.iter().map(|name| (PROXY.into(), (*name).into())).collect(),
            open: &self.open.iter().map(|text| (PROXY.into(), (*text).into())).collect(),
            findings: &self.findings,
            probes: &self.probes,
            elapsed: self.elapsed,
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
fn a_partial_failure_is_certain_once_no_success_to_come_would_make_up_for_it() {
    let at = |elapsed: f64| Case { is_over: false, elapsed, ..case() };
    let quarter = "api 80 | established 9 | established 100 broken 25";
    at(0.39).check(quarter, None, &[], &[]);
    at(0.41).check(quarter, Some(Verdict::Failed), &["25 of 100"], &[]);
    // It would pass in the end if it went on like this, or recovered.
    at(0.99).check("api 80 | | established 100 broken 10", None, &[], &[]);
    // Few prove nothing before.
    at(0.9).check("api 80 | | established 19 broken 9", None, &[], &[]);
    // A dead address of which a neighbour takes the requests is a note in the end.
    at(0.99).check("api 80 | | established 60 \n api 81 | | refused 40", None, &[], &[]);
    at(0.99).check(
        "api 80 | | established 40 \n api 81 | | refused 60",
        Some(Verdict::Failed),
        &["60 of 100"],
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
fn requests_that_all_clients_leave_where_answers_came_before_have_failed() {
    let passed = Some(Verdict::Passed);
    let with = |before: &str, row: &str| {
        format!("api 80 | established 99 {before} | \n api 81 | | established 40 {row}")
    };
    let hung = "upstream \"api\": 10.0.0.5:81 takes requests and answers none; clients have left 30 of them";
    case().check(
        &with("answered 90 left 2", "left 30 waiting 9 ms 2900"),
        Some(Verdict::Failed),
        &[hung],
        &[],
    );
    case().check(&with("answered 90", "left 3"), Some(Verdict::Failed), &["clients have left 3"], &[]);
    let timeout = "clients have left 0 of them, and 1 timed out";
    case().check(&with("answered 90", "timeouts 1"), Some(Verdict::Failed), &[timeout], &[]);
    case().check(&with("answered 90 timeouts 1", "timeouts 1"), passed, &[], &[]);
    case().check(&with("answered 90", "answered 1 timeouts 1"), passed, &[], &[]);
    // It may still be slow only, and a few clients may leave anything.
    let open = Case { is_over: false, ..case() };
    open.check(&with("answered 90", "left 30"), None, &[], &[]);
    case().check(&with("answered 90", "left 2"), passed, &[], &[]);
    case().check(&with("answered 2", "left 3"), passed, &[], &[]);
    case().check(&with("answered 90", "left 30 answered 1"), passed, &[], &[]);
    // Clients leave long polls, also before the change.
    case().check(&with("answered 9 left 80", "left 30"), passed, &[], &[]);
    case().check(&with("", "left 30"), passed, &[], &["how it was before is not known"]);
}

#[test]
fn requests_that_wait_where_answers_came_before_have_failed() {
    let open = Case { is_over: false, ..case() };
    let hung = "upstream \"api\": 10.0.0.5:81 takes requests and does not answer; 9 wait, the oldest for 5 s";
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
    let strict =
        Case { criteria: Criteria { max_failure_ratio: 0.0, ..Criteria::default() }, changed: &[], ..case() };
    strict.check(
        "api 80 | established 30 | established 40 refused 4",
        Some(Verdict::Failed),
        &["4 of 44"],
        &[],
    );
}

#[test]
fn one_of_two_dead_peers_is_a_note_and_most_of_them_a_failure() {
    let note = "upstream \"api\": 10.0.0.5:81 fails (refused 2; 2 of 2 connects); its other addresses work";
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
    // Neighbours answer instead.
    finding.severity = Severity::Warning;
    of(&finding).check("api 81 | | refused 7 \n api 80 | | established 7", None, &[], &["misrouted: "]);
    of(&finding).check("api 81 | | refused 7", Some(Verdict::Failed), &["7 of 7"], &["misrouted: "]);
    // nginx waits for those first.
    finding.subject.kind = Kind::NoResponse;
    of(&finding).check("api 80 | | established 7", Some(Verdict::Failed), &["no_response: "], &[]);
}

#[test]
fn what_nobody_connects_to_is_not_proven() {
    let none = "web 90 | established 9 | ";
    let words = "upstream \"api\" is not proven: no connect to it succeeded";
    case().check(none, Some(Verdict::Unproven), &[words], &[]);
    let allowed = Case { criteria: Criteria { allow_unproven: true, ..Criteria::default() }, ..case() };
    allowed.check(none, Some(Verdict::Passed), &[], &[words]);
    let probes =
        |outcomes: &[(u16, &str)]| outcomes.iter().map(|(port, outcome)| probed(*port, outcome)).collect();
    let well = Case { probes: probes(&[(80, "established"), (81, "refused")]), ..case() };
    let alone = "no request has connected to it";
    well.check(none, Some(Verdict::Passed), &[], &["10.0.0.5:81", alone]);
    well.check("api 80 | | established 1", Some(Verdict::Passed), &[], &[]);
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
    // What only a request says, only a request proves.
    let open = Case { changed: &[], open: &["http://$http_x"], ..case() };
    let words = "http://$http_x is not proven: only a request says where it leads";
    open.check("", Some(Verdict::Unproven), &[words], &[]);
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
