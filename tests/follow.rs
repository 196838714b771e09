//! `trace` where an agent runs: it follows the agent, and shows what was before it was called; and how lines fit a terminal.

use std::os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::{Captured, Guarded};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options};
use proxytrace_tests::proxytrace::{self, Agent};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON};
use serde_json::Value;

use crate::lookout::{AFTER, BEFORE, Lookout, api};

/// A running command, and what it writes to standard output and standard error.
struct Followed {
    child: Guarded,
    stdout: Captured,
    stderr: Captured,
}

impl Followed {
    fn start(agent: &Agent, arguments: &[&str]) -> Self {
        Self::by(agent.asked_by(&["trace"]).args(arguments))
    }

    fn by(command: &mut Command) -> Self {
        let mut child = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
        let stderr = Captured::from(child.inner().stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    fn says(&self, words: &str) {
        wait::until_true(words, SOON, || self.stdout.text().contains(words));
    }

    fn says_besides(&self, words: &str) {
        wait::until_true(words, SOON, || self.stderr.text().contains(words));
    }

    /// Its exit status, and all that it wrote to standard output.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait(SOON);
        (status.code(), self.stdout.whole())
    }
}

/// An agent that has seen how a reload broke an upstream.
fn after_the_outage() -> (Lookout, Backend) {
    let scene = Lookout::begin(&api(BEFORE));
    let backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(12, 200);
    wait::for_a_tick();
    scene.nginx.reload(&api(AFTER));
    scene.gets(8, 502);
    scene.raised("misrouted", AFTER);
    (scene, backend)
}

#[test]
fn it_follows_the_agent_and_says_what_is_wrong_already() {
    let (scene, _backend) = after_the_outage();
    let trace = Followed::start(&scene.agent, &[]);
    trace.says_besides("following the agent, which traces ");
    trace.says("misrouted: ");
    scene.gets(3, 502);
    let failures = || trace.stdout.text().matches("  refused  ").count();
    wait::until_true("three failures", SOON, || failures() == 3);
    trace.child.signal(Signal::SIGINT);
    assert!(!trace.stderr.text().contains("tracing pid"), "it loads nothing of its own");
    let (code, stdout) = trace.end();
    println!("{stdout}");
    assert_eq!(code, Some(0));
    assert_eq!(stdout.matches("  refused  ").count(), 3, "no earlier failure: {stdout}");
    let (_, summary) = stdout.split_once("summary of").expect("a summary");
    assert!(summary.contains(AFTER) && summary.contains("refused 3"), "{stdout}");
    assert!(summary.contains("standing 1"), "{stdout}");
}

#[test]
fn what_was_before_comes_first_and_is_marked() {
    let (scene, _backend) = after_the_outage();
    let trace = Followed::start(&scene.agent, &["--since", "10m"]);
    // The finding says so as well, before it is asked what was.
    trace.says("  refused  ");
    scene.gets(1, 502);
    trace.says("-- now --");
    trace.child.signal(Signal::SIGINT);
    let (_, stdout) = trace.end();
    println!("{stdout}");
    let at = |words: &str| stdout.find(words).unwrap_or_else(|| panic!("{words} is not in {stdout}"));
    let order = ["-- before this command", "reload_accepted", "  refused  ", "-- now --", "summary of"];
    assert!(order.map(at).is_sorted(), "{stdout}");
    assert!(stdout.contains("findings raised 1, standing 1"), "{stdout}");

    let (code, stdout) = Followed::start(&scene.agent, &["--since", "10m", "--until", "1ms", "--json"]).end();
    assert_eq!(code, Some(0));
    let records: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let refused = |record: &&Value| record["kind"] == "connect" && record["outcome"] == "refused";
    let times = |record: &Value| record["times"].as_u64().unwrap_or(1);
    assert_eq!(records.iter().filter(refused).map(times).sum::<u64>(), 9, "{stdout}");
    assert!(records.iter().any(|record| record["kind"] == "reload"), "{stdout}");
    assert!(
        records.iter().skip(1).all(|record| record["time"].as_str() < records[0]["time"].as_str()),
        "{stdout}"
    );
    // What succeeded is in no record: it is not to look as if nothing had.
    let (_, shown) = Followed::start(&scene.agent, &["--since", "10m", "--until", "now"]).end();
    let (_, summary) = shown.split_once("summary of").expect("a summary");
    assert!(
        summary.contains("refused 9") && summary.contains("established connects are not remembered"),
        "{shown}"
    );
    // A replay has as many, and the same that stands.
    let directory = scratch::directory();
    let file = directory.path().join("past.jsonl");
    std::fs::write(&file, &stdout).expect("write what was printed");
    let replayed = proxytrace::command().arg("replay").arg(&file).output().expect("run replay");
    let replayed = String::from_utf8_lossy(&replayed.stdout);
    let (lines, summary) = replayed.split_once("summary of").expect("a summary");
    assert!(lines.contains("×") && summary.contains("refused 9"), "{replayed}");
    assert!(summary.contains("findings raised 1, standing 1"), "{replayed}");
}

/// Counts end with the agent that has counted: what records said of it is in the summary, and that something is missing.
#[test]
fn a_summary_is_right_where_the_agent_was_restarted_and_where_it_is_gone() {
    let scene = Lookout::begin(&api(BEFORE));
    let summary = |trace: Followed, refused: usize| {
        wait::until_true("its failures", SOON, || {
            trace.stdout.text().matches("  refused  ").count() == refused
        });
        trace
    };
    let ended = |trace: Followed, refused: u64| {
        let (code, stdout) = trace.end();
        println!("{stdout}");
        assert_eq!(code, Some(0), "{stdout}");
        let (_, summary) = stdout.split_once("summary of").unwrap_or_else(|| panic!("no summary: {stdout}"));
        assert!(summary.contains(&format!("refused {refused}\n")), "{stdout}");
        assert!(summary.contains("an agent has ended meanwhile"), "{stdout}");
    };
    let follow = |arguments: &[&str]| {
        let trace = Followed::start(&scene.agent, arguments);
        trace.says_besides("following the agent");
        // The agent has heard of it once it is told something.
        trace.says("TIME ");
        wait::for_a_tick();
        trace
    };
    let restarted = follow(&[]);
    scene.gets(3, 502);
    let restarted = summary(restarted, 3);
    scene.agent.signal(Signal::SIGTERM);
    restarted.says_besides("the agent has ended");
    wait::until_true("its socket to be free", SOON, || UnixStream::connect(scene.agent.socket()).is_err());
    let mut again = proxytrace::command();
    again.env("PROXYTRACE_SOCKET", scene.agent.socket());
    let port = scratch::free_port().to_string();
    again.args(["agent", "--listen", &format!("127.0.0.1:{port}"), "--process", scene.nginx.name()]);
    let mut again = Guarded::spawn(again.stdout(Stdio::null()).stderr(Stdio::null()));
    restarted.says_besides("the agent is back");
    wait::for_a_tick();
    scene.gets(4, 502);
    let restarted = summary(restarted, 7);
    restarted.child.signal(Signal::SIGINT);
    ended(restarted, 7);

    let (interrupted, timed) = (follow(&[]), follow(&["--duration", "8s"]));
    scene.gets(2, 502);
    let (interrupted, timed) = (summary(interrupted, 2), summary(timed, 2));
    again.signal(Signal::SIGTERM);
    again.wait(SOON);
    interrupted.says_besides("the agent has ended");
    interrupted.child.signal(Signal::SIGINT);
    ended(interrupted, 2);
    ended(timed, 2);
}

#[test]
fn established_connects_are_reported_for_as_long_as_somebody_asks() {
    let scene = Lookout::begin(&api(BEFORE));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    let (all, failures) = (Followed::start(&scene.agent, &["--all"]), Followed::start(&scene.agent, &[]));
    for trace in [&all, &failures] {
        trace.says_besides("following the agent");
    }
    wait::until_true("an established connect", SOON, || {
        scene.gets(1, 200);
        all.stdout.text().contains("  established  ")
    });
    all.child.signal(Signal::SIGINT);
    let (_, stdout) = all.end();
    println!("{stdout}");
    assert!(!failures.stdout.text().contains("  established  "), "nobody else gets them");
    failures.child.signal(Signal::SIGINT);
    failures.end();
    let remembered = scene.agent.ask("/records").body;
    assert!(!remembered.contains("established"), "they are not remembered: {remembered}");

    let (_directory, program) = proxytrace::copy_for_everybody();
    std::fs::set_permissions(scene.agent.socket(), std::fs::Permissions::from_mode(0o666))
        .expect("open the socket");
    let mut command = Command::new(program);
    command.uid(65534).gid(65534).env("PROXYTRACE_SOCKET", scene.agent.socket()).args(["trace", "--all"]);
    let refused = Followed::by(&mut command);
    refused.says_besides("only root may ask");
    assert_eq!(refused.end().0, Some(1));
}

#[test]
fn a_trace_that_the_agent_cannot_serve_loads_programs_of_its_own() {
    let scene = Lookout::begin(&api(AFTER));
    let another = "the agent does not trace processes named another";
    for (options, why) in [(&["--own"][..], ""), (&["--process", "another"], another)] {
        let trace = Followed::start(&scene.agent, options);
        trace.says_besides(why);
        wait::until_true("what it traces itself", SOON, || {
            let said = trace.stderr.text();
            said.contains("tracing pid") || said.contains("is running")
        });
        trace.child.signal(Signal::SIGINT);
        trace.end();
    }
    let asked = Followed::start(&scene.agent, &["--own", "--since", "1m"]);
    asked.says_besides("cannot serve --own");
    assert_eq!(asked.end().0, Some(2));
    let asked = Followed::start(&scene.agent, &["--process", "another", "--since", "1m"]);
    asked.says_besides(another);
    assert_eq!(asked.end().0, Some(1));
}

#[test]
fn of_an_agent_that_traces_more_only_the_processes_that_are_asked_for_are_followed() {
    let netns = Netns::new();
    let meant = Nginx::start(&netns, &api(AFTER));
    let options = ["--process", meant.name(), "--process", "another"];
    let mut other = Nginx::prepare(Options::default(), &api(AFTER));
    let agent = Agent::start(&[&options[..], &["--process", other.name()]].concat());
    let trace = Followed::start(&agent, &options);
    trace.says_besides(&format!("following the agent, which traces {}\n", meant.name()));
    other.launch(&netns);
    // It is started while somebody follows, so that nobody knows it yet.
    assert_eq!((other.get("/"), meant.get("/")), (502, 502));
    wait::until_true("both to be counted", SOON, || {
        agent.metrics().sum("proxytrace_connect_failures_total", &[]) >= 2.0
    });
    trace.says("  refused  ");
    trace.child.signal(Signal::SIGINT);
    let (_, stdout) = trace.end();
    println!("{stdout}");
    assert_eq!(stdout.matches("  refused  ").count(), 1, "{stdout}");
    assert!(!stdout.contains(other.name()), "{stdout}");
}

#[test]
fn without_an_agent_the_past_is_not_known() {
    let directory = scratch::directory();
    let mut command = proxytrace::command();
    command.env("PROXYTRACE_SOCKET", directory.path().join("none.sock")).args(["trace", "--since", "10m"]);
    let trace = Followed::by(&mut command);
    trace.says_besides("no agent listens at");
    assert_eq!(trace.end().0, Some(1));
}
