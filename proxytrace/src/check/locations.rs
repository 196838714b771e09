//! Findings about locations: those that nginx refuses, that others hide, or that are not there.

use std::collections::HashMap;

use nginx_conf::Directive;

use super::{
    blocks::{Block, modifier_and_path},
    finding::Finding,
    near, rules,
    subject::Subject,
};
use crate::nginx::places::Places;

pub(super) fn find(subject: &Subject, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    for block in &subject.blocks() {
        if matches!(block.context, "server" | "location") {
            twice(block, &places, findings);
            for location in block.named("location") {
                nested(block, location, &places, findings);
            }
        }
        if block.context == "server" && subject.has_whole_servers() {
            let all = named_locations(block);
            missing(block.children, &all, &places, findings);
        }
        let is_named =
            block.opened_by().is_some_and(|outer| outer.arg(0).is_some_and(|path| path.starts_with('@')));
        for alias in block.named("alias").filter(|_| block.context == "location" && is_named) {
            let what = "nginx refuses alias in a named location".to_owned();
            findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(alias), what, "write root"));
        }
        for directive in block.named("proxy_pass") {
            uri(block, directive, &places, findings);
        }
    }
}

fn twice<'a>(block: &Block<'a>, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let mut seen: HashMap<(&'a str, &'a str), String> = HashMap::new();
    for location in block.named("location") {
        let place = places.line(location);
        let (modifier, path) = modifier_and_path(location);
        // To nginx a path with ^~ is the path without.
        let kind = if modifier == "^~" { "" } else { modifier };
        let Some(first) = seen.get(&(kind, path)) else {
            seen.insert((kind, path), place);
            continue;
        };
        let is_refused = matches!(kind, "" | "=") && !path.starts_with('@');
        let (rule, what) = if is_refused {
            let what = format!("nginx refuses a second location \"{path}\"; the first is at {first}");
            (&rules::LOCATION_TWICE, what)
        } else {
            (&rules::LOCATION_SHADOWED, format!("no request comes here: the location at {first} is the same"))
        };
        findings.push(Finding::new(rule, &place, what, "remove one of them"));
    }
}

/// What nginx refuses inside of another location.
fn nested(block: &Block<'_>, location: &Directive, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let Some(outer) = block.opened_by().filter(|_| block.context == "location") else { return };
    let (modifier, path) = modifier_and_path(location);
    let (outer_modifier, outer_path) = modifier_and_path(outer);
    let is_regex = |modifier: &str| matches!(modifier, "~" | "~*");
    let what = if path.starts_with('@') && modifier.is_empty() {
        format!("nginx refuses the named location \"{path}\" inside of a location")
    } else if outer_modifier == "=" || outer_path.starts_with('@') {
        format!("nginx refuses a location inside of \"{outer_path}\", which is one path alone")
    } else if !is_regex(modifier) && !path.starts_with(outer_path) {
        // Of a location by a pattern nginx compares the pattern itself.
        format!("nginx refuses \"{path}\" inside of \"{outer_path}\": it does not begin with that")
    } else {
        return;
    };
    findings.push(Finding::new(&rules::LOCATION_NESTED, &places.line(location), what, "move it out"));
}

/// A URI in a `proxy_pass` where nginx cannot tell which part of the path it stands for.
fn uri(block: &Block<'_>, pass: &Directive, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let text = pass.arg(0).unwrap_or_default();
    if text.contains('$') {
        return;
    }
    let Some((_, rest)) = text.split_once("://") else { return };
    let has_uri = match rest.get(..5) {
        // Behind the second colon, where there may be nothing.
        Some(start) if start.eq_ignore_ascii_case("unix:") => {
            rest[5..].split_once(':').is_some_and(|(_, uri)| !uri.is_empty())
        }
        _ => rest.contains(['/', '?']),
    };
    let (modifier, path) = block.opened_by().map_or(("", ""), modifier_and_path);
    let here = match block.context {
        "location-if" => "inside of an if",
        "limit_except" => "inside of limit_except",
        "location" if matches!(modifier, "~" | "~*") => "in a location by a pattern",
        "location" if path.starts_with('@') => "in a named location",
        _ => return,
    };
    if has_uri {
        let what = format!("nginx refuses a path in proxy_pass {here}: it cannot tell what it stands for");
        let fix = "leave the path out, and rewrite it before with rewrite … break";
        findings.push(Finding::new(&rules::URI_REFUSED, &places.line(pass), what, fix));
    }
}

/// The named locations of a server.
fn named_locations<'a>(server: &Block<'a>) -> Vec<&'a str> {
    server
        .named("location")
        .filter_map(|location| location.arg(0))
        .filter(|path| path.starts_with('@'))
        .collect()
}

/// Named locations that something goes to and that are not there.
fn missing(block: &[Directive], all: &[&str], places: &Places<'_>, findings: &mut Vec<Finding>) {
    for directive in block {
        let last = directive.args.last().map(|word| word.text.as_str());
        let goes = matches!(&*directive.name.text, "try_files" | "error_page").then_some(last).flatten();
        if let Some(name) =
            goes.filter(|name| name.starts_with('@') && !name.contains('$') && !all.contains(name))
        {
            let what = format!(
                "requests that go to \"{name}\" fail with 500: there is no such location in this server"
            );
            let fix = match near::nearest(name, all.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "add the location, or correct the name".to_owned(),
            };
            findings.push(Finding::new(&rules::LOCATION_MISSING, &places.line(directive), what, fix));
        }
        if matches!(&*directive.name.text, "location" | "if" | "limit_except") {
            missing(directive.children(), all, places, findings);
        }
    }
}
