//! Findings about connect timeouts.

use super::{Finding, rules};
use crate::nginx::routes::Routes;

/// What is longer hurts: a connect within a data centre takes milliseconds, and one SYN sent again 1 s.
const LONG_MS: u64 = 10_000;

pub(super) fn find(routes: &Routes, findings: &mut Vec<Finding>) {
    for (index, upstream) in routes.upstreams.iter().enumerate() {
        let leads_here = |route: &&crate::nginx::routes::Route| route.target.upstreams.contains(&index);
        let Some(route) =
            routes.routes.iter().filter(leads_here).max_by_key(|route| route.connect_timeout_ms)
        else {
            continue;
        };
        if route.connect_timeout_ms <= LONG_MS {
            continue;
        }
        let directive = route.directive.replace("_pass", "_connect_timeout");
        let what = format!(
            "a request waits up to {} s for each peer of \"{}\" whose packets vanish, before another is tried",
            route.connect_timeout_ms / 1_000,
            upstream.name
        );
        let mend = format!("set {directive} to a few seconds");
        findings.push(Finding::new(&rules::LONG_CONNECT_TIMEOUT, &route.place, what, mend));
    }
}
