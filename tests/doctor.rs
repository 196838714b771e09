//! What `doctor` says of this host, and of hosts that are worse.

use std::path::Path;
use std::process::{Command, Output};

use proxytrace_tests::filter;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace;
use proxytrace_tests::scratch;
use proxytrace_tests::skip;
use serde::Deserialize;

/// `doctor --json`, as far as the stories need it.
#[derive(Debug, Deserialize)]
struct Report {
    verdict: String,
    checks: Vec<Check>,
    hooks: Vec<Hook>,
}

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    state: String,
    found: String,
    costs: String,
    fix: String,
}

#[derive(Debug, Deserialize)]
struct Hook {
    name: String,
    state: String,
    via: Option<String>,
    seen: Option<u64>,
    refused: Vec<Refusal>,
    costs: String,
    fix: String,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    via: String,
    reason: String,
}

impl Report {
    #[track_caller]
    fn of(output: &Output) -> Self {
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    #[track_caller]
    fn hook(&self, name: &str) -> &Hook {
        self.hooks.iter().find(|hook| hook.name == name).unwrap_or_else(|| panic!("{name}: {self:#?}"))
    }

    #[track_caller]
    fn check(&self, name: &str) -> &Check {
        self.checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("{name}: {self:#?}"))
    }
}

fn doctor(arguments: &[&str]) -> Output {
    proxytrace::command().arg("doctor").args(arguments).output().expect("run doctor")
}

/// `doctor --json` behind another program, such as unshare or setpriv.
fn doctor_behind(program: &[&str]) -> Output {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(proxytrace::binary()).args(["doctor", "--json"]);
    command.output().expect("run doctor")
}

#[test]
fn every_hook_is_attached_and_sees_the_self_test() {
    let output = doctor(&["--json"]);
    let report = Report::of(&output);

    assert_eq!(report.check("self-test").state, "ok", "{report:#?}");
    for check in &report.checks {
        assert_eq!(check.costs.is_empty(), check.state == "ok", "{check:?}");
        assert_eq!(check.costs.is_empty(), check.fix.is_empty(), "{check:?}");
    }
    for hook in &report.hooks {
        assert!(hook.via.is_some(), "{hook:?}");
        assert!(hook.seen.is_none_or(|seen| seen > 0), "{hook:?}");
        assert_eq!(hook.costs.is_empty(), hook.state == "ok", "{hook:?}");
        assert_eq!(hook.costs.is_empty(), hook.fix.is_empty(), "{hook:?}");
        assert!(hook.refused.iter().all(|refused| !refused.reason.is_empty()), "{hook:?}");
    }
    assert_eq!(
        report.hooks.iter().filter(|hook| hook.seen.is_none()).count(),
        usize::from(by_state(&report))
    );
    // What is seen at a price is seen.
    let states =
        || report.checks.iter().map(|one| &one.state).chain(report.hooks.iter().map(|one| &one.state));
    let expected = match (states().any(|state| state == "lacks"), states().any(|state| state == "costs")) {
        (true, _) => ("degraded", 1),
        (false, true) => ("costly", 0),
        (false, false) => ("full", 0),
    };
    assert_eq!((&*report.verdict, output.status.code()), (expected.0, Some(expected.1)), "{report:#?}");
}

/// Whether the hook `tcp_connect` has no program of its own.
fn by_state(report: &Report) -> bool {
    report.hook("tcp_connect").via.as_deref() == Some("state")
}

#[test]
fn people_read_what_a_gap_costs_and_how_to_fix_it() {
    let output = doctor(&["--hook-via", "signal=none", "--hook-via", "retransmit=raw_tp"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for words in [
        "degraded: not everything is seen",
        "lacks   signal             none",
        "costs: without it reloads are not noticed",
        "fix: leave --hook-via out",
        "ok      retransmit         raw_tp     1",
    ] {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
}

#[test]
fn a_way_that_this_host_refuses_is_not_to_be_had_by_force() {
    let report = Report::of(&doctor(&["--json"]));
    for hook in &report.hooks {
        for Refusal { via, reason } in &hook.refused {
            let forced = format!("{}={via}", hook.name);
            let output = proxytrace::command()
                .args(["trace", "--duration", "1", "--hook-via", &forced])
                .output()
                .expect("run trace");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{forced}: {stderr}");
            assert!(stderr.contains("--hook-via") && stderr.contains(reason.as_str()), "{forced}: {stderr}");
            assert_eq!(Report::of(&doctor(&["--json", "--hook-via", &forced])).verdict, "cannot", "{forced}");
        }
    }
}

#[test]
fn a_host_that_cannot_be_traced_on_is_reported_with_3() {
    let directory = scratch::directory();
    let kubelet = scratch::alias(Path::new("/bin/sleep"), directory.path(), "kubelet").display().to_string();
    let node = format!("{kubelet} 60 & exec \"$@\"");
    let rows: &[(&[&str], &str, &str)] = &[
        (&["unshare", "--pid", "--fork", "--mount-proc"], "pid namespace", "not the host's: pids here"),
        (
            &["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", &node, "sh"],
            "pid namespace",
            "a node that is a container itself (kubelet runs in it)",
        ),
        (&["unshare", "--user", "--map-root-user"], "user namespace", "not the host's"),
        (&["setpriv", "--bounding-set=-all", "--inh-caps=-all"], "capabilities", "CAP_BPF"),
    ];
    for (behind, check, words) in rows {
        let output = doctor_behind(behind);
        let report = Report::of(&output);
        assert_eq!((&*report.verdict, output.status.code()), ("cannot", Some(3)), "{report:#?}");
        assert_eq!(report.check(check).state, "cannot", "{report:#?}");
        assert!(report.check(check).found.contains(words), "{report:#?}");
        assert!(report.hooks.is_empty(), "nothing was attached: {report:#?}");
    }
}

#[test]
fn where_loopback_is_down_it_says_that_the_hooks_are_not_proven() {
    let output = doctor_behind(&["unshare", "--net"]);
    let report = Report::of(&output);
    assert_eq!((&*report.verdict, output.status.code()), ("degraded", Some(1)), "{report:#?}");
    let check = report.check("self-test");
    assert_eq!(check.state, "lacks", "{report:#?}");
    assert!(check.found.contains("Network is unreachable"), "{report:#?}");
    assert!(report.hooks.iter().all(|hook| hook.seen.is_none()), "{report:#?}");
}

#[test]
fn a_filter_of_system_calls_is_named_with_how_to_be_without_it() {
    let doctor = |calls: &[i64]| {
        let mut command = proxytrace::command();
        filter::refuse(command.args(["doctor", "--json"]), calls);
        let output = command.output().expect("run doctor");
        (Report::of(&output), output.status.code())
    };
    let (report, status) = doctor(&[libc::SYS_bpf]);
    assert_eq!((&*report.verdict, status), ("cannot", Some(3)), "{report:#?}");
    assert_eq!(report.check("capabilities").state, "ok", "{report:#?}");
    let check = report.check("seccomp");
    assert_eq!((&*check.state, &*check.found), ("cannot", "a filter that refuses bpf"), "{check:?}");
    assert!(check.fix.contains("seccompProfile: {type: Unconfined}"), "{check:?}");

    let (report, status) = doctor(&[libc::SYS_perf_event_open]);
    assert_ne!(status, Some(3), "{report:#?}");
    assert_eq!(report.check("seccomp").state, "costs", "{report:#?}");
    let (report, _) = doctor(&[libc::SYS_swapon]);
    assert_eq!(report.check("seccomp").found, "a filter that lets bpf and perf_event_open through");
    assert_eq!(report.check("seccomp").state, "ok", "{report:#?}");
}

#[test]
fn it_names_the_proxies_that_run_as_a_trace_does_and_says_what_that_takes() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to("127.0.0.1:8081", ""));
    let arguments = ["doctor", "--json", "--process", nginx.name()];
    let output = proxytrace::command().args(arguments).output().expect("run doctor");
    let report = Report::of(&output);
    let proxies = &report.check("proxies").found;
    assert!(proxies.starts_with(&format!("1 running: {} (pid ", nginx.name())), "{report:#?}");
    let configurations = report.check("configurations");
    assert_eq!(
        (&*configurations.state, &*configurations.found),
        ("ok", "those of 1 of 1 proxies were read"),
        "{report:#?}"
    );
    assert_eq!(report.check("host names").state, "ok", "{report:#?}");

    // As a container with the two capabilities that are required, and the host's pid namespace.
    let mut confined = crate::privilege::confined(&program, 0, "+bpf,+perfmon");
    let output = confined.args(arguments).output().expect("run doctor");
    let report = Report::of(&output);
    assert_eq!((&*report.verdict, output.status.code()), ("degraded", Some(1)), "{report:#?}");
    let configurations = report.check("configurations");
    assert_eq!(configurations.state, "lacks", "{report:#?}");
    assert!(configurations.costs.contains("CAP_SYS_PTRACE"), "{report:#?}");
}
