//! What the path of a control group says of the process in it. Pure.

/// The systemd unit of a process in the control group `path`: the innermost service. Scopes are sessions and the like, and
/// say nothing of what runs in them.
pub(super) fn unit(path: &str) -> Option<String> {
    path.rsplit('/').find(|part| part.ends_with(".service")).map(str::to_owned)
}

/// The first 12 digits of a container's id. Engines write it as `docker-<id>.scope`, `cri-containerd-<id>.scope`,
/// `libpod-<id>.scope`, `crio-<id>` or as a directory of its own.
pub(super) fn container(path: &str) -> Option<&str> {
    const ID_LENGTH: usize = 64;
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit(['-', ':']).next()?;
        let is_id = id.len() == ID_LENGTH && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| &id[..12])
    })
}

#[cfg(test)]
mod tests {
    use super::{container, unit};

    #[test]
    fn units_and_containers_are_told_from_the_path() {
        const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let check = |path: &str, expected_unit: Option<&str>, expected: Option<&str>| {
            let path = path.replace("ID", ID);
            assert_eq!((unit(&path).as_deref(), container(&path)), (expected_unit, expected), "{path}");
        };
        let id = Some("0123456789ab");
        check("/system.slice/nginx.service", Some("nginx.service"), None);
        check("/system.slice/system-nginx.slice/nginx@edge.service", Some("nginx@edge.service"), None);
        check(
            "/user.slice/user-1000.slice/user@1000.service/app.slice/web.service",
            Some("web.service"),
            None,
        );
        check("/user.slice/user-0.slice/session-3.scope", None, None);
        check("/", None, None);
        check("/system.slice/docker-ID.scope", None, id);
        check("/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope", None, id);
        check("/kubepods/burstable/pod1/ID", None, id);
        let nested = "/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:ID";
        check(nested, Some("containerd.service"), id);
        check("/machine.slice/libpod-ID.scope/container", None, id);
    }
}
