//! How upstreams fared before the guard began to look, as the agent has counted it. Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{Counts, Minute};

/// By proxy and upstream, what was counted.
pub type Earlier = BTreeMap<(Arc<str>, Arc<str>), Counts>;

/// So many connects say enough: what was before them may not be so any more.
const ENOUGH: u64 = 20;

/// Of each upstream the newest of these minutes, in the order of time, that say enough.
#[must_use]
pub fn earlier(minutes: Vec<Minute>) -> Earlier {
    let mut earlier = Earlier::new();
    for Minute { proxy, upstream, counts, .. } in minutes.into_iter().rev() {
        let known = earlier.entry((proxy, upstream)).or_default();
        if known.ended() < ENOUGH {
            *known += &counts;
        }
    }
    earlier
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::outcome::Outcome;

    use super::earlier;
    use crate::model::{Counts, Minute};

    fn minute(second: i64, outcome: Outcome, count: u64) -> Minute {
        let mut counts = Counts { attempts: count, ..Counts::default() };
        counts.outcomes[outcome as usize] = count;
        let time = jiff::Timestamp::from_second(second).unwrap();
        Minute { time, proxy: "nginx".into(), upstream: "api".into(), counts }
    }

    #[test]
    fn the_newest_minutes_count_and_those_before_only_as_long_as_little_is_known() {
        let (good, bad) = (Outcome::Established, Outcome::Refused);
        let of = |minutes| {
            let counts = earlier(minutes).into_values().next().unwrap();
            (counts.established(), counts.outcome(bad))
        };
        assert_eq!(of(vec![minute(0, good, 600), minute(60, bad, 30)]), (0, 30));
        assert_eq!(of(vec![minute(0, good, 600), minute(60, bad, 3)]), (600, 3));
        assert!(earlier(Vec::new()).is_empty());
    }
}
