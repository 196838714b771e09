//! `black_hole`: SYNs are sent again, and nothing answers. Reported long before the proxy's own timeout shows it, up to a minute later.

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    sentence::{count, no_answer},
    silence,
};
use crate::{
    findings::outcomes::timeouts,
    model::{Evidence, Finding, Kind},
};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::BlackHole,
    severity: Weight::OfAddress,
    explains: &[Kind::AddressDown, Kind::NoResponse],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { syn_retransmits, given_up, failed, in_flight, unheard, .. } = sentence.evidence();
        if *unheard > 0 && *syn_retransmits == 0 && *given_up == 0 && *failed == 0 {
            return format!(
                "nothing answers at {} any more; on {unheard} established connections nothing acknowledges what is sent since {}.",
                sentence.address_of_upstream(),
                sentence.since(),
            );
        }
        let timed_out = match failed {
            0 => String::new(),
            failed => format!("; {} failed without an answer", count(*failed, "connect")),
        };
        format!(
            "nothing answers at {} since {}{timed_out}{}.",
            sentence.address_of_upstream(),
            sentence.since(),
            no_answer(*syn_retransmits, *given_up, *in_flight),
        )
    },
    advice: |_| "Check that the host is up, and firewalls and routes on the way.".into(),
    documentation: Documentation {
        raised_when: "nothing answers: SYNs are sent again, or connects given up late",
        goes_when: "anything answers, be it a refusal",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    facts.at_addresses(Kind::BlackHole, facts.proxy.peers(), |peer| {
        let by_syns = peer.answers.since().filter(|_| peer.answers.is_proof());
        let since = by_syns.into_iter().chain(peer.response.unheard_since()).min()?;
        let evidence = Evidence {
            unheard: peer.response.waiting().unheard.into(),
            failed: timeouts(&peer.causes),
            ..silence::evidence(peer)
        };
        Some((since, evidence))
    })
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn syns_that_nothing_answers_are_a_black_hole() {
        let scene = check(
            "before the proxy gives up, until something answers",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 2
             0 api 5:8080 flying 3
             wait 1
             0 api 5:8080 resent 3
             => black_hole api 5:8080, upstream_down api
             wait 60
             =>",
        );
        assert_eq!(
            scene.sentence_of("black_hole"),
            "black_hole: nothing answers at 10.0.0.5:8080 of upstream \"api\" since 14:30:07Z; 3 SYNs sent again; 3 connects \
             waiting. Check that the host is up, and firewalls and routes on the way."
        );
        for answer in ["established", "refused", "reset"] {
            let history = "0 unknown 5:8080 flying 1 resent 3\n=> black_hole unknown 5:8080\nwait 60\n=>\n0 unknown 5:8080";
            check(answer, &format!("{history} {answer} 1\n=> not black_hole unknown 5:8080"));
        }
        for silence in ["late 1", "proxy_timeout 1", "given_up 1", "timed_out 1"] {
            check(
                silence,
                &format!(
                    "config 0 api 5:8080
                     20 x 0 api 5:8080 established 2
                     wait 1
                     2 x 0 api 5:8080 {silence}
                     =>
                     0 api 5:8080 {silence}
                     => black_hole api 5:8080, upstream_down api
                     0 api 5:8080 established 1
                     => not black_hole api 5:8080, not upstream_down api"
                ),
            );
        }
        check(
            "clients that leave as soon as ever",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 2
             20 x 0 api 5:8080 cancelled 2
             =>",
        );
        check(
            "the upstream is down when all time out",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 2
             wait 1
             0 api 5:8080 resent 3 proxy_timeout 3
             => black_hole api 5:8080, upstream_down api",
        );
        check(
            "one dead host of two is reported at once, as each request waits for it, and once",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             wait 1
             4 x 0 api 5:8080 resent 1; 0 api 6:8080 established 2
             => black_hole api 5:8080
             400 x 0 api 5:8080 resent 1 proxy_timeout 1; 0 api 6:8080 established 2
             =>",
        );
    }

    #[test]
    fn a_host_that_vanishes_behind_kept_connections_is_a_black_hole() {
        let scene = check(
            "as soon as nothing is acknowledged, until something answers",
            "config 0 api 5:8080
             0 api 5:8080 established 1
             4 x 0 api 5:8080 answered 1
             0 api 5:8080 unheard 1
             =>
             wait 1
             0 api 5:8080 unheard 1
             => black_hole api 5:8080, upstream_down api
             wait 60
             =>",
        );
        assert_eq!(
            scene.sentence_of("black_hole"),
            "black_hole: nothing answers at 10.0.0.5:8080 of upstream \"api\" any more; on 1 established connections nothing \
             acknowledges what is sent since 14:30:01Z. Check that the host is up, and firewalls and routes on the way."
        );
        let gone = "0 unknown 5:8080 established 1 answered 1\n2 x 0 unknown 5:8080 unheard 1\n=> black_hole unknown 5:8080";
        for answer in ["answered", "established", "refused"] {
            check(answer, &format!("{gone}\n0 unknown 5:8080 {answer} 1\n=> not black_hole unknown 5:8080"));
        }
        check("one way of several is lost", "100 x 0 unknown 5:8080 unheard 1 answered 1\n=>");
    }

    #[test]
    fn a_lost_syn_is_no_black_hole() {
        check("some are lost", "200 x 0 unknown 5:8080 established 2 resent 1\n=>");
        check(
            "two in a row",
            "20 x 0 unknown 5:8080 established 2\n2 x 0 unknown 5:8080 resent 1\n0 unknown 5:8080 established 1\n=>",
        );
    }
}
