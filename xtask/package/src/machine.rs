//! A machine with a real systemd, control groups v2 and AppArmor, in which a package is installed, used, upgraded and purged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask_tools::shell;
use xtask_vm::console::{self, Limits};

use crate::deb;
use crate::file_system;

/// What is installed in it: a kernel, what boots it, and what smoke.sh calls.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "apparmor",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "nginx-light",
    "procps",
    "iproute2",
    "curl",
];

const SMOKE: &str = include_str!("smoke.sh");
const GUARD: &str = include_str!("../../../deploy/guard/systemd/guard.conf");
const SMOKE_UNIT: &str = include_str!("smoke.service");

/// The kernel's parameters. A kernel tries its ciphers when they are loaded, and those for processors with AVX, which an emulated
/// one has not, break it. No login uses the line that the results come over. The rest only takes time: devices are there
/// without udev, and what looks after hosts that run for long has nothing to do. A host with more urgent things to do leaves the
/// machine so little time that a service takes minutes to start.
const PARAMETERS: &[&str] = &[
    "root=/dev/vda",
    "rw",
    "apparmor=1",
    "net.ifnames=0",
    "module_blacklist=aesni_intel",
    "cryptomgr.notests",
    "systemd.show_status=0",
    "systemd.default_timeout_start_sec=600",
    "systemd.mask=serial-getty@ttyS0.service",
    "systemd.mask=systemd-udev-trigger.service",
    "systemd.mask=e2scrub_reap.service",
    "systemd.mask=apt-daily.timer",
    "systemd.mask=apt-daily-upgrade.timer",
    "systemd.mask=systemd-pstore.service",
];

/// Without an id the machine would take every boot for its first one.
const MACHINE_ID: &str = "c0ffee00c0ffee00c0ffee00c0ffee00\n";

const LIMITS: Limits = Limits { silence: Duration::from_secs(300), total: Duration::from_secs(1500) };

/// Whether every step of smoke.sh passes there. The console is in `work`.
pub(crate) fn check(package: &Path, work: &Path) -> Result<()> {
    let disk = disk(work)?;
    let handed = hand_over(package, work)?;
    let [kernel, initramfs, root] = ["kernel", "initramfs", "root.img"].map(|name| disk.join(name));
    let mut machine = xtask_vm::pc(&kernel, &initramfs, &PARAMETERS.join(" "));
    // One processor is quicker than two that one thread emulates in turn.
    machine.args(["-smp", "1"]);
    for (image, more) in [(&root, ",snapshot=on"), (&handed, ",readonly=on")] {
        machine.arg("-drive").arg(format!("file={},format=raw,if=virtio{more}", image.display()));
    }
    let log = work.join("systemd.log");
    let mut report = Report::default();
    let trouble = console::watch(&mut machine, &log, &LIMITS, |line| {
        report.read(line);
        None
    })?;
    if trouble.is_some() || !report.is_done {
        let trouble = trouble.unwrap_or_else(|| "it went off before it was done".to_owned());
        bail!("{trouble}; the end of {}:\n{}", log.display(), console::tail(&log));
    }
    println!("{} passed, {} failed", report.passed, report.failed.len());
    if !report.failed.is_empty() || report.passed == 0 {
        bail!("{} did not pass, see {}", report.failed.join(", "), log.display());
    }
    Ok(())
}

/// What the machine says about itself.
#[derive(Default)]
struct Report {
    passed: usize,
    failed: Vec<String>,
    is_done: bool,
}

impl Report {
    /// Reads a line, and prints it if it is one of smoke.sh.
    fn read(&mut self, line: &str) {
        // What the firmware or a program left in the line comes before it.
        let Some((_, said)) = line.split_once("smoke: ") else { return };
        println!("package: {said}");
        let mut words = said.split(' ');
        match (words.next(), words.next()) {
            (Some("passed"), Some(_)) => self.passed += 1,
            (Some("failed"), Some(step)) => self.failed.push(step.to_owned()),
            (Some("end"), None) => self.is_done = true,
            _ => {}
        }
    }
}

/// The disk that the machine boots from, with the kernel and the initramfs that are on it as files of their own.
fn disk(work: &Path) -> Result<PathBuf> {
    file_system::once(work, "machine", PACKAGES, |partial| {
        let root = partial.join("root");
        file_system::make(PACKAGES, &root)?;
        let write = |place: &str, text: &str| -> Result<()> {
            let mut tee = shell::as_root("tee")?;
            tee.arg(root.join(place)).stdin(Stdio::piped()).stdout(Stdio::null());
            feed(&mut tee, text).with_context(|| format!("write /{place} of the machine"))
        };
        write("etc/machine-id", MACHINE_ID)?;
        write("etc/systemd/system/smoke.service", SMOKE_UNIT)?;
        let enabled = root.join("etc/systemd/system/multi-user.target.wants/smoke.service");
        shell::run(shell::as_root("ln")?.args(["--symbolic", "../smoke.service"]).arg(enabled))?;
        for (link, name) in [("vmlinuz", "kernel"), ("initrd.img", "initramfs")] {
            shell::run(shell::as_root("cp")?.arg(root.join(link)).arg(partial.join(name)))?;
        }
        let mut mke2fs = shell::as_root("mke2fs")?;
        mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(partial.join("root.img")).arg("2G");
        shell::run(&mut mke2fs)?;
        file_system::remove(&root)
    })
}

/// A disk with the package, a newer one, and what is to be done with them.
fn hand_over(package: &Path, work: &Path) -> Result<PathBuf> {
    let (directory, image) = (work.join("handed"), work.join("handed.img"));
    file_system::remove(&directory)?;
    fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
    fs::copy(package, directory.join("package.deb")).context("copy the package")?;
    deb::newer(package, &directory.join("newer.deb"), work)?;
    fs::write(directory.join("smoke.sh"), SMOKE).context("write smoke.sh")?;
    fs::write(directory.join("guard.conf"), GUARD).context("write guard.conf")?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    shell::run(mke2fs.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&directory).arg(&image).arg("64M"))?;
    Ok(image)
}

/// Runs a command with this on its standard input.
fn feed(command: &mut Command, text: &str) -> Result<()> {
    use std::io::Write;
    let mut child = command.spawn().with_context(|| format!("run `{}`", shell::line(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(text.as_bytes())?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` ended with {status}", shell::line(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_machine_says_which_steps_passed_and_when_it_is_done() {
        let mut report = Report::default();
        for line in [
            "SeaBIOS [?7lsmoke: kernel 6.1.0-56-cloud-amd64 #1 SMP, systemd 252",
            "    Setting up proxytrace (0.1.0-1) ...",
            "smoke: passed the_package_installs 12 s",
            "smoke: failed purge_leaves_nothing 3 s",
        ] {
            report.read(line);
        }
        assert!(!report.is_done);
        report.read("smoke: end");
        assert_eq!((report.passed, &*report.failed), (1, &["purge_leaves_nothing".to_owned()][..]));
        assert!(report.is_done);
    }
}
