//! `cargo xtask bench`: what proxytrace costs. Each figure stands beside that of the same thing without it (or with little
//! to do), measured in turns, so that whatever else the machine does slows down both; what counts is the ratio.
//!
//! Processes as in the demo: the user's builds, the keeper cleans up, the show measures. It starts this program once more
//! for the calls that are timed, so a build with optimizations is used.

mod agents;
mod calls;
mod comparison;
mod configuration;
mod connects;
mod many;
mod requests;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use anyhow::{Context, Error, Result, bail};
use nix::sys::utsname::uname;

use self::comparison::Comparison;
use crate::{cargo, keeper, setup, shell};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which of the processes this is
    #[arg(long, hide = true, value_enum, default_value_t = Part::Builder)]
    part: Part,

    /// What a process does that is timed
    #[arg(long, hide = true, value_enum, default_value_t = calls::Call::Getppid)]
    call: calls::Call,

    /// In how many runs
    #[arg(long, hide = true, default_value_t = 1)]
    runs: u32,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Builder,
    Keeper,
    Show,
    Caller,
}

/// Each looks at one side of what it costs.
const MEASUREMENTS: &[fn() -> Result<Vec<Comparison>>] =
    &[configuration::measure, connects::measure, agents::measure, requests::measure];

pub(crate) fn run(Args { part, call, runs }: Args) -> Result<()> {
    match part {
        Part::Builder => build_and_go_on(),
        Part::Keeper => keeper::run("bench"),
        Part::Show => show(),
        Part::Caller => calls::make(call, runs),
    }
}

fn build_and_go_on() -> Result<()> {
    setup::run()?;
    let (proxytrace, own) = (cargo::build_proxytrace(cargo::Target::Own)?, cargo::build_xtask()?);
    let error =
        shell::as_root(own)?.args(["bench", "--part", "keeper"]).env(cargo::BINARY, proxytrace).exec();
    Err(Error::new(error).context("go on as root"))
}

fn show() -> Result<()> {
    keeper::tell_panics_plainly("bench");
    println!("bench: {}", machine()?);
    let mut too_much = Vec::new();
    for measure in MEASUREMENTS {
        for comparison in measure()? {
            println!("bench: {comparison}");
            too_much.extend(comparison.too_much());
        }
    }
    if !too_much.is_empty() {
        bail!("{}", too_much.join("; "));
    }
    Ok(())
}

/// What it is measured on: figures of two machines are not to be compared.
fn machine() -> Result<String> {
    let system = uname().context("ask for the kernel's name")?;
    let words = [system.sysname(), system.release(), system.machine()];
    let processors = thread::available_parallelism().context("count the processors")?;
    // It tells its version on stderr.
    let nginx = Command::new("nginx").arg("-v").output().context("ask nginx for its version")?.stderr;
    let nginx = String::from_utf8_lossy(&nginx);
    let version = nginx.trim().strip_prefix("nginx version: ").unwrap_or("nginx");
    Ok(format!("{}, {processors} processors, {version}", words.map(|word| word.to_string_lossy()).join(" ")))
}
