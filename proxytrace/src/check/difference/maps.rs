//! Variables that `map`, `geo` and `split_clients` make: other keys, values or sources.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use nginx_conf::Directive;

use super::{
    Changes,
    canonical::{self, Renames},
    shown,
};
use crate::{
    check::subject::Subject,
    declared::Context,
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

/// At most so many entries are named.
const MAX_ENTRIES: usize = 20;

/// One of them, in a form in which what means the same is the same.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    kind: String,
    source: String,
    /// Keys whose order means nothing.
    entries: BTreeMap<String, String>,
    /// Those that are tried in this order.
    ordered: Vec<(String, String)>,
}

type Tables = BTreeMap<String, Table>;

/// Says what becomes of variables that something uses.
pub(super) fn compare(old: &Subject, new: &Subject, renames: &Renames, changes: &mut Changes) {
    for (kind, context) in [("http", Context::Http), ("stream", Context::Stream)] {
        let none = Renames::default();
        let (was, is) = (tables(old, kind, context, renames), tables(new, kind, context, &none));
        let (used, routing) = (used(new, kind, &is), used(old, kind, &was));
        let is_used = |name: &String| used.all.contains(name) || routing.all.contains(name);
        let routes = |name: &String| used.routing.contains(name) || routing.routing.contains(name);
        let names: BTreeSet<_> = was.keys().chain(is.keys()).filter(|name| is_used(name)).collect();
        for name in names {
            let what = match (was.get(name), is.get(name)) {
                (Some(was), Some(is)) if was != is => {
                    format!("{} ${name}: {}", is.kind, differences(was, is))
                }
                (Some(was), None) => format!("{} ${name} is gone", was.kind),
                (None, Some(is)) => format!("{} ${name} is new", is.kind),
                _ => continue,
            };
            if routes(name) { changes.routes.push(what) } else { changes.requests.push(what) }
        }
    }
}

fn differences(was: &Table, is: &Table) -> String {
    let mut lines = Vec::new();
    if (&was.kind, &was.source) != (&is.kind, &is.source) {
        lines.push(format!("by {} instead of {}", plain(&is.source), plain(&was.source)));
    }
    let all = |table: &Table| -> BTreeMap<String, String> {
        table
            .entries
            .iter()
            .chain(table.ordered.iter().map(|(key, value)| (key, value)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let (before, now) = (all(was), all(is));
    for key in before.keys().chain(now.keys()).collect::<BTreeSet<_>>() {
        match (before.get(key), now.get(key)) {
            (Some(was), Some(is)) if was != is => {
                lines.push(format!("{} gives {} instead of {}", plain(key), value(is), value(was)));
            }
            (Some(_), None) => lines.push(format!("{} is gone", plain(key))),
            (None, Some(is)) => lines.push(format!("{} is new and gives {}", plain(key), value(is))),
            _ => {}
        }
    }
    if lines.is_empty() {
        lines.push("patterns are tried in another order".to_owned());
    }
    let more = lines.len().saturating_sub(MAX_ENTRIES);
    lines.truncate(MAX_ENTRIES);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("{}{more}", lines.join("; "))
}

fn value(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { plain(text) }
}

fn plain(text: &str) -> String {
    shown(text)
}

fn tables(subject: &Subject, kind: &str, context: Context, renames: &Renames) -> Tables {
    let blocks = subject.config.directives.iter().filter(|directive| directive.name.text == kind);
    blocks.flat_map(Directive::children).filter_map(|directive| table(directive, context, renames)).collect()
}

fn table(directive: &Directive, context: Context, renames: &Renames) -> Option<(String, Table)> {
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
        entries: BTreeMap::new(),
        ordered: Vec::new(),
    };
    for entry in directive.children() {
        let key = entry.name.text.as_str();
        let value = canonical::renamed(context, &variables(entry.arg(0).unwrap_or_default()), renames);
        let is_flag = FLAGS.contains(&key) && entry.args.is_empty();
        if kind == "split_clients" || key.starts_with('~') && !is_flag {
            table.ordered.push((key.to_owned(), value));
        } else if kind == "map" {
            table.entries.insert(key.to_ascii_lowercase(), value);
        } else {
            table.entries.insert(key.to_owned(), value);
        }
    }
    if kind != "split_clients" {
        table.entries.entry("default".to_owned()).or_default();
    }
    Some((name, table))
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
        if matches!(name, "map" | "geo" | "split_clients") || !canonical::is_seen(name) {
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
