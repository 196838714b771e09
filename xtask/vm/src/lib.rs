//! `cargo xtask vm`: the stories of the kernel half on other kernels, in emulated machines.
//!
//! A series of kernels is a line in `series.rs`, an architecture one in `arch.rs`, a way to attach one in `profiles.rs`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who typed the command")]

mod arch;
mod console;
mod cpio;
mod docs;
mod doctor;
mod elf;
mod guest;
mod initramfs;
mod kernels;
mod machine;
mod modules;
mod profiles;
mod qemu;
mod root;
mod series;
mod transcript;
mod user_mode;

pub use self::guest::Guest;
pub use self::profiles::all_by_raw_tracepoints;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use xtask_tools::cargo::{self, Target};

use crate::arch::Arch;
use crate::initramfs::Built;
use crate::kernels::Kernel;
use crate::machine::Machine;
use crate::profiles::PROFILES;
use crate::root::Root;
use crate::series::{Expect, SERIES};

/// How many machines at once. Each keeps one processor busy at most, and waits for nearly half of its time.
const AT_ONCE: usize = 4;

/// What is to run where.
#[derive(Debug, clap::Args, Default)]
pub struct Args {
    /// Which kernels, such as 5.10 or newest; all by default
    #[arg(value_name = "SERIES", value_parser = one_of(SERIES.iter().map(|known| known.name)))]
    series: Vec<String>,

    /// Under which ways to attach (may be repeated); all by default
    #[arg(long, value_name = "NAME", value_parser = one_of(PROFILES.iter().map(|known| known.name)))]
    profile: Vec<String>,

    /// Write docs/kernels.md from what happens, instead of comparing the two
    #[arg(long, conflicts_with_all = ["series", "profile", "at_once", "filter"])]
    docs: bool,

    /// How many stories at once, instead of as many as is usual under the profile
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    at_once: Option<u32>,

    /// Stories to run instead of those of the profile
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

impl Args {
    /// For each change: every way to attach on every kernel, each seen to fire, and with it exact counts.
    #[must_use]
    pub fn few() -> Self {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            profile: owned(&["alone", "kprobe", "tracepoint", "tp_btf", "raw_tp"]),
            filter: owned(&["causes::ipv4::a_closed_port", "unix::a_missing_file", "ledger::"]),
            // The ledger keeps dozens of threads busy. A trace that begins beside it gets so small a part of an emulated processor that
            // its programs were not verified after 200 s (7.3, which takes twice as long for each as 6.18).
            at_once: Some(1),
            ..Self::default()
        }
    }
}

fn one_of(names: impl Iterator<Item = &'static str>) -> PossibleValuesParser {
    PossibleValuesParser::new(names)
}

/// Runs the stories, and says of each kernel how they went.
///
/// # Errors
/// Something is not as it must be, or a machine could not be run.
pub fn run(Args { series, profile, docs, at_once, filter }: Args) -> Result<()> {
    let is_whole = series.is_empty() && profile.is_empty() && filter.is_empty();
    let series = SERIES.iter().filter(|known| is_chosen(&series, known.name));
    let profiles: Vec<_> = PROFILES.iter().filter(|known| is_chosen(&profile, known.name)).collect();
    let work = cargo::target_dir()?.join("vm");
    fs::create_dir_all(&work).with_context(|| format!("create {}", work.display()))?;

    let machines = series.map(|series| {
        let plan = profiles::plan(series, &profiles, at_once, &filter);
        Ok(Machine::new(series, Kernel::newest(series, &work)?, plan))
    });
    let machines = machines.collect::<Result<Vec<_>>>()?;
    if is_whole {
        let kept: Vec<_> = machines.iter().map(|machine| machine.kernel.release.as_str()).collect();
        kernels::clean(&work, &kept)?;
    }
    for arch in architectures(&machines) {
        let base = initramfs::base(&work, arch);
        initramfs::write_base(&base, &Root::of(arch, &work)?, built(arch.target())?)?;
    }

    let start = Instant::now();
    let mut machines = run_all(machines, &work)?;
    machines.sort_by_key(|machine| SERIES.iter().position(|known| known.name == machine.series.name));
    let faults = summarize(&machines, start);
    if docs {
        // Also when something failed: then the page says so.
        write_page(&machines)?;
    }
    if faults > 0 {
        bail!(
            "{faults} things are not as they must be, each is named above; the consoles are in {}",
            work.display()
        );
    }
    if is_whole { compare_page(&machines) } else { Ok(()) }
}

/// Whether something was asked for by name, or nothing was.
fn is_chosen(asked: &[String], name: &str) -> bool {
    asked.is_empty() || asked.iter().any(|asked| asked == name)
}

/// Each that is among the machines, once.
fn architectures(machines: &[Machine]) -> Vec<&'static Arch> {
    let mut found: Vec<&Arch> = Vec::new();
    for Machine { series, .. } in machines {
        if found.iter().all(|arch| arch.name != series.arch.name) {
            found.push(series.arch);
        }
    }
    found
}

/// What goes into the machines, built here.
fn built(target: Target) -> Result<Built> {
    let proxytrace = cargo::build(target, "proxytrace")?;
    let [stories, connector] = cargo::build_stories(target)?;
    Ok(Built { proxytrace, stories, connector })
}

/// Runs the machines, some at once and those that take long first; gives them in the order in which they were done.
fn run_all(mut machines: Vec<Machine>, work: &Path) -> Result<Vec<Machine>> {
    machines.sort_by_key(|machine| machine.series.expect.rank());
    let (waiting, done) = (Mutex::new(machines.into_iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        let workers = [(); AT_ONCE].map(|()| {
            scope.spawn(|| -> Result<()> {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(mut machine) = next else { return Ok(()) };
                    machine.run(work)?;
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(machine);
                }
            })
        });
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Prints the total; gives how many things are not as they must be.
fn summarize(machines: &[Machine], start: Instant) -> usize {
    let stories =
        || machines.iter().filter(|machine| machine.series.has_stories()).flat_map(|machine| &machine.runs);
    let passed: usize = stories().map(|run| run.passed).sum();
    let failed: usize = stories().map(|run| run.failed.len()).sum();
    println!("vm: {} kernels, {} s in all", machines.len(), start.elapsed().as_secs());
    println!("{passed} passed, {failed} failed");
    machines.iter().map(|machine| machine.faults).sum()
}

/// What docs/kernels.md has to say.
fn page(machines: &[Machine]) -> String {
    let rows: Vec<_> = machines.iter().flat_map(Machine::rows).collect();
    let refused = machines.iter().filter_map(|machine| match machine.series.expect {
        Expect::Refusal { because, .. } => Some(format!("{}: {because}", machine.series.name)),
        Expect::Stories(_) => None,
    });
    let versions: Vec<_> = machines.iter().map(|machine| machine.version.as_str()).collect();
    docs::page(&rows, &refused.collect::<Vec<_>>(), &versions)
}

fn write_page(machines: &[Machine]) -> Result<()> {
    let path = docs::path();
    fs::write(&path, page(machines)).with_context(|| format!("write {}", path.display()))
}

fn compare_page(machines: &[Machine]) -> Result<()> {
    let path = docs::path();
    if !docs::says_the_same(&page(machines), &fs::read_to_string(&path).unwrap_or_default()) {
        bail!("{} is stale: run cargo xtask vm --docs", path.display());
    }
    Ok(())
}
