//! `undeclared_destination`: the proxy connects where its configuration names nothing.

use super::{
    down::NOT_A_RESTART,
    peer::{causes, fared},
    proxy::Proxy,
};
use crate::model::{Evidence, Fared, Finding, Kind, UNDECLARED_UPSTREAM};

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    let Some((name, upstream)) = proxy.upstreams.get_key_value(UNDECLARED_UPSTREAM) else {
        return;
    };
    for (address, peer) in &upstream.peers {
        // What only a request says is declared nowhere, and is no finding.
        let declared = proxy.declared_in(peer.epoch).filter(|declared| !declared.is_open);
        let Some(declared) = declared else {
            continue;
        };
        // Where nginx follows a name, it knows a new address before we do. We follow within this time.
        let is_ahead = declared.is_followed && peer.age() < NOT_A_RESTART;
        if proxy.is_current(name, address) && !is_ahead {
            let Fared { failed, of } = fared(&peer.counts);
            let evidence = Evidence {
                failed,
                of: of.max(peer.counts.attempts),
                causes: causes([&peer.causes]),
                in_flight: peer.in_flight,
                generation: proxy.number(peer.epoch),
                ..Evidence::default()
            };
            let finding =
                proxy.finding(Kind::UndeclaredDestination, name, Some(address), peer.first(), evidence);
            found.push(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenes::check;

    #[test]
    fn an_address_that_the_configuration_does_not_name_is_found() {
        let scene = check(
            "until a reload declares it",
            "config 0 api 5:8080
             5 x 0 api 5:8080 established 1
             0 undeclared 6:9 refused 1 established 2
             => undeclared_destination undeclared 6:9
             wait 7200
             20 x 0 api 5:8080 established 1
             =>",
        );
        assert_eq!(
            scene.said(),
            "undeclared_destination: the proxy connects to 10.0.0.6:9, which its configuration does not name; 3 connects since \
             14:30:01Z, 1 failed. Check which request makes nginx go there, and whether the configuration was changed without \
             a reload."
        );
        check(
            "a reload declares it",
            "config 0 api 5:8080
             0 undeclared 6:9 established 2
             => undeclared_destination undeclared 6:9
             config 1 api 5:8080 6:9
             => not undeclared_destination undeclared 6:9",
        );
        check(
            "a later generation does not go there",
            "config 0 api 5:8080
             0 undeclared 6:9 established 2; 0 undeclared 7:9 established 2
             => undeclared_destination undeclared 6:9, undeclared_destination undeclared 7:9
             config 1 api 5:8080
             1 undeclared 7:9 established 2
             =>
             1 undeclared 7:9 established 20
             => not undeclared_destination undeclared 6:9",
        );
        check("nothing is known of a configuration", "9 x 0 undeclared 6:9 established 2\n=>");
    }

    #[test]
    fn what_a_request_names_is_declared_nowhere() {
        check("variables or code", "config 0 +open api 5:8080\n9 x 0 undeclared 6:9 established 2\n=>");
        check(
            "a name that is followed, and the next look at it",
            "config 0 +followed api 5:8080
             9 x 0 undeclared 6:8080 established 2
             config 0 +followed api 6:8080
             9 x 0 api 6:8080 established 2
             =>",
        );
        check(
            "a name that is followed, and something else",
            "config 0 +followed api 5:8080
             230 x 0 undeclared 6:9 established 2
             =>
             20 x 0 undeclared 6:9 established 2
             => undeclared_destination undeclared 6:9",
        );
    }
}
