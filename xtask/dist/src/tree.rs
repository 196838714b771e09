//! The directory that is packed for an architecture: the program, what it writes about itself, and what it is deployed with.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use xtask_tools::shell;

use crate::source;
use crate::targets::Target;

/// The version of everything here.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Files and directories of the checkout.
const FROM_SOURCE: &[&str] = &[
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "CHANGELOG.md",
    "THIRD-PARTY-NOTICES.md",
    "deploy",
    "docs",
];

/// Shells, and what the file is called that each looks for.
const SHELLS: &[(&str, &str)] =
    &[("bash", "proxytrace"), ("fish", "proxytrace.fish"), ("zsh", "_proxytrace")];

/// What it is called.
pub(crate) fn name(target: &Target) -> String {
    format!("proxytrace-{VERSION}-{}", target.name)
}

/// Fills it. The program is run for that, so it is known to start.
pub(crate) fn fill(directory: &Path, target: &Target, program: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let own = directory.join("proxytrace");
    fs::copy(program, &own).with_context(|| format!("copy {}", program.display()))?;
    let version = shell::output(&mut run(target, &own, &["--version"]))?;
    ensure!(version.trim() == format!("proxytrace {VERSION}"), "it says that it is {version:?}");
    shell::run(run(target, &own, &["man"]).arg(directory.join("man")))?;
    for (shell, file) in SHELLS {
        let place = directory.join("completions").join(shell);
        fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        let completions = shell::output(&mut run(target, &own, &["completions", shell]))?;
        fs::write(place.join(file), completions).with_context(|| format!("write completions for {shell}"))?;
    }
    for file in FROM_SOURCE.iter().map(|name| source::files(name)).collect::<Result<Vec<_>>>()?.concat() {
        source::copy(&file, &directory.join(&file))?;
    }
    Ok(())
}

/// A call of the program, with no variable but those that any program gets.
fn run(target: &Target, program: &Path, args: &[&str]) -> Command {
    let words = target.runner().map(OsStr::new).into_iter().chain([program.as_os_str()]);
    let mut words = words.chain(args.iter().map(OsStr::new));
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}
