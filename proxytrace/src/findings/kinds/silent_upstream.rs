//! `silent_upstream`: an upstream that was in steady use is not connected to any more since a reload.
//!
//! Quiet alone proves nothing. What does is that the proxy goes on using its other upstreams, so often that this one would have been among
//! them many times: by connects, or by answers on connections that are kept. A new generation has no open connections to reuse, so its first request to an upstream always connects.

use std::sync::Arc;

use jiff::SignedDuration;

use super::definition::{Definition, Documentation, Facts, Weight};
use crate::{
    findings::history::{Epoch, Silence, Upstream},
    model::{Evidence, Finding, Kind, Severity, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
};

/// So often it would have been used by now. Not at all is then a chance of about 2 in a billion.
const MIN_EXPECTED: u64 = 20;
/// It was used in this many steps of 10 s before the reload, and in half of all: traffic that comes in bursts may just have ended.
const MIN_SLOTS: u64 = 3;
/// Time for the new workers to take over.
const TAKEOVER_TIMEOUT: SignedDuration = SignedDuration::from_secs(5);

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::SilentUpstream,
    severity: Weight::Always(Severity::Warning),
    explains: &[],
    prove: None,
    detect: |facts| {
        let upstreams = facts.proxy.upstreams.iter();
        upstreams.filter_map(|(name, upstream)| silent(facts, name, upstream)).collect()
    },
    sentence: |sentence| {
        format!(
            "{} is not connected to since the reload at {}; it would have been used about {} times by now.",
            sentence.upstream(),
            sentence.since(),
            sentence.evidence().of,
        )
    },
    advice: |_| "Check the locations that should lead there.".into(),
    documentation: Documentation {
        raised_when: "an upstream in steady use is not connected to since a reload",
        goes_when: "it is connected to",
    },
};

fn silent(facts: &Facts<'_>, name: &Arc<str>, upstream: &Upstream) -> Option<Finding> {
    let silence = upstream.silence?;
    let generations = &facts.proxy.generations;
    let reload = generations.get(silence.epoch)?.at;
    let is_name = ![UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM].contains(&&**name);
    // An upstream that the new configuration does without was taken out on purpose.
    let is_declared =
        generations.last_declared().is_some_and(|declared| declared.upstreams.contains_key(name));
    let has_taken_over = facts.now.duration_since(reload) >= TAKEOVER_TIMEOUT;
    let expected = expected(&silence);
    if !is_name
        || !is_declared
        || upstream.reach.is_proof()
        || is_nameless(facts, upstream, silence.epoch)
        || !has_taken_over
        || !is_steady(&silence)
        || expected < MIN_EXPECTED
    {
        return None;
    }
    let evidence = Evidence {
        of: expected,
        from: upstream.live().map(|(address, _)| address.clone()).collect(),
        reload: Some(reload),
        ..Evidence::default()
    };
    Some(facts.at_upstream(Kind::SilentUpstream, name, silence.epoch, reload, evidence))
}

/// Whether its addresses are connected to since, and nobody could say by which name: its configuration was not read in time.
fn is_nameless(facts: &Facts<'_>, upstream: &Upstream, since: Epoch) -> bool {
    let nameless = [UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM].map(|name| facts.proxy.upstreams.get(name));
    let is_used = |nameless: &Upstream| {
        let mut addresses = upstream.peers().map(|(address, _)| address);
        addresses.any(|address| nameless.peer(address).is_some_and(|peer| peer.epoch >= since))
    };
    nameless.into_iter().flatten().any(is_used)
}

fn is_steady(silence: &Silence) -> bool {
    silence.before.slots >= MIN_SLOTS && silence.before.slots * 2 >= silence.before.of_slots
}

/// How often it would have been used by now, had its share remained the same.
fn expected(silence: &Silence) -> u64 {
    silence.others.saturating_mul(silence.before.uses).checked_div(silence.others_before).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn an_upstream_whose_name_is_not_known_in_time_is_not_silent() {
        check(
            "the configuration of the reload is not read",
            "config 0 api 5:8080 | web 7:80
             160 x 0 api 5:8080 established 1; 0 web 7:80 established 1
             reload 1
             60 x 1 unknown 5:8080 established 1; 1 web 7:80 established 1
             =>",
        );
    }

    #[test]
    fn an_upstream_that_a_reload_cut_off_is_silent() {
        let scene = check(
            "until it is connected to again",
            "config 0 api 5:8080 | web 7:80
             160 x 0 api 5:8080 established 1; 0 web 7:80 established 1
             config 1 api 5:8080 | web 7:80
             19 x 1 web 7:80 established 1
             =>
             1 web 7:80 established 1; 0 api 5:8080 established 4
             => silent_upstream api
             wait 86400
             500 x 1 web 7:80 established 1
             =>",
        );
        assert_eq!(
            scene.sentence(),
            "silent_upstream: upstream \"api\" is not connected to since the reload at 14:30:40Z; it would have been used about \
             520 times by now. Check the locations that should lead there."
        );
        check(
            "connections are kept, and show that they are used",
            "config 0 api 5:8080 | web 7:80
             0 api 5:8080 established 1; 0 web 7:80 established 1
             160 x 0 api 5:8080 answered 1; 0 web 7:80 answered 1
             config 1 api 5:8080 | web 7:80
             1 web 7:80 established 1
             30 x 1 web 7:80 answered 1
             => silent_upstream api",
        );
        check(
            "a dead one is switched away from by hand",
            "config 0 blue 5:8080 | green- 6:8080 | web 7:80
             160 x 0 blue 5:8080 established 1; 0 web 7:80 established 1
             20 x 0 blue 5:8080 refused 1; 0 web 7:80 established 1
             => upstream_down blue
             config 1 blue- 5:8080 | green 6:8080 | web 7:80
             100 x 1 green 6:8080 established 1; 1 web 7:80 established 1
             => not upstream_down blue",
        );
        check(
            "another reload brings it back",
            "config 0 api 5:8080 | web 7:80
             160 x 0 api 5:8080 established 1; 0 web 7:80 established 1
             config 1 api 5:8080 | web 7:80
             30 x 1 web 7:80 established 1
             => silent_upstream api
             config 2 api 5:8080 | web 7:80
             30 x 2 web 7:80 established 1
             =>
             2 api 5:8080 refused 1
             => not silent_upstream api",
        );
    }

    #[test]
    fn quiet_alone_is_no_silence() {
        check(
            "no traffic at all since the reload",
            "config 0 api 5:8080 | web 7:80
             160 x 0 api 5:8080 established 1; 0 web 7:80 established 1
             config 1 api 5:8080 | web 7:80
             wait 86400
             =>",
        );
        check(
            "it was taken out",
            "config 0 api 5:8080 | web 7:80
             160 x 0 api 5:8080 established 1; 0 web 7:80 established 1
             config 1 web 7:80
             90 x 1 web 7:80 established 1
             =>",
        );
        check(
            "it was used in a burst",
            "config 0 api 5:8080 | web 7:80
             20 x 0 api 5:8080 established 9; 0 web 7:80 established 1
             160 x 0 web 7:80 established 1
             config 1 api 5:8080 | web 7:80
             90 x 1 web 7:80 established 1
             =>",
        );
        check(
            "it was used seldom",
            "config 0 api 5:8080 | web 7:80
             4 x 0 api 5:8080 established 1
             wait 10
             0 api 5:8080 established 1
             wait 10
             160 x 0 web 7:80 established 3
             config 1 api 5:8080 | web 7:80
             90 x 1 web 7:80 established 3
             =>",
        );
        check(
            "a new upstream is busy, the others are not",
            "config 0 api 5:8080 | web 7:80
             160 x 0 api 5:8080 established 1; 0 web 7:80 established 1
             config 1 api 5:8080 | web 7:80 | new 8:80
             90 x 1 new 8:80 established 9
             =>",
        );
    }
}
