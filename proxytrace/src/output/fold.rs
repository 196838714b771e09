//! Repeated lines become one with a count: in an outage each request gives the same line. Pure: its clock is the records' times.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use crate::model::{Address, Body, Record, Remembered, Route};

/// A line is followed by its repetition at the earliest after this time.
const APART: SignedDuration = SignedDuration::from_secs(1);

/// The repetitions of so many lines are gathered at a time. Others are shown one by one.
const MAX_LINES: usize = 1024;

/// What makes two lines the same: all but the time, the process and the duration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    cause: &'static str,
    is_kept: bool,
    proxy: Arc<str>,
    generation: u32,
    upstream: Arc<str>,
    address: Address,
}

/// A line that was shown, and what has repeated it since.
#[derive(Debug)]
struct Shown {
    at: Timestamp,
    repeated: Option<Remembered>,
}

/// The lines that were shown lately.
#[derive(Debug, Default)]
pub struct Fold {
    lines: BTreeMap<Line, Shown>,
}

impl Fold {
    /// Takes a record; gives what is to be shown now, the record itself included where it repeats no line.
    pub fn take(&mut self, record: &Record) -> Vec<Remembered> {
        let Some(line) = line(&record.body) else {
            // What follows is not to stand before what led to it.
            let mut due = self.finish();
            due.push(Remembered::once(record.clone()));
            return due;
        };
        let mut due = self.due(record.time);
        match self.lines.get_mut(&line) {
            Some(shown) => match &mut shown.repeated {
                Some(repeated) => {
                    repeated.times += 1;
                    repeated.until = Some(record.time);
                }
                none => *none = Some(Remembered::once(record.clone())),
            },
            None => {
                if self.lines.len() < MAX_LINES {
                    self.lines.insert(line, Shown { at: record.time, repeated: None });
                }
                due.push(Remembered::once(record.clone()));
            }
        }
        due
    }

    /// The repetitions that have been gathered for long enough at that time.
    pub fn due(&mut self, now: Timestamp) -> Vec<Remembered> {
        let mut due = Vec::new();
        self.lines.retain(|_, shown| {
            if now.duration_since(shown.at) < APART {
                return true;
            }
            shown.at = now;
            let repeated = shown.repeated.take();
            let is_used = repeated.is_some();
            due.extend(repeated);
            is_used
        });
        due.sort_by_key(|repeated| repeated.record.time);
        due
    }

    /// All repetitions that have not been shown.
    pub fn finish(&mut self) -> Vec<Remembered> {
        let lines = std::mem::take(&mut self.lines).into_values();
        let mut due: Vec<_> = lines.filter_map(|shown| shown.repeated).collect();
        due.sort_by_key(|repeated| repeated.record.time);
        due
    }
}

/// The line of a record; `None` for one that stands for itself.
fn line(body: &Body) -> Option<Line> {
    let of = |route: &Route, cause, is_kept| Line {
        cause,
        is_kept,
        proxy: route.proxy.clone(),
        generation: route.generation,
        upstream: route.upstream.clone(),
        address: route.address.clone(),
    };
    match body {
        Body::Connect(attempt) => Some(of(&attempt.route, attempt.outcome?.name(), false)),
        Body::Stalled(attempt) => Some(of(&attempt.route, "stalled", false)),
        Body::Unanswered(request) => Some(of(&request.route, "unanswered", request.acknowledged)),
        Body::Broken(connection) => Some(of(&connection.route, connection.cause.name(), connection.kept)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use proxytrace_ebpf::outcome::Outcome;

    use super::Fold;
    use crate::model::{Attempt, Body, Lost, Record, Remembered, Route};

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_millis(milliseconds)
    }

    fn failed(milliseconds: i64, address: &str, pid: u32) -> Record {
        let route = Route {
            proxy: "nginx".into(),
            pid,
            generation: 1,
            upstream: "api".into(),
            address: address.parse().unwrap(),
            local: None,
            backend: None,
        };
        let attempt = Attempt {
            route,
            outcome: Some(Outcome::Refused),
            errno: 111,
            duration_us: 9,
            syn_retransmits: 0,
        };
        Record { time: at(milliseconds), body: Body::Connect(attempt) }
    }

    fn lost(milliseconds: i64) -> Record {
        Record { time: at(milliseconds), body: Body::Lost(Lost { count: 1 }) }
    }

    /// When the first and the last of each were, in milliseconds, and how many.
    fn times(shown: &[Remembered]) -> Vec<(i64, i64, u64)> {
        let of = |one: &Remembered| (one.record.time.as_millisecond(), one.end().as_millisecond(), one.times);
        shown.iter().map(of).collect()
    }

    #[test]
    fn the_first_is_shown_at_once_and_the_others_once_a_second() {
        let mut fold = Fold::default();
        assert_eq!(times(&fold.take(&failed(0, "10.0.0.5:8081", 1))), [(0, 0, 1)]);
        for n in 1..300 {
            assert_eq!(fold.take(&failed(n, "10.0.0.5:8081", 2)), []);
        }
        assert_eq!(fold.due(at(999)), []);
        assert_eq!(times(&fold.due(at(1000))), [(1, 299, 299)]);
        assert_eq!(fold.take(&failed(1001, "10.0.0.5:8081", 1)), []);
        assert_eq!(times(&fold.due(at(2000))), [(1001, 1001, 1)]);
    }

    #[test]
    fn whatever_comes_again_after_a_pause_is_shown_at_once() {
        let mut fold = Fold::default();
        fold.take(&failed(0, "10.0.0.5:8081", 1));
        assert_eq!(times(&fold.take(&failed(1000, "10.0.0.5:8081", 1))), [(1000, 1000, 1)]);
    }

    #[test]
    fn two_addresses_are_two_lines() {
        let mut fold = Fold::default();
        for (n, address) in (0..10).zip(["10.0.0.5:8081", "10.0.0.6:8081"].into_iter().cycle()) {
            assert_eq!(fold.take(&failed(n, address, 1)).len(), usize::from(n < 2));
        }
        assert_eq!(times(&fold.finish()), [(2, 8, 4), (3, 9, 4)]);
        assert_eq!(fold.finish(), []);
    }

    #[test]
    fn nothing_stands_before_what_led_to_it() {
        let mut fold = Fold::default();
        for n in 0..3 {
            fold.take(&failed(n, "10.0.0.5:8081", 1));
        }
        assert_eq!(times(&fold.take(&lost(3))), [(1, 2, 2), (3, 3, 1)]);
    }

    #[test]
    fn no_record_is_missing_however_many_lines_there_are() {
        let mut fold = Fold::default();
        let mut shown = 0;
        for n in 0..20_000_i64 {
            let address = format!("10.0.{}.{}:80", n % 16, n % 253);
            shown += fold.take(&failed(n, &address, 1)).iter().map(|one| one.times).sum::<u64>();
        }
        shown += fold.finish().iter().map(|one| one.times).sum::<u64>();
        assert_eq!(shown, 20_000);
    }
}
