//! `stale_name`: a name that the proxy looked up when it read its configuration is another address now.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    sentence::list,
};
use crate::{
    findings::{history::Peer, outcomes::causes},
    model::{Address, Evidence, Finding, HostName, Kind, NameNow, Severity, Upstream},
};

/// So many addresses are listed.
const MAX_LISTED: usize = 64;

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::StaleName,
    severity: Weight::Always(Severity::Info),
    explains: &[],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { host, resolves_to, failed, .. } = sentence.evidence();
        let name = host.as_deref().unwrap_or_default();
        let used = sentence.finding.subject.address.as_ref();
        let used = used.and_then(ip).map_or_else(|| sentence.address(), |ip| ip.to_string());
        let (now, remedy) = match &resolves_to[..] {
            [] => ("has no address".to_owned(), "and would refuse a reload"),
            ips => (format!("is {}", list(ips)), "a reload fixes it"),
        };
        let joint = if resolves_to.is_empty() { ", " } else { "; " };
        let whose = match failed {
            0 => " Whatever has that address now gets the requests: it may be another service.",
            _ => " Connects there fail.",
        };
        format!("\"{name}\" {now} now, nginx still uses {used}{joint}{remedy}.{whose}")
    },
    advice: |finding| {
        match finding.evidence.resolves_to.is_empty() {
        true => "Give the name an address again, or take it out of the configuration.".into(),
        false => "Reload nginx, which looks names up only then; or have it follow the name (`resolver` with `resolve`).".into(),
    }
    },
    documentation: Documentation {
        raised_when: "a name that nginx looked up once is another address now, and nginx still uses the old one",
        goes_when: "the name has that address again, or a reload",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    // What was looked up for an older generation says nothing of what a newer one has found.
    let Some(declared) = facts.proxy.generations.declared() else { return Vec::new() };
    let newest = facts.proxy.generations.newest_epoch();
    let upstreams = declared.upstreams.iter().filter(|(_, upstream)| !upstream.names.is_empty());
    let mut findings = Vec::new();
    for (name, upstream) in upstreams {
        let Some((name, seen)) = facts.proxy.upstreams.get_key_value(name) else { continue };
        let used = seen.peers().filter(|(_, peer)| Some(peer.epoch) == newest);
        for (address, peer) in used {
            if let Some((host, now)) = stale(upstream, address, peer) {
                let since = now.since.max(peer.first());
                let at = (name, Some(address));
                findings.push(facts.finding(
                    Kind::StaleName,
                    at,
                    peer.epoch,
                    since,
                    evidence(peer, host, now),
                ));
            }
        }
    }
    findings
}

/// The name that an address was of, and is no more.
fn stale<'a>(upstream: &'a Upstream, address: &Address, peer: &Peer) -> Option<(&'a HostName, &'a NameNow)> {
    let ip = ip(address)?;
    let mut at_port = upstream.names.iter().filter(|name| name.port == address.port());
    // Of several it is not known which one it was.
    let (host, None) = (at_port.next()?, at_port.next()) else { return None };
    let is_written = upstream.addresses.get(address).is_some_and(|place| *place != host.place);
    let now = host.now.as_ref().filter(|_| !is_written && !host.is_followed)?;
    let is_gone = !now.addresses.contains(&ip);
    let for_long = now.is_settled && !now.before.contains(&ip);
    let at_once = peer.fails() && !now.rotates;
    (is_gone && (for_long || at_once)).then_some((host, now))
}

fn evidence(peer: &Peer, host: &HostName, now: &NameNow) -> Evidence {
    let failed = if peer.fails() { peer.causes.iter().sum() } else { 0 };
    Evidence {
        host: Some(Arc::clone(&host.name)),
        resolves_to: now.addresses.iter().copied().take(MAX_LISTED).collect(),
        failed,
        of: peer.counts.attempts,
        causes: if failed > 0 { causes([&peer.causes]) } else { BTreeMap::default() },
        ..Evidence::default()
    }
}

fn ip(address: &Address) -> Option<IpAddr> {
    match address {
        Address::Internet(address) => Some(address.ip()),
        Address::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    const STALE: &str =
        "stale_name: \"api.test\" is 10.0.0.6 now, nginx still uses 10.0.0.5; a reload fixes it.";

    #[test]
    fn a_name_that_moved_is_found_at_once_where_connects_fail() {
        let scene = check(
            "the old address refuses, until a reload",
            "config 0 api.test 5:8080@5
             5 x 0 api.test 5:8080 established 1
             config 0 api.test 5:8080@6
             20 x 0 api.test 5:8080 established 1
             =>
             0 api.test 5:8080 refused 1
             => stale_name api.test 5:8080
             wait 600
             =>",
        );
        assert!(
            scene.sentence().starts_with(&format!("{STALE} Connects there fail.")),
            "{}",
            scene.sentence()
        );
        check(
            "and goes with the reload",
            "config 0 api.test 5:8080@6
             0 api.test 5:8080 refused 1
             => stale_name api.test 5:8080
             reload 1
             => not stale_name api.test 5:8080
             config 1 api.test 6:8080@6
             9 x 1 api.test 6:8080 established 1
             =>",
        );
        check(
            "it is the old address again",
            "config 0 api.test 5:8080@6
             0 api.test 5:8080 refused 1
             => stale_name api.test 5:8080
             config 0 api.test 5:8080@5
             => not stale_name api.test 5:8080",
        );
        let scene = check(
            "an agent that came later names it all the same",
            "config 0 api.test 6:8080@
             0 api.test 5:8080 refused 1
             => stale_name api.test 5:8080",
        );
        assert!(
            scene
                .sentence()
                .contains("\"api.test\" has no address now, nginx still uses 10.0.0.5, and would refuse")
        );
    }

    #[test]
    fn a_name_that_has_moved_for_long_is_found_whoever_answers_there() {
        let scene = check(
            "ten minutes",
            "config 0 api.test 5:8080@6
             5 x 0 api.test 5:8080 established 1
             =>
             config 0 api.test 5:8080@6!
             => stale_name api.test 5:8080",
        );
        let expected =
            format!("{STALE} Whatever has that address now gets the requests: it may be another service.");
        assert!(scene.sentence().starts_with(&expected), "{}", scene.sentence());
    }

    #[test]
    fn nothing_is_said_of_a_name_that_may_have_the_address() {
        check(
            "it has",
            "config 0 api.test 5:8080@5!\n9 x 0 api.test 5:8080 refused 1\n=> upstream_down api.test",
        );
        check("it rotates", "config 0 api.test 5:8080@6%\n0 api.test 5:8080 refused 1\n=>");
        check("nobody looked it up", "config 0 api.test 5:8080\n0 api.test 5:8080 refused 1\n=>");
    }
}
