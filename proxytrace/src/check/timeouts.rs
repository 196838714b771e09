//! Findings about connect timeouts.

use super::{finding::Finding, rules};
use crate::declared::{Route, Routes};

/// What is longer hurts: a connect within a data centre takes milliseconds, and one SYN sent again 1 s.
const LONG_MS: u64 = 10_000;

pub(super) fn find(routes: &Routes, findings: &mut Vec<Finding>) {
    // By upstream: the route that waits longest.
    let mut slowest: Vec<Option<&Route>> = vec![None; routes.upstreams.len()];
    for route in &routes.routes {
        for &upstream in &route.target.upstreams {
            if let Some(known) = slowest.get_mut(upstream)
                && known.is_none_or(|known| known.connect_timeout_ms < route.connect_timeout_ms)
            {
                *known = Some(route);
            }
        }
    }
    for (upstream, route) in routes.upstreams.iter().zip(slowest) {
        let Some(route) = route else { continue };
        if route.connect_timeout_ms <= LONG_MS {
            continue;
        }
        let directive = route.directive.replace("_pass", "_connect_timeout");
        let what = format!(
            "a request waits up to {} s for each peer of \"{}\" whose packets vanish, before another is tried",
            route.connect_timeout_ms / 1_000,
            upstream.name
        );
        let fix = format!("set {directive} to a few seconds");
        findings.push(Finding::new(&rules::LONG_CONNECT_TIMEOUT, &route.place, what, fix));
    }
}
