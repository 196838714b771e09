//! What the path of a control group says of the process in it. Pure.
//!
//! Whoever a part of the hierarchy is delegated to makes groups of any name there. So the path is read from the top, and only
//! as far as its parts are those of the system's manager and of the container engine: below a unit, a container or a user's slice
//! every name is somebody's own.

/// What the host says of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The systemd unit that it runs in.
    pub unit: Option<String>,
    /// The first 12 digits of its container's id.
    pub container: Option<String>,
    /// The UID of its pod in Kubernetes.
    pub pod_uid: Option<String>,
}

/// The services of container engines: what stands below them is theirs, and no user's.
const ENGINES: &[&str] = &[
    "containerd",
    "cri-docker",
    "crio",
    "docker",
    "k3s",
    "kubelet",
    "podman",
    "rke2",
    "snap.docker.",
    "snap.microk8s.",
];

/// An engine writes an id with so many digits.
const ID_LENGTH: usize = 64;

/// So many of them are shown, as engines do.
const SHOWN_LENGTH: usize = 12;

/// The longest UID of a pod; those of UUIDs have 36 characters, those of static pods 32.
const MAX_UID_LENGTH: usize = 64;

/// What the content of /proc/PID/cgroup says. Version 2 and the named version 1 hierarchies count alike: any that says something is
/// right, but a unit is read from a hierarchy that is systemd's only.
#[must_use]
pub fn place(content: &str) -> Place {
    let mut found = Place::default();
    // hierarchy-ID:controller-list:cgroup-path (cgroups(7)); a path may hold colons.
    for line in content.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let Place { unit, container, pod_uid } = of_path(path);
        if found.container.is_none() && container.is_some() {
            (found.container, found.pod_uid) = (container, pod_uid);
        }
        if found.unit.is_none() && matches!(controllers, "" | "name=systemd") {
            found.unit = unit;
        }
    }
    // A container says more than the unit of the engine that started it.
    found.unit = found.unit.filter(|_| found.container.is_none());
    found
}

fn of_path(path: &str) -> Place {
    let mut place = Place::default();
    // Whether systemd has made all groups up to here: no unit of its is below one that somebody else has made.
    let mut is_systemds = true;
    // Above our own control group namespace it begins with `..`.
    for part in path.split('/').filter(|part| !matches!(*part, "" | "..")) {
        if is_of_a_user(part) || part.starts_with("lxc") {
            return Place::default();
        }
        place.pod_uid = pod_uid(part).or(place.pod_uid);
        if let Some(id) = container(part) {
            place.container = Some(id.to_owned());
            return place;
        }
        let is_service = part.ends_with(".service");
        if is_service && is_systemds && place.unit.is_none() {
            place.unit = Some(part.to_owned());
        }
        let is_engine = ENGINES.iter().any(|engine| part.starts_with(engine));
        // A scope is a session, or a machine with a manager of its own.
        if (is_service && !is_engine) || part.ends_with(".scope") {
            break;
        }
        is_systemds &= part.ends_with(".slice");
    }
    Place { unit: place.unit, ..Place::default() }
}

/// A user's manager may make any group below it, with any name (systemd.special(7): user.slice).
fn is_of_a_user(part: &str) -> bool {
    part == "user.slice" || (part.starts_with("user-") && part.ends_with(".slice"))
}

/// The first digits of a container's id. Engines write it as `docker-<id>.scope`, `cri-containerd-<id>.scope`,
/// `libpod-<id>.scope`, `crio-<id>` or as a directory of its own.
fn container(part: &str) -> Option<&str> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit(['-', ':']).next()?;
    let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| &id[..SHOWN_LENGTH])
}

/// The UID of a pod: kubelet writes `pod<uid>`, or for systemd `kubepods-burstable-pod<uid>.slice` with `_` for `-`, which
/// containerd may glue to the container's id.
fn pod_uid(part: &str) -> Option<String> {
    let group = part.split(':').next()?;
    let uid = match group.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod").map(|(_, uid)| uid).or_else(|| slice.strip_prefix("pod"))?,
        None => group.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    let is_uid = (1..=MAX_UID_LENGTH).contains(&uid.len())
        && uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::{Place, place};

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
    const UID: &str = "b45a2975-8186-11e7-a555-02c7d673a0c1";

    #[track_caller]
    fn check(path: &str, unit: Option<&str>, container: Option<&str>, pod_uid: Option<&str>) {
        let flat = UID.replace('-', "_");
        let path = path.replace("UUID", UID).replace("FLAT", &flat).replace("OTHER", OTHER).replace("ID", ID);
        let own = |text: Option<&str>| text.map(str::to_owned);
        let expected = Place { unit: own(unit), container: own(container), pod_uid: own(pod_uid) };
        for content in [format!("0::{path}\n"), format!("12:pids:/\n1:name=systemd:{path}\n0::/\n")] {
            assert_eq!(place(&content), expected, "{content}");
        }
    }

    #[test]
    fn units_containers_and_pods_are_read_from_the_path() {
        let id = Some("0123456789ab");
        check("/system.slice/nginx.service", Some("nginx.service"), None, None);
        check("/../../system.slice/nginx.service", Some("nginx.service"), None, None);
        check("/system.slice/system-nginx.slice/nginx@edge.service", Some("nginx@edge.service"), None, None);
        check("/user.slice/user-0.slice/session-3.scope", None, None, None);
        check("/", None, None, None);
        check("/system.slice/docker-ID.scope", None, id, None);
        check("/docker/ID", None, id, None);
        check("/machine.slice/libpod-ID.scope/container", None, id, None);
        check("/ecs/1f3a/ID", None, id, None);
        let pod = Some(UID);
        check(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podFLAT.slice/cri-containerd-ID.scope",
            None,
            id,
            pod,
        );
        check("/kubepods.slice/kubepods-podFLAT.slice/crio-ID.scope/container", None, id, pod);
        check("/kubepods/burstable/podUUID/ID", None, id, pod);
        check("/../../podUUID/ID", None, id, pod);
        check(
            "/system.slice/containerd.service/kubepods-burstable-podFLAT.slice:cri-containerd:ID",
            None,
            id,
            pod,
        );
        check("/system.slice/k3s.service/kubepods/podUUID/ID", None, id, pod);
        check(
            "/kubepods/besteffort/pod5f2c0e9a1b7d4c3e8a6f0d2b4c6e8a0f/ID",
            None,
            id,
            Some("5f2c0e9a1b7d4c3e8a6f0d2b4c6e8a0f"),
        );
    }

    #[test]
    fn what_somebody_makes_in_a_part_that_is_delegated_says_nothing() {
        check("/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service", None, None, None);
        check("/user-1000.slice/user@1000.service/app.slice/nginx.service", None, None, None);
        check("/user.slice/user-1000.slice/user@1000.service/docker-ID.scope", None, None, None);
        check("/user.slice/user-1000.slice/user@1000.service/kubepods/podUUID/ID", None, None, None);
        check("/system.slice/web.service/nginx.service", Some("web.service"), None, None);
        check("/system.slice/web.service/docker-ID.scope", Some("web.service"), None, None);
        check("/system.slice/web.service/kubepods/podUUID/ID", Some("web.service"), None, None);
        check("/lxc.payload.web/system.slice/nginx.service", None, None, None);
        check("/machine.slice/machine-web.scope/system.slice/nginx.service", None, None, None);
        check("/somebody/system.slice/nginx.service", None, None, None);
        let id = Some("0123456789ab");
        check("/docker/ID/docker/OTHER", None, id, None);
        check("/docker/ID/kubepods/podUUID/OTHER", None, id, None);
        check("/system.slice/docker-ID.scope/system.slice/nginx.service", None, id, None);
        check("/kubepods/podUUID", None, None, None);
    }

    #[test]
    fn a_unit_is_read_from_the_hierarchies_of_systemd_only() {
        let unit = |content: &str| place(content).unit;
        assert_eq!(unit("8:pids:/system.slice/nginx.service\n0::/\n"), None);
        assert_eq!(unit("8:pids:/\n0::/system.slice/a:b.service\n").as_deref(), Some("a:b.service"));
    }

    #[test]
    fn malformed_content_is_read_as_nothing() {
        for content in
            ["", "\n", "0", "0:", "0::", ":::::", "0::////", "0::/..", "x:y:z", "0::/-pod.slice", "0::/pod"]
        {
            assert_eq!(place(content), Place::default(), "{content}");
        }
    }
}
