//! `proxy_down`: hardly anything that a proxy connects to works, so what is wrong is the proxy's own host or network.

use super::{
    definition::{Definition, Documentation, Facts, Weight},
    sentence::no_answer,
};
use crate::{
    findings::history::Peer,
    model::{Evidence, Finding, Kind, Severity},
};

/// So many upstreams that fail are evidence.
const MAX_NAMED: usize = 64;

/// So many of them stand in the sentence.
const NAMED: usize = 3;

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::ProxyDown,
    severity: Weight::Always(Severity::Critical),
    explains: &[Kind::UpstreamDown, Kind::AddressDown, Kind::BlackHole, Kind::Denied, Kind::PortsExhausted],
    prove: None,
    detect,
    sentence: |sentence| {
        let Evidence { addresses, of, upstreams, causes, syn_retransmits, given_up, in_flight, .. } =
            sentence.evidence();
        let named: Vec<_> = upstreams.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match addresses.saturating_sub(named.len() as u64) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        // Connects to what does not answer wait for long before they fail.
        let how = match causes.is_empty() {
            true => format!("nothing answers{}", no_answer(*syn_retransmits, *given_up, *in_flight)),
            false => format!("connects {}", sentence.failed()),
        };
        format!(
            "hardly anything that {} connects to works since {}: {addresses} of {of} upstreams fail ({}{more}); {how}.",
            sentence.finding.subject.proxy,
            sentence.since(),
            named.join(", "),
        )
    },
    advice: |_| {
        "Check this host first: its link, routes, firewall and name server, and what was changed on it at that time.".into()
    },
    documentation: Documentation {
        raised_when: "hardly anything that a proxy connects to works: five upstreams or more, and nine of ten",
        goes_when: "a third of them works again",
    },
};

fn detect(facts: &Facts<'_>) -> Vec<Finding> {
    let findings = facts.proxy.outage.iter().map(|outage| {
        let destinations = facts.proxy.destinations();
        let failing: Vec<_> = destinations.iter().filter(|one| one.fails).collect();
        let sum = |of: fn(&Peer) -> u64| facts.proxy.failing().map(of).fold(0, u64::saturating_add);
        let evidence = Evidence {
            syn_retransmits: sum(|peer| peer.no_answer.resent),
            given_up: sum(|peer| peer.no_answer.given_up),
            in_flight: sum(|peer| peer.in_flight),
            addresses: failing.len() as u64,
            of: destinations.len() as u64,
            upstreams: failing.iter().take(MAX_NAMED).map(|one| one.name.clone()).collect(),
            causes: facts.proxy.causes_of_failing(),
            ..Evidence::default()
        };
        facts.at_proxy(Kind::ProxyDown, *outage, evidence)
    });
    findings.collect()
}

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    /// Upstreams, and what each of them counts in a tick.
    fn upstreams(count: usize, counted: &str) -> (String, String) {
        let names = (1..=count).map(|n| format!("u{n} {n}:80"));
        let rows = (1..=count).map(|n| format!("0 u{n} {n}:80 {counted}"));
        (names.collect::<Vec<_>>().join(" | "), rows.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_proxy_that_reaches_nothing_is_one_finding() {
        let (config, refused) = upstreams(200, "refused 1");
        let (_, good) = upstreams(200, "established 1");
        let scene = check(
            "each upstream is refused once",
            &format!("config 0 {config}\n{good}\n{refused}\n=> proxy_down\nwait 600\n{refused}\n=>"),
        );
        assert_eq!(
            scene.sentence(),
            "proxy_down: hardly anything that nginx connects to works since 14:30:00Z: 200 of 200 upstreams fail (u1, u10, \
             u100 and 197 more); connects were refused. Check this host first: its link, routes, firewall and name server, \
             and what was changed on it at that time."
        );
        check(
            "and then all work",
            &format!("config 0 {config}\n{good}\n{refused}\n=> proxy_down\n{good}\n=> not proxy_down"),
        );
    }

    #[test]
    fn a_proxy_whose_network_is_gone_is_one_finding_before_any_connect_fails() {
        let (config, good) = upstreams(7, "established 1");
        let (_, waiting) = upstreams(7, "flying 1");
        let (_, resent) = upstreams(7, "resent 1");
        let scene = check(
            "nothing answers anywhere",
            &format!(
                "config 0 {config}\n{good}\n{waiting}\nwait 1\n{resent}\n=> proxy_down\n3 x {resent}\n=>"
            ),
        );
        assert_eq!(
            scene.sentence(),
            "proxy_down: hardly anything that nginx connects to works since 14:30:02Z: 7 of 7 upstreams fail (u1, u2, u3 and 4 \
             more); nothing answers; 28 SYNs sent again; 7 connects waiting. Check this host first: its link, routes, firewall \
             and name server, and what was changed on it at that time."
        );
        let (_, given_up) = upstreams(7, "given_up 1");
        check(
            "connects from then fail a moment after it is over",
            &format!(
                "config 0 {config}\n{good}\n{waiting}\nwait 1\n{resent}\n=> proxy_down\n{good}\n=> not proxy_down\n\
                 {given_up}\n{good}\n=>"
            ),
        );
        let rest = "0 u6 6:80 established 1; 0 u7 7:80 established 1";
        let (_, some) = upstreams(5, "resent 1");
        check(
            "some answer",
            &format!("config 0 {config}\n{good}\n{waiting}\nwait 1\n{some}; {rest}\n{good}\n=>"),
        );
    }

    #[test]
    fn upstreams_that_are_not_used_right_when_an_outage_begins_or_ends_make_it_no_less_one_finding() {
        let (config, answered) = upstreams(7, "established 1 answered 1");
        let (_, unheard) = upstreams(7, "unheard 1");
        let over =
            "0 u5 5:80 answered 1; 0 u6 6:80 answered 1; 0 u7 7:80 answered 1\n=> not proxy_down\nwait 2";
        let ended =
            format!("config 0 {config}\n{answered}\nwait 1\n{unheard}\n=> proxy_down\n{unheard}\n=>\n{over}");
        check(
            "some answer, and others when they are used again",
            &format!("{ended}\n{answered}\nwait 16\n{answered}\n=>"),
        );
        let (_, all_but_first) = upstreams(7, "answered 1");
        let all_but_first = all_but_first.split_once("; ").map(|(_, rest)| rest).unwrap();
        check(
            "one stays away",
            &format!(
                "{ended}\n{all_but_first}\nwait 16\n0 u1 1:80 unheard 1\n=> black_hole u1 1:80, upstream_down u1"
            ),
        );
        let (config, answered) = upstreams(10, "established 1 answered 1");
        let ((_, some), (_, all)) = (upstreams(6, "unheard 1"), upstreams(10, "unheard 1"));
        let begun = format!("config 0 {config}\n{answered}\nwait 1\n4 x {some}\n=>");
        check("others are used a moment later", &format!("{begun}\n{all}\n=> proxy_down\n{all}\n=>"));
        let found: Vec<_> = (1..=6).map(|n| format!("black_hole u{n} {n}:80, upstream_down u{n}")).collect();
        let found = found.join(", ");
        check("others work", &format!("{begun}\n0 u7 7:80 answered 1; {some}\n=> {found}"));
        check("others are not used", &format!("{begun}\nwait 5\n{some}\n=> {found}"));
    }

    #[test]
    fn some_upstreams_that_fail_are_not_the_proxy() {
        let (config, good) = upstreams(10, "established 1");
        let (_, bad) = upstreams(8, "refused 1");
        let rest = "0 u9 9:80 established 1; 0 u10 10:80 established 1";
        check("eight of ten, once", &format!("config 0 {config}\n{good}\n{bad}; {rest}\n{good}\n=>"));
        let (few, refused) = upstreams(2, "refused 1");
        check("two upstreams", &format!("config 0 {few}\n{refused}\n=>"));
    }
}
