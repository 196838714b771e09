//! Findings about directives by themselves: where they stand, how many arguments they have, and of what kind those are.

use std::collections::HashMap;

use nginx_conf::Directive;

use super::{blocks::Block, finding::Finding, near, rules, subject::Subject};
use crate::nginx::{
    directives::{self, Kind, Known},
    places::Places,
    size, time,
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

/// What other languages have behind an `if`.
const NO_ELSE: [&str; 4] = ["else", "elseif", "elsif", "elif"];

/// Directives of a later version that distributions took into older ones, as they mend what is dangerous.
const TAKEN_BACK: [&str; 1] = ["max_headers"];

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
            if has_swallowed(directive, &known, &place, findings) {
                continue;
            }
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
    let fix = match swallowed(directive) {
        Some(name) => format!("end it with a semicolon before \"{name}\""),
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
    let name = directive.name.text.as_str();
    let fix = "remove it, or install another version";
    let found = |what: String| Finding::new(&rules::VERSION, place, what, fix);
    findings.push(if TAKEN_BACK.contains(&name) {
        let unless = "unless the distribution took it into its own";
        found(format!("nginx {version} does not know \"{name}\", {unless}: {why}")).into_warning()
    } else {
        found(format!("nginx {version} does not know \"{name}\": {why}"))
    });
}

/// What its value must be, where it is of a kind that nginx checks.
fn valued(directive: &Directive, known: &Known, place: &str, findings: &mut Vec<Finding>) {
    let [word] = &directive.args[..] else { return };
    let value = word.text.as_str();
    let (is_one, needed) = match known.kind {
        Kind::Flag => (matches!(value.to_ascii_lowercase().as_str(), "on" | "off"), "on or off"),
        Kind::Number => (size::number(value).is_some(), "a number"),
        Kind::Offset => (size::offset(value).is_some(), "a size such as 8k, 1m or 1g"),
        Kind::Seconds => (time::seconds(value).is_some(), "a time in seconds"),
        Kind::Size => (size::size(value).is_some(), "a size such as 8k or 1m"),
        Kind::Time => (time::milliseconds(value).is_some(), "a time such as 5s or 500ms"),
        Kind::Block | Kind::Text | Kind::Other => return,
    };
    if !is_one {
        let what = format!("nginx refuses \"{value}\" in \"{}\": it must be {needed}", directive.name.text);
        findings.push(Finding::new(&rules::BAD_ARGUMENT, place, what, format!("write {needed}")));
    }
}

/// Whether a directive that takes no block has one.
fn has_swallowed(directive: &Directive, known: &[&Known], place: &str, findings: &mut Vec<Finding>) -> bool {
    let is_wrong = directive.block.is_some() && !known.iter().any(|one| one.kind == Kind::Block);
    if is_wrong {
        let what =
            format!("nginx refuses \"{}\" with a block: it ends with a semicolon", directive.name.text);
        let fix = match swallowed(directive) {
            Some(name) => format!("end it with a semicolon before \"{name}\""),
            None => "end it with a semicolon".to_owned(),
        };
        findings.push(Finding::new(&rules::ARGUMENT_COUNT, place, what, fix));
    }
    is_wrong
}

/// The name of a directive among the arguments of another: the semicolon before it is missing.
fn swallowed(directive: &Directive) -> Option<&str> {
    let word =
        directive.args.iter().find(|word| !word.is_quoted && !directives::of(&word.text).is_empty())?;
    Some(&word.text)
}

/// The directive of nginx that is meant for certain by a name that it does not have: letters of another case, or a name with
/// something at its end that is in no name, such as `if(`.
pub(super) fn meant(name: &str) -> Option<String> {
    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
    let meant = name[..end].to_ascii_lowercase();
    (meant != name && !directives::of(&meant).is_empty()).then_some(meant)
}

/// A directive that no nginx has, and whose name is nearly one that may stand here. Another module may still have it.
fn misspelt(directive: &Directive, block: &Block<'_>, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let name = &directive.name.text;
    if let Some(meant) = meant(name) {
        let what = format!("nginx refuses \"{name}\": it knows \"{meant}\"");
        let fix = if name.is_ascii() && name.eq_ignore_ascii_case(&meant) {
            format!("write {meant}")
        } else {
            format!("write {meant} and a space")
        };
        findings.push(Finding::new(&rules::UNKNOWN_DIRECTIVE, &places.line(directive), what, fix));
        return;
    }
    if NO_ELSE.contains(&name.as_str()) {
        let what = format!("nginx refuses \"{name}\": an if has none");
        let fix = "write another if, or a map";
        findings.push(Finding::new(&rules::UNKNOWN_DIRECTIVE, &places.line(directive), what, fix));
        return;
    }
    if is_no_directive(name) {
        let what = format!("nginx refuses \"{name}\": no directive is called that");
        let fix = "remove it; is it an entry of a map, geo or types, and a brace missing, or one too many?";
        findings.push(Finding::new(&rules::UNKNOWN_DIRECTIVE, &places.line(directive), what, fix));
        return;
    }
    let Some(meant) = near::nearest(name, directives::names_in(block.context)) else { return };
    let what = format!("nginx refuses \"{name}\", unless a module brings it");
    let fix = format!("did you mean {meant}?");
    let found = Finding::new(&rules::UNKNOWN_DIRECTIVE, &places.line(directive), what, fix);
    findings.push(found.into_warning());
}

/// Whether no module either can have a directive of that name.
fn is_no_directive(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
        || name.bytes().any(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric() && byte != b'_')
}

#[cfg(test)]
mod tests {
    use super::{is_no_directive, meant};

    #[test]
    fn what_stands_in_a_map_is_no_directive() {
        for name in ["~^/a", "*.example.org", "/a", "10.0.0.0/8", "$host", "404", "text/html"] {
            assert!(is_no_directive(name), "{name}");
        }
        for name in ["more_set_headers", "ModSecurityEnabled", "lua_package_path", "x2", "\u{fc}ber"] {
            assert!(!is_no_directive(name), "{name}");
        }
    }

    #[test]
    fn a_name_that_no_module_can_have_is_known() {
        let check =
            |name: &str, expected: Option<&str>| assert_eq!(meant(name).as_deref(), expected, "{name}");
        check("Return", Some("return"));
        check("HTTP", Some("http"));
        check("if($host", Some("if"));
        check("listen\u{a0}8081", Some("listen"));
        check("location=/", Some("location"));
        for name in ["return", "retrun", "more_set_headers", "content_by_lua_block", "if_", ""] {
            check(name, None);
        }
    }
}
