//! What developing proxytrace needs: `cargo xtask setup | run | test | demo | bench | notices | vm | dist | package | image | cluster`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to the person who typed the command")]

mod notices;
mod run;
mod setup;
mod show;
mod test;
#[cfg(test)]
mod tidy;

use std::process::ExitCode;

use clap::Parser;
use xtask_tools::shell;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about, disable_help_subcommand = true)]
enum Command {
    /// Bring this machine to where everything builds and every test runs
    Setup {
        /// Also to where releases are made, and tried in machines and clusters
        #[arg(long)]
        releases: bool,
    },
    /// Build proxytrace and run it with the privileges it needs
    Run(run::Args),
    /// Check everything that CI checks, with the stories last
    Test(test::Args),
    /// Replay the outage that proxytrace exists for, on a real nginx, and time who notices what
    Demo,
    /// Measure what proxytrace costs, beside the same without it; `--quick` what does not depend on the clock
    Bench(show::BenchArgs),
    /// Write THIRD-PARTY-NOTICES.md anew, from the packages that are in the program
    Notices,
    /// Build the files that a release consists of: static programs, archives, bills of materials, checksums
    Dist(xtask_dist::Args),
    /// Build the container image from what `dist` made, and run it with podman beside an nginx
    Image,
    /// Install the Helm chart on a real cluster of one node, upgrade it and take it away
    Cluster(xtask_cluster::Args),
    /// Run the stories of the kernel half on other kernels, in virtual machines
    Vm(xtask_vm::Args),
    /// Make the Debian package, and try it
    Package(xtask_package::Args),
}

fn main() -> ExitCode {
    let done = match Command::parse() {
        Command::Setup { releases: false } => setup::run(),
        Command::Setup { releases: true } => setup::for_releases(),
        Command::Run(args) => run::run(args),
        Command::Test(args) => test::run(args),
        Command::Demo => show::demo(),
        Command::Bench(args) => show::bench(&args),
        Command::Notices => notices::run(),
        Command::Dist(args) => setup::for_releases().and_then(|()| xtask_dist::run(&args)),
        Command::Image => {
            setup::for_releases().and_then(|()| shell::become_root()).and_then(|()| xtask_cluster::image())
        }
        Command::Cluster(args) => setup::for_releases()
            .and_then(|()| shell::become_root())
            .and_then(|()| xtask_cluster::cluster(args)),
        Command::Vm(args) => setup::run().and_then(|()| xtask_vm::run(args)),
        Command::Package(args) => setup::for_releases().and_then(|()| xtask_package::run(args)),
    };
    if let Err(error) = done {
        eprintln!("xtask: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
