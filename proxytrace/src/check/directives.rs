//! Findings about directives by themselves: where they stand, how many arguments they have, and of what kind those are.

use std::collections::HashMap;

use nginx_conf::Directive;

use super::{blocks::Block, finding::Finding, near, rules, subject::Subject};
use crate::nginx::{
    directives::{self, Kind, Known},
    places::Places,
    time,
    version::Version,
};

/// How blocks are called in words.
const WORDS: [(&str, &str); 5] = [
    ("main", "the top level"),
    ("server-if", "an if of a server"),
    ("location-if", "an if of a location"),
    ("stream-server", "a server of stream"),
    ("mail-server", "a server of mail"),
];

pub(super) fn find(subject: &Subject, version: Option<Version>, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    for block in &subject.blocks() {
        let mut first: HashMap<&str, &Directive> = HashMap::new();
        for directive in block.children {
            let known = directives::of(&directive.name.text);
            if known.is_empty() {
                misspelt(directive, block, &places, findings);
                continue;
            }
            let Some(known) = in_its_place(directive, known, block, &places, findings) else { continue };
            let place = places.line(directive);
            counted(directive, &known, &place, findings);
            of_a_version(directive, &known, version, &place, findings);
            if let [known] = known[..] {
                valued(directive, known, &place, findings);
                // Of the blocks only those at the top are taken once.
                let is_taken_once = match known.kind {
                    Kind::Other => false,
                    Kind::Block => block.context == "main",
                    _ => true,
                };
                let earlier = first.insert(&directive.name.text, directive);
                if let Some(earlier) = earlier.filter(|_| is_taken_once) {
                    let name = &directive.name.text;
                    let what = format!(
                        "nginx refuses a second {name} in the same block; the first is at {}",
                        places.line(earlier)
                    );
                    findings.push(Finding::new(&rules::DIRECTIVE_TWICE, &place, what, "remove one of them"));
                }
            }
        }
    }
}

fn in_its_place(
    directive: &Directive,
    known: &'static [Known],
    block: &Block<'_>,
    places: &Places<'_>,
    findings: &mut Vec<Finding>,
) -> Option<Vec<&'static Known>> {
    let here: Vec<_> = known.iter().filter(|one| one.is_in(block.context)).collect();
    if !here.is_empty() {
        return Some(here);
    }
    let context = block.context;
    let words = WORDS.iter().find(|(name, _)| *name == context).map_or(context, |(_, words)| words);
    let what = format!("nginx refuses \"{}\" in {words}", directive.name.text);
    let fix = "move it to a block that takes it; is a brace missing, or one too many?";
    findings.push(Finding::new(&rules::WRONG_PLACE, &places.line(directive), what, fix));
    None
}

fn counted(directive: &Directive, known: &[&Known], place: &str, findings: &mut Vec<Finding>) {
    if known.iter().any(|one| one.takes(directive.args.len())) {
        return;
    }
    let name = &directive.name.text;
    let takes: Vec<_> = known.iter().map(|one| one.counts()).collect();
    let what = format!(
        "nginx refuses \"{name}\" with {} arguments: it takes {}",
        directive.args.len(),
        takes.join(" or ")
    );
    let swallowed =
        directive.args.iter().find(|word| !word.is_quoted && !directives::of(&word.text).is_empty());
    let fix = match swallowed {
        Some(word) => format!("end it with a semicolon before \"{}\"", word.text),
        None => "correct its arguments, and see whether a semicolon is missing".to_owned(),
    };
    findings.push(Finding::new(&rules::ARGUMENT_COUNT, place, what, fix));
}

fn of_a_version(
    directive: &Directive,
    known: &[&Known],
    version: Option<Version>,
    place: &str,
    findings: &mut Vec<Finding>,
) {
    let Some(version) = version.filter(|version| !known.iter().any(|one| one.is_of(*version))) else {
        return;
    };
    let why = known.first().map(|one| one.versions()).unwrap_or_default();
    let what = format!("nginx {version} does not know \"{}\": {why}", directive.name.text);
    findings.push(Finding::new(&rules::VERSION, place, what, "remove it, or install another version"));
}

/// What its value must be, where it is of a kind that nginx checks.
fn valued(directive: &Directive, known: &Known, place: &str, findings: &mut Vec<Finding>) {
    let [word] = &directive.args[..] else { return };
    let value = word.text.as_str();
    let (is_one, needed) = match known.kind {
        Kind::Flag => (matches!(value.to_ascii_lowercase().as_str(), "on" | "off"), "on or off"),
        Kind::Number => (is_number(value), "a number"),
        Kind::Offset => (is_size(value, "kKmMgG"), "a size such as 8k, 1m or 1g"),
        Kind::Seconds => (time::milliseconds(value).is_some_and(|ms| ms % 1_000 == 0), "a time in seconds"),
        Kind::Size => (is_size(value, "kKmM"), "a size such as 8k or 1m"),
        Kind::Time => (time::milliseconds(value).is_some(), "a time such as 5s or 500ms"),
        Kind::Block | Kind::Text | Kind::Other => return,
    };
    if !is_one {
        let what = format!("nginx refuses \"{value}\" in \"{}\": it must be {needed}", directive.name.text);
        findings.push(Finding::new(&rules::BAD_ARGUMENT, place, what, format!("write {needed}")));
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_size(text: &str, units: &str) -> bool {
    is_number(text.strip_suffix(|c| units.contains(c)).unwrap_or(text))
}

/// A directive that no nginx has, and whose name is nearly one that may stand here. Another module may still have it.
fn misspelt(directive: &Directive, block: &Block<'_>, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let name = &directive.name.text;
    let Some(meant) = near::nearest(name, directives::names_in(block.context)) else { return };
    let what = format!("nginx refuses \"{name}\", unless a module brings it");
    let fix = format!("did you mean {meant}?");
    findings.push(Finding::new(&rules::UNKNOWN_DIRECTIVE, &places.line(directive), what, fix));
}
