//! What confines this process besides its capabilities, a question a function; and what that costs.

use std::{fs, io};

use super::report::Check;
use crate::{
    identity::cgroup,
    kernel::{
        USER_NAMESPACE, USER_NAMESPACE_FIX,
        confinement::{self, Filter, PidNamespace, Profile},
        requirements::{self, SYS_ADMIN, SYS_PTRACE},
    },
    reader,
};

/// In the order in which one thing makes the next possible.
pub(super) fn checks() -> Vec<Check> {
    vec![
        user_namespace(confinement::in_host_user_namespace()),
        pid_namespace(&PidNamespace::own()),
        filter(Filter::own()),
        security_module(&Profile::own(), &reader::pods_of_host()),
    ]
}

/// Whether the kernel counts the capabilities that this process has.
fn user_namespace(is_hosts: bool) -> Check {
    const NAME: &str = "user namespace";
    if is_hosts {
        return Check::ok(NAME, "the host's");
    }
    Check::cannot(NAME, USER_NAMESPACE, USER_NAMESPACE_FIX)
}

fn pid_namespace(own: &PidNamespace) -> Check {
    const NAME: &str = "pid namespace";
    match own {
        PidNamespace::Host => Check::ok(NAME, own.found()),
        _ => Check::cannot(NAME, own.found(), own.fix()),
    }
}

fn filter(own: Filter) -> Check {
    const NAME: &str = "seccomp";
    match own {
        Filter::None => Check::ok(NAME, "no filter of system calls"),
        Filter::Passes => Check::ok(NAME, "a filter that lets bpf and perf_event_open through"),
        Filter::RefusesPerf => {
            let costs = "no hook can be attached by a kprobe or an event of perf";
            Check::costs(NAME, "a filter that refuses perf_event_open", costs, Filter::LIFT)
        }
        Filter::RefusesBpf => Check::cannot(NAME, "a filter that refuses bpf", Filter::LIFT),
    }
}

/// A security module refuses what capabilities allow. That is tried: what it is to read below the root of the host's first process.
fn security_module(own: &Profile, tried: &io::Result<usize>) -> Check {
    const NAME: &str = "security module";
    let found = match own {
        Profile::None => return Check::ok(NAME, "none confines it"),
        Profile::Complaining(name) => {
            return Check::ok(NAME, format!("AppArmor's profile {name}, which only reports"));
        }
        Profile::AppArmor(name) => format!("AppArmor's profile {name}"),
        Profile::SeLinux(context) => format!("SELinux's context {context}"),
    };
    match tried {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let costs = format!(
                "it refuses what CAP_SYS_PTRACE allows (look below /proc/1/root: {error}): pods are called by their container's \
                 id, and upstreams of proxies in other profiles unknown"
            );
            Check::lacks(NAME, found, costs, own.lift().unwrap_or_default())
        }
        _ => Check::ok(NAME, format!("{found}, which lets it look at other processes")),
    }
}

/// Names of pods are the host's to give: what the container says of itself is worth less.
pub(super) fn pod_names(has_pods: bool, tried: &io::Result<usize>, profile: &Profile, held: u64) -> Check {
    const NAME: &str = "pod names";
    if !has_pods {
        return Check::ok(NAME, "no process here runs in a pod");
    }
    let (found, fix) = match tried {
        Ok(pods) => return Check::ok(NAME, format!("from the host's /var/log/pods, which has {pods}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (
            "the host has no /var/log/pods".to_owned(),
            "have kubelet keep the logs of pods there (podLogsDir)",
        ),
        Err(error) => {
            let fix = match profile.lift() {
                Some(lift) => lift,
                None if held & SYS_PTRACE.mask() == 0 => "grant CAP_SYS_PTRACE",
                None => "let it read the host's /var/log/pods",
            };
            (format!("look below the host's root directory: {error}"), fix)
        }
    };
    let costs = "pods are called by what their own files say, with their container's id behind it, or by that id alone";
    Check::lacks(NAME, found, costs, fix)
}

/// Whether any process runs in a pod, as its control group says.
pub(super) fn has_pods() -> bool {
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    let mut groups =
        all.filter_map(|process| fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).ok());
    groups.any(|group| cgroup::place(&group).pod_uid.is_some())
}

/// What it takes to open an event, and so a kprobe or a tracepoint of one system call, beyond what it usually takes.
pub(super) fn perf_events() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    perf_events_at(text.trim().parse().ok()?, requirements::held().ok()?)
}

/// Debian's and Ubuntu's kernels have levels above 2, at which CAP_PERFMON is not enough.
fn perf_events_at(level: i32, held: u64) -> Option<String> {
    let is_enough = level < 3 || held & SYS_ADMIN.mask() != 0;
    (!is_enough).then(|| {
        format!("where kernel.perf_event_paranoid is {level}, it also takes CAP_SYS_ADMIN (or sysctl kernel.perf_event_paranoid=2)")
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{filter, perf_events_at, pid_namespace, pod_names, security_module, user_namespace};
    use crate::{
        doctor::report::{Check, State},
        kernel::{
            confinement::{Filter, PidNamespace, Profile},
            requirements::{SYS_ADMIN, SYS_PTRACE},
        },
    };

    #[track_caller]
    fn is(check: &Check, state: State, words: &[&str]) {
        assert_eq!(check.state, state, "{check:?}");
        assert_eq!(check.fix.is_empty(), state == State::Ok, "{check:?}");
        let text = format!("{} {} {}", check.found, check.costs, check.fix);
        for word in words {
            assert!(text.contains(word), "{word} is not in {check:?}");
        }
    }

    fn denied() -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(libc::EACCES))
    }

    fn missing() -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    #[test]
    fn a_profile_is_to_blame_where_the_hosts_root_cannot_be_looked_below() {
        let docker = Profile::AppArmor("docker-default".to_owned());
        is(&security_module(&Profile::None, &denied()), State::Ok, &["none"]);
        is(&security_module(&docker, &Ok(3)), State::Ok, &["docker-default", "lets it"]);
        is(&security_module(&docker, &missing()), State::Ok, &["lets it"]);
        let words = ["profile docker-default", "/proc/1/root: Permission denied", "apparmor=unconfined"];
        is(&security_module(&docker, &denied()), State::Lacks, &words);
        let context = Profile::SeLinux("system_u:system_r:container_t:s0".to_owned());
        is(&security_module(&context, &denied()), State::Lacks, &["container_t", "spc_t"]);
        is(&security_module(&Profile::Complaining("x".to_owned()), &denied()), State::Ok, &["only reports"]);
    }

    #[test]
    fn pods_are_named_by_the_host_or_it_is_said_by_whom() {
        let (none, held) = (Profile::None, SYS_PTRACE.mask());
        is(&pod_names(false, &denied(), &none, held), State::Ok, &["no process here runs in a pod"]);
        is(&pod_names(true, &Ok(3), &none, held), State::Ok, &["/var/log/pods, which has 3"]);
        is(&pod_names(true, &missing(), &none, held), State::Lacks, &["their own files", "podLogsDir"]);
        is(
            &pod_names(true, &denied(), &none, 0),
            State::Lacks,
            &["Permission denied", "grant CAP_SYS_PTRACE"],
        );
        is(&pod_names(true, &denied(), &none, held), State::Lacks, &["let it read"]);
        let docker = Profile::AppArmor("docker-default".to_owned());
        let lift = "appArmorProfile: {type: Unconfined}";
        is(&pod_names(true, &denied(), &docker, held), State::Lacks, &[lift]);
    }

    #[test]
    fn a_filter_and_namespaces_say_how_to_be_without_them() {
        is(&filter(Filter::None), State::Ok, &[]);
        is(&filter(Filter::Passes), State::Ok, &["lets bpf"]);
        is(&filter(Filter::RefusesPerf), State::Costs, &["kprobe", "seccomp=unconfined"]);
        is(
            &filter(Filter::RefusesBpf),
            State::Cannot,
            &["seccompProfile: {type: Unconfined}", "CAP_SYS_ADMIN"],
        );
        is(&user_namespace(true), State::Ok, &[]);
        is(&user_namespace(false), State::Cannot, &["count for nothing", "rootless"]);
        is(&pid_namespace(&PidNamespace::Host), State::Ok, &[]);
        is(&pid_namespace(&PidNamespace::Container), State::Cannot, &["hostPID: true", "--pid=host", "kind"]);
        let node = PidNamespace::Node("kubelet".to_owned());
        is(&pid_namespace(&node), State::Cannot, &["kubelet", "k3d", "Docker Desktop", "on the machine"]);
    }

    #[test]
    fn an_event_takes_more_above_level_two() {
        assert_eq!(perf_events_at(2, 0), None);
        assert_eq!(perf_events_at(4, SYS_ADMIN.mask()), None);
        let words = perf_events_at(3, SYS_PTRACE.mask()).unwrap();
        assert!(words.contains("perf_event_paranoid is 3") && words.contains("CAP_SYS_ADMIN"), "{words}");
    }
}
