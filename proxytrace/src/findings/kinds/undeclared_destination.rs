//! `undeclared_destination`: the proxy connects where its configuration names nothing.

use jiff::SignedDuration;

use super::definition::{Definition, Documentation, Facts, Weight};
use crate::{
    findings::outcomes::{causes, fared},
    model::{Evidence, Fared, Finding, Kind, Severity, UNDECLARED_UPSTREAM},
};

/// Where nginx follows a name, it knows a new address before the agent does, which looks the name up again within this time.
const LOOKUP_TIMEOUT: SignedDuration = SignedDuration::from_mins(1);

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::UndeclaredDestination,
    severity: Weight::Always(Severity::Warning),
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { failed, of, .. } = sentence.evidence();
        format!(
            "{} connects to {}, which its configuration does not name; {of} connects since {}, {failed} failed.",
            sentence.proxy(),
            sentence.address(),
            sentence.since(),
        )
    },
    advice: |_| {
        "Check which request makes nginx go there, and whether the configuration was changed without a reload.".into()
    },
    documentation: Documentation {
        raised_when: "the proxy connects where its configuration names nothing",
        goes_when: "a reload declares it, or no longer leads there",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let Some((name, upstream)) = facts.proxy.upstreams.get_key_value(UNDECLARED_UPSTREAM) else {
        return Vec::new();
    };
    let peers = upstream.peers().map(|(address, peer)| (name, address, peer));
    facts.at_addresses(Kind::UndeclaredDestination, peers, |peer| {
        // What only a request says is declared nowhere, and is no finding.
        // Of a generation that is forgotten nobody knows any more what it might connect to.
        let begun = facts.proxy.generations.get(peer.epoch)?;
        let declared = begun.declared.as_ref().filter(|declared| !declared.is_open)?;
        if declared.is_followed && peer.age() < LOOKUP_TIMEOUT {
            return None;
        }
        let Fared { failed, of } = fared(&peer.counts);
        let evidence = Evidence {
            failed,
            of: of.max(peer.counts.attempts),
            causes: causes([&peer.causes]),
            in_flight: peer.in_flight,
            ..Evidence::default()
        };
        Some((peer.first(), evidence))
    })
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

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
            scene.sentence(),
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
            "a name that is followed, and the next time that it is looked up",
            "config 0 +followed api 5:8080
             9 x 0 undeclared 6:8080 established 2
             config 0 +followed api 6:8080
             9 x 0 api 6:8080 established 2
             =>",
        );
        let reloads: String =
            (1..=14).map(|n| format!("config {n} api 5:8080\n{n} api 5:8080 established 1\n")).collect();
        check(
            "what was held back is none because its generation is forgotten",
            &format!("config 0 +followed api 5:8080\n0 undeclared 6:9 established 1\n{reloads}=>"),
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
