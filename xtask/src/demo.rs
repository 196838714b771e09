//! `cargo xtask demo`: the outage that proxytrace exists for, replayed on a real nginx.
//!
//! Three processes, one starting the next: the user's builds; the keeper, as root, waits and cleans up; the show
//! makes the namespaces and tells the story. So whatever becomes of the show, nothing of it stays behind.

mod failures;
mod live;
mod outage;
mod timeline;
mod verdict;

use std::env;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Error, Result};

use crate::cargo::{self, Target};
use crate::{keeper, setup, shell};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which of the three processes this is
    #[arg(long, hide = true, value_enum, default_value_t = Part::Builder)]
    part: Part,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Builder,
    Keeper,
    Show,
}

pub(crate) fn run(Args { part }: Args) -> Result<()> {
    match part {
        Part::Builder => build_and_go_on(),
        Part::Keeper => keeper::run("demo"),
        Part::Show => outage::run(),
    }
}

fn build_and_go_on() -> Result<()> {
    setup::run()?;
    let proxytrace = cargo::build_proxytrace(Target::Own)?;
    let own = env::current_exe().context("find out where xtask itself is")?;
    let error = shell::as_root(own)?.args(["demo", "--part", "keeper"]).env(cargo::BINARY, proxytrace).exec();
    Err(Error::new(error).context("go on as root"))
}
