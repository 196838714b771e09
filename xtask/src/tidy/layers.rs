//! Layers: what a module may name of its own crate, so that it can be read before whatever stands on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::crates::{self, Crate, Link};

/// The modules of the program, from the lowest to the highest. Each names only itself and what comes before it.
#[rustfmt::skip]
const ORDER: &[&str] = &[
    "memory", "variables", "escape", "width", "capacity", "exit", "programs", "privilege", "threads", "logging", "config_file",
    "model", "declared", "nginx", "findings", "check",
    "kernel", "identity", "reader", "naming", "recording", "history",
    "watch", "session", "status", "feed",
    "metrics", "http", "client", "doctor", "guard", "output", "top",
    "agent", "commands", "cli",
];

const PROGRAM: &str = "proxytrace/src/lib.rs";

/// Who names something, who defines it, and the message.
type Broken = BTreeMap<(String, String), String>;

#[test]
fn modules_name_only_what_is_below_them() {
    let mut broken = Broken::new();
    for known in crates::all() {
        if known.root == PROGRAM {
            broken.extend(upward(known, ORDER));
            broken.extend(circles(known, 2));
        } else {
            broken.extend(circles(known, 1));
        }
    }
    let wrong: Vec<_> = broken.into_values().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What leads from a top-level module to one that is not below it.
fn upward(of: &Crate, order: &[&str]) -> Broken {
    let tops: BTreeSet<_> = of.modules.keys().filter_map(|path| path.get(1)).map(String::as_str).collect();
    assert_eq!(tops, order.iter().copied().collect(), "the modules of the crate, and those in the order");
    let rank = |path: &[String]| order.iter().position(|top| path.get(1).is_some_and(|name| name == top));
    let mut broken = Broken::new();
    for link in of.links() {
        if let (Some(own), Some(other)) = (rank(link.module), rank(&link.name.path))
            && other > own
        {
            add(&mut broken, &link, &format!("and is above {}", order[own]));
        }
    }
    broken
}

/// What leads from a module to a sibling that leads back; of those at the top of the crate only if `depth` is 1.
fn circles(of: &Crate, depth: usize) -> Broken {
    let links: Vec<_> = of.links().collect();
    let mut broken = Broken::new();
    for parent in of.modules.keys().filter(|path| path.len() >= depth) {
        let siblings = links.iter().filter_map(|link| Some((between_children(parent, link)?, link)));
        let siblings: Vec<_> = siblings.collect();
        let mut next: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for ((from, to), _) in &siblings {
            next.entry(*from).or_default().insert(*to);
        }
        for ((from, to), link) in siblings {
            if let Some(way) = way(&next, to, from) {
                add(&mut broken, link, &format!("on a circle: {from} -> {}", way.join(" -> ")));
            }
        }
    }
    broken
}

/// From which child of a module to which other one that leads, if it does.
fn between_children<'a>(parent: &[String], link: &Link<'a>) -> Option<(&'a str, &'a str)> {
    let child = |path: &'a [String]| path.strip_prefix(parent)?.first().map(String::as_str);
    let (from, to) = (child(link.module)?, child(link.definer)?);
    (from != to).then_some((from, to))
}

/// The shortest way from one to the other, with both.
fn way<'a>(next: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let (mut waiting, mut seen) = (VecDeque::from([vec![from]]), BTreeSet::from([from]));
    while let Some(way) = waiting.pop_front() {
        let last = *way.last()?;
        if last == to {
            return Some(way);
        }
        let further = next.get(last).into_iter().flatten().filter(|one| seen.insert(one));
        waiting.extend(further.map(|one| [&way[..], &[*one]].concat()));
    }
    None
}

/// Of the same two files one is enough.
fn add(broken: &mut Broken, Link { file, name, to, .. }: &Link<'_>, why: &str) {
    let message = format!("{file}:{} names {}, which is in {to} {why}", name.line, name.path.join("::"));
    broken.entry(((*file).to_owned(), (*to).to_owned())).or_insert(message);
}

#[cfg(test)]
mod tests {
    use super::super::crates::tests::of;
    use super::{Broken, circles, upward};

    fn messages(broken: &Broken) -> Vec<&str> {
        broken.values().map(String::as_str).collect()
    }

    #[test]
    fn a_module_may_name_what_is_lower_and_itself() {
        let files = [
            ("lib.rs", "mod low; mod middle; mod high;"),
            ("low.rs", "#[cfg(test)] mod tests { use crate::high::High; } pub struct Low;"),
            ("middle/mod.rs", "mod part; use crate::low::Low; fn f() { crate::high::g() }"),
            ("middle/part.rs", "use super::super::{high::{self, High}, low::Low}; use super::f;"),
            ("high.rs", "use crate::{low::Low, middle};"),
        ];
        let expected = [
            "src/middle/mod.rs:1 names a::high::g, which is in src/high.rs and is above middle",
            "src/middle/part.rs:1 names a::high, which is in src/high.rs and is above middle",
        ];
        assert_eq!(messages(&upward(&of(&files), &["low", "middle", "high"])), expected);
    }

    #[test]
    #[should_panic(expected = "the modules of the crate, and those in the order")]
    fn a_module_without_a_place_is_found() {
        upward(&of(&[("lib.rs", "mod low;"), ("low.rs", "")]), &[]);
    }

    #[test]
    fn siblings_form_no_circle_and_a_parent_is_none_of_them() {
        let files = [
            ("lib.rs", "mod top;"),
            (
                "top/mod.rs",
                "mod one; mod two; mod three; pub use two::Two; use three::Three; pub struct Top;",
            ),
            ("top/one.rs", "use super::{Top, Two};"),
            ("top/two.rs", "use super::{three, Top};"),
            ("top/three.rs", "use super::Top;"),
        ];
        assert_eq!(messages(&circles(&of(&files), 2)), Vec::<&str>::new());
        let files = files.map(|(file, text)| match file {
            "top/three.rs" => (file, "fn f() { super::one::g() }"),
            _ => (file, text),
        });
        let expected = [
            "src/top/one.rs:1 names a::top::Two, which is in src/top/two.rs on a circle: one -> two -> three -> one",
            "src/top/three.rs:1 names a::top::one::g, which is in src/top/one.rs on a circle: three -> one -> two -> three",
            "src/top/two.rs:1 names a::top::three, which is in src/top/three.rs on a circle: two -> three -> one -> two",
        ];
        assert_eq!(messages(&circles(&of(&files), 2)), expected);
    }

    #[test]
    fn what_is_deeper_counts_for_what_it_is_in() {
        let files = [
            ("lib.rs", "mod one; mod two;"),
            ("one/mod.rs", "mod deep;"),
            ("one/deep.rs", "use crate::two::Two;"),
            ("two.rs", "use crate::one::deep;"),
        ];
        assert_eq!(circles(&of(&files), 1).len(), 2);
        assert_eq!(circles(&of(&files), 2).len(), 0);
    }
}
