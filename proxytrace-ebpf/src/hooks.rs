//! The hooks, as a table: what each gives, whether anything works without it, and the ways to attach it, best first.
//!
//! Userspace attaches the programs by this table, `doctor` proves each hook by its places, and the machines of the test matrix force
//! its ways.

use core::fmt;

use crate::indexed::indexed;

/// What is known of a way to attach.
struct AboutVia {
    name: &'static str,
    needs: &'static str,
}

indexed! {
    /// A way to attach a hook.
    pub enum Via: AboutVia {
        /// A tracepoint whose arguments the verifier knows the types of.
        TpBtf {
            name: "tp_btf",
            needs: "a kernel with this tracepoint",
        }
        /// A tracepoint whose arguments are mere numbers: every read goes through a helper.
        RawTp {
            name: "raw_tp",
            needs: "a kernel with this tracepoint",
        }
        /// Entry and return of a kernel function, by trampoline.
        Fentry {
            name: "fentry",
            needs: "a kernel with the function tracer (CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS, sysctl kernel.ftrace_enabled=1)",
        }
        /// Entry and return of a kernel function, by breakpoint or ftrace.
        Kprobe {
            name: "kprobe",
            needs: "a kernel with CONFIG_KPROBES, and kprobes switched on (/sys/kernel/debug/kprobes/enabled)",
        }
        /// A tracepoint as an event of perf: of system calls, each has one of its own.
        Tracepoint {
            name: "tracepoint",
            needs: "tracefs and the right to read it (root, or CAP_DAC_READ_SEARCH), perf_event_open, and a kernel from 5.15 on with CONFIG_FTRACE_SYSCALLS",
        }
        /// Nothing of its own: the hook `state` sees the same.
        State {
            name: "state",
            needs: "the hook state",
        }
    }
}

impl Via {
    /// The value of the label `via`, and what `--hook-via` takes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// What a host must have for it, for those whose host refuses it.
    #[must_use]
    pub const fn needs(self) -> &'static str {
        self.about().needs
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
            rung(Via::TpBtf, &[part($typed, $target), $(if_preemptible($more_typed, $target)),*]),
            rung(Via::RawTp, &[part($raw, $target), $(if_preemptible($more_raw, $target)),*]),
        ]
    };
}

/// What the system call tracepoints cost.
const EVERY_SYSCALL: &str = "every system call of every process on this host takes a little longer";

/// What those of single system calls cost: the kernel still takes the slow way through each (TIF_SYSCALL_TRACEPOINT).
const TRACED_SYSCALLS: &str = "every system call of every process on this host takes a little longer, about a third of what it would by tp_btf; \
                               a send that connects (MSG_FASTOPEN) and fails before there is a SYN is not seen";

/// The one function behind connect(), for system calls and io_uring alike.
const CONNECT: &str = "__sys_connect_file";

/// The one behind connects of TCP, by connect() and by sends.
const SEND: &str = "__inet_stream_connect";

/// Declares the hooks, and with them the places that they see.
macro_rules! hooks {
    ($(
        $(#[$meta:meta])*
        pub const $list:ident = [$(
            Hook {
                name: $name:literal,
                places: [$($(#[$place_meta:meta])* $place:ident,)+],
                $($field:ident: $value:expr,)+
            },
        )+];
    )+) => {
        indexed! {
            /// A place in the kernel that a hook sees. The discriminant is the index in the array of what was seen.
            pub enum Place { $($($($(#[$place_meta])* $place,)+)+)+ }
        }

        $(
            $(#[$meta])*
            pub const $list: &[Hook] = &[$(
                Hook { name: $name, places: &[$(Place::$place),+], $($field: $value,)+ },
            )+];
        )+
    };
}

hooks! {
    /// Hooks that follow processes. They are attached before the processes that already run are looked for, so that none
    /// falls between.
    pub const PROCESS_HOOKS = [
        Hook {
            name: "fork",
            places: [
                /// A process forks.
                Fork,
            ],
            without: "new workers are not followed",
            required: true,
            rungs: tracepoint!("sched_process_fork": "process_fork", "process_fork_raw"; "process_fork_again", "process_fork_again_raw"),
        },
        Hook {
            name: "exec",
            places: [
                /// A process executes a program.
                Exec,
            ],
            without: "a proxy that starts later is not noticed",
            required: true,
            rungs: tracepoint!("sched_process_exec": "process_exec", "process_exec_raw"; "process_exec_again", "process_exec_again_raw"),
        },
        Hook {
            name: "exit",
            places: [
                /// A thread exits.
                Exit,
            ],
            without: "processes are never forgotten",
            required: true,
            rungs: tracepoint!("sched_process_exit": "process_exit", "process_exit_raw"; "process_exit_again", "process_exit_again_raw"),
        },
        Hook {
            name: "signal",
            places: [
                /// A SIGHUP is delivered.
                Signal,
            ],
            without: "reloads are not noticed",
            required: false,
            rungs: tracepoint!("signal_deliver": "signal_deliver", "signal_deliver_raw"; "signal_deliver_again", "signal_deliver_again_raw"),
        },
    ];

    /// Hooks that follow attempts and connections.
    pub const CONNECT_HOOKS = [
        Hook {
            name: "connect",
            places: [
                /// connect() is entered.
                ConnectEntered,
                /// connect() returns.
                ConnectReturned,
            ],
            without: "unix sockets and errors returned at once are not seen, and an icmp error may show as cancelled",
            required: false,
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
                            shows may end as other, counted under end_missed",
                },
                Rung {
                    via: Via::Tracepoint,
                    parts: &[
                        part("call_exit", "syscalls:sys_exit_connect"),
                        part("call_enter", "syscalls:sys_enter_connect"),
                    ],
                    costs: TRACED_SYSCALLS,
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
            places: [
                /// A TCP socket goes into SYN_SENT.
                State,
            ],
            without: "tcp attempts are not seen",
            required: true,
            rungs: tracepoint!("inet_sock_set_state": "sock_set_state", "sock_set_state_raw"),
        },
        Hook {
            name: "state_again",
            places: [
                /// The same, seen by the programs that see what another one missed.
                StateAgain,
            ],
            without: "an attempt whose end interrupts another transition may be missed",
            required: false,
            rungs: tracepoint!("inet_sock_set_state": "sock_set_state_again", "sock_set_state_again_raw"; "sock_set_state_third", "sock_set_state_third_raw"; "sock_set_state_fourth", "sock_set_state_fourth_raw"),
        },
        Hook {
            name: "retransmit",
            places: [
                /// A SYN is sent again.
                Retransmit,
            ],
            without: "a black hole is reported only when the proxy gives up",
            required: false,
            rungs: tracepoint!("tcp_retransmit_skb": "tcp_retransmit", "tcp_retransmit_raw"),
        },
        Hook {
            name: "destroy",
            places: [
                /// A TCP socket is destroyed.
                Destroy,
            ],
            without: "an attempt whose end was not seen stays in flight",
            required: false,
            rungs: tracepoint!("tcp_destroy_sock": "tcp_destroy", "tcp_destroy_raw"),
        },
        Hook {
            name: "tcp_connect",
            places: [
                /// The kernel is about to send the first SYN.
                TcpConnect,
            ],
            without: "nothing is lost as long as state is attached",
            required: false,
            rungs: &[
                rung(Via::Fentry, &[part("tcp_connect_fentry", "tcp_connect")]),
                rung(Via::Kprobe, &[part("tcp_connect_kprobe", "tcp_connect")]),
                rung(Via::State, &[]), // the transition to SYN_SENT begins an attempt as well
            ],
        },
    ];
}

/// Every hook, in the order in which they are attached.
pub fn all() -> impl Iterator<Item = &'static Hook> {
    PROCESS_HOOKS.iter().chain(CONNECT_HOOKS)
}

#[cfg(test)]
mod tests {
    use super::all;

    #[test]
    fn every_hook_has_a_name_of_its_own_and_a_way() {
        for hook in all() {
            assert!(!hook.rungs.is_empty(), "{}", hook.name);
            assert_eq!(all().filter(|other| other.name == hook.name).count(), 1, "{}", hook.name);
        }
    }
}
