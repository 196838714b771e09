//! `slow_connect`: handshakes take much longer than this address's own past.

use super::definition::{Definition, Documentation, Facts, Weight};
use crate::model::{Evidence, Finding, Kind, Severity};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::SlowConnect,
    severity: Weight::Always(Severity::Warning),
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { of, handshake_us, usual_us, .. } = sentence.evidence();
        format!(
            "the last {of} handshakes with {} took {} ms on average, 99 of 100 before within {} ms; since {}.",
            sentence.address_of_upstream(),
            milliseconds(*handshake_us),
            milliseconds(*usual_us),
            sentence.since(),
        )
    },
    advice: |_| "Check the network on the way, and the load of the host.".into(),
    documentation: Documentation {
        raised_when: "handshakes take much longer than they used to",
        goes_when: "one is as quick as ever",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    facts.at_addresses(Kind::SlowConnect, facts.proxy.peers(), |peer| {
        let slow = peer.handshakes.slow();
        let since = slow.since().filter(|_| peer.handshakes.is_slow())?;
        let evidence = Evidence {
            failed: slow.run(),
            of: slow.run(),
            handshake_us: peer.handshakes.slow_us(),
            usual_us: peer.handshakes.usual_us(),
            ..Evidence::default()
        };
        Some((since, evidence))
    })
}

/// With one decimal place where that is worth something.
fn milliseconds(us: u64) -> String {
    if us < 10_000 { format!("{:.1}", us as f64 / 1000.0) } else { (us / 1000).to_string() }
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn handshakes_slower_than_ever_are_found() {
        let scene = check(
            "until one is normal",
            "config 0 api 5:8080
             100 x 0 api 5:8080 established 2
             9 x 0 api 5:8080 slow 1
             =>
             0 api 5:8080 slow 1
             => slow_connect api 5:8080
             wait 3600
             10 x 0 api 5:8080 slow 1
             =>",
        );
        assert_eq!(
            scene.sentence(),
            "slow_connect: the last 20 handshakes with 10.0.0.5:8080 of upstream \"api\" took 1200 ms on average, 99 of 100 \
             before within 0.5 ms; since 14:30:25Z. Check the network on the way, and the load of the host."
        );
        check(
            "it is over",
            "100 x 0 unknown 5:8080 established 2
             10 x 0 unknown 5:8080 slow 1
             => slow_connect unknown 5:8080
             0 unknown 5:8080 established 1
             => not slow_connect unknown 5:8080
             50 x 0 unknown 5:8080 established 1 slow 1
             =>",
        );
        check("it was always so", "100 x 0 unknown 5:8080 slow 2\n=>");
    }
}
