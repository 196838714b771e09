//! What /proc says of a proxy, by one of its processes.

use std::{fs, path::PathBuf, time::Instant};

use procfs::process::Process;
use proxytrace_ebpf::abi::Owner;

use super::{Identity, Source, cgroup};
use crate::{
    escape,
    programs::{self, Arguments, Role},
};

/// As many parents of one name are followed at most to find a proxy's first process.
const MAX_PARENTS: usize = 8;

/// What /proc says of a proxy.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) identity: Identity,
    pub(super) since: Instant,
    /// When its first process was started, in clock ticks since the host was.
    pub(super) started: u64,
    /// Of what it was started with: the same after a restart.
    pub(super) fingerprint: u32,
    /// It does an errand and ends, such as `nginx -t`: nobody shares a name with it.
    pub(super) is_errand: bool,
    /// Its control group is one of a pod.
    pub(super) is_in_pod: bool,
    /// It runs in a pid namespace that is not the host's.
    pub(super) is_elsewhere: bool,
}

/// What is seen of a proxy by one of its processes, and the configuration that its command line names by an absolute path.
pub(super) fn inspect(pid: u32) -> Option<(Seen, Option<PathBuf>)> {
    let process = first_of_its_name(Process::new(pid.cast_signed()).ok()?);
    let stat = process.stat().ok()?;
    let place = cgroup::place(&fs::read_to_string(format!("/proc/{}/cgroup", process.pid)).ok()?);
    let namespace = pid_namespace(&process);
    let (name, source) = match (&place.container, &place.unit) {
        (Some(id), _) => (format!("container:{id}"), Source::Container),
        (None, Some(unit)) => (unit.clone(), Source::Unit),
        (None, None) => {
            (of_owner(&stat.comm, Owner::new(process.status().ok()?.ruid, namespace)), Source::Process)
        }
    };
    let cmdline = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let exe = process.exe().unwrap_or_else(|_| (&stat.comm).into());
    let arguments = match programs::role(&cmdline, &exe) {
        Role::Master(arguments) => Some(arguments),
        Role::Worker | Role::Other => None,
    };
    let root = fs::read_link(format!("/proc/{}/root", process.pid)).unwrap_or_default();
    // nginx changes its title, but not what its arguments mean.
    let started_with = arguments.as_ref().map_or_else(|| cmdline.clone(), Arguments::to_bytes);
    let configuration = arguments.as_ref().and_then(Arguments::absolute_config);
    let seen = Seen {
        identity: Identity {
            name: escape::printable(&name).into_owned(),
            process: stat.comm,
            source,
            unit: place.unit,
            container: place.container,
            pod: None,
        },
        since: Instant::now(),
        started: stat.starttime,
        fingerprint: fingerprint([root.as_os_str().as_encoded_bytes(), &started_with]),
        is_errand: arguments.is_some_and(|arguments| arguments.is_errand),
        is_in_pod: place.pod_uid.is_some(),
        is_elsewhere: namespace != Owner::HOST_ROOT.pid_namespace,
    };
    Some((seen, configuration))
}

/// The process, or the parent that has the same name, or its: everything is read of the first one, whichever is seen first. A
/// worker runs as another user than its master.
fn first_of_its_name(mut process: Process) -> Process {
    for _ in 0..MAX_PARENTS {
        let Ok(stat) = process.stat() else { break };
        let Ok(parent) = Process::new(stat.ppid) else { break };
        if !parent.stat().is_ok_and(|parent| parent.comm == stat.comm) {
            break;
        }
        process = parent;
    }
    process
}

/// The pid namespace of the process. Where nobody may know it, it is the host's.
fn pid_namespace(process: &Process) -> u32 {
    let link = fs::read_link(format!("/proc/{}/ns/pid", process.pid)).unwrap_or_default();
    let link = link.to_string_lossy();
    let inode = link.strip_prefix("pid:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    inode.unwrap_or(Owner::HOST_ROOT.pid_namespace)
}

/// What a process is called that nothing else is known of. Its name is its own to choose, so that others' have their user in it:
/// only the host's own root is called as its processes are. The root of another pid namespace is 0, as that namespace has no name
/// that lasts.
pub(super) fn of_owner(comm: &str, owner: Owner) -> String {
    if owner == Owner::HOST_ROOT { comm.to_owned() } else { format!("{comm}@{}", owner.uid) }
}

/// The same in every version; it distinguishes what nobody made to collide.
pub(super) fn fingerprint(parts: [&[u8]; 2]) -> u32 {
    let hash = escape::hash(parts);
    (hash ^ hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::{Owner, of_owner};

    #[test]
    fn nobody_elses_process_is_called_as_roots_are() {
        let host = Owner::HOST_ROOT.pid_namespace;
        assert_eq!(of_owner("nginx", Owner::new(0, host)), "nginx");
        assert_eq!(of_owner("nginx.service", Owner::new(1000, host)), "nginx.service@1000");
        assert_eq!(of_owner("nginx", Owner::new(0, 4_026_532_245)), "nginx@0", "a container's root");
    }
}
