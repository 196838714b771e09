//! The hooks, as a table: what each gives, whether anything works without it, and the ways to attach it, best first.
//! Pure: [`super::attach`] walks it.

use std::{fmt, str::FromStr};

use proxytrace_ebpf::abi::Place;

/// A way to attach a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A tracepoint whose arguments the verifier knows the types of.
    TpBtf,
    /// A tracepoint whose arguments are mere numbers: every read goes through a helper.
    RawTp,
    /// Entry and return of a kernel function, by trampoline.
    Fentry,
    /// Entry and return of a kernel function, by breakpoint or ftrace.
    Kprobe,
    /// Nothing of its own: the hook `state` sees the same.
    State,
}

impl Via {
    const ALL: [Self; 5] = [Self::TpBtf, Self::RawTp, Self::Fentry, Self::Kprobe, Self::State];

    /// The value of the label `via`, and what `--hook-via` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::RawTp => "raw_tp",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::State => "state",
        }
    }

    /// What a host must have for it, for those whose host refuses it.
    #[must_use]
    pub const fn needs(self) -> &'static str {
        match self {
            Self::TpBtf | Self::RawTp => "a kernel with this tracepoint",
            Self::Fentry => {
                "a kernel with the function tracer (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, sysctl kernel.ftrace_enabled=1)"
            }
            Self::Kprobe => {
                "a kernel with CONFIG_KPROBES, and kprobes switched on (/sys/kernel/debug/kprobes/enabled)"
            }
            Self::State => "the hook state",
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One program at one place.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The program in the object.
    pub program: &'static str,
    /// The tracepoint or function.
    pub target: &'static str,
    /// Whether it is wanted only where a process can be preempted in a tracepoint, and so keeps others from being seen.
    pub if_preemptible: bool,
}

const fn part(program: &'static str, target: &'static str) -> Part {
    Part { program, target, if_preemptible: false }
}

const fn if_preemptible(program: &'static str, target: &'static str) -> Part {
    Part { program, target, if_preemptible: true }
}

/// One way to attach one hook: all of its programs, or it is not attached in this way.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// How.
    pub via: Via,
    /// The programs, and where each belongs.
    pub parts: &'static [Part],
    /// What is worse than with a better way, as a sentence without its full stop; empty where nothing is.
    pub costs: &'static str,
}

/// A place in the kernel that programs are wanted at.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The value of the label `hook`, and what `--hook-via` takes.
    pub name: &'static str,
    /// What is lost without it, as the end of the sentence "without it …".
    pub without: &'static str,
    /// Whether tracing makes no sense without it.
    pub required: bool,
    /// The places that it sees.
    pub places: &'static [Place],
    /// The ways to attach it, best first.
    pub rungs: &'static [Rung],
}

const fn rung(via: Via, parts: &'static [Part]) -> Rung {
    Rung { via, parts, costs: "" }
}

/// The two ways to attach programs to a tracepoint, each program in both forms: one, and more where tracepoints are
/// preemptible.
macro_rules! tracepoint {
    ($target:literal: $typed:literal, $raw:literal $(; $more_typed:literal, $more_raw:literal)*) => {
        &[
            rung(Via::TpBtf, &[
                part($typed, $target),
                $(if_preemptible($more_typed, $target)),*
            ]),
            rung(Via::RawTp, &[
                part($raw, $target),
                $(if_preemptible($more_raw, $target)),*
            ]),
        ]
    };
}

/// Hooks that follow processes. They are attached before the processes that already run are looked for, so that none
/// falls between.
pub const PROCESS_HOOKS: &[Hook] = &[
    Hook {
        name: "fork",
        without: "new workers are not followed",
        required: true,
        places: &[Place::Fork],
        rungs: tracepoint!("sched_process_fork": "process_fork", "process_fork_raw"; "process_fork_again", "process_fork_again_raw"),
    },
    Hook {
        name: "exec",
        without: "a proxy that starts later is not noticed",
        required: true,
        places: &[Place::Exec],
        rungs: tracepoint!("sched_process_exec": "process_exec", "process_exec_raw"; "process_exec_again", "process_exec_again_raw"),
    },
    Hook {
        name: "exit",
        without: "processes are never forgotten",
        required: true,
        places: &[Place::Exit],
        rungs: tracepoint!("sched_process_exit": "process_exit", "process_exit_raw"; "process_exit_again", "process_exit_again_raw"),
    },
    Hook {
        name: "signal",
        without: "reloads are not noticed",
        required: false,
        places: &[Place::Signal],
        rungs: tracepoint!("signal_deliver": "signal_deliver", "signal_deliver_raw"; "signal_deliver_again", "signal_deliver_again_raw"),
    },
];

/// What the system call tracepoints cost.
const EVERY_SYSCALL: &str = "every system call of every process on this host takes a little longer";

/// The one function behind connect(), for system calls and io_uring alike.
const CONNECT: &str = "__sys_connect_file";

/// The one behind connects of TCP, by connect() and by sends.
const SEND: &str = "__inet_stream_connect";

/// Hooks that follow attempts and connections.
pub const CONNECT_HOOKS: &[Hook] = &[
    Hook {
        name: "connect",
        without: "unix sockets and errors returned at once are not seen, and an icmp error may show as cancelled",
        required: false,
        places: &[Place::ConnectEntered, Place::ConnectReturned],
        rungs: &[
            rung(
                Via::Fentry,
                &[
                    part("connect_fexit", CONNECT),
                    part("connect_fexit_again", CONNECT),
                    part("connect_fexit_third", CONNECT),
                    part("connect_fentry", CONNECT),
                    part("connect_fentry_again", CONNECT),
                    part("connect_fentry_third", CONNECT),
                    part("send_fexit", SEND),
                    part("send_fentry", SEND),
                ],
            ),
            Rung {
                via: Via::Kprobe,
                parts: &[
                    part("connect_kretprobe", CONNECT),
                    part("connect_kprobe", CONNECT),
                    part("send_kretprobe", SEND),
                    part("send_kprobe", SEND),
                ],
                costs: "while several processes of this host are in connect() at once, one whose outcome only its return \
                        tells may end as other, counted under end_missed",
            },
            Rung {
                via: Via::TpBtf,
                parts: &[
                    part("syscall_exit", "sys_exit"),
                    if_preemptible("syscall_exit_again", "sys_exit"),
                    part("syscall_enter", "sys_enter"),
                    if_preemptible("syscall_enter_again", "sys_enter"),
                ],
                costs: EVERY_SYSCALL,
            },
            Rung {
                via: Via::RawTp,
                parts: &[
                    part("syscall_exit_raw", "sys_exit"),
                    if_preemptible("syscall_exit_again_raw", "sys_exit"),
                    part("syscall_enter_raw", "sys_enter"),
                    if_preemptible("syscall_enter_again_raw", "sys_enter"),
                ],
                costs: EVERY_SYSCALL,
            },
        ],
    },
    Hook {
        name: "state",
        without: "tcp attempts are not seen",
        required: true,
        places: &[Place::State],
        rungs: tracepoint!("inet_sock_set_state": "sock_set_state", "sock_set_state_raw"),
    },
    Hook {
        name: "state_again",
        without: "an attempt whose end interrupts another transition may be missed",
        required: false,
        places: &[Place::StateAgain],
        rungs: tracepoint!("inet_sock_set_state": "sock_set_state_again", "sock_set_state_again_raw"; "sock_set_state_third", "sock_set_state_third_raw"; "sock_set_state_fourth", "sock_set_state_fourth_raw"),
    },
    Hook {
        name: "retransmit",
        without: "a black hole is told of only when the proxy gives up",
        required: false,
        places: &[Place::Retransmit],
        rungs: tracepoint!("tcp_retransmit_skb": "tcp_retransmit", "tcp_retransmit_raw"),
    },
    Hook {
        name: "destroy",
        without: "an attempt whose end was not seen stays in flight",
        required: false,
        places: &[Place::Destroy],
        rungs: tracepoint!("tcp_destroy_sock": "tcp_destroy", "tcp_destroy_raw"),
    },
    Hook {
        name: "tcp_connect",
        without: "nothing is lost as long as state is attached",
        required: false,
        places: &[Place::TcpConnect],
        rungs: &[
            rung(Via::Fentry, &[part("tcp_connect_fentry", "tcp_connect")]),
            rung(Via::Kprobe, &[part("tcp_connect_kprobe", "tcp_connect")]),
            rung(Via::State, &[]), // the transition to SYN_SENT begins an attempt as well
        ],
    },
];

/// Every hook, in the order in which they are attached.
pub fn all() -> impl Iterator<Item = &'static Hook> {
    PROCESS_HOOKS.iter().chain(CONNECT_HOOKS)
}

/// A hook that is to be attached in one way only, or (`None`) not at all: `--hook-via`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    hook: &'static str,
    via: Option<Via>,
}

impl FromStr for Forced {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, way) = text.split_once('=').ok_or_else(|| {
            "write HOOK=WAY, such as connect=tp_btf; `proxytrace doctor` lists them".to_owned()
        })?;
        let hook = all().find(|hook| hook.name == name).ok_or_else(|| {
            format!("there is no such hook; there are {}", list(all().map(|hook| hook.name)))
        })?;
        if way == NO_WAY && !hook.required {
            return Ok(Self { hook: hook.name, via: None });
        }
        let ways = || hook.rungs.iter().map(|rung| rung.via);
        match Via::ALL.into_iter().find(|via| via.name() == way && ways().any(|known| known == *via)) {
            Some(via) => Ok(Self { hook: hook.name, via: Some(via) }),
            None => {
                let none = (!hook.required).then_some(NO_WAY);
                Err(format!("{name} can be attached by {}", list(ways().map(Via::name).chain(none))))
            }
        }
    }
}

/// What leaves a hook out, and the label `via` of one that is not attached.
pub const NO_WAY: &str = "none";

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The ways to try for `hook`, best first, and whether they were asked for: then a refusal must not pass unnoticed.
#[must_use]
pub fn plan(hook: &'static Hook, forced: &[Forced]) -> (Vec<&'static Rung>, bool) {
    // The last word counts, as with other options.
    match forced.iter().rev().find(|forced| forced.hook == hook.name) {
        None => (hook.rungs.iter().collect(), false),
        Some(Forced { via, .. }) => {
            (hook.rungs.iter().filter(|rung| Some(rung.via) == *via).collect(), via.is_some())
        }
    }
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::abi::Place;

    use super::{Forced, Via, all, plan};

    #[test]
    fn every_hook_has_a_name_of_its_own_a_way_and_a_place() {
        let hooks: Vec<_> = all().collect();
        for (index, hook) in hooks.iter().enumerate() {
            assert!(!hook.rungs.is_empty() && !hook.places.is_empty(), "{}", hook.name);
            assert!(
                hooks[..index].iter().all(|other| other.name != hook.name),
                "{} is there twice",
                hook.name
            );
        }
        assert_eq!(hooks.iter().map(|hook| hook.places.len()).sum::<usize>(), Place::COUNT);
    }

    #[test]
    fn a_way_can_be_forced_and_a_hook_left_out() {
        let ways = |name: &str, forced: &[&str]| -> (Vec<&str>, bool) {
            let forced: Vec<Forced> = forced.iter().map(|text| text.parse().unwrap()).collect();
            let (rungs, is_forced) = plan(all().find(|hook| hook.name == name).unwrap(), &forced);
            (rungs.iter().map(|rung| rung.via.name()).collect(), is_forced)
        };
        assert_eq!(ways("connect", &[]), (vec!["fentry", "kprobe", "tp_btf", "raw_tp"], false));
        assert_eq!(ways("connect", &["state=raw_tp", "connect=kprobe"]), (vec!["kprobe"], true));
        assert_eq!(ways("connect", &["connect=kprobe", "connect=raw_tp"]), (vec!["raw_tp"], true));
        assert_eq!(ways("connect", &["connect=none"]), (vec![], false));
        assert_eq!(ways("tcp_connect", &["tcp_connect=state"]), (vec![Via::State.name()], true));
    }

    #[test]
    fn what_cannot_be_forced_is_refused_with_what_can() {
        let check = |text: &str, words: &str| {
            let error = text.parse::<Forced>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        };
        check("connect", "HOOK=WAY");
        check("conect=fentry", "fork, exec, exit, signal, connect, state");
        check("connect=state", "connect can be attached by fentry, kprobe, tp_btf, raw_tp, none");
        check("fork=none", "fork can be attached by tp_btf, raw_tp");
    }
}
