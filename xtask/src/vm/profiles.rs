//! The ways to attach that are forced, one profile after another, so that each of them is seen to work.

use super::series::{Expect, Series};

/// A part of the attach ladder, and the stories told on it.
pub(super) struct Profile {
    pub(super) name: &'static str,
    /// The value of `PROXYTRACE_HOOK_VIA`; nothing is forced when it is empty.
    forced: &'static str,
    /// Modules of the stories.
    stories: &'static [&'static str],
}

pub(super) const PROFILES: &[Profile] = &[
    Profile {
        name: "best",
        forced: "",
        stories: &[
            "causes::",
            "unix::",
            "crossing::",
            "broken::",
            "clients::",
            "processes::",
            "ledger::",
            "storm::",
            "requirements::",
        ],
    },
    Profile { name: "kprobe", forced: "connect=kprobe,tcp_connect=kprobe", stories: CONNECTS },
    Profile { name: "tp_btf", forced: "connect=tp_btf,tcp_connect=state", stories: CONNECTS },
    Profile {
        name: "raw_tp",
        forced: "fork=raw_tp,exec=raw_tp,exit=raw_tp,signal=raw_tp,connect=raw_tp,state=raw_tp,\
                 state_again=raw_tp,retransmit=raw_tp,destroy=raw_tp,tcp_connect=state",
        stories: &["causes::ipv4", "unix::", "processes::", "ledger::"],
    },
];

/// The truth table and exact counts: what a way to see connect() could get wrong. It makes no difference between IPv4 and
/// IPv6, and the ledger's story has both.
const CONNECTS: &[&str] = &["causes::ipv4", "unix::", "ledger::"];

impl Profile {
    /// The line of /vm/plan for it; a filter of the caller's goes before our own.
    fn line(&self, filter: &[String]) -> String {
        let forced = if self.forced.is_empty() { "-" } else { self.forced };
        let stories = if filter.is_empty() { self.stories.join(" ") } else { filter.join(" ") };
        format!("stories_under {} {forced} {stories}\n", self.name)
    }
}

/// What the first process of a machine with such a kernel has to do (/vm/plan).
pub(super) fn plan(series: &Series, profiles: &[&Profile], filter: &[String]) -> String {
    match series.expect {
        Expect::Stories => profiles.iter().map(|profile| profile.line(filter)).collect(),
        Expect::Refusal { .. } => "refusal\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::series::SERIES;

    #[test]
    fn a_filter_replaces_the_stories_of_a_profile_but_not_what_it_forces() {
        let filter = ["ledger::".to_owned()];
        let plan = plan(&SERIES[0], &[&PROFILES[0], &PROFILES[1]], &filter);
        let expected = "stories_under best - ledger::\n\
                        stories_under kprobe connect=kprobe,tcp_connect=kprobe ledger::\n";
        assert_eq!(plan, expected);
    }

    #[test]
    fn init_splits_lines_at_blanks_so_nothing_in_the_table_has_any() {
        for profile in PROFILES {
            let words = [profile.name, profile.forced].into_iter().chain(profile.stories.iter().copied());
            assert!(words.into_iter().all(|word| !word.contains(char::is_whitespace)), "{}", profile.name);
        }
    }
}
