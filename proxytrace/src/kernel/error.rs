//! Why tracing does not start, or what is counted cannot be read.

use super::{
    btf::{self, PATH as BTF_PATH},
    confinement::{Filter, PidNamespace},
    requirements,
};

/// What is wrong with another user namespace than the host's.
pub const USER_NAMESPACE: &str =
    "this is not the host's user namespace: capabilities in it count for nothing in the kernel";

/// What to do about it.
pub const USER_NAMESPACE_FIX: &str =
    "start the container as the host's root, without rootless mode, --userns or userns-remap";

/// Why tracing did not start, or a map could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process may not do it.
    #[error("cannot trace: missing capability {0}")]
    NotPermitted(requirements::Missing),
    /// Pids would be those of a container and mean other processes to the kernel.
    #[error("cannot trace: this pid namespace is {}; {}", .0.found(), .0.fix())]
    OtherPidNamespace(PidNamespace),
    /// The kernel asks for capabilities in the host's user namespace.
    #[error("cannot trace: {USER_NAMESPACE}; {USER_NAMESPACE_FIX}")]
    OtherUserNamespace,
    /// A filter of system calls.
    #[error("cannot trace: a seccomp filter refuses bpf(), although CAP_BPF is granted; {}", Filter::LIFT)]
    Filtered,
    /// The kernel lacks its type information.
    #[error(
        "cannot trace: the kernel shows no BTF type information at {BTF_PATH} ({0}); use a kernel built with \
         CONFIG_DEBUG_INFO_BTF=y, as distributions' kernels are, and mount /sys in a container"
    )]
    NoBtf(std::io::Error),
    /// The type information is not as expected.
    #[error("cannot trace: {BTF_PATH}: {0}")]
    BadBtf(#[from] btf::Error),
    /// A structure member is not there.
    #[error(
        "cannot trace: this kernel has no {0}, which the programs read; please report it with `uname -r`"
    )]
    NoMember(&'static str),
    /// It has no BPF ring buffer, as before 5.8; what is older than 5.10 is not supported.
    #[error("cannot trace: this kernel is too old: it has no BPF ring buffer; 5.10 or newer is needed")]
    KernelTooOld,
    /// The programs or maps were refused.
    #[error("cannot trace: load the kernel programs: {0}")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The program that looks at connections was refused.
    #[error("look at connections: {0}")]
    Look(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The program that finds connections which are there already was refused.
    #[error("find connections that were established before: {0}")]
    Earlier(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A hook without which nothing works.
    #[error("cannot trace: attach hook {hook}: {reason}; without it {without}")]
    Attach {
        /// The hook.
        hook: &'static str,
        /// What each way to attach it was refused with.
        reason: String,
        /// What is lost.
        without: &'static str,
    },
    /// A hook could not be attached in the way that was asked for.
    #[error(
        "cannot trace: attach hook {hook} as --hook-via asks: {reason}; without that option the best way is taken that \
         this host allows"
    )]
    Forced {
        /// The hook.
        hook: &'static str,
        /// What that way was refused with.
        reason: String,
    },
    /// A process to trace is not there.
    #[error("no process has the pid {0}; it may have ended: look it up again (pgrep -o nginx)")]
    NoSuchProcess(u32),
    /// /proc is not readable.
    #[error("read /proc: {0}")]
    Proc(#[from] procfs::ProcError),
    /// A map operation failed.
    #[error("kernel map {map}: {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: aya::maps::MapError,
    },
}

impl Error {
    /// Whether it is this host that does not let us trace, rather than a mistake in what was asked for.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        !matches!(self, Self::NoSuchProcess(_) | Self::Proc(_) | Self::Map { .. })
    }
}
