//! How records that repeat become one: of each class the first few are kept one by one, and from then on there is one for each
//! minute, which says how many there were. After a time without any they are news again.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::class::Class;
use crate::model::{Record, Remembered};

/// After so long without a record of a class the next one is the first again.
const FORGOTTEN: SignedDuration = SignedDuration::from_mins(10);

/// So many classes are followed. Of more, those that were seen last are: 4096 take about 3 MB where each has an open minute.
const MAX_CLASSES: usize = 4096;

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is kept by itself; `is_first` among what is kept longest.
    Alone {
        /// Whether it is among what is kept longest.
        is_first: bool,
    },
    /// It is one of a minute.
    Folded,
}

/// The records of each class.
#[derive(Debug, Default)]
pub struct Folds {
    of: HashMap<Class, Seen>,
    /// The minute up to which all are closed, since 1970.
    closed: i64,
}

#[derive(Debug)]
struct Seen {
    last: Timestamp,
    /// How many were kept one by one.
    alone: u32,
    /// Those of the minute under way.
    open: Option<Remembered>,
}

impl Folds {
    /// Takes a record: says what becomes of it, and gives what is whole by that.
    pub fn take(&mut self, class: Class, record: &Record) -> (Fate, Vec<(Class, Remembered)>) {
        let mut whole = Vec::new();
        if !self.of.contains_key(&class) && self.of.len() >= MAX_CLASSES {
            whole = self.forget_half();
        }
        let time = record.time;
        let new = Seen { last: time, alone: 0, open: None };
        let seen = self.of.entry(class.clone()).or_insert(new);
        if time.duration_since(seen.last) >= FORGOTTEN {
            whole.extend(seen.open.take().map(|open| (class.clone(), open)));
            seen.alone = 0;
        }
        seen.last = seen.last.max(time);
        if seen.alone < class.alone() {
            seen.alone += 1;
            return (Fate::Alone { is_first: class.is_first(seen.alone - 1) }, whole);
        }
        match &mut seen.open {
            // One that waited for a name may come late.
            Some(open) if minute(open.record.time) >= minute(time) => {
                open.times += 1;
                open.until = Some(open.end().max(time));
            }
            open => {
                let closed = open.replace(Remembered::once(record.clone()));
                whole.extend(closed.map(|closed| (class, closed)));
            }
        }
        (Fate::Folded, whole)
    }

    /// Those of minutes that are over by `now`.
    pub fn over(&mut self, now: Timestamp) -> Vec<(Class, Remembered)> {
        let current = minute(now);
        if std::mem::replace(&mut self.closed, current) == current {
            return Vec::new();
        }
        let is_over = |open: &mut Remembered| minute(open.record.time) < current;
        let over = self.of.iter_mut().filter_map(|(class, seen)| {
            let open = seen.open.take_if(is_over)?;
            Some((class.clone(), open))
        });
        over.collect()
    }

    /// Those of the minute under way.
    pub fn open(&self) -> impl Iterator<Item = &Remembered> {
        self.of.values().filter_map(|seen| seen.open.as_ref())
    }

    /// Forgets those that were not seen for longest.
    fn forget_half(&mut self) -> Vec<(Class, Remembered)> {
        let mut times: Vec<_> = self.of.values().map(|seen| seen.last).collect();
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        let mut over = Vec::new();
        let mut places = MAX_CLASSES / 2;
        self.of.retain(|class, seen| {
            let stays = seen.last > median && places > 0;
            places -= usize::from(stays);
            if !stays {
                over.extend(seen.open.take().map(|open| (class.clone(), open)));
            }
            stays
        });
        over
    }
}

/// Which minute since 1970.
fn minute(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}
