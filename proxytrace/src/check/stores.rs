//! Findings about what nginx keeps: caches, temporary files, sessions of TLS, open files, and lines of logs that wait. How long, how
//! much, where, and who may read it.

use nginx_conf::Directive;

use super::{finding::Finding, rules, subject::Subject};
use crate::nginx::{places::Places, size, time};

/// Modules whose directives differ in nothing but their first word.
const PASSING: [&str; 4] = ["proxy", "fastcgi", "uwsgi", "scgi"];

/// The smallest zone for the keys of a cache, in bytes.
const MIN_KEYS: u64 = 8_192;
/// The smallest zone for sessions, in bytes: eight pages.
const MIN_SESSIONS: u64 = 8 * 4_096;

/// What a parameter must be.
#[derive(Clone, Copy)]
enum Needs {
    /// The word itself.
    Word,
    /// Behind the `=`: whatever that test takes.
    Value(fn(&str) -> bool),
}

type Parameters = &'static [(&'static str, Needs)];

/// Those of a cache's path; the last ones are Plus's.
const CACHE: Parameters = &[
    ("levels", Needs::Value(is_levels)),
    ("use_temp_path", Needs::Value(|text| matches!(text, "on" | "off"))),
    ("keys_zone", Needs::Value(is_keys_zone)),
    ("inactive", Needs::Value(is_seconds)),
    ("max_size", Needs::Value(|text| size::offset(text).is_some())),
    ("min_free", Needs::Value(|text| size::offset(text).is_some())),
    ("loader_files", Needs::Value(is_number)),
    ("loader_sleep", Needs::Value(is_time)),
    ("loader_threshold", Needs::Value(is_time)),
    ("manager_files", Needs::Value(is_number)),
    ("manager_sleep", Needs::Value(is_time)),
    ("manager_threshold", Needs::Value(is_time)),
    ("purger", Needs::Value(|_| true)),
    ("purger_files", Needs::Value(|_| true)),
    ("purger_sleep", Needs::Value(|_| true)),
    ("purger_threshold", Needs::Value(|_| true)),
];

const LOG: Parameters = &[
    ("buffer", Needs::Value(|text| size::size(text).is_some_and(|bytes| bytes > 0))),
    ("flush", Needs::Value(|text| time::milliseconds(text).is_some_and(|long| long > 0))),
    ("gzip", Needs::Word),
    ("gzip", Needs::Value(|text| size::number(text).is_some_and(|level| (1..=9).contains(&level)))),
    ("if", Needs::Value(|_| true)),
];

const OPEN_FILES: Parameters = &[
    ("off", Needs::Word),
    ("max", Needs::Value(|text| size::number(text).is_some_and(|number| number > 0))),
    ("inactive", Needs::Value(is_seconds)),
];

const SYMLINKS: Parameters = &[
    ("on", Needs::Word),
    ("off", Needs::Word),
    ("if_not_owner", Needs::Word),
    ("from", Needs::Value(|_| true)),
];

pub(super) fn find(subject: &Subject, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    for block in &subject.blocks() {
        for directive in block.children {
            if let Some((bad, fix)) = refused(directive) {
                let what = format!("nginx refuses \"{bad}\" in \"{}\"", directive.name.text);
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(directive), what, fix));
            } else if let Some((lacks, fix)) = lacking(directive) {
                let what = format!("nginx refuses {} without {lacks}", directive.name.text);
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(directive), what, fix));
            }
        }
    }
}

/// What a directive is called behind the word of its module.
fn of_passing(name: &str) -> Option<&str> {
    PASSING.iter().find_map(|module| name.strip_prefix(module)?.strip_prefix('_'))
}

/// An argument that nginx refuses, and what to write.
fn refused(directive: &Directive) -> Option<(&str, &'static str)> {
    let name = directive.name.text.as_str();
    let behind = |count| directive.args.iter().map(|word| word.text.as_str()).skip(count);
    let unknown = |count, known: Parameters| behind(count).find(|word| !is_known(word, known));
    match (name, of_passing(name)) {
        (_, Some("cache_valid")) => {
            let mut statuses: Vec<_> = behind(0).collect();
            let long = statuses.pop()?;
            if time::seconds(long).is_none() {
                return Some((long, "write a time such as 10m last"));
            }
            let bad = statuses.into_iter().find(|status| {
                *status != "any" && !size::number(status).is_some_and(|status| (100..600).contains(&status))
            });
            Some((bad?, "write statuses such as 200, or any, and a time"))
        }
        (_, Some("cache_path")) => {
            Some((unknown(1, CACHE)?, "write parameters such as levels=1:2, keys_zone=api:10m, inactive=60m"))
        }
        (_, Some("temp_path")) | ("client_body_temp_path", _) => {
            let bad = behind(1).find(|level| size::number(level).is_none_or(|level| level == 0));
            Some((bad?, "write how many digits the names of directories have, such as 1 2"))
        }
        (_, Some("store_access")) | ("dav_access", _) => {
            Some((behind(0).find(|word| !is_access(word))?, "write who may do what, such as user:rw group:r"))
        }
        ("open_file_cache", _) => Some((unknown(0, OPEN_FILES)?, "write max=1000 inactive=20s, or off")),
        ("disable_symlinks", _) => {
            Some((unknown(0, SYMLINKS)?, "write on, off or if_not_owner, and from=PATH"))
        }
        ("ssl_session_cache", _) => {
            let bad = behind(0).find(|word| !is_session_cache(word));
            Some((bad?, "write off, none, builtin, or a zone such as shared:tls:10m"))
        }
        ("access_log", _) if directive.arg(0) != Some("off") => {
            Some((unknown(2, LOG)?, "write buffer=, flush=, gzip or if=; a semicolon may be missing"))
        }
        _ => None,
    }
}

/// What a directive cannot do without, and how to add it.
fn lacking(directive: &Directive) -> Option<(&'static str, &'static str)> {
    let has = |start: &str| directive.args.iter().any(|word| word.text.starts_with(start));
    match directive.name.text.as_str() {
        name if of_passing(name) == Some("cache_path") => {
            (!has("keys_zone=")).then_some(("keys_zone=", "add a zone such as keys_zone=api:10m"))
        }
        "open_file_cache" => {
            (!has("max=") && !has("off")).then_some(("max=", "add how many files, such as max=1000"))
        }
        _ => None,
    }
}

fn is_known(word: &str, known: Parameters) -> bool {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    known.iter().filter(|(known, _)| *known == name).any(|(_, needs)| match (needs, value) {
        (Needs::Word, None) => true,
        (Needs::Value(takes), Some(value)) => takes(value),
        _ => false,
    })
}

fn is_number(text: &str) -> bool {
    size::number(text).is_some()
}

fn is_seconds(text: &str) -> bool {
    time::seconds(text).is_some()
}

fn is_time(text: &str) -> bool {
    time::milliseconds(text).is_some()
}

/// Up to three of 1 and 2.
fn is_levels(text: &str) -> bool {
    text.is_empty() || text.split(':').count() <= 3 && text.split(':').all(|level| matches!(level, "1" | "2"))
}

fn is_keys_zone(text: &str) -> bool {
    let bytes = text.split_once(':').and_then(|(_, bytes)| size::size(bytes));
    bytes.is_some_and(|bytes| bytes >= MIN_KEYS)
}

fn is_access(word: &str) -> bool {
    word.split_once(':')
        .is_some_and(|(who, what)| matches!(who, "user" | "group" | "all") && matches!(what, "r" | "rw"))
}

fn is_session_cache(word: &str) -> bool {
    match word.split_once(':') {
        None => matches!(word, "off" | "none" | "builtin"),
        Some(("builtin", sessions)) => is_number(sessions),
        Some(("shared", zone)) => zone.split_once(':').is_some_and(|(name, bytes)| {
            !name.is_empty() && size::size(bytes).is_some_and(|bytes| bytes >= MIN_SESSIONS)
        }),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::check::examples::findings;

    /// nginx 1.22.1 and 1.30.6 judge each of these lines so.
    #[test]
    fn what_nginx_refuses_about_what_it_keeps_is_found() {
        let check = |line: &str, expected: &str| {
            let found = findings(&format!("http {{ {line} server {{ listen 80; return 200; }} }}"));
            let said: Vec<_> = found.iter().filter(|one| one.rule.id == "bad-argument").collect();
            match (expected, &said[..]) {
                ("", []) => {}
                (_, [one]) => {
                    assert!(!expected.is_empty() && one.what.contains(expected), "{line}: {said:?}");
                }
                _ => panic!("{line}: {said:?}"),
            }
        };
        let zone = "proxy_cache_path /c keys_zone=a:10m";
        check(&format!("{zone} levels=1:2 inactive=60m max_size=1g use_temp_path=off loader_sleep=5ms;"), "");
        check("fastcgi_cache_path /c;", "without keys_zone=");
        for bad in
            ["levels=1:3", "levels=1:2:1:1", "inactive=1x", "max_size=[g", "use_temp_path=no", "keys=1"]
        {
            check(&format!("{zone} {bad};"), bad);
        }
        check("scgi_cache_path /c keys_zone=a;", "keys_zone=a");
        check("scgi_cache_path /c keys_zone=a:8191;", "keys_zone=a:8191");
        check("proxy_cache_valid 10m; proxy_cache_valid 200 302 1h; proxy_cache_valid any 1m;", "");
        check("proxy_cache_valid 200 10mm;", "10mm");
        check("uwsgi_cache_valid 20x 10m;", "20x");
        check("uwsgi_cache_valid 600 10m;", "600");
        check("proxy_temp_path /t 1 2; client_body_temp_path /t;", "");
        check("proxy_temp_path /t 1 x;", "\"x\"");
        check("proxy_store_access user:rw group:r all:r; dav_access user:rw;", "");
        check("fastcgi_store_access user:w;", "user:w");
        check(
            "open_file_cache max=1000 inactive=20s; disable_symlinks if_not_owner from=$document_root;",
            "",
        );
        check("open_file_cache off;", "");
        check("open_file_cache inactive=20s;", "without max=");
        check("open_file_cache max=0;", "max=0");
        check("disable_symlinks yes;", "yes");
        check("ssl_session_cache builtin:1000 shared:tls:10m;", "");
        for bad in ["on", "shared:tls", "shared::1m", "shared:tls:1k", "builtin:x"] {
            check(&format!("ssl_session_cache {bad};"), bad);
        }
        check("access_log /l combined buffer=32k flush=5s gzip=3 if=$host; access_log off;", "");
        check("access_log /l combined combined;", "\"combined\" in");
        check("access_log /l combined gzip=10;", "gzip=10");
    }
}
