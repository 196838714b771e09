//! Directives in a form in which what means the same is the same.

use std::collections::HashMap;

use nginx_conf::Directive;

use super::{forms, unseen};
use crate::{
    declared::Context,
    nginx::{variables::canonical as variables, version::Version},
};

/// In which terms a configuration is compared: those of the new one.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// Upstreams that have another name there, by their old ones in lower case.
    pub(super) names: HashMap<(Context, String), String>,
    /// The nginx that runs both.
    pub(super) version: Option<Version>,
}

impl Terms {
    /// Of the new configuration itself.
    pub(super) fn own(version: Option<Version>) -> Self {
        Self { version, ..Self::default() }
    }

    /// A name as the new configuration has it.
    pub(super) fn of(&self, context: Context, name: &str) -> String {
        let name = name.to_ascii_lowercase();
        self.names.get(&(context, name.clone())).cloned().unwrap_or(name)
    }

    /// What is in force where nothing is written depends on whether connections are kept; `None` where that is not known.
    pub(super) fn kept(&self) -> Option<bool> {
        self.version.map(|version| version >= Version::KEEPS)
    }
}

/// Where a directive stands, and in which terms it is compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    /// `http`, `stream`, `mail` or `upstream`.
    pub(super) kind: &'static str,
    pub(super) terms: &'a Terms,
}

impl Here<'_> {
    /// The context of upstreams; mail has none.
    pub(super) fn context(self) -> Context {
        if self.kind == "stream" { Context::Stream } else { Context::Http }
    }

    /// A value that is the name of an upstream, as the new configuration has it.
    pub(super) fn renamed(self, value: &str) -> String {
        let is_renamed = self.terms.names.contains_key(&(self.context(), value.to_ascii_lowercase()));
        if is_renamed { self.terms.of(self.context(), value) } else { value.to_owned() }
    }
}

/// A directive in its canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) name: String,
    /// Variables in them are written as `${name}`.
    pub(super) words: Vec<String>,
    pub(super) block: Vec<Self>,
}

impl Line {
    /// Whether it is a directive of that name, or has one in it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.name == name || self.block.iter().any(|line| line.has(name))
    }
}

/// The steps in which a URI is rewritten: their order means something.
pub(super) const STEPS: [&str; 5] = ["set", "if", "return", "rewrite", "break"];

/// Checks of addresses are made one after the other, whichever they are.
pub(super) const ACCESS: &str = "allow deny";

/// What the name of a directive ends with of which the first word names what the second is.
pub(super) const NAMING: [&str; 4] = ["_set_header", "add_header", "add_trailer", "_param"];

/// What the name of a directive ends with whose lines each set a thing of their first argument, in whatever order. Of several of one
/// thing the order means something.
const BY_FIRST: [&str; 8] = [
    "_set_header",
    "add_header",
    "add_trailer",
    "_param",
    "_hide_header",
    "_pass_header",
    "error_page",
    "_cache_valid",
];

/// Those of which only the first of several of one thing counts.
const FIRST_WINS: [&str; 2] = ["error_page", "_cache_valid"];

/// What the name of a directive ends with whose lines may stand in any order.
const UNORDERED: [&str; 4] = ["set_real_ip_from", "limit_req_zone", "limit_conn_zone", "_cache_path"];

type Rewrites = fn(&mut Vec<String>);
type Splits = fn(&[String]) -> Vec<Vec<String>>;

/// What else the words of a directive become.
const REWRITTEN: &[(&str, Rewrites)] =
    &[("return", returned), ("rewrite", rewritten), ("limit_except", methods), ("if", condition)];

/// A line of several things becomes a line of each: what the name ends with, and how.
const SPLIT: &[(&str, Splits)] = &[("error_page", by_code), ("_cache_valid", by_cached_code)];

/// What begins the address of an answer that sends clients elsewhere.
const ELSEWHERE: [&str; 3] = ["http://", "https://", "${scheme}"];

/// The port that a scheme has where none is written; of gRPC nginx wants one.
const PORTS: [(&str, &str); 2] = [("http://", ":80"), ("https://", ":443")];

fn ends(name: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| name.ends_with(end))
}

/// A directive in its canonical form: a line of each thing that it sets.
pub(super) fn lines(here: &Here<'_>, directive: &Directive) -> Vec<Line> {
    let name = directive.name.text.as_str();
    let mut words: Vec<_> = directive.args.iter().map(|word| variables(&word.text)).collect();
    forms::put(here.kind, name, &mut words);
    if let Some(first) = words.first_mut() {
        if ends(name, &NAMING) && !name.ends_with("_param") {
            first.make_ascii_lowercase();
        }
        if name.ends_with("_pass") {
            *first = target(here, first);
        }
    }
    if name == "set"
        && let Some(value) = words.get_mut(1)
    {
        *value = here.renamed(value);
    }
    if let Some((_, rewritten)) = REWRITTEN.iter().find(|(of, _)| *of == name) {
        rewritten(&mut words);
    }
    let block = block(here, name, directive.children());
    let line = |words| Line { name: name.to_owned(), words, block: block.clone() };
    match SPLIT.iter().find(|(end, _)| name.ends_with(end)) {
        Some((_, split)) => split(&words).into_iter().map(line).collect(),
        None => vec![line(words)],
    }
}

/// What is in a block of a directive that is no server and no location.
fn block(here: &Here<'_>, name: &str, children: &[Directive]) -> Vec<Line> {
    if name == "types" {
        let of_type = |child: &Directive| {
            let kind = child.name.text.to_string();
            let line = |name: String| Line { name, words: vec![kind.clone()], block: Vec::new() };
            child.args.iter().map(|word| line(word.text.to_ascii_lowercase().to_string())).collect::<Vec<_>>()
        };
        return sorted(children.iter().flat_map(of_type).collect());
    }
    let seen = children.iter().filter(|child| unseen::is_seen(&child.name.text));
    let all = seen.flat_map(|child| lines(here, child));
    let (steps, settings): (Vec<_>, Vec<_>) = all.partition(|line| STEPS.contains(&&*line.name));
    sorted(settings).into_iter().chain(steps).collect()
}

/// Lines in an order that means nothing more than it does.
pub(super) fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    fn key(line: &Line) -> (&str, &[String]) {
        let name = if matches!(&*line.name, "allow" | "deny") { ACCESS } else { &line.name };
        let count = match name {
            _ if ends(name, &UNORDERED) => line.words.len(),
            _ if ends(name, &BY_FIRST) => 1,
            _ => 0,
        };
        (name, line.words.get(..count).unwrap_or_default())
    }
    lines.sort_by(|one, other| key(one).cmp(&key(other)));
    lines.dedup_by(|next, one| ends(&one.name, &FIRST_WINS) && key(next) == key(one));
    lines
}

/// Where clients are sent to, it is by a 302.
fn returned(words: &mut Vec<String>) {
    if words.len() == 1 && leads_elsewhere(&words[0]) {
        words.insert(0, "302".to_owned());
    }
}

fn rewritten(words: &mut Vec<String>) {
    if words.len() == 2 && leads_elsewhere(&words[1]) {
        words.push("redirect".to_owned());
    }
}

fn leads_elsewhere(text: &str) -> bool {
    ELSEWHERE.iter().any(|start| text.starts_with(start))
}

/// Where GET is allowed, HEAD is.
fn methods(words: &mut Vec<String>) {
    words.iter_mut().for_each(|word| word.make_ascii_uppercase());
    if words.iter().any(|word| word == "GET") {
        words.push("HEAD".to_owned());
    }
    words.sort();
    words.dedup();
}

/// A condition without its parentheses, which may stand apart.
fn condition(words: &mut Vec<String>) {
    if let Some(first) = words.first_mut()
        && let Some(rest) = first.strip_prefix('(')
    {
        *first = rest.to_owned();
        if first.is_empty() {
            words.remove(0);
        }
    }
    if let Some(last) = words.last_mut()
        && let Some(rest) = last.strip_suffix(')')
    {
        *last = rest.to_owned();
        if last.is_empty() {
            words.pop();
        }
    }
}

/// Each code, with the answer and the address that all have.
fn by_code(words: &[String]) -> Vec<Vec<String>> {
    let is_answer = |at: usize| words.get(at).is_some_and(|word| word.starts_with('='));
    let codes = match words.len() {
        0 | 1 => return vec![words.to_vec()],
        count if is_answer(count - 2) => count - 2,
        count => count - 1,
    };
    let (codes, rest) = words.split_at(codes);
    codes.iter().map(|code| [std::slice::from_ref(code), rest].concat()).collect()
}

fn by_cached_code(words: &[String]) -> Vec<Vec<String>> {
    match words {
        [time] => ["200", "301", "302"].map(|code| vec![code.to_owned(), time.clone()]).to_vec(),
        _ => by_code(words),
    }
}

/// Where a pass leads: scheme, host and port in one form, and what stands behind them.
fn target(here: &Here<'_>, text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{}://", scheme.to_ascii_lowercase()), rest),
        None => (String::new(), text),
    };
    if let Some(socket) = socket(rest) {
        // Behind the last colon may be a URI, or nothing.
        return format!("{scheme}unix:{}", socket.strip_suffix(':').unwrap_or(socket));
    }
    let (authority, uri) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    // A variable may hold what follows the host too: then nothing is known of the host.
    if authority.contains('$') {
        return format!("{scheme}{authority}{uri}");
    }
    let authority = forms::host(&authority.to_ascii_lowercase());
    let default = PORTS.iter().find(|(of, _)| *of == scheme).map(|(_, port)| *port);
    let host = default.and_then(|port| authority.strip_suffix(port)).unwrap_or(&authority);
    format!("{scheme}{}{uri}", here.terms.of(here.context(), host))
}

/// The path of a unix socket, with what stands behind it.
pub(super) fn socket(text: &str) -> Option<&str> {
    text.get(..5).filter(|start| start.eq_ignore_ascii_case("unix:")).map(|_| &text[5..])
}
