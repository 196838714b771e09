//! Debian packages, installed without starting the services that come with some of them.

use anyhow::{Context, Result, bail};

use crate::shell;

/// A shell script because it must clean up even when the user presses Ctrl-C, and needs sudo only once.
const INSTALL: &str = include_str!("install-packages.sh");

/// The package manager.
#[derive(Default)]
pub(super) struct Apt {
    knows_newest: bool,
}

impl Apt {
    /// Installs packages; `services` are those that they would start.
    pub(super) fn install(&mut self, packages: &[&str], services: &[&str]) -> Result<()> {
        if !shell::is_installed("apt-get") {
            bail!("apt-get is not on this machine");
        }
        if !self.knows_newest {
            self.knows_newest = true;
            if let Err(error) = shell::run(shell::as_root("apt-get")?.args(["--quiet=2", "update"])) {
                eprintln!("setup:   {error:#}; trying with the package lists that are here");
            }
        }
        let mut install = shell::as_root("sh")?;
        install.args(["-c", INSTALL, "install-packages", &services.join(" ")]).args(packages);
        // Not shell::run, which would quote the whole script in its message.
        if !install.status().context("run the package manager as root")?.success() {
            bail!("apt-get could not install {}", packages.join(" "));
        }
        Ok(())
    }
}
