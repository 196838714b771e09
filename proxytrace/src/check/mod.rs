//! What would misroute: findings about a configuration of nginx, without tracing. They are about nginx itself: what it refuses, and
//! which of its servers and locations hide others. So this names nginx's configuration, as the reader does and nothing else. Pure but
//! for `source`, `resolve` and `probe`.

pub mod difference;
pub mod probe;
pub mod report;
pub mod resolve;
pub mod source;

mod addresses;
mod finding;
mod rules;
mod servers;
mod subject;
mod timeouts;
mod upstreams;

#[cfg(test)]
mod docs;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod properties;

pub use finding::Finding;
pub use subject::Subject;

use crate::declared::Addresses;

/// What would misroute. `resolved` has the host names that were looked up: one without an address does not resolve. `has_socket`
/// says whether a unix socket is there.
#[must_use]
pub fn findings(subject: &Subject, resolved: &Addresses, has_socket: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    addresses::find(subject, resolved, has_socket, &mut findings);
    upstreams::find(subject, resolved, &mut findings);
    servers::find(&subject.config, &mut findings);
    timeouts::find(&subject.routes, &mut findings);
    findings
}
