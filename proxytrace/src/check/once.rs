//! Findings about directives that nginx does not take a second time in a block, besides those of which the table of directives says so.

use std::collections::HashMap;

use nginx_conf::Directive;

use super::{finding::Finding, rules, subject::Subject};
use crate::nginx::places::Places;

/// Those that may be there more than once, but not beside one that is `off`.
const ALONE_IF_OFF: [&str; 5] =
    ["mirror", "proxy_cookie_domain", "proxy_cookie_flags", "proxy_cookie_path", "proxy_redirect"];

pub(super) fn find(subject: &Subject, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    for block in &subject.blocks() {
        let mut taken: HashMap<(&str, &str), &Directive> = HashMap::new();
        let mut off: HashMap<&str, &Directive> = HashMap::new();
        for directive in block.children {
            let name = directive.name.text.as_str();
            let mut first = what(directive).and_then(|what| taken.insert(what, directive));
            if ALONE_IF_OFF.contains(&name) {
                let before = *off.entry(name).or_insert(directive);
                let is_off = |one: &Directive| one.args.len() == 1 && one.arg(0) == Some("off");
                let is_other = !std::ptr::eq(before, directive);
                first = Some(before).filter(|before| is_other && (is_off(before) || is_off(directive)));
            }
            if let Some(first) = first {
                let what = format!(
                    "nginx refuses {name} beside {} in the same block; the first is at {}",
                    first.name.text,
                    places.line(first)
                );
                let place = places.line(directive);
                findings.push(Finding::new(&rules::DIRECTIVE_TWICE, &place, what, "remove one of them"));
            }
        }
    }
}

/// What a directive sets that can be set once: of what kind, and which of them.
fn what(directive: &Directive) -> Option<(&str, &str)> {
    let zone = |word: &'static str| directive.args.iter().find_map(move |arg| arg.text.strip_prefix(word));
    match directive.name.text.as_str() {
        "root" | "alias" => Some(("root", "")),
        "limit_except" => Some(("limit_except", "")),
        "limit_conn" => Some(("limit_conn", directive.arg(0)?)),
        "limit_req" => Some(("limit_req", zone("zone=")?)),
        _ => None,
    }
}
