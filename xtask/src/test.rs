//! `cargo xtask test`: everything that must hold before a change goes in, the quickest first.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use xtask_tools::cargo::{self, Target};
use xtask_tools::shell;

use crate::setup;
use crate::show::BENCH;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the stories: for when one of them is being worked on
    #[arg(long)]
    stories: bool,

    /// Run the stories with the static program of a release (`cargo xtask dist`), not with this machine's own
    #[arg(long)]
    dist: bool,

    /// Also a few stories on other kernels, attached in each way (`cargo xtask vm` runs all): up to 25 minutes more
    #[arg(long, conflicts_with = "filter")]
    kernels: bool,

    /// Also what a release consists of, tried where it is to run: package, image, chart on a cluster. Up to an hour more
    #[arg(long, conflicts_with = "filter")]
    deploy: bool,

    /// Also what is healthy, for as long as it takes in nature: a minute and a half more
    #[arg(long, conflicts_with = "filter")]
    long: bool,

    /// Handed to the runner of the stories as they are: a filter, --nocapture, ...
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

/// Something that must hold, as a call of cargo.
struct Gate {
    what: &'static str,
    cargo: &'static [&'static str],
    env: &'static [(&'static str, &'static str)],
}

#[rustfmt::skip]
const GATES: &[Gate] = &[
    Gate {
        what: "formatting",
        cargo: &["fmt", "--all", "--check"],
        env: &[],
    },
    Gate {
        what: "licences, bans and sources",
        cargo: &["deny", "check", "licenses", "bans", "sources"],
        env: &[],
    },
    Gate {
        what: "lints",
        cargo: &["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"],
        env: &[],
    },
    Gate {
        // For the host, almost nothing of the kernel half is compiled. A target directory of its own, because
        // the environment would make cargo build the host's crates anew each time. The bindings of any
        // architecture will do.
        what: "lints of the kernel half",
        cargo: &[
            "clippy", "--package", "proxytrace-ebpf", "--locked", "--target", "bpfel-unknown-none",
            "-Z", "build-std=core", "--target-dir", "target/kernel-half", "--", "--deny", "warnings",
        ],
        env: &[("RUSTC_BOOTSTRAP", "1"), ("RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"")],
    },
    Gate {
        what: "unit tests",
        cargo: &["test", "--workspace", "--exclude", STORIES, "--locked"],
        env: &[],
    },
];

/// The package of the stories: they need root, a network of their own and the finished program.
const STORIES: &str = "proxytrace-tests";

/// What the stories get through their environment.
const LONG: &str = "PROXYTRACE_TEST_LONG";
const HOOK_VIA: &str = "PROXYTRACE_TEST_HOOK_VIA";
const NGINX: &str = "PROXYTRACE_TEST_NGINX";
const SKIP_IS_FAILURE: &str = "PROXYTRACE_SKIP_IS_FAILURE";

/// The truth table and exact counts: what must not depend on the way in which hooks are attached.
const TRUTH_TABLE: &[&str] = &[
    "causes::",
    "unix::",
    "crossing::",
    "broken::",
    "clients::",
    "processes::",
    "reload::",
    "haproxy::",
    "ledger::",
];

/// What depends on nginx keeping connections, which the newest does by default, or on names that only it follows; and where requests go.
const KEPT: &[&str] = &[
    "routing::",
    "answer::",
    "protocols::",
    "broken::",
    "quiet::",
    "unix::",
    "streams::",
    "reload::",
    "judge::",
    // Its modules are of the older nginx.
    "--skip=reload::a_worker_that_starts_helpers",
];

/// The stories that go on for long. They mostly wait, so all of them at once.
const QUIET: &[&str] = &["quiet::", "--test-threads=8"];

pub(crate) fn run(Args { stories, dist, kernels, deploy, long, filter }: Args) -> Result<()> {
    if dist || deploy {
        setup::for_releases()?;
    } else {
        setup::run()?;
    }
    for gate in GATES.iter().filter(|_| !stories) {
        announce(gate.what);
        let mut command = cargo::cargo(gate.cargo);
        shell::run(command.envs(gate.env.iter().copied()).envs(strictness()))
            .with_context(|| format!("{} failed", gate.what))?;
    }
    if !stories {
        check_advisories()?;
    }
    announce("the release build");
    let proxytrace = if dist { xtask_dist::own_program()? } else { cargo::build(Target::Own, "proxytrace")? };

    if !stories {
        announce("what it costs, as far as that does not depend on the clock");
        run_quick_bench(&proxytrace)?;
    }

    announce("stories");
    run_stories(&proxytrace, &filter, &[])?;
    if filter.is_empty() {
        announce("the truth table, by raw tracepoints");
        run_stories(&proxytrace, TRUTH_TABLE, &[(HOOK_VIA, &xtask_vm::all_by_raw_tracepoints())])?;
        announce("what becomes of requests, with the newest nginx");
        let nginx = setup::newest_nginx()?;
        run_stories(&proxytrace, KEPT, &[(NGINX, &nginx.to_string_lossy())])?;
    }
    if long {
        announce("ordinary life");
        run_stories(&proxytrace, QUIET, &[(LONG, "1")])?;
    }
    if kernels {
        announce("other kernels");
        xtask_vm::run(xtask_vm::Args::few())?;
    }
    if deploy {
        announce("what a release consists of");
        try_release()?;
    }
    Ok(())
}

/// The commands that build it and try it, the quickest first.
const RELEASE: &[&[&str]] = &[
    &["dist", "--arch", env::consts::ARCH],
    &["package", "--check"],
    &["image"],
    &["cluster"],
    &["cluster", "--static-pods"],
];

/// Each by itself, as one would type it: some become root.
fn try_release() -> Result<()> {
    let own = env::current_exe().context("find out which program this is")?;
    for args in RELEASE {
        announce(&format!("cargo xtask {}", args.join(" ")));
        shell::run(Command::new(&own).args(*args).current_dir(cargo::root()))?;
    }
    Ok(())
}

/// Whether something that we depend on is known to be vulnerable, by the snapshot of the advisories that is on this machine: their
/// database is a git repository that not every machine which must pass the tests can reach.
fn check_advisories() -> Result<()> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let mut snapshots = home.and_then(|home| home.join(ADVISORIES).read_dir().ok()).into_iter().flatten();
    if snapshots.next().is_none() {
        announce(
            "advisories were NOT checked: there is no snapshot of them here, `cargo deny fetch db` brings one",
        );
        return Ok(());
    }
    announce("advisories");
    let mut command = cargo::cargo(&["deny", "--offline", "check", "advisories"]);
    shell::run(&mut command).context("advisories failed; `cargo deny fetch db` brings newer ones")
}

/// Where cargo-deny keeps them, below cargo's directory.
const ADVISORIES: &str = "advisory-dbs";

/// Compares what the programs in the kernel cost with what is committed.
fn run_quick_bench(proxytrace: &Path) -> Result<()> {
    let mut command = cargo::cargo(&["run", "--quiet", "--package", BENCH, "--locked"]);
    run_as_root(&mut command)?;
    command.env(cargo::BINARY, proxytrace).args(["--", "--quick"]);
    shell::run(&mut command).context("it costs more than it did")
}

/// Has cargo start as root what it builds as the user.
fn run_as_root(command: &mut Command) -> Result<()> {
    let runner = shell::root_runner()?;
    if !runner.is_empty() {
        // Cargo builds as the user, and starts only the finished program through this.
        command.args(["--config", &format!(r#"target."cfg(all())".runner = {runner:?}"#)]);
    }
    Ok(())
}

/// Runs the stories that pass the filter.
fn run_stories(proxytrace: &Path, filter: &[impl AsRef<OsStr>], env: &[(&str, &str)]) -> Result<()> {
    let mut command = cargo::cargo(&["test", "--package", STORIES, "--test", "stories", "--locked"]);
    run_as_root(&mut command)?;
    // Shown also when all is well: why a story was skipped, and what things cost.
    command.env(cargo::BINARY, proxytrace).envs(env.iter().copied()).envs(strictness());
    shell::run(command.args(["--", "--show-output"]).args(filter)).context("a story failed")
}

/// In CI, what a test cannot try is a failure.
fn strictness() -> Option<(&'static str, &'static str)> {
    env::var_os("CI").map(|_| (SKIP_IS_FAILURE, "1"))
}

fn announce(what: &str) {
    println!("test: {what}");
}
