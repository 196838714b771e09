//! The hooks, as a table: what each gives, whether anything works without it, and the ways to attach it, best first.
//! Pure: [`super::attach`] walks it.

/// A way to attach a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A tracepoint whose arguments the verifier knows the types of.
    TpBtf,
    /// The entry of a kernel function, by trampoline.
    Fentry,
    /// The entry of a kernel function, by breakpoint or ftrace.
    Kprobe,
}

impl Via {
    /// The value of the label `via`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TpBtf => "tp_btf",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }
}

/// One way to attach one hook.
#[derive(Clone, Copy, Debug)]
pub struct Rung {
    /// How.
    pub via: Via,
    /// The program in the object.
    pub program: &'static str,
    /// The tracepoint or function.
    pub target: &'static str,
}

/// A place in the kernel that a program is wanted at.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// The value of the label `hook`.
    pub name: &'static str,
    /// What is lost without it, as the end of the sentence "without it …"; empty where another hook sees the same.
    pub without: &'static str,
    /// Whether tracing makes no sense without it.
    pub required: bool,
    /// The ways to attach it, best first.
    pub rungs: &'static [Rung],
}

const fn tp_btf(program: &'static str, target: &'static str) -> Rung {
    Rung { via: Via::TpBtf, program, target }
}

/// Hooks that follow processes. They are attached before the processes that already run are looked for, so that none
/// falls between.
pub const PROCESS_HOOKS: &[Hook] = &[
    Hook {
        name: "fork",
        without: "new workers are not followed",
        required: true,
        rungs: &[tp_btf("process_fork", "sched_process_fork")],
    },
    Hook {
        name: "exec",
        without: "a proxy that starts later is not noticed",
        required: true,
        rungs: &[tp_btf("process_exec", "sched_process_exec")],
    },
    Hook {
        name: "exit",
        without: "processes are never forgotten",
        required: true,
        rungs: &[tp_btf("process_exit", "sched_process_exit")],
    },
    Hook {
        name: "signal",
        without: "reloads are not noticed",
        required: false,
        rungs: &[tp_btf("signal_deliver", "signal_deliver")],
    },
];

/// Hooks that follow attempts and connections.
pub const CONNECT_HOOKS: &[Hook] = &[
    Hook {
        name: "connect_enter",
        without: "unix sockets and errors returned at once are not seen, and an icmp error may show as cancelled",
        required: false,
        rungs: &[tp_btf("syscall_enter", "sys_enter")],
    },
    Hook {
        name: "connect_return",
        without: "unix sockets and errors returned at once are not seen, and an icmp error may show as cancelled",
        required: false,
        rungs: &[tp_btf("syscall_exit", "sys_exit")],
    },
    Hook {
        name: "state",
        without: "tcp attempts are not seen",
        required: true,
        rungs: &[tp_btf("sock_set_state", "inet_sock_set_state")],
    },
    Hook {
        name: "state_again",
        without: "an attempt whose end interrupts another transition may be missed",
        required: false,
        rungs: &[tp_btf("sock_set_state_again", "inet_sock_set_state")],
    },
    Hook {
        name: "retransmit",
        without: "a black hole is told of only when the proxy gives up",
        required: false,
        rungs: &[tp_btf("tcp_retransmit", "tcp_retransmit_skb")],
    },
    Hook {
        name: "destroy",
        without: "an attempt whose end was not seen stays in flight",
        required: false,
        rungs: &[tp_btf("tcp_destroy", "tcp_destroy_sock")],
    },
    Hook {
        name: "tcp_connect",
        without: "", // the transition to SYN_SENT begins an attempt as well
        required: false,
        rungs: &[
            Rung { via: Via::Fentry, program: "tcp_connect_fentry", target: "tcp_connect" },
            Rung { via: Via::Kprobe, program: "tcp_connect_kprobe", target: "tcp_connect" },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::{CONNECT_HOOKS, PROCESS_HOOKS};

    #[test]
    fn every_hook_has_a_name_of_its_own_and_a_way() {
        let hooks: Vec<_> = PROCESS_HOOKS.iter().chain(CONNECT_HOOKS).collect();
        for (index, hook) in hooks.iter().enumerate() {
            assert!(!hook.rungs.is_empty(), "{}", hook.name);
            assert!(
                hooks[..index].iter().all(|other| other.name != hook.name),
                "{} is there twice",
                hook.name
            );
        }
    }
}
