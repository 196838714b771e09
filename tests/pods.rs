//! A proxy in Kubernetes is called by its namespace, pod and container. Kubelet's part is played here: its directories, what
//! it mounts from them into a container and writes there, and the container's control group and host name.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proxytrace_tests::child::Guarded;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{self, Agent, Trace};
use proxytrace_tests::wait::{self, SOON};
use proxytrace_tests::{child, scratch};
use tempfile::TempDir;

/// Where nobody listens.
const CLOSED: &str = "127.0.0.1:8081";

const UID: &str = "b45a2975-8186-11e7-a555-02c7d673a0c1";
const CONTAINER_ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What is said of a name that the container claims, as the host's directory of logs has nothing of it; and where it claims none.
const CLAIMED: &str = "its namespace and pod are what its own files say, as the host does not: ";
const UNNAMED: &str = "it is called by its container's id, as the name of its pod is not known: ";

/// The container has an /etc, a /dev and a /run of its own; then it becomes the program that the arguments name.
const START: &str = r#"
set -e
echo $$ > "$CGROUP/cgroup.procs"
mount --bind "$FILES/etc" /etc
mount -t tmpfs none /dev
mknod -m 666 /dev/null c 1 3
touch /dev/termination-log
mount --bind "$POD/containers/edge/1f3a" /dev/termination-log
mount --bind "$POD/etc-hosts" /etc/hosts
mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
cp "$FILES"/account/* /run/secrets/kubernetes.io/serviceaccount/
if [ -n "$NAME" ]; then hostname "$NAME"; fi
exec "$@"
"#;

/// What a container finds in it, and whether it has a host name of its own.
struct Files {
    account: Option<&'static str>,
    resolver: &'static str,
    hostname: Option<&'static str>,
    hosts: &'static str,
    host_name: Option<&'static str>,
    /// The UID of the pod that its control group is of.
    group_uid: &'static str,
}

const USUAL: Files = Files {
    account: Some("shop"),
    resolver: "search other.svc.cluster.local svc.cluster.local cluster.local\nnameserver 127.0.0.9\n",
    hostname: Some("edge-0"),
    hosts: "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.244.1.7\tedge-1\n",
    host_name: Some("edge-0"),
    group_uid: UID,
};

#[test]
fn a_proxy_in_kubernetes_is_called_by_its_namespace_pod_and_container() {
    check(&USUAL, "shop/edge-0/edge@0123456789ab", ["shop", "edge-0", "edge", "pod_claimed"], CLAIMED);
}

#[test]
fn without_a_service_account_and_a_hostname_file_the_resolver_file_of_kubelet_names_it() {
    let files = Files { account: None, hostname: None, ..USUAL };
    check(&files, "other/edge-1/edge@0123456789ab", ["other", "edge-1", "edge", "pod_claimed"], CLAIMED);
}

#[test]
fn with_the_hosts_name_it_keeps_the_name_of_its_container() {
    let files = Files {
        host_name: None,
        hosts: "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tlocalhost\n10.0.0.7\tnode-7\n",
        ..USUAL
    };
    check(&files, "container:0123456789ab", ["", "", "0123456789ab", "container"], UNNAMED);
}

#[test]
fn what_is_mounted_from_another_pod_makes_no_container_one_of_that_pod() {
    let files = Files { group_uid: "0badc0ff-8186-11e7-a555-02c7d673a0c1", ..USUAL };
    let doubt = "mountinfo names no container of pod 0badc0ff-8186-11e7-a555-02c7d673a0c1";
    check(&files, "container:0123456789ab", ["", "", "0123456789ab", "container"], doubt);
}

/// Both who is there before the container and who comes later call it so, from the first record on.
#[track_caller]
fn check(files: &Files, name: &str, labels: [&str; 4], doubt: &str) {
    let (netns, container) = (Netns::new(), Container::new(files));
    let mut nginx = Nginx::prepare(Default::default(), &proxy_to(CLOSED, ""));
    let arguments = ["--process", nginx.name(), "--all"].map(str::to_owned);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let early = Trace::start(&arguments);
    let _process = container.run(&netns, &nginx);
    nginx.wait_until_serving();
    let (late, agent) = (Trace::start(&arguments), Agent::start(&arguments[..2]));

    assert_eq!(nginx.get("/"), 502);

    assert_eq!(early.next().proxy, name, "the first record, of a worker that starts");
    for trace in [&early, &late] {
        let record = trace.next_of("connect");
        assert_eq!((&*record.proxy, &*record.outcome), (name, "refused"));
    }
    // That the name is the container's own claim, or less than it should be, is said and why.
    let is_said = |stderr: String| {
        let about = format!("proxy {name}, process ");
        stderr.lines().any(|line| line.contains(&about) && line.contains(doubt))
    };
    for stderr in [&|| early.stderr(), &|| late.stderr(), &|| agent.stderr()] as [&dyn Fn() -> String; 3] {
        wait::until_true("it to say so", SOON, || is_said(stderr()));
    }
    let output = proxytrace::command().args(["doctor", "--process", nginx.name()]).output();
    let output = output.expect("run doctor");
    let report = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for words in ["lacks   pod names ", &format!("1 running: {name} (pid "), &format!("costs: {name}: ")] {
        assert!(report.contains(words), "{words} is not in:\n{report}");
    }
    let metrics = agent.metrics();
    let [namespace, pod, container, source] = labels;
    let labels = [
        ("proxy", name),
        ("proxy_namespace", namespace),
        ("proxy_pod", pod),
        ("proxy_container", container),
        ("name_source", source),
    ];
    assert_eq!(metrics.count("proxytrace_proxy_info", &labels), 1, "{}", metrics.text);
    assert_eq!(metrics.values_of("proxy", "proxytrace_workers", &[]), [name]);
    assert_eq!(metrics.values_of("proxy", "proxytrace_connect_attempts_total", &[]), [name]);
}

/// What kubelet and the container engine lay out for one container.
struct Container {
    directory: TempDir,
    group: Group,
    host_name: Option<&'static str>,
}

impl Container {
    fn new(files: &Files) -> Self {
        let directory = scratch::directory();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
            fs::write(&path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        };
        write(&format!("pods/{UID}/containers/edge/1f3a"), "");
        write(&format!("pods/{UID}/etc-hosts"), files.hosts);
        write("etc/hosts", "");
        write("etc/resolv.conf", files.resolver);
        write("account/token", "none");
        for (path, text) in [("etc/hostname", files.hostname), ("account/namespace", files.account)] {
            if let Some(text) = text {
                write(path, &format!("{text}\n"));
            }
        }
        // What nginx itself needs there.
        for file in ["passwd", "group", "nsswitch.conf", "ld.so.cache"] {
            let _ = fs::copy(Path::new("/etc").join(file), directory.path().join("etc").join(file));
        }
        Self { directory, group: Group::new(files.group_uid), host_name: files.host_name }
    }

    /// Runs nginx in it.
    fn run(&self, netns: &Netns, nginx: &Nginx) -> Guarded {
        let of_nginx = nginx.command();
        let words = std::iter::once(of_nginx.get_program()).chain(of_nginx.get_args());
        let words: Vec<OsString> = words.map(ToOwned::to_owned).collect();
        let files = self.directory.path();
        let mut command = Command::new("unshare");
        command.arg("--mount").args(self.host_name.map(|_| "--uts"));
        command.args(["sh", "-c", START, "sh"]).args(words);
        command.env("FILES", files).env("POD", files.join("pods").join(UID));
        command.env("CGROUP", self.group.path()).env("NAME", self.host_name.unwrap_or_default());
        netns.spawn(&mut command)
    }
}

/// A control group as a container engine calls it, in one of our own.
struct Group {
    parent: PathBuf,
    pod: String,
}

impl Group {
    fn new(uid: &str) -> Self {
        let mounts = child::run(Command::new("cat").arg("/proc/self/mounts"));
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let unified =
            mounts.find(|words| words[2] == "cgroup2").expect("control groups version 2 are mounted");
        let pod = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        let group = Self { parent: Path::new(unified[1]).join(scratch::unique_name("ptk")), pod };
        fs::create_dir_all(group.path()).expect("make a control group");
        group
    }

    fn path(&self) -> PathBuf {
        self.parent.join(&self.pod).join(format!("cri-containerd-{CONTAINER_ID}.scope"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = || {
            let pod = self.parent.join(&self.pod);
            [self.path(), pod, self.parent.clone()].iter().try_for_each(fs::remove_dir).ok()
        };
        // Its processes may be about to end.
        let _ = wait::within(SOON, removed);
    }
}
