//! `silent_upstream`: an upstream that was in steady use is not connected to any more since a reload.
//!
//! Quiet alone proves nothing. What does is that the proxy goes on connecting to its other upstreams, so often that this one would have
//! been among them many times. A new generation has no open connections to reuse, so its first request to an upstream always connects.

use jiff::{SignedDuration, Timestamp};

use super::{proxy::Proxy, upstream::Silence};
use crate::model::{Evidence, Finding, Kind, UNDECLARED_UPSTREAM, UNKNOWN_UPSTREAM};

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
        let is_declared = proxy.last_declared().is_some_and(|declared| declared.upstreams.contains_key(name));
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

#[cfg(test)]
mod tests {
    use super::super::scenes::check;

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
            scene.said(),
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
