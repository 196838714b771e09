//! Debian packages, installed without starting the services that come with some of them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use xtask_tools::{private_apt, shell};

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
        self.update()?;
        let mut install = shell::as_root("sh")?;
        install.args(["-c", INSTALL, "install-packages", &services.join(" ")]).args(packages);
        // Not shell::run, which would quote the whole script in its message.
        if !install.status().context("run the package manager as root")?.success() {
            bail!("apt-get could not install {}", packages.join(" "));
        }
        Ok(())
    }

    /// Unpacks packages below `place`, and installs nothing.
    pub(super) fn unpack(&mut self, packages: &[&str], place: &Path) -> Result<()> {
        self.update()?;
        // What was there is of an attempt that failed.
        private_apt::remove(place)?;
        fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
        private_apt::unpack(private_apt::as_ourselves("apt-get"), packages, place, place)
    }

    fn update(&mut self) -> Result<()> {
        if !shell::is_installed("apt-get") {
            bail!("apt-get is not on this machine");
        }
        if !self.knows_newest {
            self.knows_newest = true;
            if let Err(error) = shell::run(shell::as_root("apt-get")?.args(["--quiet=2", "update"])) {
                eprintln!("setup:   {error:#}; trying with the package lists that are here");
            }
        }
        Ok(())
    }
}
