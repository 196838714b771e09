//! `wrong_service`: connections are established, and closed or reset unanswered.

use super::{
    definition::{Definition, Documentation, Facts},
    sentence::server_line,
};
use crate::model::{Evidence, Finding, Kind};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::WrongService,
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        format!(
            "{} accepts connections and does not answer; {} were closed or reset unanswered since {}.",
            sentence.address_of_upstream(),
            sentence.evidence().failed,
            sentence.since(),
        )
    },
    advice: |finding| {
        let line = server_line(finding);
        format!("Check what listens there, whether it expects TLS or another protocol, and {line}.").into()
    },
    documentation: Documentation {
        raised_when: "connections are accepted and closed unanswered",
        goes_when: "one is answered",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    facts.at_addresses(Kind::WrongService, facts.proxy.peers(), |peer| {
        let unanswered = peer.service.unanswered();
        let since = unanswered.since().filter(|_| peer.service.is_wrong())?;
        Some((since, Evidence { failed: unanswered.run(), of: unanswered.run(), ..Evidence::default() }))
    })
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn a_service_that_hangs_up_unanswered_is_wrong() {
        let scene = check(
            "until connections are answered",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 2
             config 1 api 5:9090
             4 x 1 api 5:9090 established 2 unanswered 2
             =>
             2 x 1 api 5:9090 established 2 unanswered 2
             => wrong_service api 5:9090
             wait 3600
             4 x 1 api 5:9090 established 2 unanswered 2
             =>",
        );
        assert_eq!(
            scene.sentence(),
            "wrong_service: 10.0.0.5:9090 of upstream \"api\" accepts connections and does not answer; 20 were closed or \
             reset unanswered since 14:30:06Z. Check what listens there, whether it expects TLS or another protocol, and the \"server\" \
             line at /etc/nginx/nginx.conf:1."
        );
        check(
            "the right one listens there again",
            "20 x 0 unknown 5:9090 established 2 unanswered 2
             => wrong_service unknown 5:9090
             4 x 0 unknown 5:9090 established 2
             =>
             8 x 0 unknown 5:9090 established 2
             => not wrong_service unknown 5:9090",
        );
    }

    #[test]
    fn a_service_that_dies_is_not_wrong() {
        check(
            "it takes its connections with it",
            "100 x 0 unknown 5:8080 established 5
             0 unknown 5:8080 established 2 unanswered 80
             20 x 0 unknown 6:8080 established 5
             100 x 0 unknown 5:8080 established 5
             =>",
        );
    }
}
