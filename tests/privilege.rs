//! What it may do while it runs, and whom it runs as: what docs/security.md says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use proxytrace_tests::metrics::Account;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, proxy_to};
use proxytrace_tests::proxytrace::{self, Agent, Trace};
use proxytrace_tests::skip;
use proxytrace_tests::wait::{self, SOON};

use crate::scene::counted;

/// Numbers from linux/capability.h, as bits.
const SYS_PTRACE: u64 = 1 << 19;
const BPF: u64 = 1 << 39;

/// The threads that own a trace: the main one, and the agent's for work.
const WITH_CAPABILITIES: [&str; 2] = ["proxytrace", "work"];

const NOBODY: u32 = 65534;

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";

#[test]
fn root_gives_up_all_but_what_it_needs_and_still_sees_everything() {
    let netns = Netns::new();
    let mut nginx = Nginx::prepare(Options::default(), &proxy_to(ADDRESS, ""));
    let arguments = ["--process", nginx.name()];
    let (agent, trace) = (Agent::start(&arguments), Trace::start(&arguments));
    let held = set("self", "CapEff");
    for pid in [agent.pid(), trace.pid()] {
        check_lowered(pid, held & SYS_PTRACE);
        assert_eq!(set(&pid.to_string(), "CapBnd"), 0, "a process that may shrink the bounding set does");
    }
    let words = ["keeps CAP_SYS_PTRACE", "system calls"];
    wait::until_true("it to say what it keeps", SOON, || {
        words.iter().all(|word| agent.stderr().contains(word))
    });

    // Nothing of it was there when the privileges were given up.
    nginx.launch(&netns);
    assert_eq!(nginx.get("/"), 502);
    nginx.reload(&proxy_to(ADDRESS, ""));
    assert_eq!(nginx.get("/"), 502);
    sees_refused(&nginx, &agent, &trace, 2);
    assert!(trace.stop().status.success());
    agent.stop();
}

#[test]
fn whoever_debugs_it_can_have_it_keep_everything() {
    let agent = Agent::start(&["--keep-privileges"]);
    let pid = agent.pid().to_string();
    for field in ["CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp"] {
        assert_eq!(status(&pid, field), status("self", field), "{field}");
    }
    agent.stop();
}

#[test]
fn nobody_traces_with_the_two_capabilities_that_are_required_and_so_does_root() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    let netns = Netns::new();
    for user in [NOBODY, 0] {
        let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
        let arguments = ["--process", nginx.name()];
        let agent = Agent::by(confined(&program, user, "+bpf,+perfmon"), &arguments);
        let trace = Trace::by(confined(&program, user, "+bpf,+perfmon"), &arguments);
        for pid in [agent.pid(), trace.pid()] {
            let ids = [user; 4].map(|id| id.to_string()).join("\t");
            assert_eq!(status(&pid.to_string(), "Uid"), ids);
            check_lowered(pid, 0);
        }
        assert_eq!(nginx.get("/"), 502);
        sees_refused(&nginx, &agent, &trace, 1);
        assert!(trace.stop().status.success());
        agent.stop();
    }
}

#[test]
fn nobody_learns_which_of_the_two_is_missing() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    for (given, missing) in [("+bpf", "CAP_PERFMON"), ("+perfmon", "CAP_BPF")] {
        let output = confined(&program, NOBODY, given).arg("trace").output().expect("run setpriv");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(&format!("missing capability {missing} (")), "{stderr}");
    }
}

#[test]
fn where_proc_hides_processes_it_takes_sys_ptrace_to_find_and_to_name_them() {
    /// What a proxy is called that cannot be read: the first of the names that are wanted.
    const UNSEEN: &str = "somebody";
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    let netns = Netns::new();
    for (given, sees) in [("+bpf,+perfmon", false), ("+bpf,+perfmon,+sys_ptrace", true)] {
        let mut nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
        let arguments = ["--process", UNSEEN, "--process", nginx.name()];
        let agent = Agent::by(where_proc_hides(&confined(&program, NOBODY, given)), &arguments);
        check_lowered(agent.pid(), if sees { SYS_PTRACE } else { 0 });
        let says = if sees { "tracing pid" } else { "no process to trace runs yet" };
        wait::until_true(says, SOON, || agent.stderr().contains(says));
        assert_eq!(nginx.get("/"), 502);
        if sees {
            counted(&agent, nginx.name(), ADDRESS, &refused(1));
        } else {
            assert!(agent.metrics().addresses(nginx.name()).is_empty());
        }

        // One that starts later is seen by the kernel half. It takes up its predecessor's name, and counts.
        nginx.restart(&netns);
        assert_eq!(nginx.get("/"), 502);
        let (name, attempts) = if sees { (nginx.name(), 2) } else { (UNSEEN, 1) };
        counted(&agent, name, ADDRESS, &refused(attempts));
        agent.stop();
    }
}

/// It has these capabilities and no more, but for the one that some kernels ask for to read maps.
#[track_caller]
fn check_lowered(pid: u32, capabilities: u64) {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("read the threads of a process");
    let threads = threads.map(|thread| thread.expect("a thread").file_name().to_string_lossy().into_owned());
    let mut names = Vec::new();
    for thread in threads.map(|tid| format!("{pid}/task/{tid}")) {
        let name = status(&thread, "Name");
        // Those that own the trace, and no other.
        let needed = if WITH_CAPABILITIES.contains(&&*name) { capabilities } else { 0 };
        for field in ["CapEff", "CapPrm"] {
            assert_eq!(set(&thread, field) & !BPF, needed, "{field} of {name}");
        }
        for field in ["CapInh", "CapAmb"] {
            assert_eq!(set(&thread, field), 0, "{field} of {name}");
        }
        let confined = [status(&thread, "NoNewPrivs"), status(&thread, "Seccomp")];
        assert_eq!(confined, ["1", "2"], "{name}");
        names.push(name);
    }
    assert!(names.len() > 1 && names.iter().any(|name| WITH_CAPABILITIES.contains(&&**name)), "{names:?}");
}

#[track_caller]
fn sees_refused(nginx: &Nginx, agent: &Agent, trace: &Trace, attempts: u64) {
    for _ in 0..attempts {
        let record = trace.next_of("connect");
        assert_eq!((&*record.outcome, &*record.address), ("refused", ADDRESS));
    }
    counted(agent, nginx.name(), ADDRESS, &refused(attempts));
}

fn refused(attempts: u64) -> Account {
    let failures = BTreeMap::from([("refused".to_owned(), attempts)]);
    Account { attempts, failures, ..Account::default() }
}

/// The program as this user, with these capabilities and no way to others: as a systemd unit with `User=`,
/// `AmbientCapabilities=`, `CapabilityBoundingSet=` and `NoNewPrivileges=yes`, or a container, runs it.
pub(crate) fn confined(program: &Path, user: u32, capabilities: &str) -> Command {
    // As LimitMEMLOCK=infinity does: kernels before 5.11 charge maps to this limit. Later ones do not ask.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    let mut command = proxytrace::command_of("setpriv");
    command.args([
        format!("--reuid={user}"),
        format!("--regid={user}"),
        format!("--bounding-set=-all,{capabilities}"),
        format!("--inh-caps=-all,{capabilities}"),
        format!("--ambient-caps=-all,{capabilities}"),
    ]);
    command.args(["--clear-groups", "--no-new-privs"]).arg(program);
    command
}

/// The command where /proc shows a user no processes of others.
fn where_proc_hides(command: &Command) -> Command {
    let mut hidden = proxytrace::command_of("unshare");
    let script = r#"mount -t proc -o hidepid=2 proc /proc && exec "$@""#;
    hidden.args(["--mount", "sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    hidden
}

/// A set of capabilities in /proc/PID/status.
#[track_caller]
fn set(pid: &str, field: &str) -> u64 {
    u64::from_str_radix(&status(pid, field), 16).expect("a set of capabilities")
}

/// A field of /proc/PID/status.
#[track_caller]
fn status(pid: &str, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status of a process");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    value.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
}
