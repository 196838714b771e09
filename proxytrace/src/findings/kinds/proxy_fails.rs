//! `proxy_fails`: requests fail before the proxy connects for them, as its own log says.

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    local,
};
use crate::{
    findings::history::Lacking,
    model::{Complaint, Evidence, Finding, Kind, Lack},
};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::ProxyFails,
    severity: Weight::OfAddress,
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let said: Vec<_> = sentence.evidence().complaints.iter().map(said).collect();
        let is_refused = |complaint: &Complaint| complaint.lack == Lack::Certificate;
        let fails = match sentence.evidence().complaints.iter().all(is_refused) {
            true => "refuses what upstreams identify themselves with",
            false => "fails before it connects",
        };
        format!(
            "{} {fails} since {}; it says {}.",
            sentence.finding.subject.proxy,
            sentence.since(),
            said.join(", and "),
        )
    },
    advice: |finding| {
        let most = finding.evidence.complaints.iter().max_by_key(|complaint| complaint.times);
        advice(most.map_or(Lack::Connections, |most| most.lack)).into()
    },
    documentation: Documentation {
        raised_when: "requests fail before nginx connects: it has no connection or file left, no such local address, a name does not resolve; or it refuses the upstream's certificate",
        goes_when: local::GOES_WHEN,
    },
};

fn said(Complaint { words, times, .. }: &Complaint) -> String {
    format!("{times} times \"{words}\"")
}

const fn advice(lack: Lack) -> &'static str {
    match lack {
        Lack::Connections => {
            "Look for what holds connections (slow upstreams, long polls), and raise \"worker_connections\": a request takes two."
        }
        Lack::Files => {
            "Raise \"worker_rlimit_nofile\", above \"worker_connections\", and LimitNOFILE= of its unit; then look for what holds files open."
        }
        Lack::LocalAddress => {
            "Check \"proxy_bind\" against `ip address`: this host does not have that address, or does not have it any more."
        }
        Lack::Address => "Ask the name server of its \"resolver\" for that name (`dig NAME @SERVER`).",
        Lack::Certificate => {
            "Check the upstream's certificate (`openssl s_client -connect ADDRESS -servername NAME`) against \"proxy_ssl_trusted_certificate\" and \"proxy_ssl_name\"."
        }
    }
}

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let proven: Vec<_> = facts.proxy.lacks.proven().collect();
    let Some(since) = proven.iter().filter_map(|one| one.trouble.since()).min() else { return Vec::new() };
    let complaint =
        |one: &Lacking<'_>| Complaint { lack: one.lack, words: one.words.clone(), times: one.trouble.seen() };
    let complaints: Vec<_> = proven.iter().map(complaint).collect();
    let failed = complaints.iter().fold(0_u64, |sum, complaint| sum.saturating_add(complaint.times));
    let connects = proven.iter().map(|one| one.trouble.of().saturating_sub(one.trouble.seen())).max();
    // A certificate is refused once there is a connection.
    let refused =
        proven.iter().filter(|one| one.lack == Lack::Certificate).map(|one| one.trouble.seen()).sum();
    let evidence = Evidence {
        failed,
        of: failed.saturating_add(connects.unwrap_or(0).saturating_sub(refused)),
        causes: complaints.iter().map(|one| (one.lack.name().into(), one.times)).collect(),
        complaints,
        ..Evidence::default()
    };
    vec![facts.at_proxy(Kind::ProxyFails, since, evidence)]
}

#[cfg(test)]
mod tests {
    use crate::{findings::scenes::check, model::Severity};

    #[test]
    fn what_a_proxy_says_that_it_lacks_is_found_until_it_connects_without_saying_so() {
        let scene = check(
            "the address of proxy_bind has moved away",
            "config 0 api 5:8080
             20 x 0 api 5:8080 established 1
             says local_address 2
             =>
             says local_address 13
             => proxy_fails
             wait 3600
             =>",
        );
        assert_eq!(
            scene.sentence(),
            "proxy_fails: nginx fails before it connects since 14:30:05Z; it says 15 times \"no local_address\". Check \
             \"proxy_bind\" against `ip address`: this host does not have that address, or does not have it any more."
        );
        assert!(scene.findings.active().all(|finding| finding.severity == Severity::Critical));
        check(
            "and is back",
            "config 0 api 5:8080
             says local_address 15
             => proxy_fails
             19 x 0 api 5:8080 established 1
             =>
             0 api 5:8080 established 1
             => not proxy_fails",
        );
        let scene = check(
            "most requests are well",
            "config 0 api 5:8080
             says connections 3
             => proxy_fails
             12 x 0 api 5:8080 established 1
             says files 3
             =>",
        );
        assert!(scene.sentence().contains("it says 3 times \"no connections\", and 3 times \"no files\"."));
        assert!(scene.findings.active().all(|finding| finding.severity == Severity::Warning));
        check(
            "it connects much meanwhile, and its log is read once a second",
            "config 0 api 5:8080
             says address 15
             => proxy_fails
             4 x 0 api 5:8080 established 100
             says address 15
             4 x 0 api 5:8080 established 100
             says address 15
             =>
             9 x 0 api 5:8080 established 100
             => not proxy_fails",
        );
        check(
            "once in a while",
            "says address 1\nwait 60\n100 x 0 unknown 5:80 established 9\nsays address 1\n=>",
        );
    }
}
