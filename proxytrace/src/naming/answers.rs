//! What a name resolved to in the look-ups of the last minutes: whether an address is one of it still.

use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::model::NameNow;

/// What so many look-ups in a row did not give, over so long, is none of a name's addresses any more.
const ENOUGH: usize = 5;
const LONG: Duration = Duration::from_secs(600);

/// More look-ups are not remembered.
const MOST: usize = 12;

/// Of a name with more addresses nothing is said.
const MAX_ADDRESSES: usize = 16;

/// The answers of the last minutes, the newest last.
#[derive(Debug, Default)]
pub(super) struct Answers {
    kept: VecDeque<(Instant, Arc<BTreeSet<IpAddr>>)>,
    /// Addresses came that had gone, or the answers changed again and again: a balancer hands out some of many.
    rotates: bool,
    /// Since when they are as the last one is.
    since: Timestamp,
}

impl Answers {
    /// Adds an answer to a question that was asked then.
    pub(super) fn add(
        &mut self,
        (asked, time): (Instant, Timestamp),
        addresses: impl Iterator<Item = IpAddr>,
    ) {
        let addresses: BTreeSet<_> = addresses.map(|ip| ip.to_canonical()).take(MAX_ADDRESSES + 1).collect();
        let same = self.kept.back().filter(|(_, last)| **last == addresses).map(|(_, last)| Arc::clone(last));
        if same.is_none() {
            self.since = time;
        }
        self.kept.push_back((asked, same.unwrap_or_else(|| addresses.into())));
        self.note_rotation();
        while self.kept.len() > MOST || self.is_enough_without_first() {
            self.kept.pop_front();
        }
    }

    /// Whether there is one, the first.
    pub(super) fn is_first(&self) -> bool {
        self.kept.len() == 1
    }

    /// Whether any answer had the address.
    pub(super) fn has(&self, ip: IpAddr) -> bool {
        self.kept.iter().any(|(_, addresses)| addresses.contains(&ip))
    }

    /// Whether answers differ.
    pub(super) fn have_changed(&self) -> bool {
        self.rotates
            || self.kept.iter().any(|(_, one)| Some(one) != self.kept.front().map(|(_, first)| first))
    }

    /// What they say; `None` where there is none yet, or one with more addresses than are remembered.
    pub(super) fn now(&self) -> Option<NameNow> {
        if self.kept.iter().any(|(_, addresses)| addresses.len() > MAX_ADDRESSES) {
            return None;
        }
        let (newest, now) = self.kept.back()?;
        let (oldest, _) = self.kept.front()?;
        let all: BTreeSet<IpAddr> =
            self.kept.iter().flat_map(|(_, addresses)| addresses.iter().copied()).collect();
        let is_enough = self.kept.len() >= ENOUGH && newest.saturating_duration_since(*oldest) >= LONG;
        Some(NameNow {
            addresses: (**now).clone(),
            since: self.since,
            before: all.difference(now).copied().collect(),
            rotates: self.rotates,
            is_settled: is_enough && !self.is_growing(),
        })
    }

    fn is_enough_without_first(&self) -> bool {
        let second = self.kept.get(1).map(|(asked, _)| *asked);
        let newest = self.kept.back().map(|(asked, _)| *asked);
        self.kept.len() > ENOUGH
            && newest
                .zip(second)
                .is_some_and(|(newest, second)| newest.saturating_duration_since(second) >= LONG)
    }

    /// Whether the last answer has what none before it had: then there may be more.
    fn is_growing(&self) -> bool {
        let before = self.kept.len().saturating_sub(1);
        let is_new =
            |ip: &IpAddr| !self.kept.iter().take(before).any(|(_, addresses)| addresses.contains(ip));
        self.rotates && self.kept.back().is_some_and(|(_, last)| last.iter().any(is_new))
    }

    /// One that changes once has moved.
    fn note_rotation(&mut self) {
        let sets: Vec<_> = self.kept.iter().map(|(_, addresses)| addresses).collect();
        let changes = sets.windows(2).filter(|pair| pair[0] != pair[1]).count();
        self.rotates = changes >= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use jiff::Timestamp;

    use super::{Answers, NameNow};

    /// Answers in steps of so many seconds, each the last bytes of addresses.
    fn answers(step: u64, all: &[&[u8]]) -> NameNow {
        let (mut answers, mut now) = (Answers::default(), Instant::now());
        for one in all {
            answers.add((now, Timestamp::UNIX_EPOCH), one.iter().map(|last| [10, 0, 0, *last].into()));
            now += Duration::from_secs(step);
        }
        answers.now().unwrap_or_default()
    }

    fn last_bytes(of: &std::collections::BTreeSet<std::net::IpAddr>) -> Vec<u8> {
        of.iter().map(|ip| if let std::net::IpAddr::V4(ip) = ip { ip.octets()[3] } else { 0 }).collect()
    }

    #[test]
    fn five_answers_over_ten_minutes_say_what_a_name_is_not_any_more() {
        let two_three = |threes: usize| {
            let mut all: Vec<&[u8]> = vec![&[2]];
            all.extend(vec![&[3][..]; threes]);
            answers(150, &all)
        };
        let early = two_three(4);
        assert_eq!((last_bytes(&early.addresses), last_bytes(&early.before)), (vec![3], vec![2]));
        let late = two_three(5);
        assert_eq!((last_bytes(&late.addresses), last_bytes(&late.before)), (vec![3], vec![]));
        assert!(late.is_settled && !late.rotates);
        assert!(!answers(60, &[&[3][..]; 8]).is_settled, "eight minutes");
        assert!(!answers(600, &[&[3][..]; 4]).is_settled, "four look-ups");
    }

    #[test]
    fn a_balancer_hands_out_some_of_many() {
        let rotating = answers(120, &[&[2, 3], &[4, 5], &[2, 3]]);
        assert!(rotating.rotates && !rotating.is_settled);
        assert_eq!(last_bytes(&rotating.before), [4, 5]);
        let of_many: Vec<Vec<u8>> = (0..12).map(|n| vec![n * 2, n * 2 + 1]).collect();
        let of_many: Vec<&[u8]> = of_many.iter().map(Vec::as_slice).collect();
        assert!(!answers(120, &of_many).is_settled, "there may be more");
        assert!(!answers(120, &[&[2], &[3]]).rotates, "it has moved");
        assert_eq!(answers(120, &[&[1; 3][..]; 2]).addresses.len(), 1);
    }
}
