//! `address_down`: one address of several does not accept a connection any more.
//!
//! nginx asks the next one, so a restart is given the time that it takes.

use super::{
    definition::{Definition, Documentation, Facts},
    sentence::server_line,
};
use crate::{
    findings::{evidence::RESTART_TIMEOUT, outcomes::causes},
    model::{Evidence, Finding, Kind, UNDECLARED_UPSTREAM},
};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::AddressDown,
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        format!(
            "{} cannot be reached since {}, other addresses can; the last {} connects there all {}.",
            sentence.address_of_upstream(),
            sentence.since(),
            sentence.evidence().of,
            sentence.failed(),
        )
    },
    advice: |finding| {
        format!("Check the service there; mark {} \"down\" until it is back.", server_line(finding)).into()
    },
    documentation: Documentation {
        raised_when: "the same for one address of several, for a minute",
        goes_when: "one succeeds",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let upstreams = facts.proxy.upstreams.iter();
    let with_several =
        upstreams.filter(|(name, upstream)| ***name != *UNDECLARED_UPSTREAM && upstream.peers.len() > 1);
    let peers = with_several
        .flat_map(|(name, upstream)| upstream.peers.iter().map(move |(address, peer)| (name, address, peer)));
    facts.at_addresses(Kind::AddressDown, peers, |peer| {
        let is_down = peer.reach.is_proof() && peer.reach.length() >= RESTART_TIMEOUT;
        let since = peer.reach.since().filter(|_| is_down)?;
        let evidence = Evidence {
            failed: peer.reach.run(),
            of: peer.reach.run(),
            causes: causes([&peer.causes]),
            in_flight: peer.in_flight,
            ..Evidence::default()
        };
        Some((since, evidence))
    })
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn an_address_is_down_when_it_has_had_the_time_of_a_restart() {
        check(
            "one of two stays dead",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             230 x 0 api 5:8080 refused 1; 0 api 6:8080 established 3
             =>
             20 x 0 api 5:8080 refused 1; 0 api 6:8080 established 3
             => address_down api 5:8080
             wait 3600
             20 x 0 api 6:8080 established 3
             =>
             0 api 5:8080 established 1
             => not address_down api 5:8080",
        );
        check(
            "max_fails leaves few attempts",
            "config 0 api 5:8080 6:8080
             20 x 0 api 5:8080 established 2; 0 api 6:8080 established 2
             0 api 5:8080 refused 1; 0 api 6:8080 established 3
             wait 30
             0 api 5:8080 refused 1; 0 api 6:8080 established 3
             wait 30
             0 api 5:8080 refused 1; 0 api 6:8080 established 3
             => address_down api 5:8080",
        );
        check(
            "addresses that a script chooses have no names",
            "config 0 +open shop 9:80
             20 x 0 unknown 5:8080 established 2; 0 unknown 6:8080 established 2
             230 x 0 unknown 5:8080 refused 1; 0 unknown 6:8080 established 3
             =>
             20 x 0 unknown 5:8080 refused 1; 0 unknown 6:8080 established 3
             => address_down unknown 5:8080
             config 1 api 5:8080
             => not address_down unknown 5:8080",
        );
    }
}
