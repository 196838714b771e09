//! What holds for all that is remembered, whatever happens, in whatever order.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proxytrace_ebpf::outcome::Outcome;

use super::{
    class::Class,
    store::Store,
    tag::{Line, Tag, Tagged},
};
use crate::model::{Attempt, Body, Record, Reload, ReloadResult, Remembered, Route, Worker};

/// Room for all that a case brings.
const ROOMY: usize = 16 << 20;

/// Something that happens so long after what was before it; or so long before that: what waits for a name comes late.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Failure { proxy: u8, port: u8, after_ms: i64 },
    Reload { proxy: u8, after_ms: i64 },
    Tick { after_ms: i64 },
}

fn happens() -> impl Strategy<Value = Happens> {
    let after_ms = prop_oneof![20 => 0..50_i64, 3 => 0..90_000_i64, 1 => 0..900_000_i64, 1 => -1500..0_i64];
    prop_oneof![
        30 => (0..3_u8, 0..4_u8, after_ms.clone())
            .prop_map(|(proxy, port, after_ms)| Happens::Failure { proxy, port, after_ms }),
        1 => (0..3_u8, after_ms.clone()).prop_map(|(proxy, after_ms)| Happens::Reload { proxy, after_ms }),
        2 => after_ms.prop_map(|after_ms| Happens::Tick { after_ms }),
    ]
}

/// What happened, in the order in which it came.
struct Lived {
    store: Store,
    records: Vec<Record>,
    /// As it went into the file.
    kept: Vec<Tagged>,
}

impl Lived {
    fn with(bytes: usize, all: &[Happens]) -> Self {
        let mut lived = Self { store: Store::new(bytes), records: Vec::new(), kept: Vec::new() };
        let mut now = Timestamp::from_second(1_800_000_000).unwrap();
        for happens in all {
            let (Happens::Failure { after_ms, .. }
            | Happens::Reload { after_ms, .. }
            | Happens::Tick { after_ms }) = *happens;
            let time = now + SignedDuration::from_millis(after_ms);
            now = now.max(time);
            match *happens {
                Happens::Failure { proxy, port, .. } => lived.take(failure(time, proxy, port)),
                Happens::Reload { proxy, .. } => lived.take(reload(time, proxy)),
                Happens::Tick { .. } => {
                    let kept = lived.store.tick(now);
                    lived.kept.extend(kept);
                }
            }
        }
        lived
    }

    fn take(&mut self, record: Record) {
        self.kept.extend(self.store.take(&record));
        self.records.push(record);
    }
}

fn failure(time: Timestamp, proxy: u8, port: u8) -> Record {
    let route = Route {
        proxy: proxy.to_string().into(),
        pid: 7,
        generation: 1,
        upstream: "api".into(),
        address: format!("10.0.0.5:{}", 8080 + u16::from(port)).parse().unwrap(),
        local: None,
        backend: None,
    };
    let outcome = Some(Outcome::Refused);
    let attempt = Attempt { route, outcome, errno: 111, duration_us: 50, syn_retransmits: 0 };
    Record { time, body: Body::Connect(attempt) }
}

fn reload(time: Timestamp, proxy: u8) -> Record {
    let master = Worker { proxy: proxy.to_string().into(), pid: 6, generation: 1 };
    Record { time, body: Body::Reload(Reload { master, result: ReloadResult::Accepted, reason: None }) }
}

fn parsed<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Vec<Remembered> {
    lines.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read(store: &Store, bytes: usize) -> Vec<Remembered> {
    let mut cursor = store.begin(None, None);
    let pages = std::iter::from_fn(|| Some(store.page(&mut cursor, bytes)).filter(|page| !page.is_empty()));
    parsed(&pages.flatten().collect::<Vec<_>>())
}

/// How many records each class stands for.
fn sums<'a>(all: impl IntoIterator<Item = (&'a Body, u64)>) -> HashMap<Class, u64> {
    let mut sums = HashMap::new();
    for (body, times) in all {
        *sums.entry(Class::of(body).unwrap()).or_default() += times;
    }
    sums
}

fn minute(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Where there is room, each record is in exactly one line, and however many there are, a class has few lines.
    #[test]
    fn every_record_is_in_one_line_and_lines_are_few(all in prop::collection::vec(happens(), 0..400)) {
        let lived = Lived::with(ROOMY, &all);
        let told = read(&lived.store, 1000);
        let expected = sums(lived.records.iter().map(|record| (&record.body, 1)));
        prop_assert_eq!(sums(told.iter().map(|one| (&one.record.body, one.times))), expected);
        prop_assert!(told.windows(2).all(|pair| pair[0].record.time <= pair[1].record.time));

        let mut folded: BTreeMap<_, u32> = BTreeMap::new();
        for one in &told {
            prop_assert!(one.record.time <= one.end() && (one.times == 1 || one.until.is_some()), "{:?}", one);
            let length = one.end().duration_since(one.record.time);
            prop_assert!(length <= SignedDuration::from_secs(60), "{:?}", one);
            if one.times > 1 {
                let class = format!("{:?}", Class::of(&one.record.body).unwrap());
                *folded.entry((class, minute(one.record.time))).or_default() += 1;
            }
        }
        // What comes late opens no second one; what is news again in the same minute cannot be: that takes ten.
        prop_assert!(folded.values().all(|lines| *lines == 1), "{:?}", folded);
    }

    /// What an agent that is killed leaves in its files, with what is under way, is all there was.
    #[test]
    fn what_went_into_the_files_and_what_is_under_way_are_all(all in prop::collection::vec(happens(), 0..300)) {
        let lived = Lived::with(ROOMY, &all);
        let written = parsed(lived.kept.iter().map(|(_, line)| line));
        let open = parsed(&lived.store.under_way(ROOMY));
        let both = written.iter().chain(&open).map(|one| (&one.record.body, one.times));
        prop_assert_eq!(sums(both), sums(lived.records.iter().map(|record| (&record.body, 1))));
        prop_assert!(open.windows(2).all(|pair| pair[0].times >= pair[1].times));
        let lines = lived.store.under_way(1000);
        prop_assert!(lines.iter().map(|line| line.len()).sum::<usize>() <= 1000);

        // The agent after it knows the same.
        let mut next = Store::new(ROOMY);
        for (tag, line) in &lived.kept {
            next.restore(&serde_json::from_str(line).unwrap(), *tag == Tag::First);
        }
        open.iter().for_each(|one| next.restore(one, false));
        prop_assert_eq!(sums(read(&next, 1000).iter().map(|one| (&one.record.body, one.times))),
            sums(lived.records.iter().map(|record| (&record.body, 1))));
    }

    /// With little room it is no more than that; the first failure of a quiet proxy stays, whatever storm there is at another one.
    #[test]
    fn room_is_kept_to_and_a_storm_takes_nobodys_first(
        all in prop::collection::vec(happens(), 0..200),
        storm in 1..400_u16,
        bytes in (16_usize << 10)..(24 << 10),
    ) {
        let mut lived = Lived::with(bytes, &[Happens::Failure { proxy: 9, port: 0, after_ms: 0 }]);
        let first = lived.records[0].clone();
        let more = Lived::with(bytes, &all).records;
        more.into_iter().for_each(|record| lived.take(record));
        for n in 0..storm {
            let Body::Connect(mut attempt) = failure(first.time, 8, 0).body else { unreachable!() };
            attempt.route.address = format!("10.0.1.1:{}", n + 1).parse().unwrap();
            lived.take(Record { time: first.time, body: Body::Connect(attempt) });
        }
        let (taken, oldest) = lived.store.extent();
        prop_assert!(taken <= bytes / 4 + bytes / 2, "{} of {}", taken, bytes);
        prop_assert!(oldest.is_some());
        let told = read(&lived.store, 1000);
        prop_assert!(told.iter().any(|one| one.record == first), "the first failure is gone");
    }
}
