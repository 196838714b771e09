//! In which pod of Kubernetes a process runs, without asking Kubernetes: its control group has the pod's UID, its mounts the name of
//! the container, the host's directory of logs the pod of that UID. Where there is no such directory, the files say it that kubelet
//! gives the container; and the container could have written them itself.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
};

use super::{
    owner::{Process, Wanted},
    root::Root,
};
use crate::identity::{
    cgroup,
    pod::{self, Located, Pod, checked, host_of_hosts, namespace_of_resolver, of_logs},
};

/// Where kubelet keeps a directory for each pod, unless its `podLogsDir` says otherwise.
const LOGS: &str = "/var/log/pods";

/// With more directories of one UID none is believed: there is one.
const MAX_LOGS: usize = 8;

/// No more of a table of mounts is read, in bytes.
const MAX_MOUNTINFO: u64 = 8 << 20;

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

fn uid_of(pid: u32) -> Option<String> {
    cgroup::place(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?).pod_uid
}

fn container_of(pid: u32, uid: &str) -> Result<String, String> {
    let mut mounts = String::new();
    let path = format!("/proc/{pid}/mountinfo");
    let read = File::open(&path).and_then(|table| table.take(MAX_MOUNTINFO).read_to_string(&mut mounts));
    read.map_err(|error| format!("{path}: {error}"))?;
    pod::container(&mounts, uid).ok_or_else(|| format!("{path} names no container of pod {uid}"))
}

/// Where the first of the processes runs that is in a pod, if all of that is known. The host's logs are looked at with our
/// own rights, the container's files with those of its process.
pub(super) fn of_any(pids: &[u32]) -> Located {
    let in_pod = pids.iter().find_map(|&pid| Some((pid, uid_of(pid)?)));
    let Some((pid, uid)) = in_pod else { return Located::default() };
    let container = match container_of(pid, &uid) {
        Ok(container) => container,
        Err(problem) => return Located { pod: None, problem: Some(problem) },
    };
    let by_host = host_root().and_then(|host| names_in_logs(&host, &uid, &container));
    let (names, problem) = match by_host {
        Ok(names) => (Some((names, false)), None),
        Err(problem) => (claimed_names(pid).map(|names| (names, true)), Some(problem)),
    };
    let pod = names.map(|((namespace, name), is_claimed)| Pod { namespace, name, container, is_claimed });
    Located { pod, problem }
}

/// How many directories the host keeps for pods.
///
/// # Errors
/// They cannot be read, and why.
pub(super) fn count_of_host() -> io::Result<usize> {
    let names = Root::of_host()?.list(Path::new(LOGS))?;
    Ok(names.iter().filter(|name| *name != "." && *name != "..").count())
}

fn host_root() -> Result<Root, String> {
    Root::of_host().map_err(|error| format!("look below /proc/1/root: {error}"))
}

/// What the host keeps for that container of the pod: a container can mount what it likes, but not have logs there.
fn names_in_logs(host: &Root, uid: &str, container: &str) -> Result<(String, String), String> {
    let logs = Path::new(LOGS);
    let names = host.list(logs).map_err(|error| format!("read the host's {LOGS}: {error}"))?;
    let end = format!("_{uid}");
    let mut of_uid: Vec<_> =
        names.iter().filter_map(|name| name.to_str()).filter(|name| name.ends_with(&end)).collect();
    if of_uid.len() > MAX_LOGS {
        return Err(format!("the host's {LOGS} has {} directories of pod {uid}", of_uid.len()));
    }
    of_uid.sort_unstable();
    let mut of_container = of_uid.into_iter().filter(|name| host.exists(&logs.join(name).join(container)));
    let found = of_container.find_map(|name| of_logs(name, uid));
    found.ok_or_else(|| format!("the host's {LOGS} has nothing of pod {uid}, container {container}"))
}

fn claimed_names(pid: u32) -> Option<(String, String)> {
    let has_host_name = has_host_name_of_its_own(pid);
    let opened = Process::open(pid).and_then(|process| process.become_owner(Wanted::default()));
    names_inside(&opened.ok()?.root, has_host_name)
}

/// What the container's own files say; with the host's network its host name is the node's.
fn names_inside(root: &Root, has_host_name: bool) -> Option<(String, String)> {
    let namespace = checked(&root.text(SERVICE_ACCOUNT))
        .or_else(|| namespace_of_resolver(&root.text("/etc/resolv.conf")))?;
    let name = has_host_name.then(|| {
        checked(&root.text("/etc/hostname")).or_else(|| host_of_hosts(&root.text("/etc/hosts")))
    })??;
    Some((namespace, name))
}

fn has_host_name_of_its_own(pid: u32) -> bool {
    /// include/linux/proc_ns.h, PROC_UTS_INIT_INO.
    const INITIAL: &str = "uts:[4026531838]";
    fs::read_link(format!("/proc/{pid}/ns/uts")).is_ok_and(|link| link.as_os_str() != INITIAL)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Located, names_in_logs, names_inside};
    use crate::reader::root::Root;

    const UID: &str = "b45a2975-8186-11e7-a555-02c7d673a0c1";

    /// A root directory with these files; gone when it is dropped.
    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::at(directory.path()).unwrap();
        (directory, root)
    }

    fn pair((one, other): (&str, &str)) -> (String, String) {
        (one.to_owned(), other.to_owned())
    }

    #[test]
    fn the_hosts_logs_say_what_pod_has_a_uid() {
        let (_directory, host) = root(&[
            (&format!("var/log/pods/shop_edge-0_{UID}/edge/0.log"), ""),
            ("var/log/pods/shop_edge-1_c0ffee00-8186-11e7-a555-02c7d673a0c1/edge/0.log", ""),
        ]);
        assert_eq!(names_in_logs(&host, UID, "edge"), Ok(pair(("shop", "edge-0"))));
        let refused = |host: &Root, uid: &str, container: &str, why: &str| {
            let error = names_in_logs(host, uid, container).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        refused(&host, UID, "payments", "has nothing of pod");
        refused(&host, "00000000-8186-11e7-a555-02c7d673a0c1", "edge", "has nothing of pod");
        refused(&root(&[]).1, UID, "edge", "No such file");
    }

    #[test]
    fn a_containers_own_files_say_it_where_there_are_no_logs() {
        const ACCOUNT: (&str, &str) = ("var/run/secrets/kubernetes.io/serviceaccount/namespace", "shop");
        const RESOLVER: (&str, &str) = ("etc/resolv.conf", "search web.svc.cluster.local\n");
        const HOSTNAME: (&str, &str) = ("etc/hostname", "edge-0\n");
        const HOSTS: (&str, &str) = ("etc/hosts", "# Kubernetes-managed hosts file.\n10.244.1.7\tedge-1\n");
        let check = |files: &[(&str, &str)], has_host_name: bool, expected: Option<(&str, &str)>| {
            let (_directory, root) = root(files);
            assert_eq!(names_inside(&root, has_host_name), expected.map(pair), "{files:?}");
        };
        check(&[ACCOUNT, RESOLVER, HOSTNAME, HOSTS], true, Some(("shop", "edge-0")));
        check(&[RESOLVER, HOSTS], true, Some(("web", "edge-1")));
        check(&[ACCOUNT, HOSTNAME, HOSTS], false, None);
        check(&[ACCOUNT], true, None);
        check(&[HOSTNAME, HOSTS], true, None);
        check(&[("etc/hostname", "../../etc\n"), ACCOUNT], true, None);
    }

    #[test]
    fn a_process_in_no_control_group_of_a_pod_is_in_none() {
        assert!(Path::new("/proc/self/mountinfo").exists());
        assert_eq!(super::of_any(&[std::process::id()]), Located::default());
    }
}
