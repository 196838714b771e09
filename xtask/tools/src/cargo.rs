//! Cargo as these commands call it, and where it puts what it builds.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// The variable that has the path of the program, for the stories and what else stands on their helpers.
pub const BINARY: &str = "PROXYTRACE_BIN";

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("/"))
}

/// The cargo that runs this very program, at the top of the repository.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    command
}

/// Where cargo builds, however that was configured: this program lies there, in `debug/` or `release/`.
pub fn target_dir() -> Result<PathBuf> {
    let own = env::current_exe().context("find out where xtask itself was built")?;
    own.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .with_context(|| format!("{} is not in a target directory", own.display()))
}

/// What is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// This machine.
    Own,
    /// Machines of another architecture.
    Foreign {
        /// As rustc calls it.
        triple: &'static str,
        /// A C compiler that links for it.
        linker: &'static str,
    },
}

impl Target {
    /// How cargo optimises what is built for it.
    fn profile(self) -> &'static str {
        match self {
            Self::Own => "release",
            Self::Foreign { .. } => "emulated",
        }
    }

    /// A call of cargo that builds for it, and the directory that cargo builds in.
    ///
    /// For another architecture the standard library is compiled from source: that is here in any case (rust-src), and no
    /// registry has one that the pinned rustc compiled. The target directory is one of its own, because the environment
    /// would make cargo build the host's crates anew each time.
    fn cargo(self, args: &[&str]) -> Result<(Command, PathBuf)> {
        let (mut command, own) = (cargo(args), target_dir()?);
        let Self::Foreign { triple, linker } = self else { return Ok((command, own)) };
        let foreign = own.join("foreign");
        command.args(["--target", triple, "-Z", "build-std=std", "--target-dir"]).arg(&foreign);
        let variable = triple.to_uppercase().replace('-', "_");
        command.env(format!("CARGO_TARGET_{variable}_LINKER"), linker).env("RUSTC_BOOTSTRAP", "1");
        Ok((command, foreign.join(triple)))
    }
}

/// Builds a program that is optimised as far as that is worth it there ([`Target::profile`]), and says where it is. It is called like
/// its package.
pub fn build(target: Target, package: &str) -> Result<PathBuf> {
    let profile = target.profile();
    let (mut build, directory) =
        target.cargo(&["build", "--profile", profile, "--locked", "--package", package])?;
    shell::run(&mut build)?;
    Ok(directory.join(profile).join(package))
}

/// Builds the stories without running them; gives their runner, and the client that they start.
pub fn build_stories(target: Target) -> Result<[PathBuf; 2]> {
    let (mut build, _) =
        target.cargo(&["test", "--no-run", "--quiet", "--locked", "--message-format", "json"])?;
    build.args(["--package", "proxytrace-tests", "--test", "stories"]);
    if target != Target::Own {
        // A standard library compiled from source is slow otherwise, being compiled in the same way.
        build.args(["--profile", target.profile()]);
    }
    let output = build.stderr(Stdio::inherit()).output().context("run cargo")?;
    if !output.status.success() {
        bail!("`{}` ended with {}", shell::line(&build), output.status);
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let executable = |target: &str| {
        let built = messages.iter().filter(|message| message["target"]["name"] == target);
        let mut paths = built.filter_map(|message| message["executable"].as_str());
        paths.next().map(PathBuf::from).with_context(|| format!("cargo built no {target}"))
    };
    Ok([executable("stories")?, executable("connector")?])
}
