//! Variables that `map`, `geo` and `split_clients` make: other keys, values or sources.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use nginx_conf::Directive;

use super::{
    Changes,
    canonical::{Here, Terms},
    forms, secrets, shown, unseen,
};
use crate::{
    check::subject::Subject,
    nginx::variables::{canonical as variables, names},
};

/// What says where requests go: a variable in it routes.
const ROUTES: [&str; 10] = [
    "set",
    "if",
    "return",
    "rewrite",
    "try_files",
    "root",
    "alias",
    "error_page",
    "auth_request",
    "limit_except",
];

/// What stands in such a block and is no entry.
const FLAGS: [&str; 4] = ["hostnames", "volatile", "ranges", "proxy_recursive"];

/// Those of `geo` whose argument is a network.
const OF_NETWORKS: [&str; 2] = ["proxy", "delete"];

/// Keys of a map that mean something else behind a backslash.
const SPECIAL: [&str; 4] = ["default", "hostnames", "include", "volatile"];

/// At most so many entries are named.
const MAX_ENTRIES: usize = 20;

/// One of them, in a form in which what means the same is the same.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    kind: String,
    source: String,
    flags: BTreeSet<String>,
    /// Keys whose order means nothing.
    entries: BTreeMap<String, String>,
    /// Those that are tried in this order.
    ordered: Vec<(String, String)>,
}

type Tables = BTreeMap<String, Table>;

/// Says what becomes of variables that something uses; in a part of a configuration whatever is elsewhere may.
pub(super) fn compare(old: &Subject, new: &Subject, terms: &Terms, changes: &mut Changes) {
    let is_whole = old.is_whole() && new.is_whole();
    for kind in ["http", "stream"] {
        let none = Terms::default();
        let (was, is) = (tables(old, Here { kind, terms }), tables(new, Here { kind, terms: &none }));
        let (used, routing) = (used(new, kind, &is), used(old, kind, &was));
        let is_used = |name: &String| !is_whole || used.all.contains(name) || routing.all.contains(name);
        let routes = |name: &String| used.routing.contains(name) || routing.routing.contains(name);
        let names: BTreeSet<_> = was.keys().chain(is.keys()).filter(|name| is_used(name)).collect();
        for name in names {
            let what = match (was.get(name), is.get(name)) {
                (Some(was), Some(is)) if was != is => {
                    format!("{} ${name}: {}", is.kind, differences(name, was, is))
                }
                (Some(was), None) => format!("{} ${name} is gone", was.kind),
                (None, Some(is)) => format!("{} ${name} is new", is.kind),
                _ => continue,
            };
            if routes(name) { changes.routes.push(what) } else { changes.requests.push(what) }
        }
    }
}

fn differences(name: &str, was: &Table, is: &Table) -> String {
    let mut lines = Vec::new();
    if was.kind != is.kind {
        lines.push(format!("{} instead of {}", is.kind, was.kind));
    }
    if was.source != is.source {
        lines.push(format!("by {}", shown::instead(&shown::word(&is.source), &shown::word(&was.source))));
    }
    lines.extend(is.flags.difference(&was.flags).map(|flag| format!("{flag} is set now")));
    lines.extend(was.flags.difference(&is.flags).map(|flag| format!("{flag} is not set any more")));
    let key = |key: &str| match was.has_secret_keys() || is.has_secret_keys() {
        true if key != "default" => shown::secret(key),
        _ => shown::word(key),
    };
    let value = |text: &str| match text {
        "" => "nothing".to_owned(),
        _ if secrets::is_secret(name) => shown::secret(text),
        _ => shown::word(text),
    };
    let all = |table: &Table| -> BTreeMap<String, String> {
        table
            .entries
            .iter()
            .chain(table.ordered.iter().map(|(key, value)| (key, value)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let (before, now) = (all(was), all(is));
    for of in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        match (before.get(of), now.get(of)) {
            (Some(was), Some(is)) if was != is => {
                lines.push(format!("{} gives {}", key(of), shown::instead(&value(is), &value(was))));
            }
            (Some(_), None) => lines.push(format!("{} is gone", key(of))),
            (None, Some(is)) => {
                lines.push(format!("{} is new and gives {}", key(of), shown::cut(&value(is))));
            }
            _ => {}
        }
    }
    if lines.is_empty() {
        let what = if is.kind == "map" { "patterns are tried" } else { "shares are taken" };
        lines.push(format!("{what} in another order"));
    }
    shown::first(&lines, MAX_ENTRIES, "; ")
}

impl Table {
    fn has_secret_keys(&self) -> bool {
        secrets::has_secret(&self.source)
    }
}

fn tables(subject: &Subject, here: Here<'_>) -> Tables {
    let blocks = subject.config.directives.iter().filter(|directive| directive.name.text == here.kind);
    blocks.flat_map(Directive::children).filter_map(|directive| table(directive, here)).collect()
}

fn table(directive: &Directive, here: Here<'_>) -> Option<(String, Table)> {
    let kind = directive.name.text.as_str();
    let (source, name) = match kind {
        "geo" if directive.args.len() == 1 => ("$remote_addr", directive.arg(0)?),
        "map" | "split_clients" | "geo" => (directive.arg(0)?, directive.arg(1)?),
        _ => return None,
    };
    let name = name.strip_prefix('$')?.to_ascii_lowercase();
    let mut table = Table {
        kind: kind.to_owned(),
        source: variables(source),
        flags: BTreeSet::new(),
        entries: BTreeMap::new(),
        ordered: Vec::new(),
    };
    let is_flag = |entry: &Directive| FLAGS.contains(&&*entry.name.text) && entry.args.is_empty();
    let by_hosts = directive.children().iter().any(|entry| is_flag(entry) && entry.name.text == "hostnames");
    for entry in directive.children() {
        let key = entry.name.text.as_str();
        let value = here.renamed(&variables(entry.arg(0).unwrap_or_default()));
        if is_flag(entry) {
            table.flags.insert(key.to_owned());
        } else if kind == "split_clients" {
            table.ordered.push((forms::share(key), value));
        } else if kind == "map" && key.starts_with('~') {
            table.ordered.push((key.to_owned(), value));
        } else if kind == "map" {
            table.entries.extend(map_keys(key, by_hosts).into_iter().map(|key| (key, value.clone())));
        } else if OF_NETWORKS.contains(&key) {
            let network = entry.arg(0).map(forms::network).unwrap_or_default();
            table.entries.insert(format!("{key} {network}"), String::new());
        } else {
            table.entries.insert(forms::network(key), value);
        }
    }
    if kind != "split_clients" {
        table.entries.entry("default".to_owned()).or_default();
    }
    Some((name, table))
}

/// The keys for which one stands: behind a backslash it is only a text, and among names of hosts one that begins with a dot is two.
fn map_keys(key: &str, by_hosts: bool) -> Vec<String> {
    let key = key.to_ascii_lowercase();
    let is_needed = |rest: &str| SPECIAL.contains(&rest) || rest.starts_with(['~', '\\']);
    match (key.strip_prefix('\\').filter(|rest| !is_needed(rest)), key.strip_prefix('.')) {
        (Some(rest), _) => vec![rest.to_owned()],
        (None, Some(rest)) if by_hosts => vec![rest.to_owned(), format!("*.{rest}")],
        _ => vec![key],
    }
}

/// Variables that something uses, and those of them on which it depends where requests go.
struct Used {
    all: HashSet<String>,
    routing: HashSet<String>,
}

fn used(subject: &Subject, kind: &str, tables: &Tables) -> Used {
    let mut used = Used { all: HashSet::new(), routing: HashSet::new() };
    let blocks = subject.config.directives.iter().filter(|directive| directive.name.text == kind);
    blocks.for_each(|block| add(block.children(), &mut used));
    for set in [&mut used.all, &mut used.routing] {
        // Variables within others, as deep as they are.
        loop {
            let before = set.len();
            let within: Vec<_> = tables.iter().filter(|(name, _)| set.contains(*name)).collect();
            for (_, Table { source, entries, ordered, .. }) in within {
                let values = entries.values().chain(ordered.iter().map(|(_, value)| value)).chain([source]);
                set.extend(values.flat_map(|text| names(text)).map(str::to_ascii_lowercase));
            }
            if set.len() == before {
                break;
            }
        }
    }
    used
}

fn add(block: &[Directive], used: &mut Used) {
    for directive in block {
        let name = directive.name.text.as_str();
        if matches!(name, "map" | "geo" | "split_clients") || !unseen::is_seen(name) {
            continue;
        }
        let found: Vec<_> =
            directive.args.iter().flat_map(|word| names(&word.text)).map(str::to_ascii_lowercase).collect();
        if ROUTES.contains(&name) || name.ends_with("_pass") {
            used.routing.extend(found.iter().cloned());
        }
        used.all.extend(found);
        add(directive.children(), used);
    }
}
