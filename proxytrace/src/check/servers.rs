//! Findings about servers and locations that hide each other, or stand where nothing is served.

use std::collections::{HashMap, HashSet};

use nginx_conf::{Config, Directive};

use super::{finding::Finding, rules};
use crate::nginx::places::Places;

/// What a file begins with that is meant to be included.
const PARTS: [&str; 3] = ["server", "upstream", "location"];

pub(super) fn find(config: &Config, findings: &mut Vec<Finding>) {
    let places = Places(config);
    let out_of_place = config.directives.iter().find(|directive| PARTS.contains(&&*directive.name.text));
    if let Some(directive) = out_of_place {
        let name = &directive.name.text;
        let what =
            format!("nginx refuses \"{name}\" outside of http and stream, and nothing of it was checked");
        let fix = "check the file that includes this one";
        findings.push(Finding::new(&rules::OUT_OF_PLACE, &places.line(directive), what, fix));
    }
    for http in named(&config.directives, "http") {
        let servers: Vec<_> = named(http.children(), "server").collect();
        servers_of(&servers, &places, findings);
        for server in servers {
            locations(server, &places, findings);
        }
    }
}

fn named<'a>(block: &'a [Directive], name: &'a str) -> impl Iterator<Item = &'a Directive> {
    block.iter().filter(move |directive| directive.name.text == name)
}

fn servers_of(servers: &[&Directive], places: &Places<'_>, findings: &mut Vec<Finding>) {
    let mut names: HashMap<(String, String), String> = HashMap::new();
    let mut defaults: HashMap<String, String> = HashMap::new();
    for server in servers {
        let mut own: Vec<_> = named(server.children(), "server_name")
            .flat_map(|directive| {
                directive.args.iter().map(|word| (word.text.as_str().to_lowercase(), places.line(directive)))
            })
            .collect();
        if own.is_empty() {
            own.push((String::new(), places.line(server)));
        }
        let mut addresses = HashSet::new();
        for listen in named(server.children(), "listen") {
            let address = address(listen.arg(0).unwrap_or_default());
            let is_default =
                listen.args.iter().skip(1).any(|word| matches!(&*word.text, "default_server" | "default"));
            if is_default && let Some(first) = defaults.insert(address.clone(), places.line(listen)) {
                let what =
                    format!("nginx refuses a second default server at {address}; the first is at {first}");
                let fix = "take default_server off one of them";
                findings.push(Finding::new(&rules::DEFAULT_SERVER_TWICE, &places.line(listen), what, fix));
            }
            addresses.insert(address);
        }
        if addresses.is_empty() {
            addresses.insert(address("80"));
        }
        for (name, place) in own.iter().filter(|(name, _)| !name.starts_with('~')) {
            for address in &addresses {
                let key = (address.clone(), name.clone());
                if let Some(first) = names.get(&key) {
                    let what = format!(
                        "requests for \"{name}\" at {address} never come here: {first} has that name already"
                    );
                    let fix = "rename or remove one of them";
                    findings.push(Finding::new(&rules::SERVER_NAME_TWICE, place, what, fix));
                } else {
                    names.insert(key, place.clone());
                }
            }
        }
    }
}

/// An address of `listen` in one form for all the ways to write it.
fn address(text: &str) -> String {
    if text.starts_with("unix:") {
        return text.to_owned();
    }
    let text = text.replace("*:", "0.0.0.0:");
    let is_port = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = if text.starts_with('[') { text.contains("]:") } else { text.contains(':') };
    match (is_port, has_port) {
        (true, _) => format!("0.0.0.0:{text}"),
        (_, true) => text,
        _ => format!("{}:80", if text == "*" { "0.0.0.0" } else { &text }),
    }
}

fn locations(block: &Directive, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let mut seen: HashMap<(&str, &str), String> = HashMap::new();
    for location in named(block.children(), "location") {
        let place = places.line(location);
        let (modifier, path) = modifier_and_path(location);
        // To nginx a path with ^~ is the path without.
        let kind = if modifier == "^~" { "" } else { modifier };
        if let Some(first) = seen.get(&(kind, path)) {
            let is_refused = matches!(kind, "" | "=") && !path.starts_with('@');
            let (rule, what) = if is_refused {
                (
                    &rules::LOCATION_TWICE,
                    format!("nginx refuses a second location \"{path}\"; the first is at {first}"),
                )
            } else {
                (
                    &rules::LOCATION_SHADOWED,
                    format!("no request comes here: the location at {first} is the same"),
                )
            };
            findings.push(Finding::new(rule, &place, what, "remove one of them"));
        } else {
            seen.insert((kind, path), place);
        }
        locations(location, places, findings);
    }
}

/// `= /x` and `=/x` alike.
fn modifier_and_path(location: &Directive) -> (&str, &str) {
    let first = location.arg(0).unwrap_or_default();
    if let Some(path) = location.arg(1) {
        return (first, path);
    }
    let glued = ["=", "^~", "~*", "~"]
        .into_iter()
        .find_map(|modifier| Some((modifier, first.strip_prefix(modifier)?)));
    glued.unwrap_or(("", first))
}
