//! docs/kernels.md, written from what was seen in the virtual machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use xtask_tools::cargo;

use crate::doctor::Doctor;

/// How stories went on a kernel under a profile.
pub(crate) struct Row<'a> {
    pub(crate) series: &'a str,
    pub(crate) profile: &'a str,
    pub(crate) passed: usize,
    pub(crate) stories: usize,
    pub(crate) doctor: Option<&'a Doctor>,
}

const INTRODUCTION: &str = "\
# Kernels

Written by `cargo xtask vm --docs` from what happened in virtual machines with these kernels, and compared with it
whenever `cargo xtask vm` runs to its end. Distributions' kernels, emulated x86-64 where no other architecture is named;
`newest` is the newest that Debian has.
";
const HOOKS: &str = "
## Which ways to attach work

Each way is here because a program was attached in it and was seen to run; `state` is no program of its own, but what the
hook of that name sees.
";
const STORIES: &str = "
## Stories

How many passed of those that ran, by what was forced (`--hook-via`; `best` and `alone`: nothing). Between the oldest
and the newest kernel it is fewer: without IPv6, but for the ledger's story, and without some ways to connect; and on arm64
those that check what an architecture could get wrong.

`alone` are those whose outcomes only the return of a connect() shows, one at a time. Where connect is by fentry, the kernel
skips the returns of calls that are under way while another trace begins or ends. Such a call ends as `other`, counted under
`end_missed` (`proxytrace_untracked_total`). With kprobe that happens as well while several processes are in connect() at
once; the stories then check that every attempt is counted and ends, and that as many are under `end_missed` as differ. From
7.0 on, where kprobe and tracepoint are refused, it happens with tp_btf and raw_tp too, and with kprobe and tracepoint on older
kernels that preempt themselves (`preempt=full` or `lazy`) wherever the kernel says that it skipped programs; so these two are run
with `preempt=voluntary` where the kernel lets that be chosen. In each of the four an attempt that only the call shows may not be
seen at all: in the ledger's story at most one in a hundred, and no more than the programs that the kernel counts as skipped (recursion).
";
const REFUSED: &str = "
## Where it refuses

With exit status 3, and a message that says what is missing:
";
/// The only line that may differ from what ran: versions move daily.
const SEEN: &str = "Last seen on ";

/// Where it is kept.
pub(crate) fn path() -> PathBuf {
    cargo::root().join("docs/kernels.md")
}

/// The whole page. `refused` is what is shown of series that must be refused, `releases` what was seen last.
pub(crate) fn page(rows: &[Row<'_>], refused: &[String], releases: &[&str]) -> String {
    let series = in_order(rows.iter().map(|row| row.series));
    let mut page = INTRODUCTION.to_owned();
    let _ = writeln!(page, "\n{SEEN}{}.", releases.join(", "));
    page += HOOKS;
    let hooks = rows.iter().filter_map(|row| row.doctor).flat_map(|doctor| &doctor.hooks);
    let hooks = in_order(hooks.map(|hook| hook.name.as_str()));
    page += &table("hook", &series, &hooks, |hook, series| ways(rows, hook, series));
    page += STORIES;
    let profiles = in_order(rows.iter().map(|row| row.profile));
    page += &table("profile", &series, &profiles, |profile, series| {
        let row = rows.iter().find(|row| (row.profile, row.series) == (profile, series));
        row.map(|row| format!("{} of {}", row.passed, row.stories)).unwrap_or_default()
    });
    page += REFUSED;
    page.push('\n');
    for refused in refused {
        let _ = writeln!(page, "- {refused}");
    }
    page
}

/// Whether two pages say the same, but for when the kernels were last seen.
pub(crate) fn says_the_same(one: &str, other: &str) -> bool {
    let lasting = |page: &str| {
        page.lines().filter(|line| !line.starts_with(SEEN)).map(str::to_owned).collect::<Vec<_>>()
    };
    lasting(one) == lasting(other)
}

/// The ways in which a hook was attached and seen to fire, under any profile.
fn ways(rows: &[Row<'_>], hook: &str, series: &str) -> String {
    let doctors = rows.iter().filter(|row| row.series == series).filter_map(|row| row.doctor);
    let hooks = doctors.flat_map(|doctor| &doctor.hooks).filter(|known| known.name == hook);
    let ways = in_order(hooks.filter_map(|hook| hook.working_way()));
    if ways.is_empty() { "none".to_owned() } else { ways.join(", ") }
}

fn table(corner: &str, columns: &[&str], rows: &[&str], cell: impl Fn(&str, &str) -> String) -> String {
    let mut table =
        format!("\n| {corner} | {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len() + 1));
    for row in rows {
        let cells: Vec<_> = columns.iter().map(|column| cell(row, column)).collect();
        let _ = writeln!(table, "| {row} | {} |", cells.join(" | "));
    }
    table
}

/// Each once, in the order in which they come.
fn in_order<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut first = BTreeMap::new();
    for (number, item) in items.enumerate() {
        first.entry(item).or_insert(number);
    }
    let mut items: Vec<_> = first.into_iter().collect();
    items.sort_by_key(|(_, number)| *number);
    items.into_iter().map(|(item, _)| item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Hook;

    fn doctor(hooks: &[(&str, Option<&str>, u64)]) -> Doctor {
        let hook = |&(name, via, seen): &(&str, Option<&str>, u64)| Hook {
            name: name.to_owned(),
            via: via.map(str::to_owned),
            seen: Some(seen),
        };
        Doctor { hooks: hooks.iter().map(hook).collect() }
    }

    #[test]
    fn a_cell_has_the_ways_that_were_seen_to_fire_under_any_profile() {
        let best = doctor(&[("fork", Some("tp_btf"), 2), ("connect", Some("fentry"), 3)]);
        let forced = doctor(&[("fork", Some("raw_tp"), 1), ("connect", Some("kprobe"), 0)]);
        let row = |series, profile, doctor| Row { series, profile, passed: 5, stories: 6, doctor };
        let rows = [
            row("5.10", "best", Some(&best)),
            row("5.10", "raw_tp", Some(&forced)),
            row("6.1", "best", None),
        ];
        let page = page(&rows, &["5.4: no type information".to_owned()], &["5.10.0-46", "6.1.0-56"]);
        for line in [
            "Last seen on 5.10.0-46, 6.1.0-56.",
            "| hook | 5.10 | 6.1 |",
            "|---|---|---|",
            "| fork | tp_btf, raw_tp | none |",
            "| connect | fentry | none |",
            "| raw_tp | 5 of 6 |  |",
            "- 5.4: no type information",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is not in {page}");
        }
    }

    #[test]
    fn only_the_versions_last_seen_may_differ() {
        let page = |version, passed| {
            let row = Row { series: "6.1", profile: "best", passed, stories: 6, doctor: None };
            page(&[row], &[], &[version])
        };
        assert!(says_the_same(&page("6.1.0-56", 6), &page("6.1.0-57", 6)));
        assert!(!says_the_same(&page("6.1.0-56", 6), &page("6.1.0-56", 5)));
    }
}
