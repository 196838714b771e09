//! `no_response`: requests are taken, and no byte of an answer comes.

use super::definition::{Definition, Documentation, Facts, Weight};
use crate::model::{Evidence, Finding, Kind};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::NoResponse,
    severity: Weight::OfAddress,
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { failed, waiting, oldest_ms, .. } = sentence.evidence();
        let waiting = match waiting {
            0 => String::new(),
            n => format!(", {n} wait, the oldest for {} s", oldest_ms / 1000),
        };
        format!(
            "{} takes requests and does not answer; {failed} in a row got no byte since {}{waiting}.",
            sentence.address_of_upstream(),
            sentence.since(),
        )
    },
    advice: |_| {
        "The host is there and acknowledges: check its application (threads, locks, what it waits for itself).".into()
    },
    documentation: Documentation {
        raised_when: "requests are taken and no byte of an answer comes",
        goes_when: "one is answered",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    facts.at_addresses(Kind::NoResponse, facts.proxy.peers(), |peer| {
        let unanswered = peer.response.unanswered();
        let since = unanswered.since().filter(|_| peer.response.is_silent())?;
        let waiting = peer.response.waiting();
        let evidence = Evidence {
            failed: unanswered.run(),
            of: unanswered.run(),
            waiting: waiting.overdue.into(),
            oldest_ms: if waiting.overdue > 0 { waiting.oldest_ms.into() } else { 0 },
            ..Evidence::default()
        };
        Some((since, evidence))
    })
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn requests_that_nobody_answers_are_found() {
        let scene = check(
            "until one is answered",
            "config 0 api 5:8080
             2 x 0 api 5:8080 established 1 answered 1
             0 api 5:8080 established 1 overdue 1
             wait 1
             0 api 5:8080 established 1 overdue 1
             =>
             0 api 5:8080 established 1 overdue 1
             => no_response api 5:8080
             wait 3600
             2 x 0 api 5:8080 established 1 overdue 1
             =>",
        );
        assert_eq!(
            scene.sentence(),
            "no_response: 10.0.0.5:8080 of upstream \"api\" takes requests and does not answer; 5 in a row got no byte since \
             14:30:01Z, 5 wait, the oldest for 7 s. The host is there and acknowledges: check its application (threads, locks, what it \
             waits for itself)."
        );
        check(
            "it answers again",
            "20 x 0 unknown 5:8080 established 1 answered 1
             3 x 0 unknown 5:8080 silent 1
             => no_response unknown 5:8080
             0 unknown 5:8080 answered 1
             => not no_response unknown 5:8080",
        );
    }

    #[test]
    fn a_request_that_is_overdue_and_then_times_out_is_one() {
        check(
            "two of them",
            "20 x 0 unknown 5:8080 established 1 answered 1
             2 x 0 unknown 5:8080 overdue 1
             2 x 0 unknown 5:8080 resolved 1 silent 1
             =>",
        );
        check(
            "the timeouts are counted before a look",
            "20 x 0 unknown 5:8080 established 1 answered 1
             2 x 0 unknown 5:8080 overdue 1
             0 unknown 5:8080 silent 2
             0 unknown 5:8080 resolved 2
             =>
             0 unknown 5:8080 silent 1
             => no_response unknown 5:8080",
        );
        check(
            "the timeouts are counted after a look",
            "20 x 0 unknown 5:8080 established 1 answered 1
             2 x 0 unknown 5:8080 overdue 1
             0 unknown 5:8080 resolved 2
             0 unknown 5:8080 silent 2
             =>",
        );
    }

    #[test]
    fn what_is_answered_beside_it_is_no_finding() {
        check("one page of many hangs", "200 x 0 unknown 5:8080 established 2 answered 2 overdue 1\n=>");
        check("clients leave", "200 x 0 unknown 5:8080 established 1\n=>");
    }
}
