//! What keeps this process, beyond its capabilities, from what it needs: a security module, a filter of system calls, namespaces.

use std::{fs, io, ptr};

/// A security module's say in what this process may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// There is none.
    None,
    /// A profile of AppArmor that is enforced.
    AppArmor(String),
    /// One that only reports.
    Complaining(String),
    /// A context of SELinux.
    SeLinux(String),
}

impl Profile {
    /// That of this process.
    #[must_use]
    pub fn own() -> Self {
        // The first is AppArmor's own, where it is not alone (from 5.8 on).
        let files = ["/proc/self/attr/apparmor/current", "/proc/self/attr/current"];
        let text = files.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default();
        Self::of(&String::from_utf8_lossy(&text))
    }

    /// By the content of /proc/PID/attr/current.
    fn of(text: &str) -> Self {
        let text = text.trim_end_matches(['\0', '\n']);
        let is_context = !text.contains(' ') && text.split(':').count() >= 4;
        match text.rsplit_once(" (").map(|(name, mode)| (name.to_owned(), mode.trim_end_matches(')'))) {
            Some((name, "enforce" | "kill" | "mixed")) => Self::AppArmor(name),
            Some((name, _)) => Self::Complaining(name),
            None if is_context => Self::SeLinux(text.to_owned()),
            None => Self::None,
        }
    }

    /// How to lift it, where it confines anything.
    #[must_use]
    pub const fn lift(&self) -> Option<&'static str> {
        match self {
            Self::AppArmor(_) => Some(
                "lift AppArmor's profile: appArmorProfile: {type: Unconfined} in Kubernetes (before 1.30 the annotation \
                 container.apparmor.security.beta.kubernetes.io/CONTAINER: unconfined), --security-opt apparmor=unconfined \
                 with Docker or podman",
            ),
            Self::SeLinux(_) => Some(
                "give it a type that may: seLinuxOptions: {type: spc_t} in Kubernetes, --security-opt label=disable with Docker \
                 or podman",
            ),
            Self::None | Self::Complaining(_) => None,
        }
    }
}

/// What a filter of system calls (seccomp) refuses of those that tracing takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// There is no filter.
    None,
    /// Neither.
    Passes,
    /// perf_event_open(), which a hook takes that is attached by a kprobe or by the tracepoints of single system calls.
    RefusesPerf,
    /// bpf(), without which nothing works.
    RefusesBpf,
}

impl Filter {
    /// That of this process: both calls are made in vain, with what the kernel itself refuses in another way.
    #[must_use]
    pub fn own() -> Self {
        let status = procfs::process::Process::myself().and_then(|process| process.status());
        let has_filter = status.is_ok_and(|status| status.seccomp.is_some_and(|mode| mode != 0));
        Self::of(has_filter, call_bpf(), call_perf())
    }

    fn of(has_filter: bool, bpf: Option<i32>, perf: Option<i32>) -> Self {
        let is_refused = |errno| matches!(errno, Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
        match (has_filter, is_refused(bpf), is_refused(perf)) {
            (false, ..) => Self::None,
            (true, true, _) => Self::RefusesBpf,
            (true, false, true) => Self::RefusesPerf,
            (true, false, false) => Self::Passes,
        }
    }

    /// How to have it let everything through.
    pub const LIFT: &str = "allow bpf and perf_event_open: seccompProfile: {type: Unconfined}, or {type: Localhost} with a \
                            profile of your own, in Kubernetes; --security-opt seccomp=unconfined, or seccomp=FILE, with Docker or \
                            podman; SystemCallFilter=bpf perf_event_open in a systemd unit. The default profiles of older engines \
                            allow both with CAP_SYS_ADMIN only";
}

/// A command that the kernel does not know: EINVAL from whoever may use bpf().
fn call_bpf() -> Option<i32> {
    #[expect(unsafe_code, reason = "a plain call into the kernel")]
    // SAFETY: no memory is given to the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, libc::c_int::MAX, ptr::null::<u8>(), 0) };
    errno_of(result)
}

/// No description of an event: EFAULT. Kernels with a patch of distributions ask for the right to it first, and say EACCES:
/// that is no filter's doing, which only says EPERM or ENOSYS in practice.
fn call_perf() -> Option<i32> {
    #[expect(unsafe_code, reason = "a plain call into the kernel")]
    // SAFETY: the kernel reads the description from address 0, which is not there.
    let result = unsafe { libc::syscall(libc::SYS_perf_event_open, ptr::null::<u8>(), 0, -1, -1, 0) };
    errno_of(result).filter(|errno| *errno != libc::EACCES)
}

fn errno_of(result: libc::c_long) -> Option<i32> {
    if result < 0 { io::Error::last_os_error().raw_os_error() } else { None }
}

/// Whose pids this process sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PidNamespace {
    /// The host's, as the kernel programs do.
    Host,
    /// A container's own.
    Container,
    /// That of a node that is a container itself: this program runs in it, which starts containers.
    Node(String),
}

/// Programs that start containers: where one is seen from a pid namespace that is not the host's, that is the namespace of a node.
const ENGINES: &[&str] =
    &["kubelet", "kubelite", "k3s", "k3s-server", "k3s-agent", "rke2", "dockerd", "containerd", "crio"];

impl PidNamespace {
    /// That of this process.
    #[must_use]
    pub fn own() -> Self {
        /// include/linux/proc_ns.h, PROC_PID_INIT_INO.
        const INITIAL: &str = "pid:[4026531836]";
        if is_own("pid", INITIAL) { Self::Host } else { Self::of(running()) }
    }

    /// One that is not the host's, by the names of the programs in it.
    fn of(running: impl Iterator<Item = String>) -> Self {
        let mut engines = running.filter(|name| ENGINES.contains(&name.as_str()));
        engines.next().map_or(Self::Container, Self::Node)
    }

    /// What is to be said of it.
    #[must_use]
    pub fn found(&self) -> String {
        match self {
            Self::Host => "the host's".to_owned(),
            Self::Container => "not the host's: pids here mean other processes to the kernel".to_owned(),
            Self::Node(engine) => {
                format!("not the host's, but that of a node that is a container itself ({engine} runs in it)")
            }
        }
    }

    /// What to do about it; empty where there is nothing to do.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        match self {
            Self::Host => "",
            Self::Container => {
                "start the container with the host's (hostPID: true in Kubernetes, --pid=host with a container engine); in \
                 kind, k3d, minikube's docker driver and Docker Desktop's Kubernetes a pod cannot have it: nodes are containers \
                 there, so start it with --pid=host on the machine that runs them"
            }
            Self::Node(_) => {
                "in kind, k3d, minikube's docker driver and Docker Desktop's Kubernetes nodes are containers, and a pod with \
                 hostPID gets the node's pid namespace: start it with --pid=host on the machine that runs the nodes, where it \
                 sees the proxies in all of them"
            }
        }
    }
}

/// The names of the processes that are seen from here.
fn running() -> impl Iterator<Item = String> {
    let all = procfs::process::all_processes().into_iter().flatten();
    all.filter_map(|process| Some(process.ok()?.stat().ok()?.comm))
}

/// Whether the capabilities of this process count for the kernel: they are those of the host's user namespace.
#[must_use]
pub fn in_host_user_namespace() -> bool {
    /// include/linux/proc_ns.h, PROC_USER_INIT_INO.
    const INITIAL: &str = "user:[4026531837]";
    is_own("user", INITIAL)
}

/// Where it cannot be read there is no /proc, and everything else will say so.
fn is_own(kind: &str, initial: &str) -> bool {
    fs::read_link(format!("/proc/self/ns/{kind}")).map_or(true, |link| link.as_os_str() == initial)
}

#[cfg(test)]
mod tests {
    use super::{Filter, PidNamespace, Profile};

    #[test]
    fn a_profile_is_read_as_the_modules_write_it() {
        let check = |text: &str, expected: Profile| assert_eq!(Profile::of(text), expected, "{text:?}");
        let name = |name: &str| name.to_owned();
        check("docker-default (enforce)\n", Profile::AppArmor(name("docker-default")));
        check("cri-containerd.apparmor.d (enforce)\n", Profile::AppArmor(name("cri-containerd.apparmor.d")));
        check("a profile//&:ns:other (mixed)\n", Profile::AppArmor(name("a profile//&:ns:other")));
        check("containers-default-0.50.1 (kill)\n", Profile::AppArmor(name("containers-default-0.50.1")));
        check("nginx (complain)\n", Profile::Complaining(name("nginx")));
        check("toolbox (unconfined)\n", Profile::Complaining(name("toolbox")));
        check("unconfined\n", Profile::None);
        check("", Profile::None);
        check("kernel\0", Profile::None);
        let context = "system_u:system_r:container_t:s0:c14,c221";
        check(&format!("{context}\0"), Profile::SeLinux(name(context)));
        let lifted = |text: &str| Profile::of(text).lift().unwrap_or_default();
        assert!(lifted("docker-default (enforce)").contains("appArmorProfile: {type: Unconfined}"));
        assert!(lifted(context).contains("spc_t"));
        assert!(lifted("nginx (complain)").is_empty());
    }

    #[test]
    fn a_filter_is_blamed_where_there_is_one_and_the_kernel_was_not_reached() {
        let (reached, refused, unknown) = (Some(libc::EINVAL), Some(libc::EPERM), Some(libc::ENOSYS));
        assert_eq!(Filter::of(false, refused, refused), Filter::None);
        assert_eq!(Filter::of(true, reached, Some(libc::EFAULT)), Filter::Passes);
        assert_eq!(Filter::of(true, None, None), Filter::Passes);
        assert_eq!(Filter::of(true, reached, refused), Filter::RefusesPerf);
        assert_eq!(Filter::of(true, unknown, reached), Filter::RefusesBpf);
        assert_eq!(Filter::of(true, refused, refused), Filter::RefusesBpf);
    }

    #[test]
    fn a_node_is_known_by_what_starts_containers_in_it() {
        let of = |names: &[&str]| PidNamespace::of(names.iter().map(|name| (*name).to_owned()));
        assert_eq!(of(&["proxytrace"]), PidNamespace::Container);
        assert_eq!(of(&["systemd", "containerd", "nginx"]), PidNamespace::Node("containerd".to_owned()));
        assert_eq!(of(&["init", "k3s-server"]), PidNamespace::Node("k3s-server".to_owned()));
    }
}
