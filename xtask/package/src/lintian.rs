//! Debian's checker of packages.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use xtask_tools::shell;

/// Whether it has no error and no warning. What it would say and must not is in `deploy/debian/lintian-overrides`, with the
/// reason.
pub(crate) fn check(package: &Path, _: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    shell::run(lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(package))
}
