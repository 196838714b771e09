//! What happens to a request in a server and its locations, and how two of those differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use nginx_conf::Directive;

use super::{
    Group,
    canonical::{self, ACCESS, Here, Line, STEPS},
    defaults::{self, MODULES},
    pools::Peers,
    shown, unseen,
};
use crate::{check::blocks::modifier_and_path, nginx::directives};

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

/// What makes no setting of a place.
const NOT_SETTINGS: &[&str] =
    &["server", "upstream", "location", "listen", "server_name", "map", "geo", "split_clients"];

/// At most so many patterns are named.
const MAX_PATTERNS: usize = 20;

/// What is in force in a block, by directive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effective(BTreeMap<String, Rc<Vec<Line>>>);

impl Effective {
    /// What is in force in a block that stands here.
    pub(super) fn inner(&self, here: &Here<'_>, block: &[Directive]) -> Self {
        self.with(here, block, |name| !is_outside(here.kind, name))
    }

    fn with(&self, here: &Here<'_>, block: &[Directive], is_meant: impl Fn(&str) -> bool) -> Self {
        let mut own: BTreeMap<String, Vec<Line>> = BTreeMap::new();
        for directive in block {
            let name = directive.name.text.as_str();
            let is_setting = !NOT_SETTINGS.contains(&name) && !STEPS.contains(&name) && unseen::is_seen(name);
            if !is_setting || is_own(name) || !is_meant(name) {
                continue;
            }
            let name = if matches!(name, "allow" | "deny") { ACCESS } else { name };
            own.entry(name.to_owned()).or_default().extend(canonical::lines(here, directive));
        }
        let mut inner = self.clone();
        for (name, lines) in own {
            let lines = defaults::unusual(here, canonical::sorted(lines));
            if lines.is_empty() {
                inner.0.remove(&name);
            } else {
                inner.0.insert(name, Rc::new(lines));
            }
        }
        inner
    }

    /// What was in force of a directive, which is not any more.
    pub(super) fn take(&mut self, name: &str) -> Option<Rc<Vec<Line>>> {
        self.0.remove(name)
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

/// Whether a directive may stand only outside of servers, as those that make zones: it holds once, and not in each place.
fn is_outside(kind: &str, name: &str) -> bool {
    let known = directives::of(name);
    let inner = ["server", "location", "stream-server", "mail-server"];
    known.iter().any(|known| known.is_in(kind))
        && !known.iter().any(|known| inner.iter().any(|inner| known.is_in(inner)))
}

/// A server or a location.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    settings: Effective,
    /// What holds here only, with where requests are passed to.
    own: BTreeMap<String, Vec<Line>>,
    steps: Vec<Line>,
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
        let path = shown::quoted(path);
        if modifier.is_empty() { path } else { format!("{modifier} {path}") }
    }

    /// What a path below it becomes where it is passed on.
    fn becomes(&self, target: &str) -> Option<(String, String)> {
        let is_path = !matches!(self.modifier.as_str(), "~" | "~*") && self.path.starts_with('/');
        let (_, rest) = target.split_once("://").filter(|_| is_path && !target.contains('$'))?;
        let uri = match rest.strip_prefix("unix:") {
            // Behind the socket's colon may be nothing.
            Some(socket) => socket.split_once(':').map(|(_, uri)| uri).filter(|uri| !uri.is_empty()),
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
    /// What stands outside of servers: what may stand only there, or all of it.
    pub(super) fn around(here: &Here<'_>, block: &[Directive], all: bool) -> Self {
        let settings = Effective::default().with(here, block, |name| all || is_outside(here.kind, name));
        Self { settings, ..Self::default() }
    }

    /// A block in which those settings are in force.
    pub(super) fn new(here: &Here<'_>, block: &Directive, settings: Effective) -> Self {
        let mut place = Self::default();
        for directive in block.children() {
            let name = directive.name.text.as_str();
            if STEPS.contains(&name) {
                place.steps.extend(canonical::lines(here, directive));
            } else if name == "location" {
                let (modifier, path) = modifier_and_path(directive);
                let key = Key { modifier: modifier.to_owned(), path: path.to_owned() };
                let inner = Self::new(here, directive, settings.inner(here, directive.children()));
                if !matches!(modifier, "~" | "~*") {
                    place.paths.entry(key).or_insert(inner);
                } else if place.patterns.iter().all(|(other, _)| *other != key) {
                    // Of equal patterns only the first is met.
                    place.patterns.push((key, inner));
                }
            } else if is_own(name) {
                place.own.entry(name.to_owned()).or_default().extend(canonical::lines(here, directive));
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
        self.own.contains_key(&pass) || self.steps.iter().any(|step| step.has(&pass))
    }
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
        let listed = |place: &Place| match steps(place) {
            steps if steps.is_empty() => "nothing".to_owned(),
            steps => format!("\"{steps}\""),
        };
        say(Group::Routes, format!("rewrites by {}", shown::instead(&listed(is), &listed(was))));
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
            shown::first(&now, MAX_PATTERNS, ", "),
            shown::first(&before, MAX_PATTERNS, ", ")
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

/// The locations in a place.
fn inner(place: &Place) -> impl Iterator<Item = (&Key, &Place)> {
    place.patterns.iter().map(|(key, inner)| (key, inner)).chain(place.paths.iter())
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
    let what = match pass {
        Some((_, targets)) => format!("passes to {}", led(targets, peers)),
        None if place.steps.is_empty() => "passes nothing on".to_owned(),
        None => steps(place),
    };
    shown::cut(&what)
}

/// All that rewrites in a place.
fn steps(place: &Place) -> String {
    place.steps.iter().map(Line::shown).collect::<Vec<_>>().join("; ")
}

/// What became of a directive that holds here only.
fn passed(name: &str, was: &[Line], is: &[Line], key: &Key, peers: [&Peers; 2]) -> String {
    if !name.ends_with("_pass") {
        return setting(name, was, is);
    }
    let [led_before, led_now] = [led(was, peers[0]), led(is, peers[1])];
    match (was.is_empty(), is.is_empty()) {
        (true, _) => format!("passes to {} now, by {name}", shown::cut(&led_now)),
        (_, true) => format!("does not pass to {} any more", shown::cut(&led_before)),
        _ => {
            let becomes = |lines: &[Line]| key.becomes(&lines.first()?.shown_words());
            let example = becomes(was).zip(becomes(is)).filter(|((_, was), (_, is))| was != is);
            let example = example.map_or_else(String::new, |((asked, was), (_, is))| {
                format!(": {asked} becomes {}", shown::instead(&is, &was))
            });
            format!("passes to {}{example}", shown::instead(&led_now, &led_before))
        }
    }
}

/// Targets with the addresses that they lead to, where they are not those themselves.
fn led(targets: &[Line], peers: &Peers) -> String {
    let one = |line: &Line| {
        let target = line.words.first().map_or("", String::as_str);
        let host = target.split_once("://").map_or(target, |(_, rest)| rest).split('/').next();
        match host.and_then(|host| peers.get(host)) {
            Some(addresses) => format!("{} ({addresses})", line.shown_words()),
            None => line.shown_words(),
        }
    };
    targets.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What became of a setting.
fn setting(name: &str, was: &[Line], is: &[Line]) -> String {
    // Lines that are in both say nothing.
    let [gone, new] = [(was, is), (is, was)].map(|(lines, other)| {
        let lines: Vec<_> = lines.iter().filter(|line| !other.contains(line)).collect();
        let shown = |line: &&Line| if name == ACCESS { line.shown() } else { line.shown_words() };
        (!lines.is_empty()).then(|| lines.iter().map(shown).collect::<Vec<_>>().join(", "))
    });
    let with = |what: &str, lines: &str| match lines {
        "" => format!("{name} {what}"),
        lines => format!("{name} {what}: {}", shown::cut(lines)),
    };
    match (was.is_empty(), is.is_empty(), gone, new) {
        (true, _, _, new) => with("is set now", &new.unwrap_or_default()),
        (_, true, gone, _) => with("is not set any more", &gone.unwrap_or_default()),
        (_, _, None, None) => format!("{name}: the order changes"),
        (_, _, None, Some(new)) => with("besides", &new),
        (_, _, Some(gone), None) => with("without", &gone),
        (_, _, Some(gone), Some(new)) => format!("{name}: {}", shown::instead(&new, &gone)),
    }
}
