//! The system calls that a running trace may use, and those that a process which reads for one proxy may use. Any other fails with
//! EPERM: a monitor must not die of a C library that begins to use a call that is not on the list.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, BpfProgramRef, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// System calls that are needed for the same reason.
pub(super) struct Group {
    #[cfg_attr(not(test), expect(dead_code, reason = "for whoever reads this, and for docs/security.md"))]
    why: &'static str,
    calls: &'static [Call],
}

/// A system call, and the limits of one of its arguments.
struct Call {
    number: c_long,
    only: Option<Only>,
}

/// An argument, of which the bits in `mask` must be one of `values`.
struct Only {
    argument: u8,
    mask: u64,
    values: &'static [u64],
}

const fn any(number: c_long) -> Call {
    Call { number, only: None }
}

const fn only(number: c_long, argument: u8, mask: u64, values: &'static [u64]) -> Call {
    Call { number, only: Some(Only { argument, mask, values }) }
}

/// An argument that is no pointer and no length: the kernel reads 32 bits of it.
const WORD: u64 = u32::MAX as u64;
/// The flags of opening to write.
const WRITES: u64 = (libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC) as u64;
const EXECUTABLE: u64 = libc::PROT_EXEC as u64;

/// include/uapi/linux/bpf.h: BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY,
/// BPF_MAP_LOOKUP_BATCH; and BPF_PROG_TEST_RUN, which runs a program that is loaded already.
const BPF_COMMANDS: &[u64] = &[1, 2, 3, 4, 24, 10];
/// Whether it is a terminal, asked by glibc and by musl (include/uapi/asm-generic/ioctls.h: TCGETS, TIOCGWINSZ); when `top` gives the
/// terminal back as it was, TCSETS2; and when a hook attached by kprobe is let go, include/uapi/linux/perf_event.h:
/// PERF_EVENT_IOC_DISABLE.
const IOCTLS: &[u64] = &[0x5401, 0x5413, 0x402c_542b, 0x2401];
/// The last to open a directory, and for a descriptor of the runtime's own.
const FCNTLS: &[u64] =
    &[libc::F_GETFD as u64, libc::F_SETFD as u64, libc::F_GETFL as u64, libc::F_DUPFD_CLOEXEC as u64];

const FILES: Group = Group {
    why: "read files and directories, those in /proc and /sys among them; open nothing to write",
    calls: &[
        only(libc::SYS_openat, 2, WRITES, &[0]),
        #[cfg(target_arch = "x86_64")]
        only(libc::SYS_open, 1, WRITES, &[0]),
        any(libc::SYS_fstat),
        any(libc::SYS_newfstatat),
        any(libc::SYS_statx),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_stat),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_lstat),
        any(libc::SYS_getdents64),
        any(libc::SYS_readlinkat),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_readlink),
        any(libc::SYS_lseek),
        any(libc::SYS_pread64),
    ],
};

const WHAT_IS_OPEN: Group = Group {
    why: "use what is open",
    calls: &[
        any(libc::SYS_read),
        any(libc::SYS_readv),
        any(libc::SYS_write),
        any(libc::SYS_writev),
        any(libc::SYS_close),
        only(libc::SYS_fcntl, 1, WORD, FCNTLS),
        only(libc::SYS_ioctl, 1, WORD, IOCTLS),
    ],
};

const TIME: Group = Group {
    why: "wait, and read the clock",
    calls: &[
        any(libc::SYS_epoll_ctl),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_epoll_wait),
        any(libc::SYS_epoll_pwait),
        #[cfg(target_arch = "x86_64")]
        any(libc::SYS_poll),
        any(libc::SYS_ppoll),
        any(libc::SYS_futex),
        any(libc::SYS_sched_yield),
        any(libc::SYS_clock_gettime),
        any(libc::SYS_gettimeofday),
        any(libc::SYS_nanosleep),
        any(libc::SYS_clock_nanosleep),
        any(libc::SYS_restart_syscall),
    ],
};

const MEMORY: Group = Group {
    why: "memory, none of it to be executed; seeds of hash tables",
    calls: &[
        any(libc::SYS_brk),
        only(libc::SYS_mmap, 2, EXECUTABLE, &[0]),
        only(libc::SYS_mprotect, 2, EXECUTABLE, &[0]),
        any(libc::SYS_munmap),
        any(libc::SYS_mremap),
        any(libc::SYS_madvise),
        any(libc::SYS_getrandom),
    ],
};

const SIGNALS: Group = Group {
    why: "signals and the end, a panic's and an abort's among them",
    calls: &[
        any(libc::SYS_rt_sigaction),
        any(libc::SYS_rt_sigprocmask),
        any(libc::SYS_rt_sigreturn),
        any(libc::SYS_sigaltstack),
        any(libc::SYS_getpid),
        any(libc::SYS_gettid),
        any(libc::SYS_getcwd),
        any(libc::SYS_tgkill),
        any(libc::SYS_tkill),
        any(libc::SYS_exit),
        any(libc::SYS_exit_group),
    ],
};

/// A running trace's. Where the C libraries or architectures differ, each's name for a call.
pub(super) const TRACE: &[Group] = &[
    Group {
        why: "read the kernel's counts, forget those of idle addresses, set timeouts, and look at connections",
        calls: &[only(libc::SYS_bpf, 0, WORD, BPF_COMMANDS)],
    },
    FILES,
    WHAT_IS_OPEN,
    Group {
        why: "begin the file of trace --record, or of the history, again when it is full",
        calls: &[any(libc::SYS_ftruncate), any(libc::SYS_pwrite64)],
    },
    Group {
        why: "answer a scraper; connect nowhere",
        calls: &[
            any(libc::SYS_accept4),
            // Whether root asks at the agent's socket.
            only(libc::SYS_getsockopt, 2, WORD, &[libc::SO_PEERCRED as u64]),
            any(libc::SYS_recvfrom),
            any(libc::SYS_recvmsg),
            any(libc::SYS_sendto),
            any(libc::SYS_sendmsg),
            any(libc::SYS_shutdown),
        ],
    },
    TIME,
    MEMORY,
    SIGNALS,
    Group { why: "the host's name in the header of trace --json", calls: &[any(libc::SYS_uname)] },
];

/// That of a process that reads for one proxy, from when it is that proxy's user. The kernel limits what `openat2` opens to
/// what that user may open; that nothing is written has a limit of its own (`RLIMIT_FSIZE`).
pub(super) const READER: &[Group] = &[
    FILES,
    Group { why: "find files below the root directory of a process", calls: &[any(libc::SYS_openat2)] },
    WHAT_IS_OPEN,
    Group {
        why: "ask name servers over UDP and TCP; listen nowhere",
        calls: &[
            only(libc::SYS_socket, 0, WORD, &[libc::AF_INET as u64, libc::AF_INET6 as u64]),
            // How the runtime hears of signals, of which it expects none.
            only(libc::SYS_socketpair, 0, WORD, &[libc::AF_UNIX as u64]),
            any(libc::SYS_bind),
            any(libc::SYS_connect),
            any(libc::SYS_getsockopt),
            any(libc::SYS_setsockopt),
            any(libc::SYS_getsockname),
            any(libc::SYS_getpeername),
            any(libc::SYS_recvfrom),
            any(libc::SYS_recvmsg),
            any(libc::SYS_sendto),
            any(libc::SYS_sendmsg),
            any(libc::SYS_shutdown),
        ],
    },
    Group {
        why: "wait for several answers at once",
        calls: &[any(libc::SYS_epoll_create1), any(libc::SYS_eventfd2)],
    },
    TIME,
    MEMORY,
    SIGNALS,
];

/// Limits the threads that `apply` applies it to, and those that they start, to the list; gives how many calls that are.
pub(super) fn confine(
    list: &'static [Group],
    apply: impl Fn(BpfProgramRef<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    apply(&program(list, std::env::consts::ARCH.try_into()?)?)?;
    Ok(calls(list).count())
}

fn calls(list: &'static [Group]) -> impl Iterator<Item = &'static Call> {
    list.iter().flat_map(|group| group.calls)
}

fn program(list: &'static [Group], arch: TargetArch) -> Result<BpfProgram, Error> {
    let rules =
        calls(list).map(|call| Ok((call.number, rules(call)?))).collect::<Result<BTreeMap<_, _>, Error>>()?;
    let otherwise = SeccompAction::Errno(libc::EPERM as u32);
    Ok(SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()?)
}

/// One rule for each value that the argument may have; none at all where it may have any.
fn rules(call: &Call) -> Result<Vec<SeccompRule>, Error> {
    let Some(Only { argument, mask, values }) = &call.only else { return Ok(Vec::new()) };
    let rule = |value: &u64| {
        let equals = SeccompCmpOp::MaskedEq(*mask);
        Ok(SeccompRule::new(vec![SeccompCondition::new(
            *argument,
            SeccompCmpArgLen::Qword,
            equals,
            *value,
        )?])?)
    };
    values.iter().map(rule).collect()
}

/// What each group is for.
#[cfg(test)]
pub(super) fn reasons(list: &'static [Group]) -> impl Iterator<Item = &'static str> {
    list.iter().map(|group| group.why)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        fs::{self, OpenOptions},
        io::ErrorKind,
        net::{TcpListener, UdpSocket},
        process::Command,
        thread,
    };

    use seccompiler::TargetArch;

    use super::{Group, READER, TRACE, calls, confine, program};

    const LISTS: [&[Group]; 2] = [TRACE, READER];

    /// What nobody should find on a list.
    const NEVER: &[libc::c_long] = &[
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kill,
        libc::SYS_listen,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_chroot,
        libc::SYS_setuid,
        libc::SYS_setresuid,
        libc::SYS_setfsuid,
        libc::SYS_setgid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
        libc::SYS_capset,
        libc::SYS_prctl,
        libc::SYS_prlimit64,
        libc::SYS_perf_event_open,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_unlinkat,
        libc::SYS_renameat2,
        libc::SYS_io_uring_setup,
    ];

    /// What a running trace does not do, but a process does that asks name servers.
    const NEVER_IN_A_TRACE: &[libc::c_long] = &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind];

    #[test]
    fn each_list_is_short_reasoned_and_leads_nowhere() {
        for list in LISTS {
            let numbers: HashSet<_> = calls(list).map(|call| call.number).collect();
            assert_eq!(numbers.len(), calls(list).count(), "a call is listed twice");
            assert!(list.iter().all(|group| !group.why.is_empty() && !group.calls.is_empty()));
            assert!(NEVER.iter().all(|number| !numbers.contains(number)));
        }
        assert!(calls(TRACE).all(|call| !NEVER_IN_A_TRACE.contains(&call.number)));
    }

    #[test]
    fn every_architecture_has_a_program_for_each_list() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for list in LISTS {
                assert!(!program(list, arch).unwrap().is_empty());
            }
        }
    }

    #[test]
    fn what_is_not_on_the_list_is_refused_and_nobody_dies() {
        let path = std::env::temp_dir().join(format!("proxytrace-seccomp-{}", std::process::id()));
        // The filter is this thread's alone.
        thread::spawn(move || {
            confine(TRACE, seccompiler::apply_filter).unwrap();
            assert!(fs::read_to_string("/proc/thread-self/status").unwrap().contains("Seccomp:\t2"));
            assert!(fs::read_dir("/proc").unwrap().count() > 1);
            let refused = [
                UdpSocket::bind("127.0.0.1:0").map(drop),
                TcpListener::bind("127.0.0.1:0").map(drop),
                Command::new("true").status().map(drop),
                fs::write(&path, "leak"),
                OpenOptions::new().append(true).open("/dev/null").map(drop),
                fs::remove_file("/nowhere/at/all"),
            ];
            for result in refused {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            }
        })
        .join()
        .unwrap();
    }
}
