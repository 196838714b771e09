//! What would misroute: findings about a configuration of nginx, without tracing. They are about nginx itself: what it refuses, and
//! which of its servers and locations hide others. So this names nginx's configuration, as the reader does and nothing else. Pure but
//! for `source`, `resolve` and `probe`.

pub mod difference;
pub mod probe;
pub mod report;
pub mod resolve;
pub mod source;

mod addresses;
mod allowed;
mod blocks;
mod buffers;
mod certificates;
mod directives;
mod evaluated;
mod finding;
mod listens;
mod locations;
mod near;
mod once;
mod parameters;
mod part;
mod patterns;
mod refusal;
mod rules;
mod servers;
mod stores;
mod subject;
mod tables;
mod timeouts;
mod upstreams;
mod user;
mod values;
mod variables;

#[cfg(test)]
mod docs;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod properties;

use std::{collections::BTreeSet, path::Path};

pub use finding::Finding;
pub(crate) use refusal::refusal;
pub use rules::Severity;
pub use subject::Subject;

pub use crate::nginx::version::Version;
use crate::{declared::Addresses, nginx::places::Places};

/// What is known of the host that will run a configuration.
pub struct Host<'a> {
    /// The host names that were looked up: one without an address does not resolve.
    pub resolved: &'a Addresses,
    /// Whether a unix socket is there.
    pub has_socket: &'a dyn Fn(&str) -> bool,
    /// Whether a file is there.
    pub has_file: &'a dyn Fn(&Path) -> bool,
    /// Whether it is this one: otherwise what is not there may be there.
    pub is_here: bool,
    /// Its nginx.
    pub version: Option<Version>,
}

/// What would misroute.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By file and line.
    pub findings: Vec<Finding>,
    /// How many more there were, which comments in the configuration allow.
    pub allowed: usize,
}

/// What would misroute, with what was found elsewhere.
#[must_use]
pub fn findings(subject: &Subject, host: &Host<'_>, others: Vec<Finding>) -> Found {
    let mut findings = others;
    whole(subject, &mut findings);
    directives::find(subject, host.version, &mut findings);
    parameters::find(subject, host.version, &mut findings);
    values::find(subject, host.version, &mut findings);
    stores::find(subject, &mut findings);
    once::find(subject, &mut findings);
    tables::find(subject, host.version, &mut findings);
    patterns::find(subject, &mut findings);
    variables::find(subject, host.version, &mut findings);
    buffers::find(subject, &mut findings);
    listens::find(subject, host, &mut findings);
    certificates::find(subject, host, &mut findings);
    servers::find(subject, host.version, &mut findings);
    locations::find(subject, &mut findings);
    addresses::find(subject, host, &mut findings);
    upstreams::find(subject, host, &mut findings);
    timeouts::find(&subject.routes, &mut findings);
    let allowed = allowed::take_out(&subject.config, &mut findings);
    findings.sort_by(|one, other| one.order().cmp(&other.order()));
    findings.dedup();
    Found { findings, allowed }
}

/// The host names that nginx looks up: those that it connects to, and those that it listens at.
#[must_use]
pub fn hosts(subject: &Subject) -> BTreeSet<String> {
    let listens = listens::names(subject).map(|(name, _)| name);
    subject.routes.hosts().map(str::to_owned).chain(listens).collect()
}

/// The blocks at the top level that route.
const ROUTING: [&str; 3] = ["http", "stream", "mail"];

fn has_top(subject: &Subject, names: &[&str]) -> bool {
    subject.config.directives.iter().any(|one| names.contains(&&*one.name.text))
}

/// What stands in a main file alone. A file of which the main file has the rest, such as `events`, may begin with http.
fn of_main_file(subject: &Subject) -> Option<&nginx_conf::Directive> {
    use crate::nginx::directives;
    let is_of_main = |name: &str| directives::of(name).iter().all(|one| one.is_in("main"));
    subject.config.directives.iter().find(|one| {
        let name = &*one.name.text;
        !ROUTING.contains(&name) && !directives::of(name).is_empty() && is_of_main(name)
    })
}

/// Says where it is not all that nginx reads, or nothing.
fn whole(subject: &Subject, findings: &mut Vec<Finding>) {
    let first = subject.config.directives.first();
    let place = first.map(|first| Places(&subject.config).line(first));
    let main =
        || subject.config.files.first().map_or_else(String::new, |file| format!("{}:1", file.path.display()));
    let place = place.unwrap_or_else(main);
    if let Some(part) = subject.part {
        let what =
            format!("it is a part of a configuration, and was checked as if it stood in {}", part.around());
        let fix = "check the file that includes it: names, resolvers and variables may be defined there";
        findings.push(Finding::new(&rules::PART, &place, what, fix));
    } else if !has_top(subject, &ROUTING) {
        let what = "nothing in it routes: there is no http, stream or mail".to_owned();
        findings.push(Finding::new(&rules::NOTHING, &place, what, "check the main file"));
    } else if let Some(first) = of_main_file(subject).filter(|_| !has_top(subject, &["events"])) {
        let what = "nginx refuses a configuration without events".to_owned();
        let place = Places(&subject.config).line(first);
        findings.push(Finding::new(&rules::EVENTS_MISSING, &place, what, "add events {} at the top level"));
    }
}
