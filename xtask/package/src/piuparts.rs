//! The tester of what a package leaves behind: installs, removes and purges it in a file system of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use xtask_tools::debian::{self, SUITE};
use xtask_tools::shell;

/// What the package depends on, so that nothing but the package comes and goes.
const PACKAGES: &[&str] = &["systemd", "procps"];

/// Whether it leaves nothing behind. The log is in `work`.
pub(crate) fn check(package: &Path, work: &Path) -> Result<()> {
    let base = base(work)?;
    let log = work.join("piuparts.log");
    let mut piuparts = shell::as_root("piuparts")?;
    piuparts.args(["--distribution", SUITE, "--keep-sources-list", "--no-eatmydata", "--no-upgrade-test"]);
    piuparts.arg("--basetgz").arg(&base).arg("--log-file").arg(&log).arg("--tmpdir").arg(work);
    piuparts.arg("--log-level=info").arg(package);
    // It prints what it logs.
    shell::run(piuparts.stdout(Stdio::null())).with_context(|| format!("the log is {}", log.display()))?;
    let text = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
    let Some(passed) = text.lines().rfind(|line| line.contains("PASS: All tests.")) else {
        bail!("piuparts ended well without a verdict, see {}", log.display());
    };
    println!("{passed}");
    Ok(())
}

/// An archive of a small Debian.
fn base(work: &Path) -> Result<PathBuf> {
    let directory =
        debian::once(work, "base", PACKAGES, |partial| debian::make(PACKAGES, &partial.join("root.tar.gz")))?;
    Ok(directory.join("root.tar.gz"))
}
