//! What was counted of each upstream in each minute of a day, and in the last minute more finely. Made of the sums that the trace
//! has anyway; a minute in which nothing happened to an upstream takes no room.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use proxytrace_ebpf::outcome::Outcome;

use super::tag::{Line, Tag, Tagged, first};
use crate::model::{Body, Counts, Minute, Record, Route, UpstreamKey};

/// How often sums are to be taken.
pub const STEP: SignedDuration = SignedDuration::from_secs(10);

/// What is recent.
pub const RECENT: SignedDuration = SignedDuration::from_mins(1);

/// Minutes are kept for so long.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// What a minute of an upstream takes beside its line, in bytes.
const OVERHEAD: usize = 64;

/// Of each upstream.
pub type Sums = BTreeMap<UpstreamKey, Counts>;

/// When something failed at an upstream: without a minute in between in which nothing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When that began.
    pub since: Timestamp,
    /// When it was seen last.
    pub until: Timestamp,
    /// Whether it is known by counts only, which say when it began to within a step.
    is_counted: bool,
}

impl Trouble {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let is_counted = if self.since <= other.since { self.is_counted } else { other.is_counted };
        Self { since: self.since.min(other.since), until: self.until.max(other.until), is_counted }
    }
}

/// What was counted within about the last minute.
#[derive(Clone, Debug)]
pub struct Recent {
    /// When that began.
    pub since: Timestamp,
    /// What was counted.
    pub sums: Sums,
    /// When something last failed at each upstream, as far as that was seen.
    pub troubles: BTreeMap<UpstreamKey, Trouble>,
}

/// What was counted for about [`STEP`].
#[derive(Debug)]
struct Step {
    from: Timestamp,
    until: Timestamp,
    sums: Sums,
}

/// What was counted when.
#[derive(Debug)]
pub struct Minutes {
    limit: usize,
    bytes: usize,
    /// When counting began.
    began: Timestamp,
    /// The sums as they were taken last.
    sums: Sums,
    /// What was counted in each step of the last minute.
    recent: VecDeque<Step>,
    troubles: BTreeMap<UpstreamKey, Trouble>,
    /// The minute under way.
    open: (Timestamp, Sums),
    /// Those that are over, in the order of time.
    past: VecDeque<(Timestamp, Line)>,
}

impl Minutes {
    /// None yet, and later no more than `bytes`.
    pub fn new(bytes: usize, began: Timestamp) -> Self {
        Self {
            limit: bytes,
            bytes: 0,
            began,
            sums: Sums::new(),
            recent: VecDeque::new(),
            troubles: BTreeMap::new(),
            open: (minute(began), Sums::new()),
            past: VecDeque::new(),
        }
    }

    /// Takes the sums as of `now`, and gives those of a minute that is over by that.
    pub fn take(&mut self, now: Timestamp, sums: Sums) -> Vec<Tagged> {
        let step = since(&sums, &self.sums);
        self.sums = sums;
        let mut whole = Vec::new();
        // What was counted since the step before belongs to the minute in which that began.
        add(&mut self.open.1, &step);
        if self.open.0 != minute(now) {
            whole = self.close();
            self.open.0 = minute(now);
        }
        self.note_recent(now, step);
        whole
    }

    /// Ends the minute under way; what comes of it yet has lines of its own.
    pub fn close(&mut self) -> Vec<Tagged> {
        let (time, of) = (self.open.0, std::mem::take(&mut self.open.1));
        let lines = of
            .into_iter()
            .filter_map(|((proxy, upstream), counts)| line(&Minute { time, proxy, upstream, counts }));
        let lines: Vec<_> = lines.collect();
        lines.iter().for_each(|line| self.keep(time, Arc::clone(line)));
        lines.into_iter().map(|line| (Tag::Minute, line)).collect()
    }

    fn note_recent(&mut self, now: Timestamp, sums: Sums) {
        let from = self.recent.back().map_or(self.began, |last| last.until);
        for (key, _) in sums.iter().filter(|(_, counts)| counts.gone_wrong() > 0) {
            let new = Trouble { since: from, until: now, is_counted: true };
            let trouble = self.troubles.entry(key.clone()).or_insert(new);
            if from.duration_since(trouble.until) >= RECENT {
                *trouble = new;
            }
            // Where its record has come, that says it exactly.
            if trouble.until < from {
                trouble.until = now;
            }
        }
        let known = &self.sums;
        self.troubles.retain(|key, _| known.contains_key(key));
        match self.recent.back_mut() {
            // Whoever asks has them taken more often.
            Some(last) if now.duration_since(last.from) <= STEP => {
                last.until = now;
                add(&mut last.sums, &sums);
            }
            _ => self.recent.push_back(Step { from, until: now, sums }),
        }
        while self.recent.front().is_some_and(|step| now.duration_since(step.until) >= RECENT) {
            self.recent.pop_front();
        }
    }

    /// Takes when something failed, exactly as its record says: counts come up to a tick later.
    pub fn note_failure(&mut self, record: &Record) {
        let Some(route) = failed(&record.body) else { return };
        let (time, key) = (record.time, (Arc::clone(&route.proxy), Arc::clone(&route.upstream)));
        let new = Trouble { since: time, until: time, is_counted: false };
        let trouble = self.troubles.entry(key).or_insert(new);
        if time.duration_since(trouble.until) >= RECENT {
            *trouble = new;
        }
        // The first record of what was counted before it came.
        if trouble.is_counted && time <= trouble.until {
            (trouble.since, trouble.is_counted) = (time, false);
        }
        trouble.until = trouble.until.max(time);
    }

    /// Takes what an earlier agent remembered of a minute, as of `now`.
    pub fn restore(&mut self, now: Timestamp, minute: &Minute) {
        if let Some(line) = line(minute).filter(|_| now.duration_since(minute.time) <= KEPT) {
            self.keep(minute.time, line);
        }
    }

    /// What they take.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those that are over.
    pub fn past(&self) -> impl Iterator<Item = &Line> {
        self.past.iter().map(|(_, line)| line)
    }

    /// What was counted within the last minute or so, up to when sums were last taken.
    pub fn recent(&self) -> Recent {
        let mut sums = Sums::new();
        self.recent.iter().for_each(|step| add(&mut sums, &step.sums));
        let since = self.recent.front().map_or(self.began, |step| step.from);
        Recent { since, sums, troubles: self.troubles.clone() }
    }

    /// Those of the minute under way, in lines of about `bytes` in all.
    pub fn under_way(&self, bytes: usize) -> Vec<Line> {
        first(self.open_lines(), bytes)
    }

    fn open_lines(&self) -> impl Iterator<Item = Line> {
        let (time, open) = (self.open.0, &self.open.1);
        open.iter().filter_map(move |((proxy, upstream), counts)| {
            let (proxy, upstream) = (Arc::clone(proxy), Arc::clone(upstream));
            line(&Minute { time, proxy, upstream, counts: counts.clone() })
        })
    }

    /// The lines of the minutes from `since` until `until`.
    pub fn between(&self, since: Timestamp, until: Timestamp) -> Vec<Line> {
        let asked = self.past.iter().filter(|(time, _)| *time >= minute(since) && *time <= until);
        let past = asked.map(|(_, line)| Arc::clone(line));
        past.chain(self.open_lines().filter(|_| self.open.0 <= until)).collect()
    }

    fn keep(&mut self, time: Timestamp, line: Line) {
        self.bytes += line.len() + OVERHEAD;
        self.past.push_back((time, line));
        let is_old = |then: Timestamp| time.duration_since(then) > KEPT;
        while self.past.front().is_some_and(|(then, _)| self.bytes > self.limit || is_old(*then)) {
            if let Some((_, line)) = self.past.pop_front() {
                self.bytes -= line.len() + OVERHEAD;
            }
        }
    }
}

/// Where something went wrong, as [`Counts::gone_wrong`] counts it.
fn failed(body: &Body) -> Option<&Route> {
    match body {
        Body::Connect(attempt) if attempt.outcome != Some(Outcome::Established) => Some(&attempt.route),
        Body::Broken(connection) => Some(&connection.route),
        _ => None,
    }
}

fn add(sums: &mut Sums, more: &Sums) {
    for (key, counts) in more {
        *sums.entry(key.clone()).or_default() += counts;
    }
}

/// The minute that a time is in, by when it began.
fn minute(time: Timestamp) -> Timestamp {
    let second = time.as_second();
    Timestamp::from_second(second - second.rem_euclid(60)).unwrap_or(time)
}

/// What was counted from `earlier` on, of those of which anything was.
fn since(sums: &Sums, earlier: &Sums) -> Sums {
    let zero = Counts::default();
    let steps = sums.iter().map(|(key, counts)| {
        let step = counts.since(earlier.get(key).unwrap_or(&zero));
        (key.clone(), Counts { waiting: Default::default(), last_established: None, ..step })
    });
    steps.filter(|(_, step)| *step != zero).collect()
}

fn line(minute: &Minute) -> Option<Line> {
    Some(minute.json_line().ok()?.into())
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::{Minutes, Sums};
    use crate::model::{Counts, Minute};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// What an upstream and, where there is one, another have counted so far.
    fn sums(attempts: u64, other: u64) -> Sums {
        let of =
            |name: &str, attempts| (("nginx".into(), name.into()), Counts { attempts, ..Counts::default() });
        [of("api", attempts), of("web", other)]
            .into_iter()
            .filter(|(_, counts)| counts.attempts > 0)
            .collect()
    }

    fn read(minutes: &Minutes) -> Vec<(i64, String, u64)> {
        let lines = minutes.between(Timestamp::MIN, Timestamp::MAX);
        let minutes = lines.iter().map(|line| serde_json::from_str::<Minute>(line).unwrap());
        let second = |time: Timestamp| time.as_second() - at(0).as_second();
        minutes.map(|of| (second(of.time), of.upstream.to_string(), of.counts.attempts)).collect()
    }

    #[test]
    fn each_minute_has_what_was_counted_in_it_and_the_last_is_under_way() {
        let mut minutes = Minutes::new(1 << 20, at(0));
        for step in 1..=13 {
            minutes.take(at(step * 10), sums(step as u64 * 5, u64::from(step >= 13)));
        }
        assert_eq!(
            read(&minutes),
            [
                (0, "api".to_owned(), 30),
                (60, "api".to_owned(), 30),
                (120, "api".to_owned(), 5),
                (120, "web".to_owned(), 1)
            ]
        );
        let now = at(135);
        minutes.take(now, sums(70, 1));
        let recent = minutes.recent();
        assert_eq!(recent.sums.values().map(|counts| counts.attempts).collect::<Vec<_>>(), [35, 1]);
        assert!(now.duration_since(recent.since) <= SignedDuration::from_secs(66), "{recent:?}");
    }

    #[test]
    fn it_is_known_since_when_something_fails_and_when_it_did_last() {
        let mut minutes = Minutes::new(1 << 20, at(0));
        let failed = |count| {
            let mut sums = sums(100, 0);
            sums.values_mut().for_each(|counts| counts.outcomes[1] = count);
            sums
        };
        let mut trouble = |second, count| {
            minutes.take(at(second), failed(count));
            let known = minutes.recent().troubles.into_values().next();
            known.map(|trouble| (trouble.since, trouble.until))
        };
        assert_eq!(trouble(10, 0), None);
        assert_eq!(trouble(25, 1), Some((at(10), at(25))));
        assert_eq!(trouble(40, 1), Some((at(10), at(25))));
        assert_eq!(trouble(60, 2), Some((at(10), at(60))));
        assert_eq!(trouble(120, 2), Some((at(10), at(60))));
        assert_eq!(trouble(140, 3), Some((at(120), at(140))), "after a minute without it begins anew");
    }

    #[test]
    fn a_record_says_exactly_when_something_failed_whenever_it_comes() {
        let refused = |millis: i64| {
            let line = format!(
                r#"{{"time":"{}","kind":"connect","proxy":"nginx","pid":7,"generation":0,"upstream":"api","address":"10.0.0.5:80","outcome":"refused","cause":"refused","errno":111,"duration_us":30,"syn_retransmits":0}}"#,
                at(0) + SignedDuration::from_millis(millis)
            );
            serde_json::from_str(&line).unwrap()
        };
        let failed = |count| {
            let mut sums = sums(100, 0);
            sums.values_mut().for_each(|counts| counts.outcomes[1] = count);
            sums
        };
        // In seconds: when it is counted, or when the record that comes says that it was.
        type Case = (&'static str, &'static [(Option<i64>, i64)], (i64, i64));
        let cases: [Case; 3] = [
            ("the record first", &[(None, 8_500), (Some(10), 1)], (8_500, 8_500)),
            ("counted first", &[(Some(10), 1), (None, 8_500)], (8_500, 10_000)),
            (
                "again",
                &[(None, 8_500), (Some(10), 1), (Some(20), 2), (None, 19_000), (None, 21_000)],
                (8_500, 21_000),
            ),
        ];
        for (name, steps, expected) in cases {
            let mut minutes = Minutes::new(1 << 20, at(0));
            for step in steps {
                match *step {
                    (Some(second), count) => drop(minutes.take(at(second), failed(count as u64))),
                    (None, millis) => minutes.note_failure(&refused(millis)),
                }
            }
            let trouble = minutes.recent().troubles.into_values().next().unwrap();
            let millis = |time: Timestamp| time.duration_since(at(0)).as_millis() as i64;
            assert_eq!((millis(trouble.since), millis(trouble.until)), expected, "{name}");
        }
    }

    #[test]
    fn a_quiet_minute_takes_no_room_and_what_begins_anew_is_all_new() {
        let mut minutes = Minutes::new(1 << 20, at(0));
        for (second, attempts) in [(10, 5), (70, 5), (130, 5), (190, 3), (250, 3)] {
            minutes.take(at(second), sums(attempts, 0));
        }
        assert_eq!(read(&minutes), [(0, "api".to_owned(), 5), (120, "api".to_owned(), 3)]);
    }

    #[test]
    fn the_oldest_minutes_go_where_there_is_no_more_room() {
        const BYTES: usize = 4096;
        let mut minutes = Minutes::new(BYTES, at(0));
        for step in 1..1000_u64 {
            minutes.take(at(step as i64 * 60), sums(step, 0));
        }
        let all = read(&minutes);
        assert!(minutes.bytes <= BYTES && (10..50).contains(&all.len()), "{}", all.len());
        assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0) && all.last().unwrap().0 >= 999 * 60 - 120);
    }
}
