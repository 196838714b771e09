//! Findings about regular expressions and conditions that nginx cannot read.

use nginx_conf::{Directive, Word};

use super::{
    blocks::{Block, modifier_and_path},
    finding::Finding,
    rules,
    subject::Subject,
};
use crate::nginx::places::Places;

/// What compares a variable with something, and whether that is a pattern.
const OPERATORS: [(&str, bool); 6] =
    [("=", false), ("!=", false), ("~", true), ("~*", true), ("!~", true), ("!~*", true)];

/// What looks at a file.
const TESTS: [&str; 8] = ["-f", "!-f", "-d", "!-d", "-e", "!-e", "-x", "!-x"];

pub(super) fn find(subject: &Subject, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    for block in &subject.blocks() {
        for directive in block.children {
            let name = directive.name.text.as_str();
            let is_rewritten = matches!(block.context, "server" | "location" | "server-if" | "location-if");
            if name == "if" && is_rewritten {
                condition(directive, &places, findings);
            }
            let own = patterns(block, directive);
            let keys = directive.children().iter().filter(|_| name == "map" && is_kind(block.context));
            let of_keys = keys.filter_map(|entry| Some((pattern_of(&entry.name.text)?, entry)));
            let all = own.into_iter().map(|pattern| (pattern, directive)).chain(of_keys);
            for (pattern, at) in all {
                if let Some(why) = broken(pattern) {
                    let what = format!("nginx refuses the pattern \"{pattern}\": {why}");
                    let fix = "correct it, and quote one with braces, semicolons or spaces";
                    findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(at), what, fix));
                }
            }
        }
    }
}

fn is_kind(context: &str) -> bool {
    matches!(context, "http" | "stream")
}

/// The pattern behind a `~` or, where case is ignored, a `~*`.
fn pattern_of(text: &str) -> Option<&str> {
    let pattern = text.strip_prefix('~')?;
    Some(pattern.strip_prefix('*').unwrap_or(pattern))
}

/// The patterns among the arguments of a directive.
fn patterns<'a>(block: &Block<'_>, directive: &'a Directive) -> Vec<&'a str> {
    let all = || directive.args.iter().map(|word| word.text.as_str());
    match (block.context, directive.name.text.as_str()) {
        ("server" | "location", "location") => {
            let (modifier, path) = modifier_and_path(directive);
            matches!(modifier, "~" | "~*").then_some(path).into_iter().collect()
        }
        ("server" | "stream-server", "server_name") => {
            all().filter_map(|name| name.strip_prefix('~')).collect()
        }
        ("server" | "location" | "server-if" | "location-if", "rewrite")
        | ("location", "fastcgi_split_path_info") => all().take(1).collect(),
        ("server" | "location", "valid_referers") => {
            all().filter_map(|name| name.strip_prefix('~')).collect()
        }
        (_, "proxy_redirect" | "proxy_cookie_path") => all().take(1).filter_map(pattern_of).collect(),
        // These ignore case anyway.
        (_, "proxy_cookie_domain" | "proxy_cookie_flags") => {
            all().take(1).filter_map(|name| name.strip_prefix('~')).collect()
        }
        _ => Vec::new(),
    }
}

/// Of an `if`: a variable, a comparison, or a look at a file.
fn condition(directive: &Directive, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let words = words_of(&directive.args);
    let why = match words.as_deref() {
        None => Some("it must stand in parentheses".to_owned()),
        Some([variable]) if is_variable(variable) => None,
        Some([variable, operator, value]) if is_variable(variable) => {
            match OPERATORS.iter().find(|(known, _)| known == operator) {
                None => Some(format!("there is no \"{operator}\"")),
                Some((_, true)) => broken(value).map(str::to_owned),
                Some((_, false)) => None,
            }
        }
        Some([test, _]) if TESTS.contains(test) => None,
        Some(_) => Some("it is a variable, a comparison of one, or a test of a file".to_owned()),
    };
    if let Some(why) = why {
        let what = format!("nginx refuses the condition of this if: {why}");
        let fix = "write if ($variable), if ($variable = value), or ~ and a pattern";
        findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(directive), what, fix));
    }
}

fn is_variable(text: &str) -> bool {
    text.len() > 1 && text.starts_with('$')
}

/// What stands between the parentheses.
pub(super) fn words_of(args: &[Word]) -> Option<Vec<&str>> {
    let mut words: Vec<&str> = args.iter().map(|word| word.text.as_str()).collect();
    let first = words.first_mut()?;
    *first = first.strip_prefix('(')?;
    if first.is_empty() {
        words.remove(0);
    }
    let last = words.last_mut()?;
    *last = last.strip_suffix(')')?;
    if last.is_empty() && args.last().is_some_and(|word| word.text == ")") {
        words.pop();
    }
    Some(words)
}

/// Why a pattern is none, as far as that can be seen without compiling it.
fn broken(pattern: &str) -> Option<&'static str> {
    let bytes = pattern.as_bytes();
    if has_comments(pattern) || pattern.contains("(*") {
        return None;
    }
    let (mut at, mut depth, mut can_repeat) = (0, 0_usize, false);
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        let repeats = std::mem::replace(&mut can_repeat, true);
        match byte {
            b'\\' => match bytes.get(at) {
                None => return Some("it ends with a backslash"),
                Some(b'Q') => at += pattern[at..].find("\\E").map_or(bytes.len(), |end| end + 2),
                Some(_) => at += 1,
            },
            b'[' => at = behind_class(bytes, at).unwrap_or(usize::MAX),
            b'(' => {
                depth += 1;
                can_repeat = false;
                if bytes.get(at) == Some(&b'?') {
                    at += 1;
                    if bytes.get(at) == Some(&b'#') {
                        at += pattern[at..].find(')').unwrap_or(0);
                    }
                }
            }
            b')' => match depth.checked_sub(1) {
                None => return Some("a ) has no ("),
                Some(left) => depth = left,
            },
            b'|' => can_repeat = false,
            b'*' | b'+' | b'?' if !repeats => return Some("nothing stands before what repeats it"),
            _ => {}
        }
        if at == usize::MAX {
            return Some("a [ has no ]");
        }
    }
    (depth > 0).then_some("a ( has no )")
}

/// Whether it is written with the option x, as in `(?ix)`: then it can have comments, which may hold anything.
fn has_comments(pattern: &str) -> bool {
    pattern.split("(?").skip(1).any(|rest| {
        let options = rest.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
        options.contains('x')
    })
}

/// Where a class of characters ends that begins before `at`.
fn behind_class(bytes: &[u8], mut at: usize) -> Option<usize> {
    at += usize::from(bytes.get(at) == Some(&b'^'));
    // The first one is a member.
    at += usize::from(bytes.get(at) == Some(&b']'));
    loop {
        match bytes.get(at)? {
            b']' => return Some(at + 1),
            b'\\' => at += 2,
            b'[' if bytes.get(at + 1) == Some(&b':') => {
                let end = bytes[at + 2..].windows(2).position(|two| two == b":]");
                at += end.map_or(1, |end| end + 4);
            }
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::broken;

    #[test]
    fn what_is_no_pattern_is_known() {
        let check = |pattern: &str, is_one: bool| assert_eq!(broken(pattern).is_none(), is_one, "{pattern}");
        for pattern in [
            r"\.php$",
            "^/(?<n>a|b)/(c)+",
            "[]a]",
            "[^]]",
            r"[\]]",
            "[[:alpha:]]+",
            r"\(",
            "(?:a)?",
            "(?i)a*",
            "a{2}",
            "(?#c)a",
            r"\Q(\E",
            "(?=a)b",
            "^*",
            "",
            "(?x) a # (",
            "(?ix: a # (\n)",
        ] {
            check(pattern, true);
        }
        for pattern in ["[", "(a", "a)", "*.php", "a|*", "(+a)", "a\\", "[[:alpha:]", "[a\\]"] {
            check(pattern, false);
        }
    }
}
