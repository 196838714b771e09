//! What watches an nginx: nothing, ours, and what people would use instead.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use proxytrace_tests::bpf::Objects;
use proxytrace_tests::child::Guarded;
use proxytrace_tests::nginx::Nginx;
use proxytrace_tests::proxytrace::{self, Agent};
use tempfile::TempDir;

/// Something that watches.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    start: fn(&Nginx, &Path) -> Watching,
}

/// The first is what the others are held against.
pub(crate) const SUBJECTS: &[Subject] = &[
    Subject { name: "without", start: |_, _| Watching::Nothing },
    Subject { name: "agent", start: |nginx, _| Watching::Agent(Agent::start(&["--process", nginx.name()])) },
    Subject {
        name: "trace",
        start: |nginx, output| {
            program(proxytrace::command().args(["trace", "--json", "--process", nginx.name()]), output)
        },
    },
    Subject {
        name: "trace --all",
        start: |nginx, output| {
            program(
                proxytrace::command().args(["trace", "--all", "--json", "--process", nginx.name()]),
                output,
            )
        },
    },
    Subject { name: "bpftrace, counting", start: |nginx, output| script("count.bt", nginx, output) },
    Subject { name: "bpftrace, printing", start: |nginx, output| script("print.bt", nginx, output) },
    Subject { name: "tcpconnect", start: |_, output| tool("tcpconnect", output) },
    Subject { name: "tcpstates", start: |_, output| tool("tcpstates", output) },
    Subject { name: "tcptracer", start: |_, output| tool("tcptracer", output) },
    Subject {
        name: "strace",
        start: |nginx, output| {
            if !which("strace") {
                return Watching::Other(Err("it is not installed".to_owned()));
            }
            let mut strace = Command::new("strace");
            strace.args(["-f", "-e", "trace=connect"]);
            for pid in nginx.worker_pids() {
                strace.arg("-p").arg(pid.to_string());
            }
            program(&mut strace, output)
        },
    },
];

/// How it is started, and how one sees that it watches.
enum Watching {
    Nothing,
    Agent(Agent),
    /// Something with programs in the kernel, or that traces processes.
    Other(Result<Guarded, String>),
}

/// Runs a program whose output goes to a file, as that of somebody who reads it later.
fn program(command: &mut Command, output: &Path) -> Watching {
    let mut start = || -> Result<Guarded> {
        let file = File::create(output)?;
        let errors = File::create(output.with_extension("err"))?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        Ok(Guarded::spawn(command))
    };
    Watching::Other(start().map_err(|error| format!("{error:#}")))
}

/// A tool that finds its tracepoints in tracefs.
fn tool(name: &str, output: &Path) -> Watching {
    if !which(name) {
        return Watching::Other(Err("it is not installed".to_owned()));
    }
    program(&mut with_tracefs(name), output)
}

/// Whether a program is in a directory of PATH.
fn which(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// A script of this directory, which gets the name of the processes that it is about.
fn script(name: &str, nginx: &Nginx, output: &Path) -> Watching {
    program(&mut bpftrace(name, nginx.name()), output)
}

/// bpftrace with a script of this directory, about the processes of that name.
pub(crate) fn bpftrace(script: &str, processes: &str) -> Command {
    let mut command = with_tracefs("bpftrace");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script)).arg(processes);
    command
}

/// A program that sees tracefs and debugfs, in a mount namespace of its own: not every host has them mounted.
fn with_tracefs(program: &str) -> Command {
    const MOUNT: &str =
        "mount -t debugfs none /sys/kernel/debug && mount -t tracefs none /sys/kernel/tracing && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", MOUNT, "sh", program]);
    command
}

/// How long one may take until it watches: bpftrace compiles.
const PATIENCE: Duration = Duration::from_secs(20);

impl Subject {
    /// Does `work` while it watches `nginx`. Gives why, where it cannot watch here.
    pub(crate) fn during<T>(
        &self,
        nginx: &Nginx,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<Result<T, String>> {
        let directory = TempDir::new().context("make a directory for what it prints")?;
        let output = directory.path().join("output");
        match (self.start)(nginx, &output) {
            Watching::Nothing => work().map(Ok),
            Watching::Agent(agent) => {
                let done = work()?;
                agent.stop();
                Ok(Ok(done))
            }
            Watching::Other(Err(why)) => Ok(Err(why)),
            Watching::Other(Ok(mut process)) => {
                if let Err(why) = until_it_watches(&mut process, nginx, &output) {
                    return Ok(Err(why));
                }
                let done = work()?;
                if process.ended().is_some() {
                    return Ok(Err(format!("it ended: {}", last_words(&output))));
                }
                process.signal(Signal::SIGINT);
                process.wait(PATIENCE);
                Ok(Ok(done))
            }
        }
    }
}

fn until_it_watches(process: &mut Guarded, nginx: &Nginx, output: &Path) -> Result<(), String> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if process.ended().is_some() {
            return Err(format!("it ended: {}", last_words(output)));
        }
        if Objects::of(process.pid()).is_complete() || is_traced(nginx) {
            // Attached or about to be: programs are loaded one after the other.
            thread::sleep(Duration::from_secs(1));
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Err(format!("it did not watch after {} s: {}", PATIENCE.as_secs(), last_words(output)))
}

/// Whether somebody traces the workers with ptrace(2).
fn is_traced(nginx: &Nginx) -> bool {
    let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    nginx.worker_pids().into_iter().any(|pid| {
        status(pid).lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|pid| pid.trim() != "0"))
    })
}

/// The last line of what it complained about.
fn last_words(output: &Path) -> String {
    let said = fs::read_to_string(output.with_extension("err")).unwrap_or_default();
    said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("without a word").to_owned()
}
