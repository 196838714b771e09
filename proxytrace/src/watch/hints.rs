//! What else is known about why connects fail, where their error has several causes. The reader is asked for it; meanwhile what was counted
//! waits for a moment.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use proxytrace_ebpf::outcome::Outcome;

use crate::model::{Address, Counts, Hint};

/// So long what was counted waits for the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was found out holds for so long; then it is asked again, where connects still fail.
const HOLDS: Duration = Duration::from_secs(10);

/// So many addresses are asked about, of all proxies.
const MAX_ASKED: usize = 1024;

/// What is known of addresses, by proxy.
#[derive(Debug, Default)]
pub(super) struct Hints(HashMap<(u64, Address), Known>);

#[derive(Debug)]
struct Known {
    /// Since when an answer is waited for, if one is.
    asked: Option<Instant>,
    /// When there was one.
    answered: Option<Instant>,
    hint: Option<Hint>,
}

/// What is known now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hinted {
    /// It is worth waiting for an answer.
    Pending,
    /// This; and whether it is to be asked.
    Known(Option<Hint>),
}

impl Hints {
    /// What is known of an address at which this was counted. Gives as well whether that is to be asked.
    pub(super) fn of(
        &mut self,
        now: Instant,
        proxy: u64,
        address: &Address,
        counts: &Counts,
    ) -> (Hinted, bool) {
        if !is_ambiguous(address, counts) {
            return (Hinted::Known(None), false);
        }
        let key = (proxy, address.clone());
        if self.0.len() >= MAX_ASKED && !self.0.contains_key(&key) {
            return (Hinted::Known(None), false);
        }
        let known = self.0.entry(key).or_insert(Known { asked: None, answered: None, hint: None });
        let is_stale = known.answered.is_none_or(|answered| now.duration_since(answered) >= HOLDS);
        let asks = is_stale && known.asked.is_none_or(|asked| now.duration_since(asked) >= HOLDS);
        if asks {
            known.asked = Some(now);
        }
        let waits =
            known.answered.is_none() && known.asked.is_some_and(|asked| now.duration_since(asked) < PATIENCE);
        (if waits { Hinted::Pending } else { Hinted::Known(known.hint) }, asks)
    }

    /// That is the answer.
    pub(super) fn answer(&mut self, now: Instant, proxy: u64, hints: Vec<(Address, Option<Hint>)>) {
        for (address, hint) in hints {
            if let Some(known) = self.0.get_mut(&(proxy, address)) {
                *known = Known { asked: None, answered: Some(now), hint };
            }
        }
    }

    /// Forgets the proxies that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(u64) -> bool) {
        self.0.retain(|(proxy, _), _| is_there(*proxy));
    }
}

/// Whether connects fail there with an error that has several causes.
fn is_ambiguous(address: &Address, counts: &Counts) -> bool {
    let outcomes: &[Outcome] = match address {
        Address::Internet(SocketAddr::V6(_)) => &[Outcome::NoLocalPort, Outcome::NetworkUnreachable],
        Address::Internet(SocketAddr::V4(_)) => &[],
        Address::Unix(_) => &[Outcome::NoSuchSocket],
    };
    outcomes.iter().any(|outcome| counts.outcome(*outcome) > 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Counts, HOLDS, Hint, Hinted, Hints, Instant, Outcome, PATIENCE};

    #[test]
    fn what_is_ambiguous_waits_for_a_moment_and_is_asked_seldom() {
        let (mut hints, mut now) = (Hints::default(), Instant::now());
        let mut counts = Counts { attempts: 1, ..Counts::default() };
        counts.outcomes[Outcome::NoLocalPort as usize] = 1;
        let (v4, v6) = ("10.0.0.5:80".parse().unwrap(), "[2001:db8::5]:80".parse().unwrap());
        assert_eq!(hints.of(now, 1, &v4, &counts), (Hinted::Known(None), false));
        assert_eq!(hints.of(now, 1, &v6, &counts), (Hinted::Pending, true));
        assert_eq!(hints.of(now, 1, &v6, &counts), (Hinted::Pending, false));
        now += PATIENCE;
        assert_eq!(hints.of(now, 1, &v6, &counts), (Hinted::Known(None), false), "no answer comes");
        hints.answer(now, 1, vec![(v6.clone(), Some(Hint::NoIpv6))]);
        assert_eq!(hints.of(now, 1, &v6, &counts), (Hinted::Known(Some(Hint::NoIpv6)), false));
        now += HOLDS + Duration::from_millis(1);
        assert_eq!(hints.of(now, 1, &v6, &counts), (Hinted::Known(Some(Hint::NoIpv6)), true));
        hints.retain(|proxy| proxy != 1);
        assert_eq!(hints.of(now, 1, &v6, &counts), (Hinted::Pending, true));
    }
}
