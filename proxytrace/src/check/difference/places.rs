//! What happens to a request in a server and its locations, and how two of those differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use nginx_conf::Directive;

use super::{
    Group,
    canonical::{self, Renames},
    pools::Peers,
    shown,
};
use crate::{
    check::blocks::modifier_and_path,
    declared::Context,
    nginx::directives::{self, Kind},
};

/// What says where a request goes or what it gets, instead of in what form.
const HAPPENS: &[&str] = &[
    "root",
    "alias",
    "index",
    "try_files",
    "error_page",
    "internal",
    "mirror",
    "auth_request",
    "empty_gif",
    "stub_status",
    "allow deny",
    "satisfy",
    "limit_except",
    "autoindex",
    "recursive_error_pages",
    "proxy_intercept_errors",
    "return",
];

/// What holds only in the block in which it stands; so does whatever passes requests on or answers them.
const OWN: &[&str] = &[
    "alias",
    "try_files",
    "internal",
    "empty_gif",
    "stub_status",
    "flv",
    "mp4",
    "limit_except",
    "perl",
    "js_content",
];

/// The steps in which a URI is rewritten: their order means something.
const STEPS: [&str; 5] = ["set", "if", "return", "rewrite", "break"];

/// What makes no setting of a place.
const NOT_SETTINGS: &[&str] =
    &["server", "upstream", "location", "listen", "server_name", "map", "geo", "split_clients"];

/// Modules whose settings, which begin with these words, mean something only where they pass requests on.
const MODULES: [&str; 7] = ["proxy", "fastcgi", "uwsgi", "scgi", "grpc", "memcached", "tunnel"];

/// Checks of addresses are made one after the other, whichever they are.
const ACCESS: &str = "allow deny";

/// What is in force in a block, by directive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effective(BTreeMap<String, Rc<Vec<String>>>);

impl Effective {
    /// What is in force in a block that stands here.
    pub(super) fn inner(&self, context: Context, block: &[Directive], renames: &Renames) -> Self {
        let mut own: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for directive in block {
            let name = directive.name.text.as_str();
            let is_setting =
                !NOT_SETTINGS.contains(&name) && !STEPS.contains(&name) && canonical::is_seen(name);
            if !is_setting || is_own(name) {
                continue;
            }
            let line = canonical::arguments(context, directive, renames);
            match name {
                "allow" | "deny" => own.entry(ACCESS.to_owned()).or_default().push(format!("{name} {line}")),
                _ => own.entry(name.to_owned()).or_default().push(line),
            }
        }
        let mut inner = self.clone();
        for (name, lines) in own {
            let lines = canonical::sorted(&name, lines);
            if canonical::is_default(&name, &lines) {
                inner.0.remove(&name);
            } else {
                inner.0.insert(name, Rc::new(lines));
            }
        }
        inner
    }

    /// Those that mean something in a place.
    fn of_place(mut self, place: &Place) -> Self {
        self.0.retain(|name, _| place.uses(name));
        self
    }
}

fn is_own(name: &str) -> bool {
    OWN.contains(&name) || name.ends_with("_pass") || name.starts_with("content_by_lua")
}

/// A server or a location.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    settings: Effective,
    /// What holds here only, with where requests are passed to.
    own: BTreeMap<String, Vec<String>>,
    steps: Vec<String>,
    /// Locations by path, whose order means nothing; then those by pattern, which are tried in theirs.
    paths: BTreeMap<Key, Self>,
    patterns: Vec<(Key, Self)>,
}

/// The kind of a location, and its path or pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    modifier: String,
    path: String,
}

impl Key {
    fn shown(&self) -> String {
        let Self { modifier, path } = self;
        if modifier.is_empty() { path.clone() } else { format!("{modifier} {path}") }
    }

    /// What a path below it becomes where it is passed on.
    fn becomes(&self, target: &str) -> Option<(String, String)> {
        let is_path = !matches!(self.modifier.as_str(), "~" | "~*") && self.path.starts_with('/');
        let (_, rest) = target.split_once("://").filter(|_| is_path && !target.contains('$'))?;
        let uri = match rest.strip_prefix("unix:") {
            Some(socket) => socket.split_once(':').map(|(_, uri)| uri),
            None => rest.find('/').map(|at| &rest[at..]),
        };
        let asked = match self.modifier.as_str() {
            "=" => self.path.clone(),
            _ if self.path.ends_with('/') => format!("{}x", self.path),
            _ => format!("{}/x", self.path),
        };
        let becomes = uri.map_or_else(|| asked.clone(), |uri| format!("{uri}{}", &asked[self.path.len()..]));
        Some((asked, becomes))
    }
}

impl Place {
    pub(super) fn new(context: Context, block: &Directive, around: &Effective, renames: &Renames) -> Self {
        let children = block.children();
        let settings = around.inner(context, children, renames);
        let mut place = Self {
            settings: Effective::default(),
            own: BTreeMap::new(),
            steps: Vec::new(),
            paths: BTreeMap::new(),
            patterns: Vec::new(),
        };
        for directive in children {
            let name = directive.name.text.as_str();
            if STEPS.contains(&name) {
                place.steps.push(step(context, directive, renames));
            } else if name == "location" {
                let (modifier, path) = modifier_and_path(directive);
                let key = Key { modifier: modifier.to_owned(), path: path.to_owned() };
                let inner = Self::new(context, directive, &settings, renames);
                if matches!(modifier, "~" | "~*") {
                    place.patterns.push((key, inner));
                } else {
                    place.paths.entry(key).or_insert(inner);
                }
            } else if is_own(name) {
                let line = if name == "limit_except" {
                    step(context, directive, renames)
                } else {
                    argument(context, directive, renames)
                };
                place.own.entry(name.to_owned()).or_default().push(line);
            }
        }
        place.settings = settings.of_place(&place);
        place
    }

    /// Whether the module to which a setting belongs passes requests on here; other settings count everywhere.
    fn uses(&self, setting: &str) -> bool {
        let Some((module, _)) = setting.split_once('_').filter(|(module, _)| MODULES.contains(module)) else {
            return true;
        };
        let pass = format!("{module}_pass");
        self.own.contains_key(&pass) || self.steps.iter().any(|step| step.contains(&pass))
    }
}

/// The arguments of what holds here only.
fn argument(context: Context, directive: &Directive, renames: &Renames) -> String {
    match directive.arg(0) {
        Some(text) if directive.name.text.ends_with("_pass") => canonical::target(context, text, renames),
        _ => canonical::arguments(context, directive, renames),
    }
}

/// A step with all that is in its block.
fn step(context: Context, directive: &Directive, renames: &Renames) -> String {
    let name = directive.name.text.as_str();
    let words = match name {
        "if" | "limit_except" => {
            directive.args.iter().map(|word| canonical_words(&word.text)).collect::<Vec<_>>().join(" ")
        }
        _ => argument(context, directive, renames),
    };
    match &directive.block {
        Some(block) => {
            let within = block.iter().filter(|directive| canonical::is_seen(&directive.name.text));
            let within: Vec<_> = within.map(|directive| step(context, directive, renames)).collect();
            format!("{name} {words} {{ {} }}", within.join("; "))
        }
        None => format!("{name} {words}"),
    }
}

fn canonical_words(text: &str) -> String {
    crate::nginx::variables::canonical(text)
}

/// One difference: its group, the location, and what it is.
type Difference = (Group, String, String);

/// All differences between two servers. Counts the places that were compared.
pub(super) fn differences(
    was: &Place,
    is: &Place,
    peers: [&Peers; 2],
    compared: &mut usize,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let top = Key { modifier: String::new(), path: String::new() };
    place(was, is, &top, "", peers, &mut found, compared);
    found
}

fn place(
    was: &Place,
    is: &Place,
    key: &Key,
    label: &str,
    peers: [&Peers; 2],
    found: &mut Vec<Difference>,
    compared: &mut usize,
) {
    *compared += 1;
    if was == is {
        // Those within are the same too.
        *compared += count(is) - 1;
        return;
    }
    let mut say = |group, what: String| found.push((group, label.to_owned(), what));
    let none = Vec::new();
    for name in both(was.own.keys(), is.own.keys()) {
        let [before, now] = [&was.own, &is.own].map(|own| own.get(name).unwrap_or(&none));
        if before != now {
            say(Group::Routes, passed(name, before, now, key, peers));
        }
    }
    if was.steps != is.steps {
        let listed =
            |steps: &[String]| if steps.is_empty() { "nothing".to_owned() } else { plain(&steps.join("; ")) };
        say(
            Group::Routes,
            format!("rewrites by \"{}\" instead of \"{}\"", listed(&is.steps), listed(&was.steps)),
        );
    }
    for name in both(was.settings.0.keys(), is.settings.0.keys()) {
        let [before, now] = [was, is].map(|place| place.settings.0.get(name).map_or(&none, |lines| lines));
        if before != now {
            let group = if HAPPENS.contains(&name.as_str()) { Group::Routes } else { Group::Requests };
            say(group, setting(name, before, now));
        }
    }
    let orders = [was, is].map(|place| place.patterns.iter().map(|(key, _)| key).collect::<Vec<_>>());
    let common = |order: &[&Key], other: &[&Key]| {
        order.iter().filter(|key| other.contains(key)).map(|key| key.shown()).collect::<Vec<_>>()
    };
    let [before, now] = [common(&orders[0], &orders[1]), common(&orders[1], &orders[0])];
    if before != now {
        let what = format!(
            "patterns are tried in another order: {} instead of {}",
            now.join(", "),
            before.join(", ")
        );
        say(Group::Routes, what);
    }
    locations(was, is, label, peers, found, compared);
}

fn locations(
    was: &Place,
    is: &Place,
    label: &str,
    peers: [&Peers; 2],
    found: &mut Vec<Difference>,
    compared: &mut usize,
) {
    let (before, now): (BTreeMap<_, _>, BTreeMap<_, _>) = (inner(was).collect(), inner(is).collect());
    for key in both(before.keys().copied(), now.keys().copied()) {
        let label = if label.is_empty() { key.shown() } else { format!("{label} > {}", key.shown()) };
        match (before.get(key), now.get(key)) {
            (Some(was), Some(is)) => place(was, is, key, &label, peers, found, compared),
            (Some(was), None) => alone(was, &label, "is gone", peers[0], found),
            (None, Some(is)) => {
                *compared += count(is);
                alone(is, &label, "is new", peers[1], found);
            }
            (None, None) => {}
        }
    }
}

/// A location that the other server does not have, and those within.
fn alone(place: &Place, label: &str, what: &str, peers: &Peers, found: &mut Vec<Difference>) {
    found.push((Group::Routes, label.to_owned(), format!("{what} ({})", summary(place, peers))));
    for (key, place) in inner(place) {
        alone(place, &format!("{label} > {}", key.shown()), what, peers, found);
    }
}

/// The locations in a place; of equal patterns the first is met.
fn inner(place: &Place) -> impl Iterator<Item = (&Key, &Place)> {
    let patterns = place.patterns.iter().rev().map(|(key, inner)| (key, inner));
    patterns.chain(place.paths.iter())
}

fn both<'a, T: Ord>(one: impl Iterator<Item = &'a T>, other: impl Iterator<Item = &'a T>) -> BTreeSet<&'a T> {
    one.chain(other).collect()
}

fn count(place: &Place) -> usize {
    1 + inner(place).map(|(_, inner)| count(inner)).sum::<usize>()
}

/// What a location does, in short.
fn summary(place: &Place, peers: &Peers) -> String {
    let pass = place.own.iter().find(|(name, _)| name.ends_with("_pass"));
    match (pass, place.steps.last()) {
        (Some((_, targets)), _) => format!("passes to {}", led(&targets.join(", "), peers)),
        (None, Some(step)) => plain(step),
        (None, None) => "passes nothing on".to_owned(),
    }
}

/// What became of a directive that holds here only.
fn passed(name: &str, was: &[String], is: &[String], key: &Key, peers: [&Peers; 2]) -> String {
    let [before, now] = [was, is].map(|lines| lines.join(", "));
    if !name.ends_with("_pass") {
        return setting(name, was, is);
    }
    let [led_before, led_now] = [led(&before, peers[0]), led(&now, peers[1])];
    match (was.is_empty(), is.is_empty()) {
        (true, _) => format!("passes to {led_now} now, by {name}"),
        (_, true) => format!("does not pass to {led_before} any more"),
        _ => {
            let example = key.becomes(&before).zip(key.becomes(&now)).filter(|((_, was), (_, is))| was != is);
            let example = example.map_or_else(String::new, |((asked, was), (_, is))| {
                format!(": {asked} becomes {is} instead of {was}")
            });
            format!("passes to {led_now} instead of {led_before}{example}")
        }
    }
}

/// A target with the addresses that it leads to, where they are not it itself.
fn led(target: &str, peers: &Peers) -> String {
    let host =
        target.split_once("://").map_or(target, |(_, rest)| rest).split('/').next().unwrap_or_default();
    match peers.get(host) {
        Some(addresses) => format!("{} ({addresses})", plain(target)),
        None => plain(target),
    }
}

/// What became of a setting.
fn setting(name: &str, was: &[String], is: &[String]) -> String {
    let unit = match directives::of(name).first().map(|known| known.kind) {
        Some(Kind::Time | Kind::Seconds) => " ms",
        _ => "",
    };
    // Lines that are in both say nothing.
    let [gone, new] = [(was, is), (is, was)].map(|(lines, other)| {
        let lines: Vec<_> =
            lines.iter().filter(|line| !other.contains(line)).map(|line| plain(line)).collect();
        lines.join(", ")
    });
    match (was.is_empty(), is.is_empty(), gone.is_empty(), new.is_empty()) {
        (true, ..) => format!("{name} is set now: {new}{unit}").trim_end_matches(": ").to_owned(),
        (_, true, ..) => {
            format!("{name} is not set any more: {gone}{unit}").trim_end_matches(": ").to_owned()
        }
        (_, _, true, true) => format!("{name}: the order changes"),
        (_, _, true, _) => format!("{name} besides: {new}{unit}"),
        (_, _, _, true) => format!("{name} without: {gone}{unit}"),
        _ => format!("{name}: {new}{unit} instead of {gone}{unit}"),
    }
}

/// A canonical text as people write it.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut pieces = text.split("${");
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (name, rest) = piece.split_once('}').unwrap_or((piece, ""));
        plain.extend(["$", name, rest]);
    }
    shown(&plain)
}
