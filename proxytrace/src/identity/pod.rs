//! Which pod of Kubernetes has a UID, and in which of its containers a process runs: what kubelet mounts into a
//! container and writes there, and where it keeps the logs. Pure.

use serde::{Deserialize, Serialize};

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The namespace of the pod.
    pub namespace: String,
    /// The name of the pod.
    pub name: String,
    /// The name of the container in it.
    pub container: String,
    /// Namespace and name are what the container's own files say: the host did not confirm them.
    pub is_claimed: bool,
}

/// Where a proxy runs, as far as it can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// In Kubernetes; `None` elsewhere, and where that is not known.
    pub pod: Option<Pod>,
    /// Why the host does not tell the name of the pod that it runs in.
    pub problem: Option<String>,
}

impl Pod {
    /// What a proxy in it is called; `container` are the digits of its id. A name that the container claims has them in it,
    /// so that it is never that of the real one, whoever comes first.
    #[must_use]
    pub fn proxy(&self, container: &str) -> String {
        let Self { namespace, name, container: own, is_claimed } = self;
        let id = if *is_claimed { format!("@{container}") } else { String::new() };
        format!("{namespace}/{name}/{own}{id}")
    }
}

/// The name of the container by the content of /proc/PID/mountinfo, for a process in the pod `uid`. For its last words kubelet
/// gives each container a file that is `pods/UID/containers/NAME/…` below its own directory; where it is mounted is the
/// container's to choose. What a mount says of another pod is not kubelet's.
#[must_use]
pub fn container(mountinfo: &str, uid: &str) -> Option<String> {
    // The fourth field is what is mounted, a path in its file system (proc_pid_mountinfo(5)).
    let roots = mountinfo.lines().filter_map(|line| line.split(' ').nth(3));
    roots.filter_map(|root| last_words(root, uid)).next()
}

fn last_words(root: &str, uid: &str) -> Option<String> {
    let mut parts = root.rsplit('/').skip(1);
    let (container, containers, of, pods) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // A volume of the pod is below that directory as well, and what is in it is the container's.
    let is_volume = parts.any(|part| part == uid);
    let is_it = containers == "containers" && pods == "pods" && of == uid && !is_volume;
    (is_it && is_name(container)).then(|| container.to_owned())
}

/// The namespace and name of a pod by the directory of its logs, `NAMESPACE_NAME_UID`.
#[must_use]
pub fn of_logs(directory: &str, uid: &str) -> Option<(String, String)> {
    let (namespace, name) = directory.strip_suffix(uid)?.strip_suffix('_')?.split_once('_')?;
    Some((checked(namespace)?, checked(name)?))
}

/// The namespace by a container's /etc/resolv.conf: its names are searched in `NAMESPACE.svc.DOMAIN` first.
#[must_use]
pub fn namespace_of_resolver(text: &str) -> Option<String> {
    let lines = text.lines().map(str::split_whitespace);
    let domains = lines.filter_map(|mut words| (words.next() == Some("search")).then_some(words)).flatten();
    let mut namespaces = domains.filter_map(|domain| {
        let (namespace, rest) = domain.split_once('.')?;
        (rest.split('.').next() == Some("svc")).then_some(namespace)
    });
    checked(namespaces.next()?)
}

/// The name of the host by a container's /etc/hosts, if kubelet has written it and not copied the node's.
#[must_use]
pub fn host_of_hosts(text: &str) -> Option<String> {
    let lines = text.strip_prefix("# Kubernetes-managed hosts file.\n")?.lines();
    let mut names = lines.filter(|line| !line.starts_with('#')).filter_map(|line| {
        let names: Vec<_> = line.split_whitespace().skip(1).collect();
        let is_usual = |name: &&str| *name == "localhost" || name.starts_with("ip6-");
        // Its domain, where it has one, is part of the first of its names.
        names.last().copied().filter(|_| !names.iter().any(is_usual))
    });
    checked(names.next()?)
}

/// The text without the end of its line, if it can be a name.
#[must_use]
pub fn checked(text: &str) -> Option<String> {
    let name = text.trim_end();
    is_name(name).then(|| name.to_owned())
}

/// Whether Kubernetes takes it for the name of an object (RFC 1123). A container may have written anything.
fn is_name(text: &str) -> bool {
    const LONGEST: usize = 253;
    let is_inner = |byte: u8| byte == b'-' || byte == b'.';
    let is_outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST
        && bytes.iter().all(|byte| is_outer(*byte) || is_inner(*byte))
        && bytes.first().is_some_and(|byte| is_outer(*byte))
        && bytes.last().is_some_and(|byte| is_outer(*byte))
}

#[cfg(test)]
mod tests {
    use super::{Pod, checked, container, host_of_hosts, namespace_of_resolver, of_logs};

    const UID: &str = "b45a2975-8186-11e7-a555-02c7d673a0c1";

    #[test]
    fn mounts_tell_the_container_of_the_pod_that_the_control_group_names() {
        let check = |root: &str, uid: &str, expected: Option<&str>| {
            let mountinfo = format!(
                "829 1004 0:113 / / rw,relatime - overlay overlay rw,lowerdir=/pods/x/containers/y/z\n\
                 840 829 0:26 {root} /dev/termination-log rw,relatime master:1 - ext4 /dev/vda1 rw\n"
            );
            assert_eq!(container(&mountinfo, uid).as_deref(), expected, "{root}");
        };
        check(&format!("/var/lib/kubelet/pods/{UID}/containers/edge/1f3a"), UID, Some("edge"));
        // A file system of kubelet's own, and a pod that was given to kubelet as a file.
        const STATIC: &str = "5f2c0e9a1b7d4c3e8a6f0d2b4c6e8a0f";
        check(&format!("/pods/{STATIC}/containers/web-1/0"), STATIC, Some("web-1"));
        check(&format!("/var/lib/kubelet/pods/{UID}/etc-hosts"), UID, None);
        check(&format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~configmap/conf"), UID, None);
        check(&format!("/var/lib/kubelet/pods/{UID}/containers/Edge{{}}/0"), UID, None);
        check("/", UID, None);
        // A container may mount what it likes: another pod's UID is not its own, a volume's path is its to choose.
        check(&format!("/pods/{STATIC}/containers/web-1/0"), UID, None);
        let volume = format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~empty-dir/v");
        check(&format!("{volume}/pods/{UID}/containers/payments/0"), UID, None);
    }

    #[test]
    fn a_claimed_name_is_never_that_of_the_real_pod() {
        let [namespace, name, container] = ["shop", "edge-0", "nginx"].map(str::to_owned);
        let real = Pod { namespace, name, container, is_claimed: false };
        assert_eq!(real.proxy("0123456789ab"), "shop/edge-0/nginx");
        let claimed = Pod { is_claimed: true, ..real };
        assert_eq!(claimed.proxy("0123456789ab"), "shop/edge-0/nginx@0123456789ab");
    }

    #[test]
    fn logs_tell_the_namespace_and_the_pod() {
        let check = |directory: &str, expected: Option<(&str, &str)>| {
            let found = of_logs(directory, UID);
            assert_eq!(found.as_ref().map(|(one, other)| (&**one, &**other)), expected, "{directory}");
        };
        check(&format!("shop_edge-6d4f9_{UID}"), Some(("shop", "edge-6d4f9")));
        check(&format!("shop_edge.web-0_{UID}"), Some(("shop", "edge.web-0")));
        check(UID, None);
        check(&format!("shop_{UID}"), None);
        check("shop_edge_0", None);
    }

    #[test]
    fn the_namespace_is_read_from_the_resolver() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(namespace_of_resolver(text).as_deref(), expected, "{text:?}");
        };
        check(
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.9\n",
            Some("shop"),
        );
        check("nameserver 127.0.0.9\nsearch\tcorp.example shop.svc.k8s.corp.example\n", Some("shop"));
        check("search corp.example\noptions ndots:5\n", None);
        check("search svc.cluster.local\n", None);
        check("# search shop.svc.cluster.local\n", None);
        check("", None);
    }

    #[test]
    fn hosts_tell_the_name_if_kubelet_wrote_them() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(host_of_hosts(text).as_deref(), expected, "{text:?}");
        };
        const USUAL: &str =
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n";
        let managed = |rest: &str| format!("# Kubernetes-managed hosts file.\n{USUAL}{rest}");
        check(&managed("10.244.1.7\tedge-6d4f9\n"), Some("edge-6d4f9"));
        check(&managed("10.244.1.7\tedge-0.edge.shop.svc.cluster.local\tedge-0\n"), Some("edge-0"));
        let aliases = "10.244.1.7\tedge-0\n\n# Entries added by HostAliases.\n10.1.2.3\tother\n";
        check(&managed(aliases), Some("edge-0"));
        check(&managed(""), None);
        check(&format!("# Kubernetes-managed hosts file (host network).\n{USUAL}10.0.0.7\tnode-7\n"), None);
        check(&format!("{USUAL}10.0.0.7\tnode-7\n"), None);
    }

    #[test]
    fn what_can_be_no_name_is_none() {
        let check =
            |text: &str, expected: Option<&str>| assert_eq!(checked(text).as_deref(), expected, "{text:?}");
        check("shop\n", Some("shop"));
        check("a.b-1", Some("a.b-1"));
        check("", None);
        check("../etc", None);
        check("a/b", None);
        check("Shop", None);
        check("shop\nfront", None);
        check("-a", None);
        check(&"a".repeat(254), None);
    }
}
