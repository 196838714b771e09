//! What holds for all findings, whatever is seen.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proxytrace_ebpf::outcome::{Broken, Outcome};

use super::{Findings, Input, Limits};
use crate::model::{
    Address, Change, Complaint, Complaints, Counted, Counts, Declared, Generation, Hint, Lack, Rejection,
    State, Subject, Upstream, Waiting,
};

const LIMITS: Limits = Limits { proxies: 3, generations: 3, addresses: 8 };

/// Something that may be seen, made of small numbers so that things meet; and of large ones.
#[derive(Clone, Debug)]
enum Seen {
    Tick(Vec<(u8, u32, u32, u8, u8, Counts)>),
    Accepted(u8, u32, u32),
    Rejected(u8),
    Declared(u8, u32, u32, Vec<(u8, u8)>),
    Complained(u8, Vec<(usize, u64)>),
}

fn address(n: u8) -> Address {
    format!("10.0.0.{n}:80").parse().unwrap()
}

fn name(n: u8) -> std::sync::Arc<str> {
    ["api", "web", "undeclared", "unknown", "api,web"]
        .get(usize::from(n))
        .map_or_else(|| n.to_string(), ToString::to_string)
        .into()
}

fn counts() -> impl Strategy<Value = Counts> {
    let number = prop_oneof![5 => 0..4_u64, 1 => any::<u64>()];
    let outcomes = prop::array::uniform14(number.clone());
    (outcomes, prop::array::uniform5(number.clone()), prop::array::uniform20(number.clone()), number)
        .prop_map(|(outcomes, broken, durations, n)| Counts {
            attempts: outcomes.into_iter().fold(n, u64::saturating_add),
            outcomes,
            broken,
            broken_kept: n,
            abandoned: n,
            answered: n,
            syn_retransmits: n,
            data_retransmits: n,
            overdue: n,
            unheard: n,
            waiting: Waiting { overdue: n as u32, ..Waiting::default() },
            durations,
            duration_sum_us: n,
            cancelled_sum_us: n,
            last_established: None,
        })
}

fn seen() -> impl Strategy<Value = Seen> {
    let proxy = || 0..6_u8;
    let pid = || 1..4_u32;
    let generation = || prop_oneof![9 => 0..6_u32, 1 => any::<u32>()];
    let row = (proxy(), pid(), generation(), 0..7_u8, 0..20_u8, counts());
    let declared = prop::collection::vec((0..7_u8, 0..20_u8), 0..6);
    prop_oneof![
        8 => prop::collection::vec(row, 0..6).prop_map(Seen::Tick),
        1 => (proxy(), pid(), generation()).prop_map(|(proxy, pid, n)| Seen::Accepted(proxy, pid, n)),
        1 => proxy().prop_map(Seen::Rejected),
        1 => (proxy(), prop::collection::vec((0..Lack::ALL.len(), 0..5_u64), 0..4))
            .prop_map(|(proxy, said)| Seen::Complained(proxy, said)),
        1 => (proxy(), pid(), generation(), declared).prop_map(|(proxy, pid, n, d)| Seen::Declared(proxy, pid, n, d)),
    ]
}

fn rows(seen: &[(u8, u32, u32, u8, u8, Counts)]) -> Vec<Counted> {
    let rows = seen.iter().map(|(proxy, pid, generation, upstream, at, counts)| Counted {
        proxy: proxy.to_string().into(),
        pid: *pid,
        generation: *generation,
        upstream: name(*upstream),
        address: address(*at),
        hint: [None, Some(Hint::NoIpv6), Some(Hint::SocketElsewhere)][usize::from(*at) % 3],
        counts: counts.clone(),
    });
    rows.collect()
}

fn observe(findings: &mut Findings, time: Timestamp, seen: &Seen) -> Vec<Change> {
    let of = |proxy: &u8, pid: &u32, number: &u32| Generation {
        proxy: proxy.to_string().into(),
        pid: *pid,
        number: *number,
    };
    match seen {
        Seen::Tick(seen) => findings.observe(Input::Tick { time, rows: &rows(seen) }),
        Seen::Accepted(proxy, pid, n) => findings.observe(Input::Accepted { time, of: of(proxy, pid, n) }),
        Seen::Rejected(proxy) => {
            let rejected = Rejection { proxy: proxy.to_string().into(), reason: None, is_late: false };
            findings.observe(Input::Rejected { time, rejected })
        }
        Seen::Complained(proxy, said) => {
            let said = said.iter().map(|(lack, times)| Complaint {
                lack: Lack::ALL[*lack],
                words: "no".into(),
                times: *times,
            });
            let complaints = Complaints { proxy: proxy.to_string().into(), complaints: said.collect() };
            findings.observe(Input::Complained { time, complaints })
        }
        Seen::Declared(proxy, pid, n, addresses) => {
            let mut declared = Declared::default();
            for (upstream, at) in addresses {
                let upstream: &mut Upstream = declared.upstreams.entry(name(*upstream)).or_default();
                upstream.addresses.insert(address(*at), "n:1".into());
            }
            findings.observe(Input::Declared { time, of: of(proxy, pid, n), declared })
        }
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_or_grow(
        history in prop::collection::vec((seen(), -1..4000_i64), 1..60),
    ) {
        let mut findings = Findings::new(LIMITS);
        let mut now = Timestamp::from_second(1_700_000_000).unwrap();
        let mut standing = BTreeMap::new();
        for (seen, seconds) in &history {
            now += SignedDuration::from_secs(*seconds);
            for change in observe(&mut findings, now, seen) {
                let text = serde_json::to_string(&change).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Change>(&text).unwrap(), &change);
                let subject = change.finding.subject.clone();
                let was_standing = match change.state {
                    State::Raised => standing.insert(subject, ()).is_some(),
                    State::Cleared => standing.remove(&subject).is_none(),
                };
                prop_assert!(!was_standing, "{:?}", change);
                prop_assert!(!change.finding.to_string().is_empty());
            }
            let active: Vec<&Subject> = findings.active().map(|finding| &finding.subject).collect();
            prop_assert_eq!(active, standing.keys().collect::<Vec<_>>());
            let kept = findings.history.kept();
            prop_assert!(kept.proxies <= LIMITS.proxies, "{:?}", kept);
            prop_assert!(kept.generations <= LIMITS.proxies * LIMITS.generations, "{:?}", kept);
            prop_assert!(kept.instances <= LIMITS.proxies * LIMITS.generations, "{:?}", kept);
            prop_assert!(kept.addresses <= LIMITS.addresses, "{:?}", kept);
            prop_assert!(kept.old_workers <= LIMITS.generations * LIMITS.addresses, "{:?}", kept);
            prop_assert!(kept.rows <= LIMITS.proxies * LIMITS.addresses * 2, "{:?}", kept);
        }
    }
}

/// The next of a row of numbers from 0 to 1 that looks random and is always the same.
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 11) as f64 / (1_u64 << 53) as f64
}

/// One connect that goes well or not, in one of the ways that findings are about.
fn connect(counts: &mut Counts, way: usize, is_bad: bool) {
    let outcome = match (way, is_bad) {
        (0, true) => Outcome::Refused,
        (1, true) => Outcome::NoLocalPort,
        (2, true) => Outcome::ProxyTimeout,
        _ => Outcome::Established,
    };
    counts.attempts += 1;
    counts.outcomes[outcome as usize] += 1;
    counts.syn_retransmits += u64::from(is_bad && way == 2);
    counts.broken[Broken::ClosedBeforeResponse as usize] += u64::from(is_bad && way == 3);
    counts.durations[if is_bad && way == 4 { 14 } else { 3 }] += u64::from(outcome == Outcome::Established);
}

#[test]
fn no_finding_flaps_at_a_constant_ratio() {
    let mut raised_at_all = 0;
    for ratio in [0.002, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98] {
        for way in 0..5 {
            for seed in 0..6 {
                let mut findings = Findings::new(Limits::default());
                let mut state = 1000 * seed + way as u64;
                let mut counts = [Counts::default(), Counts::default()];
                let mut raised: BTreeMap<Subject, usize> = BTreeMap::new();
                for tick in 0..1200 {
                    if tick % 400 == 0 {
                        counts = Default::default();
                    }
                    for counts in &mut counts {
                        for _ in 0..(random(&mut state) * 4.0) as usize {
                            let is_bad = random(&mut state) < ratio;
                            connect(counts, way, is_bad);
                        }
                    }
                    let rows = [5, 6].into_iter().zip(&counts);
                    let rows: Vec<_> =
                        rows.map(|(at, counts)| (0, 1, tick / 400, 0, at, counts.clone())).collect();
                    let time =
                        Timestamp::from_millisecond(1_700_000_000_000 + 250 * i64::from(tick)).unwrap();
                    for change in observe(&mut findings, time, &Seen::Tick(rows)) {
                        if change.state == State::Raised {
                            *raised.entry(change.finding.subject).or_default() += 1;
                        }
                    }
                }
                raised_at_all += raised.len();
                for (subject, times) in raised {
                    assert!(times <= 1, "{subject:?} was raised {times} times, ratio {ratio}, seed {seed}");
                }
            }
        }
    }
    assert!(raised_at_all > 50, "only {raised_at_all} findings were raised: this proves nothing");
}

#[test]
fn what_a_tick_takes_grows_no_faster_than_the_addresses() {
    let time = Timestamp::UNIX_EPOCH;
    let row = |n: u32, generation: u32, outcome: Outcome| {
        let mut counts = Counts { attempts: 4, ..Counts::default() };
        counts.outcomes[outcome as usize] = 4;
        let address = format!("10.{}.{}.{}:80", n >> 16, n >> 8 & 255, n & 255).parse().unwrap();
        let upstream = "unknown".into();
        Counted { proxy: "crowd".into(), pid: 1, generation, upstream, address, hint: None, counts }
    };
    // With a reload an upstream leaves half of its addresses, which all worked, for others, which all refuse.
    let tick = |addresses: u32| {
        let half = addresses / 2;
        let before: Vec<_> = (0..half).map(|n| row(n, 0, Outcome::Established)).collect();
        let after: Vec<_> = (half..addresses).map(|n| row(n, 1, Outcome::Refused)).collect();
        let mut findings = Findings::new(Limits::default());
        findings.observe(Input::Tick { time, rows: &before });
        let start = Instant::now();
        let changes = findings.observe(Input::Tick { time, rows: &after });
        assert!(changes.len() >= half as usize, "{} findings", changes.len());
        start.elapsed()
    };
    let (few, many) = (tick(750), tick(6000));
    // Eight times as many; sixty-four times as long where each is compared with each.
    assert!(many < few * 30 + Duration::from_millis(20), "{few:?} became {many:?}");
}
