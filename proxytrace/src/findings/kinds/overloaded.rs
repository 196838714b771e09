//! `overloaded`: handshakes need a SYN sent again or time out, and some succeed.

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    silence,
};
use crate::model::{Evidence, Finding, Kind, Severity};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::Overloaded,
    severity: Weight::Always(Severity::Warning),
    explains: &[Kind::SlowConnect, Kind::BlackHole, Kind::AddressDown],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { failed, of, syn_retransmits, .. } = sentence.evidence();
        format!(
            "{failed} of {of} connects to {} took over a second or failed unanswered since {}, {syn_retransmits} SYNs sent again; \
             some succeed.",
            sentence.address_of_upstream(),
            sentence.since(),
        )
    },
    advice: |_| {
        "Check whether the listener there accepts fast enough (`nstat -az TcpExtListenOverflows`), then for packet loss on the way.".into()
    },
    documentation: Documentation {
        raised_when: "many connects need a SYN sent again or go unanswered, and some succeed",
        goes_when: "fewer than one in twenty of the last 250 do",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    facts.at_addresses(Kind::Overloaded, facts.proxy.peers(), |peer| {
        let since = peer.load.since().filter(|_| peer.load.is_overloaded() && peer.worked.is_some())?;
        let seen = peer.load.seen();
        let evidence = Evidence {
            failed: seen.troubled,
            of: seen.all,
            syn_retransmits: seen.resent,
            ..silence::evidence(peer)
        };
        Some((since, evidence))
    })
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn handshakes_that_come_about_with_trouble_are_an_overload() {
        let scene = check(
            "a third of the SYNs is lost",
            "config 0 api 5:8080
             100 x 0 api 5:8080 established 1
             30 x 0 api 5:8080 established 5 slow 2 proxy_timeout 1 resent 4
             => overloaded api 5:8080
             100 x 0 api 5:8080 established 5 slow 2 proxy_timeout 1 resent 4
             wait 3600
             =>",
        );
        let sentence = scene.sentence();
        assert!(
            sentence.contains("connects to 10.0.0.5:8080 of upstream \"api\" took over a second"),
            "{sentence}"
        );
        check(
            "and it is over",
            "config 0 api 5:8080
             100 x 0 api 5:8080 established 1
             30 x 0 api 5:8080 established 5 slow 2 proxy_timeout 1 resent 4
             => overloaded api 5:8080
             200 x 0 api 5:8080 established 5
             => not overloaded api 5:8080",
        );
    }

    #[test]
    fn a_time_in_which_nothing_answers_is_no_overload() {
        check(
            "what waited meanwhile is answered late",
            "config 0 api 5:8080
             100 x 0 api 5:8080 established 5
             wait 1
             0 api 5:8080 flying 5
             wait 1
             0 api 5:8080 flying 5 resent 10
             => black_hole api 5:8080, upstream_down api
             wait 3
             0 api 5:8080 established 5 slow 10
             => not black_hole api 5:8080, not upstream_down api
             8 x 0 api 5:8080 established 2 slow 3 resent 2
             =>
             100 x 0 api 5:8080 established 5
             =>",
        );
        check(
            "an overload that becomes a hole",
            "config 0 api 5:8080 6:8080
             100 x 0 api 5:8080 established 1; 0 api 6:8080 established 1
             30 x 0 api 5:8080 established 5 slow 2 proxy_timeout 1 resent 4; 0 api 6:8080 established 1
             => overloaded api 5:8080
             wait 2
             100 x 0 api 5:8080 proxy_timeout 2 resent 4; 0 api 6:8080 established 1
             => not overloaded api 5:8080, black_hole api 5:8080
             wait 60
             0 api 5:8080 established 5
             => not black_hole api 5:8080",
        );
    }

    #[test]
    fn what_is_lost_now_and_then_is_no_overload() {
        check("one in fifty", "400 x 0 unknown 5:8080 established 49 slow 1 resent 1\n=>");
        check(
            "a burst of a few",
            "100 x 0 unknown 5:8080 established 5\n0 unknown 5:8080 slow 5 resent 5\n100 x 0 unknown 5:8080 established 5\n=>",
        );
        check("far away", "100 x 0 unknown 5:8080 late 1\n=> black_hole unknown 5:8080");
    }
}
