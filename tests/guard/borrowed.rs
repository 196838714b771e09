//! Guards on a host with an agent: they load nothing, and watch with the agent's eyes as long as there is one.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::bpf::Objects;
use proxytrace_tests::proxytrace::{Agent, command};
use proxytrace_tests::wait::{self, SOON, patient};

use super::site::{Site, WELL, WRONG};

const BY_THE_AGENT: &str = "watches by the agent, and loads no programs";
const BY_ITSELF: &str = "loads programs of its own";

/// A site, and an agent that traces its nginx.
fn traced() -> (Site, Agent) {
    let site = Site::new();
    let agent = Agent::start(&["--process", site.nginx.name()]);
    (site, agent)
}

#[test]
fn a_wrong_port_is_judged_as_quickly_and_nothing_is_loaded_for_that() {
    let (site, agent) = traced();
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    let options = ["--no-check", "--no-probe", "--apply", &apply];
    let guard = site.guard_by(agent.asked_by(&[]), &options, &site.reload());
    guard.says(BY_THE_AGENT);
    assert!(Objects::of(guard.child.pid()).is_empty(), "it has nothing in the kernel");
    let ended = guard.end();
    println!("{}", ended.has_taken_a_wrong_port_back(&site, &files, traffic.end()));
}

#[test]
fn a_change_that_works_stays_and_only_what_happened_meanwhile_counts() {
    let (site, agent) = traced();
    // Long before the guard everything failed.
    site.write_servers(&format!("server {WRONG};"));
    let old = site.nginx.worker_pids();
    site.nginx.signal(Signal::SIGHUP);
    site.wait_for_new_workers(&old);
    let is_gone = || site.nginx.worker_pids().iter().all(|pid| !old.contains(pid));
    wait::until_true("the old workers to be gone", SOON, is_gone);
    (0..50).for_each(|_| assert_eq!(site.nginx.get("/"), 502));
    let failures = || agent.metrics().sum("proxytrace_connect_failures_total", &[("address", WRONG)]);
    wait::until_true("the agent to have counted that", SOON, || failures() >= 50.0);
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WELL};"));
    let ended = site.guard_by(agent.asked_by(&[]), &["--apply", &apply], &site.reload()).end();
    traffic.end();
    ended.is(0, "passed", "[]");
    assert!(ended.stderr.contains(BY_THE_AGENT), "{}", ended.stderr);
    let rows = ended.report["upstreams"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["address"] == WRONG).expect("the row of what was before");
    assert!(row["before"]["connects"].as_u64() > Some(0), "{row}");
    assert_eq!(row["before"]["failed"].as_u64().unwrap_or(0), 0, "{row}");
}

#[test]
fn a_guard_whose_agent_is_killed_goes_on_by_itself() {
    let (site, agent) = traced();
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    let options = ["--no-check", "--no-probe", "--baseline", "4", "--apply", &apply];
    let guard = site.guard_by(agent.asked_by(&[]), &options, &site.reload());
    guard.says("applies: ");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.pid().cast_signed()), Signal::SIGKILL)
        .expect("kill the agent");
    guard.says("the agent has ended; loads programs of its own");
    let ended = guard.end();
    let (failed, took) = traffic.end();
    ended.is(1, "failed", "api");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
    assert!(failed > 0 && took < patient(Duration::from_secs(1)), "{failed} {took:?}");
}

#[test]
fn a_guard_whose_agent_is_stuck_goes_on_by_itself() {
    let (site, agent) = traced();
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    let options = ["--no-check", "--no-probe", "--timeout", "8", "--apply", &apply];
    let signal = |signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.pid().cast_signed()), signal)
            .expect("signal the agent");
    };
    let stop = format!("{}; kill -STOP {}", site.reload().join(" "), agent.pid());
    let run = ["/bin/sh", "-c", &stop].map(str::to_owned);
    let guard = site.guard_by(agent.asked_by(&[]), &options, &run);
    guard.says("runs ");
    guard.says("the agent says nothing any more; loads programs of its own");
    let ended = guard.end();
    signal(Signal::SIGCONT);
    traffic.end();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
    assert_eq!(site.nginx.get("/"), 200);
}

#[test]
fn a_guard_that_the_agent_cannot_serve_loads_programs_of_its_own() {
    let (site, agent) = traced();
    let check = |mut asked: std::process::Command, more: &[&str], why: &str| {
        asked.env("PROXYTRACE_LOG_FORMAT", "text");
        let apply = site.change_to(&format!("server {WELL};"));
        let options = [more, &["--allow-unproven", "--apply", &apply]].concat();
        let ended = site.guard_by(asked, &options, &site.reload()).end();
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        assert!(!ended.stderr.contains(BY_THE_AGENT), "{}", ended.stderr);
        assert!(ended.stderr.contains(why), "{why} is not in {}", ended.stderr);
    };
    check(agent.asked_by(&[]), &["--own"], "");
    let of_others = Agent::start(&["--process", "another"]);
    check(of_others.asked_by(&[]), &[], "the agent does not trace processes named ");
    check(of_others.asked_by(&[]), &[], BY_ITSELF);

    // One of an earlier version has other pages.
    let directory = proxytrace_tests::scratch::directory();
    let socket = directory.path().join("agent.sock");
    let listener = UnixListener::bind(&socket).expect("listen");
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap_or(0);
            let is_health = request[..read].starts_with(b"GET /healthz ");
            let status = if is_health { "200 OK" } else { "404 Not Found" };
            let _ = write!(stream, "HTTP/1.0 {status}\r\nproxytrace-protocol: 1\r\n\r\nalive\n");
        }
    });
    let mut asked = command();
    asked.env("PROXYTRACE_SOCKET", &socket);
    check(asked, &[], "restart it after an update; loads programs of its own instead");
}
