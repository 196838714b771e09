//! `silent_upstream`: an upstream that was in steady use is not connected to any more since a reload.
//!
//! Quiet alone proves nothing. What does is that the proxy goes on connecting to its other upstreams, so often that this one would have
//! been among them many times. A new generation has no open connections to reuse, so its first request to an upstream always connects.

use std::sync::Arc;

use jiff::SignedDuration;

use super::definition::{Definition, Documentation, Facts, Weight};
use crate::{
    findings::history::{Silence, Upstream},
    model::{Evidence, Finding, Kind, Severity, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM},
};

/// So many connects would have come about by now. None is then a chance of about 2 in a billion.
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
            "{} is not connected to since the reload at {}; about {} connects were to be expected by now.",
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
    if !is_name || !is_declared || !has_taken_over || !is_steady(&silence) || expected < MIN_EXPECTED {
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

fn is_steady(silence: &Silence) -> bool {
    silence.before.slots >= MIN_SLOTS && silence.before.slots * 2 >= silence.before.of_slots
}

/// How many connects to it would have come about by now, had its share remained the same.
fn expected(silence: &Silence) -> u64 {
    silence.others.saturating_mul(silence.before.connects).checked_div(silence.others_before).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

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
            "silent_upstream: upstream \"api\" is not connected to since the reload at 14:30:40Z; about 520 connects were to \
             be expected by now. Check the locations that should lead there."
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
