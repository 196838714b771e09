//! What it may do while it runs, whom it runs as, and what it tells of its host. docs/security.md says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use proxytrace_tests::metrics::{Account, Metrics};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, proxy_to};
use proxytrace_tests::proxytrace::{self, Agent, Trace};
use proxytrace_tests::skip;

use crate::scene::counted;

/// Numbers from linux/capability.h, as bits.
const SYS_PTRACE: u64 = 1 << 19;
const BPF: u64 = 1 << 39;

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
    assert!(words.iter().all(|word| agent.stderr().contains(word)), "{}", agent.stderr());

    // Started, reloaded and started again by other programs than the one that was there when it was attached.
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
fn nobody_traces_with_the_two_capabilities_that_are_required() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    let arguments = ["--process", nginx.name()];
    let agent = Agent::by(nobody(&program, "+bpf,+perfmon"), &arguments);
    let trace = Trace::by(nobody(&program, "+bpf,+perfmon"), &arguments);
    for pid in [agent.pid(), trace.pid()] {
        assert_eq!(status(&pid.to_string(), "Uid"), "65534\t65534\t65534\t65534");
        check_lowered(pid, 0);
    }
    assert_eq!(nginx.get("/"), 502);
    sees_refused(&nginx, &agent, &trace, 1);
    assert!(trace.stop().status.success());
    agent.stop();
}

#[test]
fn nobody_is_told_which_of_the_two_is_missing() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    for (given, missing) in [("+bpf", "CAP_PERFMON"), ("+perfmon", "CAP_BPF")] {
        let output = nobody(&program, given).arg("trace").output().expect("run setpriv");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(&format!("missing capability {missing} (")), "{stderr}");
    }
}

#[test]
fn where_proc_hides_processes_finding_those_that_run_takes_sys_ptrace() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    let netns = Netns::new();
    for (given, is_found) in [("+bpf,+perfmon", false), ("+bpf,+perfmon,+sys_ptrace", true)] {
        let mut nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
        let agent = Agent::by(where_proc_hides(&nobody(&program, given)), &["--process", nginx.name()]);
        check_lowered(agent.pid(), if is_found { SYS_PTRACE } else { 0 });
        assert_eq!(nginx.get("/"), 502);
        if is_found {
            counted(&agent, nginx.name(), ADDRESS, &refused(1));
        } else {
            assert!(agent.stderr().contains("no process to trace runs yet"), "{}", agent.stderr());
            assert!(agent.metrics().addresses(nginx.name()).is_empty());
            // One that starts later is seen by the kernel half.
            nginx.restart(&netns);
            assert_eq!(nginx.get("/"), 502);
            counted(&agent, nginx.name(), ADDRESS, &refused(1));
        }
        agent.stop();
    }
}

#[test]
fn what_it_serves_tells_no_more_of_the_host_than_documented() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    let mut command = proxytrace::command();
    command.env("DATABASE_PASSWORD", "tiger-in-the-environment").current_dir("/usr");
    let agent = Agent::by(command, &["--process", nginx.name(), "--process", "tiger-in-args"]);
    assert_eq!(nginx.get("/"), 502);
    counted(&agent, nginx.name(), ADDRESS, &refused(1));

    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("read the host's name");
    let secrets = ["tiger", "DATABASE", host.trim(), "/usr", "/proc", "/tmp", "/root", "/work"];
    let open_metrics = ("accept", "application/openmetrics-text; version=1.0.0");
    let plain = ("accept", "text/plain");
    let documented = documented();
    for (path, accept) in [
        ("/metrics", plain),
        ("/metrics", open_metrics),
        ("/", plain),
        ("/healthz", plain),
        ("/readyz", plain),
        ("/x", plain),
    ] {
        let response = agent.get_with(path, &[accept]);
        let fields: BTreeSet<_> = response.head.lines().filter_map(|line| line.split(':').next()).collect();
        let known = BTreeSet::from(["connection", "content-length", "content-type", "date"]);
        assert!(fields.is_subset(&known), "{path}: {}", response.head);
        let whole = format!("{}\n{}", response.head, response.body);
        for secret in secrets {
            assert!(!whole.contains(secret), "{secret} is in {path}: {whole}");
        }
        if path == "/metrics" {
            for (name, labels) in Metrics::parse(&response.body).shapes() {
                assert_eq!(
                    documented.get(&name),
                    Some(&labels),
                    "{name} is not in docs/metrics.md like that"
                );
            }
        }
    }
    agent.stop();
}

#[test]
fn it_has_no_file_open_but_its_standard_streams() {
    let agent = Agent::start(&[]);
    let directory = format!("/proc/{}/fd", agent.pid());
    for entry in
        fs::read_dir(directory).expect("read the descriptors").map(|entry| entry.expect("a descriptor"))
    {
        // One that is closed meanwhile is none.
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.display().to_string();
        let number: u32 = entry.file_name().to_string_lossy().parse().expect("a number");
        let is_known = ["socket:", "pipe:", "anon_inode:"].iter().any(|kind| target.starts_with(kind));
        assert!(number <= 2 || is_known, "descriptor {number} is {target}");
    }
    agent.stop();
}

/// It has these capabilities and no more, but for the one that some kernels ask for to read maps.
#[track_caller]
fn check_lowered(pid: u32, capabilities: u64) {
    let pid = pid.to_string();
    for field in ["CapEff", "CapPrm"] {
        assert_eq!(set(&pid, field) & !BPF, capabilities, "{field}");
    }
    for field in ["CapInh", "CapAmb"] {
        assert_eq!(set(&pid, field), 0, "{field}");
    }
    assert_eq!((&*status(&pid, "NoNewPrivs"), &*status(&pid, "Seccomp")), ("1", "2"));
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

/// The program as the user nobody, with these capabilities and no way to others.
fn nobody(program: &Path, capabilities: &str) -> Command {
    let mut command = proxytrace::command_of("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).args([
        format!("--bounding-set=-all,{capabilities}"),
        format!("--inh-caps=-all,{capabilities}"),
        format!("--ambient-caps=-all,{capabilities}"),
    ]);
    command.arg(program);
    command
}

/// The command where /proc shows a user no processes of others.
fn where_proc_hides(command: &Command) -> Command {
    let mut hidden = proxytrace::command_of("unshare");
    let script = r#"mount -t proc -o hidepid=2 proc /proc && exec "$@""#;
    hidden.args(["--mount", "sh", "-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
    hidden
}

/// Every sample that docs/metrics.md tells of, with its labels.
fn documented() -> BTreeMap<String, Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md"));
    let mut samples = BTreeMap::new();
    for line in page.expect("read docs/metrics.md").lines() {
        let [_, name, kind, labels, ..] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            continue;
        };
        let name = name.trim_matches('`');
        let with = |more: &[&str]| {
            let mut labels: Vec<_> = labels
                .split(", ")
                .filter(|label| !label.is_empty())
                .chain(more.iter().copied())
                .map(str::to_owned)
                .collect();
            labels.sort();
            labels
        };
        samples.insert(name.to_owned(), with(&[]));
        if kind == "histogram" {
            samples.insert(format!("{name}_bucket"), with(&["le"]));
            samples.insert(format!("{name}_sum"), with(&[]));
            samples.insert(format!("{name}_count"), with(&[]));
        }
    }
    samples
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
