//! `cargo xtask setup`: from a fresh machine to where everything builds and every test runs.

mod apt;
mod helm;
mod needs;
mod newest_nginx;
mod rust_src;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use xtask_tools::{cargo, shell};

use self::apt::Apt;
use self::needs::{BENCH_NEEDS, Check, NEEDS, Need, RELEASE_NEEDS, Step};

/// Gets what is missing of what building and testing needs, and says what and why. Where all is there it is a matter of
/// milliseconds, which is why every other command begins with it.
pub(crate) fn run() -> Result<()> {
    get_missing(NEEDS)
}

/// The same of what releases need besides. Who only tests need not be able to get it.
pub(crate) fn for_releases() -> Result<()> {
    run()?;
    get_missing(RELEASE_NEEDS)
}

/// The same of what the bench measures with and compares with.
pub(crate) fn for_bench() -> Result<()> {
    get_missing(BENCH_NEEDS)
}

/// Where the newest nginx is, when [`run`] has brought it.
pub(crate) fn newest_nginx() -> Result<PathBuf> {
    Ok(cargo::target_dir()?.join(newest_nginx::PROGRAM))
}

fn get_missing(needs: &[Need]) -> Result<()> {
    let machine = Machine::look_at()?;
    let missing: Vec<&Need> = needs.iter().filter(|need| !machine.has(need)).collect();
    if missing.is_empty() {
        eprintln!("setup: nothing to do, this machine has all {} things", needs.len());
        return Ok(());
    }

    let mut apt = Apt::default();
    let mut failed = 0;
    for need in missing {
        eprintln!("setup: {} is missing: {}", need.name, need.why);
        if let Err(error) = machine.get(need, &mut apt) {
            failed += 1;
            eprintln!("setup: cannot get {}: {error:#}", need.name);
            eprintln!("setup: {} can be had in one of these ways:", need.name);
            for way in need.ways() {
                eprintln!("setup:   - {way}");
            }
        }
    }
    if failed > 0 {
        bail!("setup is incomplete: get what is named above, then run `cargo xtask setup` again");
    }
    eprintln!("setup: done, this machine has all {} things", needs.len());
    Ok(())
}

/// What the checks ask about, looked up once.
struct Machine {
    sysroot: PathBuf,
    target: PathBuf,
}

impl Machine {
    fn look_at() -> Result<Self> {
        let sysroot =
            shell::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(cargo::root()))?;
        Ok(Self { sysroot: sysroot.trim().into(), target: cargo::target_dir()? })
    }

    fn has(&self, need: &Need) -> bool {
        match need.check {
            Check::Program(name) => shell::is_installed(name),
            Check::File(path) => Path::new(path).exists(),
            Check::InSysroot(path) => self.sysroot.join(path).exists(),
            Check::Crate { name, version } => shell::output(&mut cargo::cargo(&["install", "--list"]))
                .is_ok_and(|list| list.lines().any(|line| line == format!("{name} v{version}:"))),
            Check::InTarget(path) => self.target.join(path).exists(),
            Check::Runs(path) => {
                let mut version = Command::new(self.target.join(path));
                // nginx writes it to standard error.
                version.arg("-v").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                version.status().is_ok_and(|status| status.success())
            }
            Check::Version { program, version } => shell::output(Command::new(program).arg("--version"))
                .is_ok_and(|printed| printed.split_whitespace().any(|word| word == version)),
        }
    }

    fn get(&self, need: &Need, apt: &mut Apt) -> Result<()> {
        for step in need.steps {
            eprintln!("setup:   {step}");
            match step {
                Step::Packages { names, services } => apt.install(names, services)?,
                Step::Unpacked { names, place } => apt.unpack(names, &self.target.join(place))?,
                Step::Component(name) => {
                    shell::run(
                        Command::new("rustup").args(["component", "add", name]).current_dir(cargo::root()),
                    )?;
                }
                Step::Library(target) => {
                    shell::run(
                        Command::new("rustup").args(["target", "add", target]).current_dir(cargo::root()),
                    )?;
                }
                Step::RustSrc => rust_src::install(&self.sysroot)?,
                Step::Helm => helm::install(&self.target)?,
                Step::NewestNginx => newest_nginx::install(&self.target)?,
                Step::Crate { args, env } => {
                    shell::run(
                        cargo::cargo(&["install", "--locked", "--force"])
                            .args(*args)
                            .envs(env.iter().copied()),
                    )?;
                }
                Step::Python { package, environment } => {
                    let environment = self.target.join(environment);
                    shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
                    shell::run(
                        Command::new(environment.join("bin/pip")).args(["install", "--quiet", package]),
                    )?;
                }
                Step::Node { lock, environment } => {
                    let environment = self.target.join(environment);
                    fs::create_dir_all(&environment)?;
                    for name in ["package.json", "package-lock.json"] {
                        fs::copy(cargo::root().join(lock).join(name), environment.join(name))?;
                    }
                    // Scripts of packages would run as whoever sets up.
                    shell::run(
                        Command::new("npm")
                            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
                            .arg(&environment),
                    )?;
                }
            }
        }
        if !self.has(need) {
            bail!("installed, but not found: is the directory that it went to in PATH, before any other?");
        }
        Ok(())
    }
}
