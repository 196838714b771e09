//! What does not depend on the clock: how often the programs run for an attempt, how many instructions the verifier looks at, and how large
//! the tables are; held against figures that are committed.

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::utsname::uname;
use proxytrace_tests::proxytrace::Agent;
use serde::{Deserialize, Serialize};

use crate::programs::{self, Counted, WAYS};

/// The committed figures.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/quick.json");

/// How they are written again.
const UPDATE: &str = "cargo xtask bench --quick --update";

/// How much more than what is committed is a failure.
const MORE: f64 = 1.1;

/// What others of the host do at the same time adds runs; the quietest round counts.
const ROUNDS: usize = 5;
const ATTEMPTS: u32 = 4000;

/// A request over a connection that is kept, instead of an attempt: no program runs for it.
const KEPT: (&str, &str) = ("answered on a kept connection", "kept");

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Figures {
    /// What they hold for: other kernels verify in other ways, and tables have a part for each processor.
    machine: Machine,
    /// Of each program, by the way in which an attempt goes.
    runs_per_attempt: BTreeMap<String, BTreeMap<String, f64>>,
    verified_instructions: BTreeMap<String, f64>,
    table_bytes: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Machine {
    kernel: String,
    processors: usize,
}

/// Compares, or writes the figures that are to be committed.
pub(crate) fn run(is_update: bool) -> Result<()> {
    let now = measure()?;
    if is_update {
        fs::write(FILE, serde_json::to_string_pretty(&now)? + "\n")
            .with_context(|| format!("write {FILE}"))?;
        println!("bench: wrote {FILE}");
        return Ok(());
    }
    let text = fs::read_to_string(FILE).with_context(|| format!("read {FILE}: {UPDATE} writes it"))?;
    let committed: Figures = serde_json::from_str(&text).with_context(|| format!("read {FILE}"))?;
    for (what, figure) in now.all() {
        println!("bench: {what}: {figure:.2}");
    }
    if committed.machine != now.machine {
        println!(
            "bench: NOT compared with what is committed: that is of {}, this is {}",
            committed.machine, now.machine
        );
        return Ok(());
    }
    let faults = faults(&committed, &now);
    if !faults.is_empty() {
        bail!("{}\nif that is meant to be so: {UPDATE}", faults.join("\n"));
    }
    println!("bench: nothing has grown by more than a tenth");
    Ok(())
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Linux {} with {} processors", self.kernel, self.processors)
    }
}

impl Figures {
    /// All of them with what they are of.
    fn all(&self) -> Vec<(String, f64)> {
        let runs = self.runs_per_attempt.iter().flat_map(|(way, programs)| {
            programs.iter().map(move |(program, runs)| {
                (format!("runs of {program} for an attempt that is {way}"), *runs)
            })
        });
        let verified = self.verified_instructions.iter();
        let verified = verified.map(|(name, count)| (format!("instructions of {name} as verified"), *count));
        let bytes =
            self.table_bytes.iter().map(|(name, bytes)| (format!("bytes of the table {name}"), *bytes));
        runs.chain(verified).chain(bytes).collect()
    }
}

/// What has grown too much, or is not known.
fn faults(committed: &Figures, now: &Figures) -> Vec<String> {
    let committed: BTreeMap<_, _> = committed.all().into_iter().collect();
    let fault = |(what, figure): (String, f64)| match committed.get(&what) {
        None => Some(format!("{what}: {figure:.2}, and there is no committed figure")),
        Some(known) if figure > known * MORE => {
            Some(format!("{what}: {figure:.2}, and {known:.2} is committed"))
        }
        Some(_) => None,
    };
    now.all().into_iter().filter_map(fault).collect()
}

fn measure() -> Result<Figures> {
    let release = uname().context("ask for the kernel's name")?.release().to_string_lossy().into_owned();
    let kernel = release.split('.').take(2).collect::<Vec<_>>().join(".");
    let processors = thread::available_parallelism().context("count the processors")?.get();
    let agent = Agent::start(&["--process", "nobody"]);
    let programs = programs::of(agent.pid())?;
    let verified = programs.into_iter().map(|(name, counted)| (name, counted.verified as f64));
    let (verified_instructions, table_bytes) = (verified.collect(), programs::tables(agent.pid())?);
    agent.stop();
    let at_each_call = at_each_call()?;
    let ways = WAYS.into_iter().chain([KEPT]);
    let runs = ways.map(|(way, call)| Ok((way.to_owned(), runs(call, &at_each_call)?)));
    Ok(Figures {
        machine: Machine { kernel, processors },
        runs_per_attempt: runs.collect::<Result<_>>()?,
        verified_instructions,
        table_bytes,
    })
}

/// The programs that run at each system call of the host, so that the number of their runs says more of others than of an attempt.
fn at_each_call() -> Result<Vec<String>> {
    let counted = programs::attempts("getppid", ATTEMPTS)?;
    let at_each = counted.into_iter().filter(|(_, counted)| counted.runs >= u64::from(ATTEMPTS));
    Ok(at_each.map(|(program, _)| program).collect())
}

/// How often each program runs for an attempt, in the quietest round; but for those `at_each_call`.
fn runs(call: &str, at_each_call: &[String]) -> Result<BTreeMap<String, f64>> {
    let mut least: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (program, Counted { runs, .. }) in programs::attempts(call, ATTEMPTS)? {
            let runs = runs as f64 / f64::from(ATTEMPTS);
            least.entry(program).and_modify(|known| *known = known.min(runs)).or_insert(runs);
        }
    }
    // Others have nothing to do with it.
    least.retain(|program, runs| *runs >= 0.05 && !at_each_call.contains(program));
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(runs: f64, bytes: f64) -> Figures {
        let one = |name: &str, figure| BTreeMap::from([(name.to_owned(), figure)]);
        Figures {
            machine: Machine { kernel: "6.18".to_owned(), processors: 2 },
            runs_per_attempt: BTreeMap::from([("refused".to_owned(), one("state", runs))]),
            verified_instructions: one("state", 100.0),
            table_bytes: one("rows", bytes),
        }
    }

    #[test]
    fn what_grows_by_more_than_a_tenth_is_named() {
        let committed = figures(4.0, 1000.0);
        assert!(faults(&committed, &figures(4.3, 1099.0)).is_empty());
        assert!(faults(&committed, &figures(3.0, 10.0)).is_empty());
        assert_eq!(
            faults(&committed, &figures(4.5, 1101.0)),
            [
                "runs of state for an attempt that is refused: 4.50, and 4.00 is committed",
                "bytes of the table rows: 1101.00, and 1000.00 is committed"
            ]
        );
    }

    #[test]
    fn what_is_new_wants_a_figure() {
        let (committed, mut now) = (figures(4.0, 1.0), figures(4.0, 1.0));
        now.verified_instructions.insert("other".to_owned(), 7.0);
        assert_eq!(
            faults(&committed, &now),
            ["instructions of other as verified: 7.00, and there is no committed figure"]
        );
    }

    #[test]
    fn the_committed_figures_can_be_read() {
        let text = fs::read_to_string(FILE).unwrap();
        let figures: Figures = serde_json::from_str(&text).unwrap();
        assert!(!figures.table_bytes.is_empty());
        assert!(figures.runs_per_attempt[KEPT.0].is_empty(), "nothing runs for a request");
        assert!(!figures.runs_per_attempt["refused"].is_empty());
    }
}
