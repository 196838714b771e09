//! Which change fails, and which stays.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::run;
use proxytrace_tests::proxytrace::{Agent, command};
use proxytrace_tests::wait::{self, SOON, patient};
use proxytrace_tests::{http, nginx};
use serde_json::Value;

use super::site::{Ended, Running, Site, WELL, WRONG, api};

#[test]
fn a_wrong_port_is_taken_back_before_a_second_has_passed() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    // What would have stopped it before is left out.
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--no-check", "--no-probe", "--apply", &apply], &site.reload()).end();
    println!("{}", ended.has_taken_a_wrong_port_back(&site, &files, traffic.end()));
}

#[test]
fn a_wrong_port_is_not_even_loaded_where_it_is_looked_at_before() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    let workers = site.nginx.worker_pids();
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", "a connect to 127.0.0.1:8081 fails: refused");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(traffic.end().0, 0);
    assert_eq!((site.files(), site.nginx.worker_pids()), (files, workers));
}

#[test]
fn a_change_that_works_stays() {
    let site = Site::new();
    let other = Backend::start(&site.netns, WRONG, Manner::AnswerAfter(Duration::from_millis(700)));
    let agent = Agent::start(&["--process", site.nginx.name()]);
    let traffic = site.traffic();
    // It is slow, and fine.
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(0, "passed", "[]");
    assert_eq!(ended.report["rollback"], Value::Null);
    assert_eq!(traffic.end().0, 0);
    assert!(other.accepted() > 0);
    assert!(fs::read_to_string(site.path("api.conf")).expect("read").contains(WRONG));
    assert!(!site.kept().join("change").exists(), "no copy is left");
    // What it says is what an agent beside it says.
    let rows = ended.report["upstreams"].as_array().expect("rows");
    let is_well = |row: &&Value| row["upstream"] == "api" && row["address"] == WELL;
    let before =
        rows.iter().find(is_well).map_or(0, |row| row["before"]["connects"].as_u64().expect("a number"));
    assert!(before > 0 || nginx::keeps_by_default(), "{rows:?}");
    let counted = agent.metrics().sum("proxytrace_connects_established_total", &[("address", WRONG)]);
    assert!(counted > 0.0);
}

#[test]
fn one_dead_peer_of_two_is_a_note() {
    let site = Site::new();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WELL}; server {WRONG};"));
    let ended = site.guard(&["--no-check", "--apply", &apply], &site.reload()).end();
    ended.is(0, "passed", "[]");
    assert!(ended.notes().contains(WRONG), "{}", ended.notes());
    assert_eq!(traffic.end().0, 0);
}

#[test]
fn a_service_that_closes_what_it_accepts_is_taken_back() {
    let site = Site::new();
    let _wrong = Backend::start(&site.netns, WRONG, Manner::CloseUnanswered);
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    // It accepts, so a probe takes it for well.
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", WRONG);
    ended.was_taken_back(&["api.conf"]);
    let (_, took) = traffic.end();
    assert!(took < patient(Duration::from_secs(1)), "{took:?}");
    assert_eq!(site.files(), files);
}

#[test]
fn a_service_that_never_answers_is_taken_back() {
    let site = Site::new();
    let hung = Backend::start(&site.netns, WRONG, Manner::HoldThenClose);
    let files = site.files();
    let clients = site.clients();
    let stop = Arc::new(AtomicBool::new(false));
    // Few: each of them waits.
    let requests = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut waiting = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let mut stream = UnixStream::connect(&clients).expect("connect to nginx");
                http::ask(&mut stream, "/", &[]);
                waiting.push(stream);
                thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--window", "15", "--apply", &apply], &site.reload()).end();
    stop.store(true, Ordering::SeqCst);
    requests.join().expect("the requests");
    hung.release();
    ended.is(1, "failed", "127.0.0.1:8081 takes requests and does not answer");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
    let judged = ended.report["times"]["judged_ms"].as_u64().expect("a time");
    println!("a service that hangs: {}", ended.report["times"]);
    assert!(judged < patient(Duration::from_secs(9)).as_millis() as u64, "{judged}");
}

#[test]
fn a_black_hole_is_taken_back() {
    let site = Site::new();
    site.netns.firewall("tcp dport 8081 drop");
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", "a connect to 127.0.0.1:8081 fails: timed_out");
    ended.was_taken_back(&["api.conf"]);
    let traffic = site.traffic();
    let ended =
        site.guard(&["--no-check", "--no-probe", "--apply", &apply, "--window", "10"], &site.reload()).end();
    ended.is(1, "failed", "127.0.0.1:8081");
    ended.was_taken_back(&["api.conf"]);
    println!("a black hole: {}", ended.report["times"]);
    // Requests that wait for the connect fail when the workers end, and later.
    site.netns.firewall("tcp dport 9 drop");
    traffic.end();
    assert_eq!(site.files(), files);
}

#[test]
fn a_missing_socket_is_found_as_the_user_of_the_workers_sees_it() {
    let site = Site::new();
    let closed = site.path("closed.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&closed).expect("listen");
    fs::set_permissions(&closed, Permissions::from_mode(0o600)).expect("close the socket");
    let missing = site.path("missing.sock");
    for (path, outcome) in [(&closed, "permission_denied"), (&missing, "no_such_socket")] {
        let apply = site.change_to(&format!("server unix:{};", path.display()));
        let ended = site.guard(&["--apply", &apply], &site.reload()).end();
        ended.is(1, "failed", outcome);
        ended.was_taken_back(&["api.conf"]);
    }
}

#[test]
fn no_traffic_is_no_proof_and_a_probe_is_one() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--no-probe", "--apply", &apply], &site.reload()).end();
    ended.is(1, "unproven", "upstream \\\"api\\\" is not proven: no connect to it succeeded");
    ended.was_taken_back(&["api.conf"]);
    let ended = site.guard(&["--min-connects", "1", "--apply", &apply], &site.reload()).end();
    ended.is(1, "unproven", "not proven");
    let ended = site.guard(&["--no-probe", "--allow-unproven", "--apply", &apply], &site.reload()).end();
    ended.is(0, "passed", "[]");
    assert!(ended.notes().contains("not proven"), "{}", ended.notes());
    let back = site.change_to(&format!("server {WELL};"));
    let ended = site.guard(&["--apply", &back], &site.reload()).end();
    ended.is(0, "passed", "[]");
    assert_eq!(ended.report["probes"][0]["outcome"], "established");
    assert!(ended.notes().contains("no request has connected to it"), "{}", ended.notes());
}

#[test]
fn few_connects_of_kept_connections_are_a_proof() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let traffic = site.traffic();
    let kept = api(&site.nginx, &format!("server {WRONG}; keepalive 64;"))
        .replace("proxy_pass", "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass");
    let apply = site.change(&kept);
    let ended = site.guard(&["--no-probe", "--apply", &apply], &site.reload()).end();
    ended.is(0, "passed", "[]");
    let connects = ended.report["upstreams"][1]["new_workers"]["connects"].as_u64().expect("a number");
    assert!((1..100).contains(&connects), "{ended:#?}");
    assert_eq!(traffic.end().0, 0);
}

#[test]
fn of_two_reloads_the_second_is_judged() {
    let site = Site::new();
    let reload = site.reload().join(" ");
    let conf = site.path("api.conf");
    let (wrong, well) = (site.state.path().join("wrong.conf"), site.state.path().join("well.conf"));
    fs::write(&wrong, api(&site.nginx, &format!("server {WRONG};"))).expect("write");
    fs::write(&well, api(&site.nginx, &format!("server {WELL} weight=2;"))).expect("write");
    let line = format!(
        "cp {} {conf}; {reload}; sleep 0.5; cp {} {conf}; {reload}",
        wrong.display(),
        well.display(),
        conf = conf.display()
    );
    let traffic = site.traffic();
    let run = ["/bin/sh", "-c", &line].map(str::to_owned);
    let ended = site.guard(&["--no-check"], &run).end();
    ended.is(0, "passed", "[]");
    assert_eq!(ended.report["generations"][0]["generation"], 2, "{ended:#?}");
    assert!(traffic.end().0 > 0, "the first one failed");
}

#[test]
fn traffic_goes_to_what_is_expected_and_not_to_what_is_forbidden() {
    let site = Site::new();
    let _green = Backend::start(&site.netns, WRONG, Manner::Answer);
    let both = |to: &str| {
        let text = api(&site.nginx, &format!("server {WELL};"));
        format!(
            "upstream green {{ server {WRONG}; }}\n{}",
            text.replace("http://api", &format!("http://{to}"))
        )
    };
    let traffic = site.traffic();
    let demands = ["--expect-upstream", "green", "--forbid-upstream", "api"];
    let apply = site.change(&both("green"));
    let ended = site.guard(&[&demands[..], &["--apply", &apply]].concat(), &site.reload()).end();
    ended.is(0, "passed", "[]");
    let apply = site.change(&both("api"));
    let ended = site.guard(&[&demands[..], &["--apply", &apply]].concat(), &site.reload()).end();
    ended.is(1, "failed", "upstream \\\"api\\\" was forbidden");
    ended.was_taken_back(&["api.conf"]);
    let ended = site.guard(&["--expect-upstream", "gren"], &site.reload()).end();
    ended.is(1, "failed", "has none of that name");
    assert_eq!(traffic.end().0, 0);
}

#[test]
fn from_outside_the_network_of_the_proxy_the_same_is_seen() {
    let site = Site::new();
    let run = |apply: &str| {
        let mut command = command();
        command.args(["guard", "--json", "--process", site.nginx.name(), "--baseline", "0", "--window", "1"]);
        command
            .arg("--state")
            .arg(site.state.path().join("guard"))
            .arg("--rollback-files")
            .arg(site.directory.path());
        command.args(["--apply", apply, "--"]).args(site.reload());
        Running::spawn(&mut command).end()
    };
    // There is nobody at that port in our own network, nor at the other.
    let apply = site.change_to(&format!("server {WELL} weight=3; server {WRONG} backup;"));
    let ended = run(&apply);
    ended.is(0, "passed", "[]");
    assert!(ended.notes().contains("a connect to 127.0.0.1:8081 fails: refused"), "{ended:#?}");
    let ended = run(&site.change_to(&format!("server {WRONG};")));
    ended.is(1, "failed", "a connect to 127.0.0.1:8081 fails: refused");
}

#[test]
fn how_it_was_before_is_known_of_the_agent_where_nobody_connected_meanwhile() {
    let site = Site::new();
    let old = site.nginx.worker_pids();
    site.write_servers(&format!("server {WRONG};"));
    let hang_up = site.hang_up();
    run(std::process::Command::new(&hang_up[0]).args(&hang_up[1..]));
    site.wait_for_new_workers(&old);
    let agent = Agent::start(&["--process", site.nginx.name()]);
    for _ in 0..5 {
        assert_eq!(site.nginx.get("/"), 502);
    }
    wait::until_true("the agent to have counted", SOON, || {
        agent.ask("/status").body.contains(r#""failures":{"refused":"#)
    });
    let apply = site.change_to(&format!("server {WRONG} max_fails=0;"));
    let guarded = |command| {
        let options = ["--no-check", "--no-probe", "--baseline", "0", "--apply", &apply];
        let running = site.guard_by(command, &options, &site.hang_up());
        // Nobody connects before that.
        running.says("runs kill");
        let traffic = site.traffic();
        let ended = running.end();
        traffic.end();
        ended
    };
    let before = |ended: &Ended| ended.report["upstreams"][0]["before"].clone();
    let ended = guarded(agent.asked_by(&[]));
    assert_eq!(before(&ended)["causes"], "refused 5", "{ended:#?}");
    let ended = guarded(command());
    assert_eq!(before(&ended)["connects"], 0, "{ended:#?}");
    agent.stop();
}
