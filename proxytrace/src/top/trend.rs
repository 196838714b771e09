//! What failed in each of the last minutes, as a line of one character a minute: how high it is says which part of what was tried
//! went wrong, and without colour as well.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::model::{Minute, UpstreamKey};

/// So many minutes are shown.
pub const MINUTES: usize = 15;

/// From nothing that failed to everything.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What was tried in each of the last minutes and what went wrong, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Trend([Cell; MINUTES]);

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    attempts: u64,
    wrong: u64,
}

/// Those of all upstreams as of `now`.
pub(super) fn trends(minutes: &[Minute], now: Timestamp) -> BTreeMap<UpstreamKey, Trend> {
    let mut trends: BTreeMap<UpstreamKey, Trend> = BTreeMap::new();
    for minute in minutes {
        let ago = now.duration_since(minute.time);
        if ago < SignedDuration::ZERO {
            continue;
        }
        // The minute under way is the last one.
        let now = now.as_second().div_euclid(60);
        let ago = usize::try_from(now - minute.time.as_second().div_euclid(60)).unwrap_or(MINUTES);
        let Some(place) = (MINUTES - 1).checked_sub(ago) else { continue };
        let key = (minute.proxy.clone(), minute.upstream.clone());
        let cell = &mut trends.entry(key).or_default().0[place];
        cell.attempts = cell.attempts.saturating_add(minute.counts.attempts);
        cell.wrong = cell.wrong.saturating_add(minute.counts.gone_wrong());
    }
    trends
}

impl Trend {
    /// The last `count` minutes, and of each whether something failed.
    pub(super) fn cells(&self, count: usize) -> impl Iterator<Item = (char, bool)> {
        let skipped = MINUTES.saturating_sub(count);
        self.0.iter().skip(skipped).map(|cell| (cell.symbol(), cell.wrong > 0))
    }
}

impl Cell {
    fn symbol(self) -> char {
        // What breaks may have been tried in the minute before.
        let all = self.attempts.max(self.wrong);
        match (all, self.wrong) {
            (0, _) => ' ',
            (_, 0) => STEPS[0],
            (all, wrong) => {
                let last = STEPS.len() - 1;
                let step = (wrong as f64 / all as f64 * last as f64).ceil() as usize;
                STEPS[step.clamp(1, last)]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::trends;
    use crate::model::{Counts, Minute};

    fn minute(second: i64, attempts: u64, refused: u64) -> Minute {
        let mut counts = Counts { attempts, ..Counts::default() };
        counts.outcomes[0] = attempts - refused;
        counts.outcomes[1] = refused;
        let time = Timestamp::from_second(second).unwrap();
        Minute { time, proxy: "nginx".into(), upstream: "api".into(), counts }
    }

    #[test]
    fn each_minute_is_as_high_as_the_part_that_failed() {
        let minutes = [
            minute(60, 10, 0),
            minute(120, 10, 1),
            minute(180, 10, 5),
            // In two parts: the agent was restarted.
            minute(240, 5, 5),
            minute(240, 5, 5),
            minute(360, 1000, 1),
        ];
        let trends = trends(&minutes, Timestamp::from_second(419).unwrap());
        let trend = trends.values().next().unwrap();
        let cells = |count| trend.cells(count).map(|(symbol, _)| symbol).collect::<String>();
        assert_eq!(cells(6), "▁▂▅█ ▂");
        assert_eq!(cells(100).chars().count(), 15);
        assert_eq!(trend.cells(3).map(|(_, wrong)| wrong).collect::<Vec<_>>(), [true, false, true]);
    }
}
