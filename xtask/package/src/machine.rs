//! A machine with a real systemd, in which the package is installed, used, upgraded and purged.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use xtask_vm::Guest;

use crate::deb;

/// What must hold there.
const GUEST: Guest<'_> =
    Guest { name: "systemd", packages: &["nginx-light"], memory: 2048, script: include_str!("smoke.sh") };

/// The drop-in of nginx's own unit.
const GUARD: &str = include_str!("../../../deploy/guard/systemd/guard.conf");

/// Whether it does. The console is in `work`.
pub(crate) fn check(package: &Path, work: &Path) -> Result<()> {
    GUEST.run(work, |handed| {
        fs::copy(package, handed.join("package.deb")).context("copy the package")?;
        fs::write(handed.join("guard.conf"), GUARD).context("write guard.conf")?;
        deb::newer(package, &handed.join("newer.deb"), work)
    })
}
