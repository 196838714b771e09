//! `silent_upstream`: an upstream that was in steady use is not connected to any more since a reload.
//!
//! Quiet alone proves nothing. What does is that the proxy goes on connecting to its other upstreams, so often that this one would have
//! been among them many times. A new generation has no open connections to reuse, so its first request to an upstream always connects.

use jiff::{SignedDuration, Timestamp};

use super::{
    finding::{Evidence, Finding, Kind},
    history::Proxy,
    upstream::Silence,
};
use crate::model::{UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM};

/// So many connects would have come about by now. None is then a chance of about 2 in a billion.
const EXPECTED: u64 = 20;
/// It was used in this many steps of 10 s before the reload, and in half of all: traffic that comes in bursts may just have ended.
const STEADY: u64 = 3;
/// Time for the new workers to take over.
const TAKEN_OVER: SignedDuration = SignedDuration::from_secs(5);

pub(super) fn find(proxy: &Proxy, now: Timestamp, found: &mut Vec<Finding>) {
    for (name, upstream) in &proxy.upstreams {
        let is_name = ![UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM].contains(&&**name);
        let Some(silence) = upstream.silence.filter(|_| is_name) else {
            continue;
        };
        // An upstream that the new configuration does without was taken out on purpose.
        let is_declared = proxy.declared().is_some_and(|declared| declared.upstreams.contains_key(name));
        let Some(reload) = proxy.generation(silence.epoch).map(|generation| generation.began) else {
            continue;
        };
        if is_declared && is_steady(&silence) && now.duration_since(reload) >= TAKEN_OVER {
            let expected = expected(&silence);
            if expected >= EXPECTED {
                let evidence = Evidence {
                    of: expected,
                    from: upstream.live().map(|(address, _)| address.clone()).collect(),
                    reload: Some(reload),
                    generation: proxy.number(silence.epoch),
                    ..Evidence::default()
                };
                found.push(proxy.finding(Kind::SilentUpstream, name, None, reload, evidence));
            }
        }
    }
}

fn is_steady(silence: &Silence) -> bool {
    silence.before.slots >= STEADY && silence.before.slots * 2 >= silence.before.of_slots
}

/// How many connects to it would have come about by now, had its share remained the same.
fn expected(silence: &Silence) -> u64 {
    silence.others.saturating_mul(silence.before.connects).checked_div(silence.others_before).unwrap_or(0)
}
