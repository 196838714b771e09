//! What the summary of a trace that follows the agent counts: what the agent has counted meanwhile, also where it is restarted or has
//! gone.

use std::{collections::BTreeMap, mem};

use jiff::Timestamp;

use crate::{
    model::{Counts, Key, RecordTotals, Remembered},
    status::{Status, Upstream},
};

/// What was counted since somebody follows.
pub(super) struct Tally {
    /// When the agent that is followed began, and what it had counted by then.
    since: Timestamp,
    before: BTreeMap<Key, Counts>,
    /// What records say since it is followed: its own counts say more, as long as it can be asked.
    own: RecordTotals,
    /// What records said of the agents before it, whose counts ended with them.
    ended: BTreeMap<Key, Counts>,
    has_lost: bool,
    /// Whether records say everything, also what was established.
    has_all: bool,
}

impl Tally {
    /// From that status on.
    pub(super) fn begin(status: &Status, has_all: bool) -> Self {
        Self {
            since: status.since,
            before: counts(status),
            own: RecordTotals::default(),
            ended: BTreeMap::new(),
            has_lost: false,
            has_all,
        }
    }

    /// Takes what happens while it is followed. What was before it began it knows from the one before, and has not counted.
    pub(super) fn take(&mut self, record: &Remembered) {
        if record.record.time >= self.since {
            self.own.add(record);
        } else {
            let mut one = RecordTotals::default();
            one.add(record);
            self.add(&one);
        }
    }

    fn add(&mut self, records: &RecordTotals) {
        for (key, counts) in records.series() {
            *self.ended.entry(key.clone()).or_default() += counts;
        }
    }

    /// Takes the status of the agent that is there after one has ended: another one counts from its own beginning.
    pub(super) fn renew(&mut self, status: &Status) {
        if status.since != self.since {
            self.lose();
            (self.since, self.before) = (status.since, BTreeMap::new());
        }
    }

    /// Its counts can be had no more: what records say is all there is.
    pub(super) fn lose(&mut self) {
        self.has_lost = true;
        let own = mem::take(&mut self.own);
        self.add(&own);
    }

    /// What was counted, with what the agent says at the end; `None` where it is not there any more. And what is missing.
    pub(super) fn end(mut self, status: Option<&Status>) -> (BTreeMap<Key, Counts>, &'static str) {
        match status {
            Some(status) => self.renew(status),
            None => self.lose(),
        }
        let Self { before, ended: mut all, has_lost, has_all, .. } = self;
        let none = Counts::default();
        for (key, counts) in status.map(counts).unwrap_or_default() {
            let since = counts.since(before.get(&key).unwrap_or(&none));
            *all.entry(key).or_default() += &since;
        }
        let lacks = has_lost && !has_all;
        (
            all,
            if lacks {
                "an agent has ended meanwhile: of what was before, only what failed is counted above\n"
            } else {
                ""
            },
        )
    }
}

/// What an agent has counted of each address since it began.
fn counts(status: &Status) -> BTreeMap<Key, Counts> {
    let of = |upstream: &Upstream| {
        let (proxy, name) = (upstream.proxy.clone(), upstream.upstream.clone());
        let key = move |address| Key { proxy: proxy.clone(), upstream: name.clone(), address };
        let addresses = upstream.addresses.iter();
        addresses.map(move |to| (key(to.address.clone()), to.counts.clone())).collect::<Vec<_>>()
    };
    status.upstreams.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Counts, Status, Tally};
    use crate::model::Remembered;

    /// An agent that began at that second, and has counted so many attempts, of which so many failed.
    fn status(began: u32, attempts: u64, refused: u64) -> Status {
        let counts = json!({"attempts": attempts, "established": attempts - refused, "failures": {"refused": refused}});
        let address = json!({"address": "10.0.0.5:80", "declared": true, "counts": counts});
        serde_json::from_value(json!({
            "time": "2026-11-22T14:35:10Z", "version": "0.1.0", "source": "agent", "findings": [], "proxies": [],
            "since": format!("2026-11-22T14:00:{began:02}Z"), "recent_since": "2026-11-22T14:34:10Z",
            "upstreams": [{"proxy": "nginx", "upstream": "api", "state": "ok", "recent": {}, "in_flight": 0,
                           "addresses": [address]}],
        }))
        .unwrap()
    }

    fn refused(times: u64) -> Remembered {
        let line = json!({"time": "2026-11-22T14:35:01Z", "kind": "connect", "proxy": "nginx", "pid": 9, "generation": 3,
            "upstream": "api", "address": "10.0.0.5:80", "outcome": "refused", "cause": "refused", "errno": 111,
            "duration_us": 58, "syn_retransmits": 0, "times": times});
        serde_json::from_value(line).unwrap()
    }

    /// Attempts, failures, and whether something is said to be missing.
    fn ended(tally: Tally, status: Option<&Status>) -> (u64, u64, bool) {
        let (counts, note) = tally.end(status);
        let all = || counts.values();
        (all().map(|of| of.attempts).sum(), all().map(Counts::gone_wrong).sum(), !note.is_empty())
    }

    #[test]
    fn one_agent_has_counted_everything() {
        let mut tally = Tally::begin(&status(1, 100, 10), false);
        tally.take(&refused(5));
        assert_eq!(ended(tally, Some(&status(1, 120, 15))), (20, 5, false));
    }

    #[test]
    fn another_agent_counts_from_its_beginning_and_records_say_what_was_before() {
        let mut tally = Tally::begin(&status(1, 100, 10), false);
        tally.take(&refused(5));
        tally.renew(&status(2, 1, 1));
        tally.take(&refused(7));
        assert_eq!(ended(tally, Some(&status(2, 20, 7))), (25, 12, true));
    }

    #[test]
    fn the_same_agent_that_is_asked_again_goes_on() {
        let mut tally = Tally::begin(&status(1, 100, 10), false);
        tally.take(&refused(5));
        tally.renew(&status(1, 110, 12));
        assert_eq!(ended(tally, Some(&status(1, 120, 15))), (20, 5, false));
    }

    #[test]
    fn without_an_agent_records_are_all_there_is() {
        let mut tally = Tally::begin(&status(1, 100, 10), true);
        tally.take(&refused(5));
        assert_eq!(ended(tally, None), (5, 5, false));
        let mut tally = Tally::begin(&status(1, 100, 10), false);
        tally.take(&refused(5));
        assert_eq!(ended(tally, None), (5, 5, true));
    }
}
