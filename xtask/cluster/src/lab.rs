//! A Debian with container engines: unpacked once, and entered through namespaces of its own, so that nothing on this machine is changed.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use xtask_tools::{cargo, debian, shell};

/// What is in it beside Debian's smallest system. The compiler of Go and dpkg-dev build Kubernetes.
const PACKAGES: &[&str] = &[
    "buildah",
    "busybox-static",
    "ca-certificates",
    "conmon",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "curl",
    "dpkg-dev",
    "etcd-server",
    "ethtool",
    "golang-go",
    "iproute2",
    "iptables",
    "kmod",
    "make",
    "nginx-light",
    "openssl",
    "podman",
    "procps",
    "rsync",
    "runc",
    "skopeo",
    "socat",
];

/// A directory with that Debian.
pub(crate) struct Root {
    /// What these commands keep; the Debian is below it.
    pub(crate) work: PathBuf,
    directory: PathBuf,
}

impl Root {
    /// The one below `work`, made if it is not there: a minute.
    pub(crate) fn made(work: &Path) -> Result<Self> {
        let made =
            debian::once(work, "debian", PACKAGES, |partial| debian::make(PACKAGES, &partial.join("root")))?;
        Ok(Self { work: work.to_path_buf(), directory: made.join("root") })
    }

    /// A file in it, as seen from outside.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.directory.join(inside.trim_start_matches('/'))
    }
}

/// Where a kubelet keeps its pods' logs. The agent finds their names there, below the root of process 1: so this is the one directory of the
/// machine that is used, and it must be free.
const POD_LOGS: &str = "/var/log/pods";

/// Which network its processes see.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// This machine's, for what is downloaded.
    Host,
    /// One of their own, in which there is nothing.
    Own,
}

/// That Debian with processes in it. They see this machine's process ids, as the programs in the kernel do; whatever was started there ends
/// with it.
pub(crate) struct Lab<'a> {
    pub(crate) root: &'a Root,
    holder: Child,
}

impl<'a> Lab<'a> {
    /// Enters it, in a mount namespace of its own: the repository is at /repo, what is kept at /lab.
    pub(crate) fn enter(root: &'a Root, network: Network) -> Result<Self> {
        if fs::read_dir(POD_LOGS).is_ok_and(|mut logs| logs.next().is_some()) {
            bail!(
                "{POD_LOGS} is in use: a kubelet runs on this machine, or a run was killed; empty it first"
            );
        }
        fs::create_dir_all(POD_LOGS).with_context(|| format!("create {POD_LOGS}"))?;
        // What an engine leaves behind becomes our child, and is found at the end.
        prctl::set_child_subreaper(true).context("become the parent of orphans")?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        if network == Network::Own {
            command.arg("--net");
        }
        command.args(["bash", "-c", include_str!("enter.sh"), "enter"]).arg(&root.directory);
        command.arg(cargo::root()).arg("/repo").arg(&root.work).arg("/lab").args([POD_LOGS; 2]);
        let mut holder =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("run unshare")?;
        let output = holder.stdout.take().context("the output of unshare")?;
        let lab = Self { root, holder };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        if line != "ready\n" {
            bail!("cannot enter {}: what is wrong is said above", root.directory.display());
        }
        Ok(lab)
    }

    /// A command in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.holder.id()))
            .args(["--mount", "--net", "--root", "--wd", "--"]);
        command.arg(program).stdin(Stdio::null()).env_clear();
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root");
        command
    }

    /// Runs a command in it.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        shell::run(self.command(program).args(args))
    }

    /// Runs a command in it for what it prints, and says what it complained about if it fails.
    pub(crate) fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.command(program).args(args).output().with_context(|| format!("run {program}"))?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        if !output.status.success() {
            bail!("{program} {}: {text}{}", args.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(text)
    }

    /// Runs a few lines of shell in it for what they print.
    pub(crate) fn shell(&self, script: &str) -> Result<String> {
        self.output("bash", &["-ec", script])
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        // Each generation that ends hands us the next one: engines keep containers through several.
        for _ in 0..200 {
            for child in children() {
                let _ = kill(child, Signal::SIGKILL);
            }
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => break,
                Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(50)),
                _ => {}
            }
        }
        remove_groups();
        let _ = fs::remove_dir_all(POD_LOGS);
    }
}

/// The processes whose parent we are.
fn children() -> Vec<Pid> {
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    let ours = all.filter(|process| process.stat().is_ok_and(|stat| stat.ppid == getpid().as_raw()));
    ours.map(|process| Pid::from_raw(process.pid)).collect()
}

/// Removes the control groups that engines have made and left empty. One in use cannot be removed.
fn remove_groups() {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        for name in ["kubepods", "libpod_parent", "k8s.io"] {
            remove_group(&hierarchy.join(name));
        }
    }
}

fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
