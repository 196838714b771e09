//! What the path of a control group says of the process in it. Pure.

/// The systemd unit or container of a process in the control group `path`.
pub(super) fn name(path: &str) -> Option<String> {
    // A container is more telling than the unit of the engine that started it.
    container(path).map(|id| format!("container:{id}")).or_else(|| unit(path))
}

/// The innermost service. Scopes are sessions and the like, and say nothing of what runs in them.
fn unit(path: &str) -> Option<String> {
    path.rsplit('/').find(|part| part.ends_with(".service")).map(str::to_owned)
}

/// The first 12 digits of a container's id. Engines write it as `docker-<id>.scope`, `cri-containerd-<id>.scope`,
/// `libpod-<id>.scope`, `crio-<id>` or as a directory of its own.
fn container(path: &str) -> Option<&str> {
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
    use super::name;

    #[test]
    fn units_and_containers_are_told_from_the_path() {
        const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(name(&path.replace("ID", ID)).as_deref(), expected, "{path}");
        };
        let container = Some("container:0123456789ab");
        check("/system.slice/nginx.service", Some("nginx.service"));
        check("/system.slice/system-nginx.slice/nginx@edge.service", Some("nginx@edge.service"));
        check("/user.slice/user-1000.slice/user@1000.service/app.slice/web.service", Some("web.service"));
        check("/user.slice/user-0.slice/session-3.scope", None);
        check("/", None);
        check("/system.slice/docker-ID.scope", container);
        check("/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope", container);
        check("/kubepods/burstable/pod1/ID", container);
        check("/system.slice/containerd.service/kubepods-burstable-pod1.slice:cri-containerd:ID", container);
        check("/machine.slice/libpod-ID.scope/container", container);
    }
}
