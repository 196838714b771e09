//! The ways to attach that are forced, one profile after another, so that each of them is seen to work.

use proxytrace_ebpf::hooks::{self, Via};

use crate::series::{Expect, Extent, Series};

/// How many stories at once, where nothing speaks against it: enough to keep the one thread of the emulator busy while
/// others wait. With more, each only takes longer, until nginx no longer keeps its own times.
const AT_ONCE: u32 = 3;

/// A part of the attach ladder, and the stories run on it.
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    forced: Forced,
    /// Series whose kernels cannot do it.
    not_on: &'static [&'static str],
    /// How many stories at once.
    at_once: u32,
    /// Modules of the stories.
    stories: &'static [&'static str],
    /// What takes their place where only a part runs.
    part: &'static [&'static str],
}

/// Where less runs, it is what a way to attach could get wrong. It makes no difference between IPv4 and IPv6, and the
/// ledger's story has both; and processes are followed in the same way as long as that is not forced.
pub(crate) const PROFILES: &[Profile] = &[
    Profile {
        name: "best",
        forced: Forced::Nothing,
        not_on: &[],
        at_once: AT_ONCE,
        stories: &[
            "causes::",
            "crossing::",
            "broken::",
            "processes::",
            "reload::",
            "doctor::",
            "requirements::",
            "--skip=a_route_that_leads_nowhere",
            "--skip=local_ports_can_be_used_up",
            "--skip=many_reloads_upon_each_other",
        ],
        part: &[
            "causes::ipv4",
            "processes::",
            "reload::a",
            "privilege::root",
            "doctor::",
            "requirements::",
            "--skip=a_route_that_leads_nowhere",
            "--skip=local_ports_can_be_used_up",
        ],
    },
    // One story at a time: these have outcomes that only the return of a connect() shows, and with fentry the kernel skips
    // the returns of calls that are under way while another trace begins or ends (bpf_tramp_image_put), as those of
    // stories beside them do. The last starts so many readers of configurations that one of a story beside it may not be done
    // in its 10 s: names were seen 7 s late (5.10).
    Profile {
        name: "alone",
        forced: Forced::Nothing,
        not_on: &[],
        at_once: 1,
        stories: &[
            "a_route_that_leads_nowhere",
            "local_ports_can_be_used_up",
            "unix::",
            "clients::",
            "ledger::",
            "storm::",
            "crowd::",
            "many_reloads_upon_each_other",
        ],
        part: &["causes::ipv4::a_route_that_leads_nowhere", "unix::", "ledger::"],
    },
    // One story at a time: a kprobe misses returns while several processes are in connect(), on 5.10 from two on. Where tracepoints are
    // preemptible this way is refused.
    Profile {
        name: "kprobe",
        forced: Forced::WhereThereIs(Via::Kprobe),
        not_on: &["newest"],
        at_once: 1,
        stories: &["causes::ipv4", "unix::", "ledger::", "crowd::"],
        part: IN_EACH_WAY,
    },
    // One story at a time: the kernel skips such a program while a process that it has preempted there is in a system call on a map, of
    // whichever agent. Before 5.15 programs cannot ask for the arguments of a call; where tracepoints are preemptible this way is refused.
    Profile {
        name: "tracepoint",
        forced: Forced::WhereThereIs(Via::Tracepoint),
        not_on: &["5.10", "newest"],
        at_once: 1,
        stories: &["causes::ipv4", "unix::", "clients::", "ledger::", "storm::"],
        part: IN_EACH_WAY,
    },
    Profile {
        name: "tp_btf",
        forced: Forced::Everywhere(Via::TpBtf),
        not_on: &[],
        at_once: AT_ONCE,
        stories: &["causes::ipv4", "unix::", "ledger::"],
        part: IN_EACH_WAY,
    },
    Profile {
        name: "raw_tp",
        forced: Forced::Everywhere(Via::RawTp),
        not_on: &[],
        at_once: AT_ONCE,
        stories: &["causes::ipv4", "unix::", "processes::", "reload::a", "ledger::"],
        part: IN_EACH_WAY,
    },
];

/// Of a part, in whatever way is forced: each argument of connect() and its number are read, and counts are exact.
const IN_EACH_WAY: &[&str] = &["causes::ipv4::a_closed_port", "unix::a_missing_file", "ledger::"];

/// What kernels between the oldest and the newest are spared.
const NOT_BETWEEN: &[&str] = &["--skip=::ipv6::", "--skip=clients::"];

/// What is forced.
#[derive(Clone, Copy)]
enum Forced {
    /// The program takes the best way that the kernel allows.
    Nothing,
    /// Hooks that can be attached in this way are.
    WhereThereIs(Via),
    /// The same, and the others are attached in their last way.
    Everywhere(Via),
}

impl Forced {
    /// The value of `PROXYTRACE_HOOK_VIA`; empty where nothing is forced.
    fn hook_via(self) -> String {
        let by = |via: Via, or_last: bool| {
            hooks::all().filter_map(move |hook| {
                let has_it = hook.rungs.iter().any(|rung| rung.via == via);
                let last = hook.rungs.last().filter(|_| or_last).map(|rung| rung.via);
                let via = if has_it { Some(via) } else { last };
                via.map(|via| format!("{}={}", hook.name, via.name()))
            })
        };
        match self {
            Self::Nothing => String::new(),
            Self::WhereThereIs(via) => by(via, false).collect::<Vec<_>>().join(","),
            Self::Everywhere(via) => by(via, true).collect::<Vec<_>>().join(","),
        }
    }
}

/// Every hook by raw tracepoint: what the running kernel offers in any case.
#[must_use]
pub fn all_by_raw_tracepoints() -> String {
    Forced::Everywhere(Via::RawTp).hook_via()
}

impl Profile {
    /// The line of /vm/plan for it; a filter and a number of the caller's take the place of our own.
    fn line(&self, extent: Extent, at_once: Option<u32>, filter: &[String]) -> String {
        let hook_via = self.forced.hook_via();
        let forced = if hook_via.is_empty() { "-" } else { &hook_via };
        let ours = match extent {
            Extent::Whole => self.stories.join(" "),
            Extent::Between => [self.stories, NOT_BETWEEN].concat().join(" "),
            Extent::Part => self.part.join(" "),
        };
        let stories = if filter.is_empty() { ours } else { filter.join(" ") };
        format!("stories_under {} {forced} {} {stories}\n", self.name, at_once.unwrap_or(self.at_once))
    }
}

/// What the first process of a machine with such a kernel has to do (/vm/plan).
pub(crate) fn plan(
    series: &Series,
    profiles: &[&Profile],
    at_once: Option<u32>,
    filter: &[String],
) -> String {
    match series.expect {
        Expect::Stories(extent) => {
            let can = profiles.iter().filter(|profile| !profile.not_on.contains(&series.name));
            can.map(|profile| profile.line(extent, at_once, filter)).collect()
        }
        Expect::Refusal { .. } => "refusal\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::SERIES;

    #[test]
    fn a_filter_and_a_number_replace_those_of_a_profile_but_not_what_it_forces() {
        let filter = ["ledger::".to_owned()];
        let plan = |at_once| plan(&SERIES[0], &[&PROFILES[0], &PROFILES[2]], at_once, &filter);
        let expected = "stories_under best - 3 ledger::\n\
                        stories_under kprobe connect=kprobe,tcp_connect=kprobe 1 ledger::\n";
        assert_eq!(plan(None), expected);
        assert_eq!(plan(Some(2)), expected.replace(" 3 ", " 2 ").replace(" 1 ", " 2 "));
    }

    #[test]
    fn a_profile_is_left_out_where_the_kernel_cannot_do_it() {
        let tracepoint: Vec<_> = PROFILES.iter().filter(|profile| profile.name == "tracepoint").collect();
        let plan = |name: &str| {
            plan(SERIES.iter().find(|series| series.name == name).unwrap(), &tracepoint, None, &[])
        };
        assert_eq!((plan("5.10"), plan("newest")), (String::new(), String::new()));
        assert!(plan("6.1").starts_with("stories_under tracepoint connect=tracepoint 1 "), "{}", plan("6.1"));
    }

    #[test]
    fn ways_come_from_the_table_of_hooks() {
        assert_eq!(
            all_by_raw_tracepoints(),
            "fork=raw_tp,exec=raw_tp,exit=raw_tp,signal=raw_tp,connect=raw_tp,state=raw_tp,state_again=raw_tp,\
             retransmit=raw_tp,destroy=raw_tp,tcp_connect=state"
        );
        let tp_btf = Forced::Everywhere(Via::TpBtf).hook_via();
        assert!(tp_btf.contains("connect=tp_btf,") && tp_btf.ends_with("tcp_connect=state"), "{tp_btf}");
    }

    #[test]
    fn a_part_runs_under_the_same_profiles() {
        let [whole, part] = ["6.12", "6.12-arm64"].map(|name| {
            let series = SERIES.iter().find(|series| series.name == name).unwrap();
            plan(series, &[PROFILES.last().unwrap()], None, &[])
        });
        assert!(whole.starts_with("stories_under raw_tp fork=raw_tp") && whole.contains(" reload::"));
        assert!(part.starts_with("stories_under raw_tp fork=raw_tp") && part.contains(" ledger::"));
        assert!(!part.contains(" reload::"), "{part}");
    }

    #[test]
    fn init_splits_lines_at_blanks_so_nothing_in_the_table_has_any() {
        for profile in PROFILES {
            let hook_via = profile.forced.hook_via();
            let words = [&[profile.name, &hook_via], profile.stories, profile.part].concat();
            assert!(words.iter().all(|word| !word.contains(char::is_whitespace)), "{}", profile.name);
        }
    }
}
