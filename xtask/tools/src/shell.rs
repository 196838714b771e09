//! Other programs: running them, finding them, running them as root.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::iter;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a command whose output the user sees.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs a command for what it prints.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("run `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` ended with {}", line(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not text", line(command)))
}

/// A command that runs as root, with our environment.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    let mut words = root_runner()?.iter().map(OsStr::new).chain([program.as_ref()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    Ok(command)
}

/// Carries on as root, in this very program, where that is not what we are.
pub fn become_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let own = env::current_exe().context("find out which program this is")?;
    let error = as_root(own)?.args(env::args_os().skip(1)).exec();
    Err(error).context("become root")
}

/// What goes before a command so that it runs as root: nothing when we are.
pub fn root_runner() -> Result<&'static [&'static str]> {
    if is_root() {
        return Ok(&[]);
    }
    if !is_installed("sudo") {
        bail!("this needs root, and there is no sudo: run it as root, or install sudo");
    }
    Ok(&["sudo", "--preserve-env"])
}

/// Whether we are root, seen from who owns our own /proc entry.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether a program is installed. Users' PATH often lacks the directories of those that root runs.
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|directory| directory.join(program).is_file())
}

/// A command as one would type it.
pub fn line(command: &Command) -> String {
    // Only the file name of an absolute program: `cargo fmt` says more than the toolchain's path.
    let program = Path::new(command.get_program());
    let words = iter::once(program.file_name().unwrap_or(program.as_os_str())).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
