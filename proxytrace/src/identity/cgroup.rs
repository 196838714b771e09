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

/// Groups of what an engine runs beside a container, with the container's id in their names: its monitor is not in it.
const MONITORS: &[&str] = &["crio-conmon-", "libpod-conmon-"];

/// The group of all that podman runs without systemd: a container's is called `libpod-<id>`, and a bare id is a pod's.
const PODMAN: (&str, &str) = ("libpod_parent", "libpod-");

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
    let mut is_podmans = false;
    // Above our own control group namespace it begins with `..`.
    for part in path.split('/').filter(|part| !matches!(*part, "" | "..")) {
        let is_monitor = MONITORS.iter().any(|monitor| part.starts_with(monitor));
        if is_of_a_user(part) || is_monitor || part.starts_with("lxc") {
            return Place::default();
        }
        place.pod_uid = pod_uid(part).or(place.pod_uid);
        is_podmans |= part == PODMAN.0;
        if let Some(id) = container(part).filter(|_| !is_podmans || part.starts_with(PODMAN.1)) {
            place.container = Some(id.to_owned());
            return place;
        }
        let is_service = part.ends_with(".service");
        if is_service && is_systemds && place.unit.is_none() {
            place.unit = Some(unescaped(part).to_owned());
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

/// A user's manager may make any group below it, with any name (systemd.special(7): user.slice). Where our own control group
/// namespace begins below that slice, the path begins with what is left of it.
fn is_of_a_user(part: &str) -> bool {
    part == "user.slice"
        || (part.starts_with("user-") && part.ends_with(".slice"))
        || (part.starts_with("user@") && part.ends_with(".service"))
}

/// The unit of a group: systemd puts `_` before a name that the kernel could take for one of a group's own files, such as
/// `memory.service`, and before one that begins so (`cg_escape()`).
fn unescaped(group: &str) -> &str {
    group.strip_prefix('_').unwrap_or(group)
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

    const POD_ID: &str = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd";

    fn filled(text: &str) -> String {
        let flat = UID.replace('-', "_");
        let ids = [("UUID", UID), ("FLAT", &flat), ("OTHER", OTHER), ("PODID", POD_ID), ("ID", ID)];
        ids.iter().fold(text.to_owned(), |text, (name, id)| text.replace(name, id))
    }

    fn expected(unit: Option<&str>, container: Option<&str>, pod_uid: Option<&str>) -> Place {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Place { unit: own(unit), container: own(container), pod_uid: own(pod_uid) }
    }

    /// A path in the one hierarchy of version 2; in version 1 beside what says nothing; and in a hybrid, where version 2 has it or
    /// knows no more than the root.
    #[track_caller]
    fn check(path: &str, unit: Option<&str>, container: Option<&str>, pod_uid: Option<&str>) {
        let path = filled(path);
        for content in [
            format!("0::{path}\n"),
            format!("12:pids:{path}\n2:cpu,cpuacct:{path}\n1:name=systemd:{path}\n"),
            format!("12:pids:/\n1:name=systemd:{path}\n0::/\n"),
            format!("12:pids:{path}\n1:name=systemd:{path}\n0::{path}\n"),
        ] {
            assert_eq!(place(&content), expected(unit, container, pod_uid), "{content}");
        }
    }

    const CONTAINER: Option<&str> = Some("0123456789ab");

    #[track_caller]
    fn is_unit(path: &str, unit: &str) {
        check(path, Some(unit), None, None);
    }

    #[track_caller]
    fn is_container(path: &str) {
        check(path, None, CONTAINER, None);
    }

    #[track_caller]
    fn is_in_pod(path: &str) {
        check(path, None, CONTAINER, Some(UID));
    }

    #[track_caller]
    fn is_nothing(path: &str) {
        check(path, None, None, None);
    }

    #[test]
    fn systemd_runs_units_below_slices() {
        is_unit("/system.slice/nginx.service", "nginx.service");
        is_unit("/../../system.slice/nginx.service", "nginx.service");
        is_unit("/../../../nginx.service", "nginx.service");
        is_unit("/system.slice/system-nginx.slice/nginx@edge.service", "nginx@edge.service");
        is_unit(
            r"/system.slice/system-my\x2dnginx.slice/my-nginx@a\x2db.service",
            r"my-nginx@a\x2db.service",
        );
        is_unit("/edge.slice/edge-web.slice/edge-web-shop.slice/nginx.service", "nginx.service");
        is_unit("/system.slice/nginx.service/workers", "nginx.service");
        is_unit("/system.slice/snap.nginx.daemon.service", "snap.nginx.daemon.service");
        is_unit("/system.slice/_memory.service", "memory.service");
        is_unit("/system.slice/__edge.service", "_edge.service");
        // A container that its unit's own group is split for (podman's Quadlet): the unit says more.
        is_unit("/system.slice/web.service/libpod-payload-ID", "web.service");
        is_unit("/system.slice/web.service/supervisor", "web.service");
        is_nothing("/");
        is_nothing("/init.scope");
        is_nothing("/system.slice/run-r5c2a9b0f3d4e4a6f9c1b2d3e4f5a6b7c.scope");
        is_nothing("/user.slice/user-0.slice/session-3.scope");
        is_nothing("/user.slice/user-1000.slice/user@1000.service/app.slice/app-nginx@1.service");
    }

    #[test]
    fn machines_of_nspawn_and_lxc_have_a_manager_of_their_own() {
        is_nothing("/machine.slice/machine-web.scope/payload/system.slice/nginx.service");
        is_nothing(r"/machine.slice/machine-lxc\x2d4711\x2dweb.scope/system.slice/nginx.service");
        is_unit(
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
            "systemd-nspawn@web.service",
        );
        is_nothing("/lxc.payload.web/system.slice/nginx.service");
        is_nothing("/lxc/101/ns/system.slice/nginx.service");
        is_nothing("/lxc.monitor.web");
    }

    #[test]
    fn engines_write_the_id_of_a_container_in_ways_of_their_own() {
        // docker: systemd, cgroupfs, and with a parent that was given to it.
        is_container("/system.slice/docker-ID.scope");
        is_container("/system.slice/docker-ID.scope/init.scope");
        is_container("/docker/ID");
        is_container("/web.slice/docker-ID.scope");
        is_container("/web/ID");
        is_container("/system.slice/docker.service/docker/ID");
        is_container("/../docker-ID.scope");
        is_container("/../ID");
        // containerd: nerdctl, ctr with an id for a name; ECS.
        is_container("/system.slice/nerdctl-ID.scope");
        is_container("/default/ID");
        is_container("/ecs/1f3a9c0e5b7d4e2f8a6c1d3b5e7f9a0b/ID");
        is_container("/ecstasks.slice/ecstasks-1f3a9c0e5b7d4e2f8a6c1d3b5e7f9a0b.slice/docker-ID.scope");
        // podman: runc, crun, cgroupfs, and in a pod, which has an id as well.
        is_container("/machine.slice/libpod-ID.scope");
        is_container("/machine.slice/libpod-ID.scope/container");
        is_container("/../../libpod-ID.scope/container");
        is_container("/libpod_parent/libpod-ID");
        is_container("/libpod_parent/PODID/libpod-ID");
        is_container("/machine.slice/machine-libpod_pod_PODID.slice/libpod-ID.scope/container");
        is_nothing("/libpod_parent/PODID");
        is_nothing("/libpod_parent/conmon");
        is_nothing("/machine.slice/libpod-conmon-ID.scope");
        // A node that is a container (kind, k3d): what runs in it is in that container.
        is_container(
            "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podFLAT.slice/cri-containerd-OTHER.scope",
        );
        is_container("/docker/ID/kubepods/besteffort/podUUID/OTHER");
    }

    #[test]
    fn kubelet_has_a_group_for_each_pod() {
        // By the driver systemd: guaranteed, burstable and best effort, below a slice of one's own, and as another group sees it.
        is_in_pod("/kubepods.slice/kubepods-podFLAT.slice/cri-containerd-ID.scope");
        is_in_pod(
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podFLAT.slice/cri-containerd-ID.scope",
        );
        is_in_pod(
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podFLAT.slice/docker-ID.scope",
        );
        is_in_pod(
            "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podFLAT.slice/cri-containerd-ID.scope",
        );
        is_in_pod("/../../kubepods-burstable-podFLAT.slice/cri-containerd-ID.scope");
        is_in_pod(
            "/../../../kubepods-besteffort.slice/kubepods-besteffort-podFLAT.slice/cri-containerd-ID.scope",
        );
        is_in_pod("/../../../../kubepods.slice/kubepods-podFLAT.slice/cri-containerd-ID.scope");
        // By cgroupfs.
        is_in_pod("/kubepods/podUUID/ID");
        is_in_pod("/kubepods/burstable/podUUID/ID");
        is_in_pod("/kubepods/besteffort/podUUID/ID");
        is_in_pod("/../../podUUID/ID");
        is_in_pod("/../../../kubepods/burstable/podUUID/ID");
        is_in_pod("/system.slice/k3s.service/kubepods/podUUID/ID");
        // containerd by cgroupfs where kubelet has systemd.
        is_in_pod("/system.slice/containerd.service/kubepods-burstable-podFLAT.slice:cri-containerd:ID");
        // CRI-O, whose monitors are not in the container.
        is_in_pod("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podFLAT.slice/crio-ID.scope");
        is_in_pod("/kubepods.slice/kubepods-podFLAT.slice/crio-ID.scope/container");
        is_in_pod("/kubepods/burstable/podUUID/crio-ID");
        is_nothing("/kubepods.slice/kubepods-podFLAT.slice/crio-conmon-ID.scope");
        is_nothing("/kubepods/burstable/podUUID/crio-conmon-ID");
        is_nothing("/system.slice/crio-conmon-ID.scope");
        // A pod that was given to kubelet as a file has a hash for a UID.
        const HASH: &str = "5f2c0e9a1b7d4c3e8a6f0d2b4c6e8a0f";
        check(&format!("/kubepods/besteffort/pod{HASH}/ID"), None, CONTAINER, Some(HASH));
        let slices = "/kubepods.slice/kubepods-besteffort.slice";
        let group = format!("{slices}/kubepods-besteffort-pod{HASH}.slice/cri-containerd-ID.scope");
        check(&group, None, CONTAINER, Some(HASH));
    }

    #[test]
    fn a_container_is_found_in_whatever_hierarchy_its_engine_has_put_it() {
        // Engines that know version 1 only leave their own unit in version 2.
        let paths = "10:memory:/docker/ID\n1:name=systemd:/docker/ID\n0::/system.slice/containerd.service\n";
        assert_eq!(place(&filled(paths)), expected(None, CONTAINER, None));
        let pod = "12:pids:/kubepods/burstable/podUUID/ID\n1:name=systemd:/kubepods/burstable/podUUID/ID\n\
                   0::/system.slice/containerd.service\n";
        assert_eq!(place(&filled(pod)), expected(None, CONTAINER, Some(UID)));
        // Another group may be the same in all of them.
        let memory = "4:memory:/docker/ID\n1:name=systemd:/\n0::/\n";
        assert_eq!(place(&filled(memory)), expected(None, CONTAINER, None));
    }

    #[test]
    fn what_somebody_makes_in_a_part_that_is_delegated_says_nothing() {
        check("/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service", None, None, None);
        check("/user-1000.slice/user@1000.service/app.slice/nginx.service", None, None, None);
        check("/../user@1000.service/app.slice/nginx.service", None, None, None);
        check("/user.slice/user-1000.slice/user@1000.service/docker-ID.scope", None, None, None);
        check("/user.slice/user-1000.slice/user@1000.service/kubepods/podUUID/ID", None, None, None);
        check("/system.slice/web.service/nginx.service", Some("web.service"), None, None);
        check("/system.slice/web.service/docker-ID.scope", Some("web.service"), None, None);
        check("/system.slice/web.service/kubepods/podUUID/ID", Some("web.service"), None, None);
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
