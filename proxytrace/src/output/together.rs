//! Findings that say the same of several upstreams, as one: an outage of what many share is not to fill the screen.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    model::{Finding, Kind, Severity},
    status::{Standing, Status},
};

/// So many upstreams are named of which the same is said.
const MAX_NAMED: usize = 3;

/// A finding, and those that say the same.
#[derive(Debug)]
pub struct Together<'a> {
    /// The first.
    pub first: &'a Standing,
    /// The others.
    pub others: Vec<&'a Standing>,
}

/// What those have in common that say the same.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Same<'a> {
    proxy: &'a Arc<str>,
    kind: Kind,
    severity: Severity,
    causes: Vec<&'a Arc<str>>,
    addresses: BTreeSet<String>,
    reason: Option<&'a Arc<str>>,
    host: Option<&'a Arc<str>>,
    is_inherited: bool,
}

/// What stands, the worst first, in as few parts as there are things to say.
#[must_use]
pub fn together(status: &Status) -> Vec<Together<'_>> {
    let mut places: BTreeMap<Same<'_>, usize> = BTreeMap::new();
    let mut all: Vec<Together<'_>> = Vec::new();
    let addresses: BTreeMap<(&str, &str), BTreeSet<String>> = status
        .upstreams
        .iter()
        .map(|of| {
            ((&*of.proxy, &*of.upstream), of.addresses.iter().map(|to| to.address.to_string()).collect())
        })
        .collect();
    for standing in &status.findings {
        let Finding { subject, severity, evidence, .. } = &standing.finding;
        let of_upstream = || {
            let upstream = subject.upstream.as_ref()?;
            addresses.get(&(&*subject.proxy, &**upstream)).cloned()
        };
        let same = Same {
            proxy: &subject.proxy,
            kind: subject.kind,
            severity: *severity,
            causes: evidence.causes.keys().collect(),
            addresses: match (&subject.address, &*evidence.to) {
                (Some(address), _) => [address.to_string()].into(),
                (None, []) => of_upstream().unwrap_or_default(),
                (None, to) => to.iter().map(ToString::to_string).collect(),
            },
            reason: evidence.reason.as_ref(),
            host: evidence.host.as_ref(),
            is_inherited: standing.seen.is_some(),
        };
        // What is about no address at all has nothing in common with others.
        let place = if same.addresses.is_empty() { None } else { places.get(&same).copied() };
        match place {
            Some(place) => all[place].others.push(standing),
            None => {
                places.insert(same, all.len());
                all.push(Together { first: standing, others: Vec::new() });
            }
        }
    }
    all
}

impl Together<'_> {
    /// How many findings these are.
    #[must_use]
    pub const fn len(&self) -> usize {
        1 + self.others.len()
    }

    /// Of which others the same is said, as the rest of a sentence.
    #[must_use]
    pub fn same_of(&self) -> String {
        let names = self.others.iter().filter_map(|standing| standing.finding.subject.upstream.as_deref());
        let names: BTreeSet<_> = names.collect();
        let quoted: Vec<_> = names.iter().take(MAX_NAMED).map(|name| format!("\"{name}\"")).collect();
        match (names.len(), names.len().saturating_sub(quoted.len())) {
            (0, _) => String::new(),
            (1, _) => format!(" The same holds for upstream {} there.", quoted.join("")),
            (all, 0) => format!(" The same holds for {all} more upstreams there: {}.", quoted.join(", ")),
            (all, more) => {
                format!(
                    " The same holds for {all} more upstreams there: {} and {more} more.",
                    quoted.join(", ")
                )
            }
        }
    }
}

/// How many of which kind, the most frequent first: `upstream_down 8, black_hole 3`.
#[must_use]
pub fn kinds<'a>(findings: impl Iterator<Item = &'a Together<'a>>) -> String {
    let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
    for one in findings {
        *counts.entry(one.first.finding.subject.kind).or_default() += one.len();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().map(|(kind, count)| format!("{} {count}", kind.name())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::together;
    use crate::{
        output::{Colour, Layout, overview},
        status::Status,
    };

    /// As many upstreams as there are, in turns at so many addresses, all refused.
    fn outage(upstreams: usize, addresses: usize) -> Status {
        let address = |n: usize| format!("10.0.0.{}:9999", n % addresses + 2);
        let finding = |n: usize| {
            json!({
                "proxy": "nginx", "finding": "upstream_down", "upstream": format!("u{n}"), "severity": "critical",
                "since": "2026-11-22T14:30:02Z", "place": format!("/etc/nginx/nginx.conf:{n}"), "sentence": "",
                "evidence": {"failed": 3 + n, "of": 3 + n, "causes": {"refused": 3 + n}},
            })
        };
        let upstream = |n: usize| {
            json!({
                "proxy": "nginx", "upstream": format!("u{n}"), "state": "down", "recent": {"attempts": 3, "failures": {"refused": 3}},
                "in_flight": 0, "addresses": [{"address": address(n), "declared": true, "counts": {}}],
            })
        };
        serde_json::from_value(json!({
            "time": "2026-11-22T14:35:10Z", "version": "", "source": "agent", "since": "2026-11-22T09:12:44Z",
            "recent_since": "2026-11-22T14:34:10Z", "findings": (0..upstreams).map(finding).collect::<Vec<_>>(),
            "proxies": [{"proxy": "nginx", "pid": 7, "workers": 2, "old_workers": 0, "generation": 0, "rejected": 0, "crashes": 0}],
            "upstreams": (0..upstreams).map(upstream).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    fn text(status: &Status, is_wide: bool) -> String {
        overview(status, &Layout { colour: Colour::Off, zone: TimeZone::UTC, width: 80, is_wide })
    }

    #[test]
    fn what_says_the_same_of_several_upstreams_is_one() {
        let status = outage(40, 4);
        let all = together(&status);
        assert_eq!(all.iter().map(super::Together::len).collect::<Vec<_>>(), [10; 4]);
        let words = text(&status, false).split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "40 things are wrong at 14:35:10",
            "upstream_down: upstream \"u0\" cannot be reached",
            "The same holds for 9 more upstreams there: \"u12\", \"u16\", \"u20\" and 6 more.",
            "and 25 more, 25 of them down or failing: --wide lists them",
        ] {
            assert!(words.contains(part), "{part} is not in {words}");
        }
        assert_eq!(text(&status, true).matches("upstream_down: ").count(), 40, "--wide shows all");
        assert_eq!(text(&status, false).matches("upstream_down: ").count(), all.len());
    }

    #[test]
    fn an_outage_takes_about_a_screen_whatever_it_is() {
        for (upstreams, addresses) in [(1, 1), (5, 5), (40, 4), (120, 4), (200, 200)] {
            let status = outage(upstreams, addresses);
            let text = text(&status, false);
            assert!(text.lines().count() <= 55, "{upstreams} at {addresses}: {text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            if upstreams == 200 {
                assert!(text.contains("more (upstream_down 19"), "{text}");
            }
        }
    }
}
