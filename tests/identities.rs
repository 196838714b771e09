//! What proxies are called: the same after every restart, and nobody takes another's name.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proxytrace_tests::child::{self, Guarded};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON};

/// Where nobody listens.
const CLOSED: &str = "127.0.0.1:8081";

#[test]
fn proxies_that_share_a_name_are_distinguished_by_their_configurations_at_every_start() {
    let netns = Netns::new();
    let all: Vec<Nginx> = (0..3).map(|_| Nginx::prepare(Default::default(), &proxy_to(CLOSED, ""))).collect();
    let name = all[0].name();
    let _processes: Vec<Guarded> = all.iter().map(|nginx| run_as(name, nginx, &netns)).collect();
    let called = |nginx: &Nginx| format!("{name}:{}", nginx.config().display());
    let expected: Vec<String> = all.iter().map(called).collect();

    for _ in 0..5 {
        let agent = Agent::start(&["--process", name]);
        let info = agent.metrics();
        let of_config = |nginx: &Nginx| {
            let config = nginx.config().display().to_string();
            info.values_of("proxy", "proxytrace_proxy_info", &[("config", &config)])
        };
        let found: Vec<String> = all.iter().flat_map(of_config).collect();
        assert_eq!(found, expected, "{}", info.text);
        agent.stop();
    }

    let trace = Trace::start(&["--process", name]);
    for nginx in all.iter().rev() {
        assert_eq!(nginx.get("/"), 502);
        assert_eq!(trace.next_of("connect").proxy, called(nginx));
    }
}

#[test]
fn another_users_process_neither_takes_a_name_nor_changes_it_whoever_comes_first() {
    let name = scratch::unique_name("ptn");
    let netns = Netns::new();
    for roots_is_first in [true, false] {
        let directory = scratch::directory();
        let program = scratch::alias(Path::new("/bin/bash"), directory.path(), &name);
        let start = |is_root: bool| match is_root {
            true => connecting(&mut Command::new(&program), &netns),
            false => connecting(nobody().arg(&program), &netns),
        };
        let _processes = [start(roots_is_first), start(!roots_is_first)];

        for _ in 0..2 {
            check(&name, &[(&name, "process"), (&format!("{name}@65534"), "process")]);
        }
    }
}

#[test]
fn a_unit_is_what_the_system_has_started_and_not_what_a_user_calls_a_group() {
    let (name, unit) = (scratch::unique_name("ptu"), format!("{}.service", scratch::unique_name("ptu")));
    let netns = Netns::new();
    let slice = format!("user.slice/user-{}.slice", std::process::id());
    let forged = Group::new(&format!("{slice}/user@1000.service/app.slice/{unit}"));
    let real = Group::new(&format!("system.slice/{unit}"));
    let directory = scratch::directory();
    let program = scratch::alias(Path::new("/bin/bash"), directory.path(), &name);
    let start = |group: &Group| connecting(&mut group.command(&program), &netns);
    let _processes = [start(&forged), start(&real)];

    check(&name, &[(&name, "process"), (&unit, "unit")]);
}

#[test]
fn a_name_that_any_container_can_choose_is_said_to_be_one() {
    let (name, netns) = (scratch::unique_name("ptn"), Netns::new());
    let directory = scratch::directory();
    let program = scratch::alias(Path::new("/bin/bash"), directory.path(), &name);
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--pid", "--fork", "--kill-child"]).arg(&program);
    let _process = connecting(&mut elsewhere, &netns);

    let agent = Agent::start(&["--process", &name]);
    let words = format!("proxy {name}@0, process ");
    let is_said = || {
        agent.stderr().lines().any(|line| line.contains(&words) && line.contains("which others can as well"))
    };
    wait::until_true("it to say so", SOON, is_said);
    let sources = agent.metrics().values_of("name_source", "proxytrace_proxy_info", &[]);
    assert_eq!(sources, ["process"]);
    agent.stop();
}

/// An agent that starts now sees these proxies, by name and who says so, and of each one attempt at least.
#[track_caller]
fn check(process: &str, expected: &[(&str, &str)]) {
    let agent = Agent::start(&["--process", process]);
    let counted =
        |proxy: &str| agent.metrics().count("proxytrace_connect_attempts_total", &[("proxy", proxy)]);
    for (proxy, _) in expected {
        wait::until_true(&format!("an attempt of {proxy}"), SOON * 2, || counted(proxy) > 0);
    }
    let metrics = agent.metrics();
    let mut names: Vec<_> = expected.iter().map(|(proxy, _)| (*proxy).to_owned()).collect();
    names.sort();
    assert_eq!(metrics.values_of("proxy", "proxytrace_proxy_info", &[]), names, "{}", metrics.text);
    for (proxy, source) in expected {
        let sources = metrics.values_of("name_source", "proxytrace_proxy_info", &[("proxy", proxy)]);
        assert_eq!(sources, [*source], "{}", metrics.text);
    }
    agent.stop();
}

/// Runs nginx under another's process name.
fn run_as(name: &str, nginx: &Nginx, netns: &Netns) -> Guarded {
    let config = nginx.config();
    let directory = config.parent().expect("a directory");
    let program = directory.join(name);
    if !program.exists() {
        scratch::alias(Path::new("/usr/sbin/nginx"), directory, name);
    }
    let mut command = Command::new(program);
    command.args(nginx.command().get_args()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = netns.spawn(&mut command);
    wait::until_true("nginx to serve", SOON, || UnixStream::connect(directory.join("clients")).is_ok());
    process
}

/// A shell that connects again and again.
fn connecting(command: &mut Command, netns: &Netns) -> Guarded {
    let script = "while :; do (: < /dev/tcp/127.0.0.1/8081) 2> /dev/null; sleep 0.2; done";
    netns.spawn(command.args(["-c", script]).stdin(Stdio::null()).stderr(Stdio::null()))
}

fn nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command
}

/// A control group; those that were made for it go with it.
struct Group {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl Group {
    fn new(path: &str) -> Self {
        let mounts = child::run(Command::new("cat").arg("/proc/self/mounts"));
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let unified =
            mounts.find(|words| words[2] == "cgroup2").expect("control groups version 2 are mounted");
        let mut path_so_far = PathBuf::from(unified[1]);
        let mut made = Vec::new();
        for part in path.split('/') {
            path_so_far.push(part);
            if fs::create_dir(&path_so_far).is_ok() {
                made.push(path_so_far.clone());
            }
        }
        Self { path: path_so_far, made }
    }

    /// A command that becomes `program` in it.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$GROUP/cgroup.procs\" && exec \"$0\" \"$@\""]).arg(program);
        command.env("GROUP", &self.path);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // Its processes may be about to end; what others have made something in stays.
            let _ = wait::within(SOON, || fs::remove_dir(path).ok());
        }
    }
}
