//! Findings about upstreams as a whole.

use std::collections::{HashMap, HashSet};

use nginx_conf::Directive;

use super::{Host, blocks::Block, finding::Finding, near, rules, subject::Subject};
use crate::{
    declared::{Context, Endpoint, Routes, Upstream},
    nginx::directives,
};

pub(super) fn find(subject: &Subject, host: &Host<'_>, findings: &mut Vec<Finding>) {
    let routes = &subject.routes;
    let blocks = subject.blocks();
    let of_upstreams = blocks.iter().filter(|block| matches!(block.context, "upstream" | "stream-upstream"));
    let mut by_name: HashMap<&str, &Block<'_>> = HashMap::new();
    for block in of_upstreams {
        if let Some(name) = block.opened_by().and_then(|opened_by| opened_by.arg(0)) {
            by_name.entry(name).or_insert(block);
        }
    }
    let mut used: HashSet<usize> =
        routes.routes.iter().flat_map(|route| route.target.upstreams.iter().copied()).collect();
    let mut meant = Vec::new();
    for upstream in routes.upstreams.iter().filter(|upstream| upstream.is_implicit) {
        undefined(upstream, subject, host, findings);
        meant.extend(upstream_meant(routes, upstream.context, &upstream.name));
    }
    for fault in &subject.faults {
        meant.extend(
            [Context::Http, Context::Stream]
                .iter()
                .find_map(|context| upstream_meant(routes, *context, &fault.text)),
        );
    }
    // A variable that only a request fills can hold the name of any block, and a part is not all there is.
    let is_all_known = subject.is_whole() && routes.routes.iter().all(|route| route.target.open.is_empty());
    let named = words_of_others(&subject.config.directives);
    for (index, upstream) in routes.upstreams.iter().enumerate().filter(|(_, upstream)| !upstream.is_implicit)
    {
        if named.iter().any(|word| word.contains(&upstream.name.to_ascii_lowercase())) {
            used.insert(index);
        }
        peers(upstream, subject, by_name.get(upstream.name.as_str()).copied(), findings);
        if is_all_known && !used.contains(&index) && !meant.contains(&upstream.name.as_str()) {
            findings.push(Finding::new(
                &rules::UPSTREAM_UNUSED,
                &upstream.place,
                format!("nothing leads to upstream \"{}\"", upstream.name),
                "remove it, or correct the directive that should name it",
            ));
        }
    }
}

/// The block whose name was meant, where a name is nearly one.
pub(super) fn upstream_meant<'a>(routes: &'a Routes, context: Context, name: &str) -> Option<&'a str> {
    let blocks =
        routes.upstreams.iter().filter(|upstream| !upstream.is_implicit && upstream.context == context);
    near::nearest(name, blocks.map(|upstream| upstream.name.as_str()))
}

/// The arguments of directives of other modules, in lower case: any of them may name an upstream.
fn words_of_others(block: &[Directive]) -> Vec<String> {
    let mut words = Vec::new();
    for directive in block {
        if directives::of(&directive.name.text).is_empty() {
            words.extend(directive.args.iter().map(|word| word.text.as_str().to_ascii_lowercase()));
        }
        // What stands in a map is no directive, and its values were followed.
        if !matches!(&*directive.name.text, "map" | "geo" | "split_clients" | "types" | "charset_map") {
            words.extend(words_of_others(directive.children()));
        }
    }
    words
}

fn peers(upstream: &Upstream, subject: &Subject, block: Option<&Block<'_>>, findings: &mut Vec<Finding>) {
    let name = &upstream.name;
    // Lines of other modules may bring peers, or choose them.
    let is_known = block
        .is_some_and(|block| block.children.iter().all(|line| !directives::of(&line.name.text).is_empty()));
    // Lines that nginx refuses are findings of their own.
    let has_fault = subject.faults.iter().any(|fault| fault.place.starts_with(file_of(&upstream.place)));
    if upstream.has_more_peers || !is_known {
        return;
    }
    if upstream.peers.iter().all(|peer| peer.backup) {
        if !has_fault {
            let (what, fix) = if upstream.peers.is_empty() {
                ("no server line", "add one")
            } else {
                ("no server line without backup", "take backup off one of them")
            };
            let what = format!("nginx refuses upstream \"{name}\": {what}");
            findings.push(Finding::new(&rules::UPSTREAM_EMPTY, &upstream.place, what, fix));
        }
    } else if upstream.peers.iter().all(|peer| peer.down) {
        let what = match upstream.context {
            Context::Http => {
                format!("each request to \"{name}\" fails with 502: all its servers are marked down")
            }
            Context::Stream => {
                format!("each connection to \"{name}\" is closed: all its servers are marked down")
            }
        };
        findings.push(Finding::new(
            &rules::UPSTREAM_DOWN,
            &upstream.place,
            what,
            "take down off one of them",
        ));
    }
}

fn file_of(place: &str) -> &str {
    place.rsplit_once(':').map_or(place, |(file, _)| file)
}

/// A host that is probably the name of a block that is not there. One that is known not to resolve is a finding by itself.
fn undefined(upstream: &Upstream, subject: &Subject, host: &Host<'_>, findings: &mut Vec<Finding>) {
    let routes = &subject.routes;
    for peer in &upstream.peers {
        let Endpoint::Host { name, .. } = &peer.endpoint else { continue };
        let meant = upstream_meant(routes, upstream.context, name);
        let looks_like_one = !name.contains('.') && name != "localhost" && subject.is_whole();
        // A name out of variables is no-resolver's, where nothing resolves it.
        let is_said = peer.resolve && upstream.resolver.is_none();
        let is_host = has_port(routes, name) || host.resolved.contains_key(name) || is_said;
        if is_host || !(looks_like_one || meant.is_some()) {
            continue;
        }
        let what = format!("there is no upstream \"{name}\", so nginx takes it for a host and looks it up");
        let fix = meant.map_or_else(
            || "define the upstream, correct its name, or write the host in full".to_owned(),
            |meant| format!("did you mean \"{meant}\"?"),
        );
        findings.push(Finding::new(&rules::UPSTREAM_UNDEFINED, &peer.place, what, fix));
    }
}

/// Whether a route names the host with a port, as no upstream is.
fn has_port(routes: &Routes, name: &str) -> bool {
    routes.routes.iter().any(|route| {
        let text = route.target.text.to_ascii_lowercase();
        let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
        rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
    })
}
