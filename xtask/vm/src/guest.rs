//! A Debian with a real systemd, control groups v2 and AppArmor, in a machine that is made for it: what is to hold there is a script
//! whose steps are reported to us.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask_tools::{debian, shell};

use crate::console::{self, Limits};
use crate::qemu::pc;

/// What is installed in each: a kernel, what boots it, and what a script can do nothing without.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "apparmor",
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "procps",
    "iproute2",
    "curl",
];

/// Runs the steps of a script, which sources it at its end.
const STEPS: &str = include_str!("guest/steps.sh");
const UNIT: &str = include_str!("guest/smoke.service");

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

/// A step says nothing before its end, and may wait twice for as long as steps.sh has patience: a step that fails must say why.
const LIMITS: Limits = Limits { silence: Duration::from_secs(720), total: Duration::from_secs(2400) };

/// A machine, and what is tried in it.
#[derive(Debug)]
pub struct Guest<'a> {
    /// What its files are called after, and our lines begin with.
    pub name: &'a str,
    /// What is installed in it besides what each has.
    pub packages: &'a [&'a str],
    /// Of its memory, in MiB.
    pub memory: u32,
    /// The script: its `steps` are names of functions, and it ends with what runs them, `steps.sh`.
    pub script: &'a str,
}

impl Guest<'_> {
    /// Starts it and runs the script there, beside the files that `hand_over` puts into a directory. Everything is kept in `work`, the
    /// console as well.
    ///
    /// # Errors
    /// A step did not pass, or the machine could not be made or run.
    pub fn run(&self, work: &Path, hand_over: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let disk = self.disk(work)?;
        let handed = self.handed(work, hand_over)?;
        let [kernel, initramfs, root] = ["kernel", "initramfs", "root.img"].map(|name| disk.join(name));
        let mut machine = pc(&kernel, &initramfs, &PARAMETERS.join(" "));
        // One processor is quicker than two that one thread emulates in turn.
        machine.args(["-smp", "1", "-m", &self.memory.to_string()]);
        for (image, more) in [(&root, ",snapshot=on"), (&handed, ",readonly=on")] {
            machine.arg("-drive").arg(format!("file={},format=raw,if=virtio{more}", image.display()));
        }
        let log = work.join(format!("{}.log", self.name));
        let mut report = Report::default();
        let trouble = console::watch(&mut machine, &log, &LIMITS, |line| {
            if let Some(said) = report.read(line) {
                println!("{}: {said}", self.name);
            }
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

    /// The disk that it boots from, with the kernel and the initramfs that are on it as files of their own.
    fn disk(&self, work: &Path) -> Result<PathBuf> {
        let packages = [PACKAGES, self.packages].concat();
        debian::once(work, self.name, &packages, |partial| {
            let root = partial.join("root");
            debian::make(&packages, &root)?;
            let write = |place: &str, text: &str| -> Result<()> {
                let mut tee = shell::as_root("tee")?;
                tee.arg(root.join(place)).stdin(Stdio::piped()).stdout(Stdio::null());
                feed(&mut tee, text).with_context(|| format!("write /{place} of the machine"))
            };
            write("etc/machine-id", MACHINE_ID)?;
            write("etc/systemd/system/smoke.service", UNIT)?;
            let enabled = root.join("etc/systemd/system/multi-user.target.wants/smoke.service");
            shell::run(shell::as_root("ln")?.args(["--symbolic", "../smoke.service"]).arg(enabled))?;
            for (link, name) in [("vmlinuz", "kernel"), ("initrd.img", "initramfs")] {
                shell::run(shell::as_root("cp")?.arg(root.join(link)).arg(partial.join(name)))?;
            }
            let mut mke2fs = shell::as_root("mke2fs")?;
            mke2fs.args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(partial.join("root.img")).arg("3G");
            shell::run(&mut mke2fs)?;
            debian::remove(&root)
        })
    }

    /// A disk with what is handed over, and the script.
    fn handed(&self, work: &Path, hand_over: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let (directory, image) =
            (work.join(format!("{}.handed", self.name)), work.join(format!("{}.handed.img", self.name)));
        debian::remove(&directory)?;
        fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        hand_over(&directory)?;
        for (name, text) in [("smoke.sh", self.script), ("steps.sh", STEPS)] {
            fs::write(directory.join(name), text).with_context(|| format!("write {name}"))?;
        }
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
        shell::run(mke2fs.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&directory).arg(&image).arg("512M"))?;
        Ok(image)
    }
}

/// What the machine says about itself.
#[derive(Default)]
struct Report {
    passed: usize,
    failed: Vec<String>,
    is_done: bool,
}

impl Report {
    /// Reads a line; gives what it says if it is one of the script's.
    fn read<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        // What the firmware or a program left in the line comes before it.
        let (_, said) = line.split_once("smoke: ")?;
        let mut words = said.split(' ');
        match (words.next(), words.next()) {
            (Some("passed"), Some(_)) => self.passed += 1,
            (Some("failed"), Some(step)) => self.failed.push(step.to_owned()),
            (Some("end"), None) => self.is_done = true,
            _ => {}
        }
        Some(said)
    }
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
