//! Records in bounded memory, in the order of their times. What is first of its kind has a shelf of its own, which repeats cannot
//! fill. Where a shelf is full, the oldest goes of the proxy that takes most of it: nobody's storm takes what another's proxy has.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    class::Class,
    fold::{Fate, Folds},
    tag::{Line, Tag, Tagged, first},
};
use crate::model::{Record, Remembered};

/// What an entry takes beside its line, in bytes.
const OVERHEAD: usize = 160;

/// An entry reaches no further, see [`Folds`].
const LONGEST: SignedDuration = SignedDuration::from_mins(1);

/// Where an entry stands: in the order of time, then of coming.
type Place = (Timestamp, u64);

/// What is remembered.
#[derive(Debug)]
pub struct Store {
    is_off: bool,
    folds: Folds,
    entries: BTreeMap<Place, Entry>,
    firsts: Shelf,
    repeats: Shelf,
    /// How many have come.
    next: u64,
}

#[derive(Debug)]
struct Entry {
    line: Line,
    /// When the last of its records was.
    end: Timestamp,
    /// Whether it is among what is kept longest.
    is_first: bool,
}

/// The entries of one kind, by proxy.
#[derive(Debug)]
struct Shelf {
    limit: usize,
    bytes: usize,
    of: HashMap<Arc<str>, Own>,
}

/// The entries of one proxy, in the order of coming.
#[derive(Debug, Default)]
struct Own {
    places: VecDeque<(Place, usize)>,
    bytes: usize,
}

/// How far somebody has read.
#[derive(Debug)]
pub struct Cursor {
    /// After which entry to go on; `None` at the beginning, where `since` says it.
    after: Option<Place>,
    since: Timestamp,
    until: Timestamp,
    /// What came later is not asked for.
    before: u64,
    /// What was under way then, in the order of time.
    open: VecDeque<(Timestamp, Line)>,
}

/// Lines.
pub type Page = Vec<Line>;

impl Store {
    /// With no more than `bytes`.
    pub fn new(bytes: usize) -> Self {
        let folds = Folds::default();
        // The rest is for classes and minutes.
        let [firsts, repeats] =
            [bytes / 4, bytes / 2].map(|limit| Shelf { limit, bytes: 0, of: HashMap::new() });
        Self { is_off: bytes == 0, folds, entries: BTreeMap::new(), firsts, repeats, next: 0 }
    }

    /// Takes a record, and gives what is remembered from now on.
    pub fn take(&mut self, record: &Record) -> Vec<Tagged> {
        if self.is_off {
            return Vec::new();
        }
        let Some(class) = Class::of(&record.body) else { return Vec::new() };
        let (fate, whole) = self.folds.take(class.clone(), record);
        let mut kept = self.keep_all(&whole);
        if let Fate::Alone { is_first } = fate {
            kept.extend(self.keep(&class, &Remembered::once(record.clone()), is_first));
        }
        kept
    }

    /// Closes what is over by `now`, and gives it.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Tagged> {
        let over = self.folds.over(now);
        self.keep_all(&over)
    }

    /// Takes what an earlier agent remembered.
    pub fn restore(&mut self, remembered: &Remembered, is_first: bool) {
        if let Some(class) = Class::of(&remembered.record.body).filter(|_| !self.is_off) {
            self.keep(&class, remembered, is_first);
        }
    }

    /// What is kept longest.
    pub fn firsts(&self) -> impl Iterator<Item = &Line> {
        self.entries.values().filter(|entry| entry.is_first).map(|entry| &entry.line)
    }

    /// What is under way, in lines of about `bytes` in all: those first that stand for most.
    pub fn under_way(&self, bytes: usize) -> Vec<Line> {
        let mut open: Vec<_> = self.folds.open().collect();
        open.sort_by_key(|open| (Reverse(open.times), open.record.time));
        let lines = open.into_iter().filter_map(|open| Some(Line::from(open.json_line().ok()?)));
        first(lines, bytes)
    }

    /// What it takes, and when the oldest record was.
    pub fn extent(&self) -> (usize, Option<Timestamp>) {
        let oldest = self.entries.keys().next().map(|(time, _)| *time);
        (self.firsts.bytes + self.repeats.bytes, oldest)
    }

    /// Where somebody begins to read.
    pub fn begin(&self, since: Option<Timestamp>, until: Option<Timestamp>) -> Cursor {
        let (since, until) = (since.unwrap_or(Timestamp::MIN), until.unwrap_or(Timestamp::MAX));
        let open = self.folds.open().filter(|open| open.end() >= since && open.record.time <= until);
        let mut open: Vec<_> =
            open.filter_map(|open| Some((open.record.time, Line::from(open.json_line().ok()?)))).collect();
        open.sort_by_key(|(time, _)| *time);
        Cursor { after: None, since, until, before: self.next, open: open.into() }
    }

    /// The next lines of about `bytes` in all.
    pub fn page(&self, cursor: &mut Cursor, bytes: usize) -> Page {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match cursor.after {
            Some(place) => Excluded(place),
            // One that began before may reach into what is asked for.
            None => Included((cursor.since.saturating_sub(LONGEST).unwrap_or(Timestamp::MIN), 0)),
        };
        let mut entries = self.entries.range((from, Unbounded)).peekable();
        let (mut page, mut size) = (Page::new(), 0);
        while size < bytes {
            let next = entries.peek().filter(|((time, _), _)| *time <= cursor.until);
            let is_open_next = match (cursor.open.front(), next) {
                (Some((time, _)), Some(((next, _), _))) => time < next,
                (open, _) => open.is_some(),
            };
            if is_open_next {
                let line = cursor.open.pop_front().map(|(_, line)| line);
                size += line.as_ref().map_or(0, |line| line.len());
                page.extend(line);
                continue;
            }
            let next = entries.next_if(|((time, _), _)| *time <= cursor.until);
            let Some((place, Entry { line, end, .. })) = next else { break };
            cursor.after = Some(*place);
            if place.1 < cursor.before && *end >= cursor.since {
                size += line.len();
                page.push(Arc::clone(line));
            }
        }
        page
    }

    fn keep_all(&mut self, whole: &[(Class, Remembered)]) -> Vec<Tagged> {
        whole.iter().filter_map(|(class, remembered)| self.keep(class, remembered, false)).collect()
    }

    fn keep(&mut self, class: &Class, remembered: &Remembered, is_first: bool) -> Option<Tagged> {
        let line: Line = remembered.json_line().ok()?.into();
        let place = (remembered.record.time, self.next);
        self.next += 1;
        let shelf = if is_first { &mut self.firsts } else { &mut self.repeats };
        let size = line.len() + OVERHEAD;
        if size > shelf.limit {
            return None;
        }
        let entry = Entry { line: Arc::clone(&line), end: remembered.end(), is_first };
        self.entries.insert(place, entry);
        for gone in shelf.put(&class.proxy, place, size) {
            self.entries.remove(&gone);
        }
        Some((if is_first { Tag::First } else { Tag::Repeat }, line))
    }
}

impl Shelf {
    /// Takes an entry, and gives those that had to go for it.
    fn put(&mut self, proxy: &Arc<str>, place: Place, size: usize) -> Vec<Place> {
        let own = self.of.entry(Arc::clone(proxy)).or_default();
        own.places.push_back((place, size));
        own.bytes += size;
        self.bytes += size;
        let mut gone = Vec::new();
        while self.bytes > self.limit {
            let Some((proxy, largest)) = self.of.iter_mut().max_by_key(|(_, own)| own.bytes) else { break };
            if let Some((place, size)) = largest.places.pop_front() {
                largest.bytes -= size;
                self.bytes -= size;
                gone.push(place);
            }
            if largest.places.is_empty() {
                let proxy = Arc::clone(proxy);
                self.of.remove(&proxy);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use proxytrace_ebpf::outcome::Outcome;

    use super::{Store, Tag};
    use crate::model::{Attempt, Body, Record, Reload, ReloadResult, Remembered, Route, Worker};

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).unwrap()
    }

    fn refused(millis: i64, proxy: &str, port: u16) -> Record {
        let route = Route {
            proxy: proxy.into(),
            pid: 7,
            generation: 1,
            upstream: "api".into(),
            address: format!("10.0.0.5:{port}").parse().unwrap(),
            local: None,
            backend: None,
        };
        let outcome = Some(Outcome::Refused);
        let attempt = Attempt { route, outcome, errno: 111, duration_us: 50, syn_retransmits: 0 };
        Record { time: at(millis), body: Body::Connect(attempt) }
    }

    fn reload(millis: i64) -> Record {
        let master = Worker { proxy: "nginx".into(), pid: 6, generation: 1 };
        let body = Body::Reload(Reload { master, result: ReloadResult::Accepted, reason: None });
        Record { time: at(millis), body }
    }

    /// Everything from `since` on.
    fn read(store: &Store, since: Option<Timestamp>, until: Option<Timestamp>) -> Vec<Remembered> {
        let mut cursor = store.begin(since, until);
        let pages =
            std::iter::from_fn(|| Some(store.page(&mut cursor, 1000)).filter(|page| !page.is_empty()));
        let lines = pages.flatten().map(|line| serde_json::from_str(&line).unwrap());
        lines.collect()
    }

    fn times(remembered: &[Remembered]) -> Vec<u64> {
        remembered.iter().map(|one| one.times).collect()
    }

    #[test]
    fn the_first_failures_are_kept_one_by_one_and_the_others_by_minute() {
        let mut store = Store::new(1 << 20);
        store.take(&reload(0));
        (0..3000).for_each(|n| drop(store.take(&refused(n * 100, "nginx", 8081))));
        let all = read(&store, None, None);
        // 300 s are five minutes and a bit.
        let counts = times(&all);
        assert_eq!(counts[..6], [1; 6], "the reload and five failures");
        assert_eq!(counts.iter().sum::<u64>(), 3001);
        assert!((5..=6).contains(&(counts.len() - 6)), "{counts:?}");
        assert!(all.windows(2).all(|pair| pair[0].record.time <= pair[1].record.time));
        let last = all.last().unwrap();
        assert_eq!((last.times > 1, last.until), (true, Some(at(299_900))));

        store.tick(at(400_000));
        assert_eq!(read(&store, None, None), all, "what is over is as it was");
    }

    #[test]
    fn what_fails_again_after_a_while_is_news() {
        let mut store = Store::new(1 << 20);
        for begin in [0, 3_600_000] {
            (0..100).for_each(|n| drop(store.take(&refused(begin + n, "nginx", 8081))));
        }
        assert_eq!(times(&read(&store, None, None)), [1, 1, 1, 1, 1, 95, 1, 1, 1, 1, 1, 95]);
        let since = Some(at(3_600_000));
        assert_eq!(times(&read(&store, since, None)), [1, 1, 1, 1, 1, 95]);
        assert_eq!(times(&read(&store, None, Some(at(3)))), [1, 1, 1, 1]);
    }

    #[test]
    fn what_reaches_into_a_span_is_part_of_it() {
        let mut store = Store::new(1 << 20);
        (0..60).for_each(|n| drop(store.take(&refused(n * 1000, "nginx", 8081))));
        let until = at(59_000);
        assert_eq!(times(&read(&store, Some(until), None)).len(), 1, "the minute under way");
        store.tick(at(600_000));
        assert_eq!(read(&store, Some(until), None).last().unwrap().until, Some(until));
        assert!(read(&store, Some(until + SignedDuration::from_nanos(1)), None).is_empty());
    }

    #[test]
    fn a_storm_of_addresses_stays_within_its_room_and_the_first_failures_of_others_stay() {
        const BYTES: usize = 1 << 20;
        let mut store = Store::new(BYTES);
        store.take(&reload(0));
        store.take(&refused(1, "nginx", 8081));
        for n in 0..60_000 {
            store.take(&refused(100 + n, "crowd", (n % 60_000) as u16));
        }
        assert!(store.firsts.bytes + store.repeats.bytes <= BYTES);
        let lines: usize = store.entries.values().map(|entry| entry.line.len()).sum();
        assert!(lines < BYTES && store.entries.len() > 500, "{lines}");
        let all = read(&store, None, None);
        assert!(matches!(all[0].record.body, Body::Reload(_)));
        assert!(matches!(&all[1].record.body, Body::Connect(attempt) if &*attempt.route.proxy == "nginx"));
    }

    #[test]
    fn whoever_reads_gets_what_there_was_when_it_asked() {
        let mut store = Store::new(1 << 20);
        (0..4).for_each(|n| drop(store.take(&refused(n, "nginx", 8081))));
        let mut cursor = store.begin(None, None);
        assert_eq!(store.page(&mut cursor, 1).len(), 1);
        (4..100).for_each(|n| drop(store.take(&refused(n, "nginx", 8081))));
        store.tick(at(600_000));
        assert_eq!(store.page(&mut cursor, 1 << 20).len(), 3);
        assert!(store.page(&mut cursor, 1 << 20).is_empty());
    }

    #[test]
    fn what_an_earlier_agent_remembered_is_as_it_was() {
        let mut store = Store::new(1 << 20);
        let mut kept = store.take(&reload(0));
        (0..100).for_each(|n| kept.extend(store.take(&refused(n, "nginx", 8081))));
        kept.extend(store.tick(at(600_000)));
        let mut next = Store::new(1 << 20);
        for (tag, line) in &kept {
            next.restore(&serde_json::from_str(line).unwrap(), *tag == Tag::First);
        }
        assert_eq!(read(&next, None, None), read(&store, None, None));
        assert!(next.firsts().eq(store.firsts()) && next.firsts().count() == 2);
    }

    #[test]
    fn with_no_room_nothing_is_remembered() {
        let mut store = Store::new(0);
        store.take(&refused(0, "nginx", 8081));
        assert!(read(&store, None, None).is_empty());
    }
}
