//! What the kinds `ports_exhausted`, `backlog_full` and `denied` have in common: this host itself lets connects fail.

use proxytrace_ebpf::outcome::Outcome;

use super::{definition::Facts, sentence::Sentence};
use crate::{
    findings::outcomes::{LOCAL, is_local},
    model::{Evidence, Finding, Kind},
};

/// Which kind is about which cause: as many as there are failures of this host.
const CAUSES: [(Kind, Outcome); LOCAL.len()] = [
    (Kind::PortsExhausted, Outcome::NoLocalPort),
    (Kind::BacklogFull, Outcome::BacklogFull),
    (Kind::Denied, Outcome::PermissionDenied),
];

/// When such a finding goes.
pub(super) const GOES_WHEN: &str = "a clean run that is far longer than those before";

/// The addresses that connects to fail for the cause of this kind.
pub(super) fn detect(facts: &Facts<'_>, kind: Kind) -> Vec<Finding> {
    let cause = CAUSES.into_iter().find(|(of, _)| *of == kind).map(|(_, cause)| cause);
    let Some(index) = LOCAL.into_iter().position(|outcome| Some(outcome) == cause) else {
        return Vec::new();
    };
    facts.at_addresses(kind, facts.proxy.peers(), |peer| {
        let trouble = &peer.local[index];
        if cause.is_some_and(|cause| !is_local(cause, peer.hint)) {
            return None;
        }
        let since = trouble.since().filter(|_| trouble.is_proof())?;
        let evidence = Evidence {
            failed: trouble.seen(),
            of: trouble.of(),
            causes: [(LOCAL[index].name().into(), trouble.seen())].into(),
            in_flight: peer.in_flight,
            ..Evidence::default()
        };
        Some((since, evidence))
    })
}

/// What such a finding says: what happened to how many connects.
pub(super) fn sentence(sentence: &Sentence<'_>, what: &str) -> String {
    let Evidence { failed, of, .. } = sentence.evidence();
    format!(
        "{what} for {failed} of {of} connects to {} since {}.",
        sentence.address_of_upstream(),
        sentence.since(),
    )
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn what_this_host_refuses_is_found_and_over_when_it_is_over() {
        for (cause, kind) in [("no_local_port", "ports_exhausted"), ("permission_denied", "denied")] {
            check(
                kind,
                &format!(
                    "config 0 api 5:8080
                     20 x 0 api 5:8080 established 9
                     2 x 0 api 5:8080 established 9 {cause} 1
                     =>
                     0 api 5:8080 established 9 {cause} 1
                     => {kind} api 5:8080
                     wait 7200
                     200 x 0 api 5:8080 established 9 {cause} 1
                     10 x 0 api 5:8080 established 9
                     =>
                     10 x 0 api 5:8080 established 9
                     => not {kind} api 5:8080",
                ),
            );
        }
        check(
            "all fail, and then none: that upstream is not down, it was never tried",
            "60 x 0 unknown unix:/run/app.sock backlog_full 1
             => backlog_full unknown unix:/run/app.sock
             19 x 0 unknown unix:/run/app.sock established 1
             =>
             0 unknown unix:/run/app.sock established 1
             => not backlog_full unknown unix:/run/app.sock",
        );
    }

    #[test]
    fn what_a_reload_took_out_does_not_come_back_with_the_next() {
        check(
            "while its configuration is not read yet",
            "config 0 api 5:8080 | web 7:80
             5 x 0 api 5:8080 permission_denied 1; 0 web 7:80 established 1
             => denied api 5:8080
             config 1 api 6:8080 | web 7:80
             => not denied api 5:8080
             reload 2
             2 web 7:80 established 1
             config 2 api 6:8080 | web 7:80
             config 3 api 5:8080 | web 7:80
             =>",
        );
    }

    #[test]
    fn one_failure_in_a_while_is_none() {
        check(
            "hours apart",
            "0 unknown 5:8080 no_local_port 1
             500 x 0 unknown 5:8080 established 30
             0 unknown 5:8080 no_local_port 1
             500 x 0 unknown 5:8080 established 30
             0 unknown 5:8080 no_local_port 1
             =>",
        );
    }
}
