//! How things are is known when somebody asks, however late.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{Agent, Record};
use proxytrace_tests::wait::{self, SOON};
use serde_json::Value;

use crate::lookout::{AFTER, BEFORE, Lookout, api};

/// A command's exit status, and what it writes to standard output and standard error.
fn ends(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("run proxytrace");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The records that the agent remembers, after its header.
fn remembered(agent: &Agent, query: &str) -> Vec<Record> {
    let response = agent.ask(&format!("/records{query}"));
    assert_eq!(response.status, 200, "{}", response.body);
    let mut records = response.body.lines().map(|line| serde_json::from_str(line).expect("a record"));
    let header: Record = records.next().expect("a header");
    assert_eq!(header.kind, "header");
    records.collect()
}

#[test]
fn after_a_bad_reload_whoever_comes_late_sees_what_happened() {
    let scene = Lookout::begin(&api(BEFORE));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(12, 200);
    wait::for_a_tick();
    let old = [(); 2].map(|()| scene.nginx.begin_half("/"));
    scene.nginx.reload(&api(AFTER));
    scene.gets(8, 502);
    for half in old {
        assert_eq!(half.finish().status, 200);
    }
    scene.raised("misrouted", AFTER);

    // Only now is somebody called.
    let (code, stdout, stderr) = ends(&mut scene.agent.asked_by(&["status"]));
    println!("{stdout}");
    let words = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!((code, &*stderr), (Some(1), ""), "{stdout}");
    for part in
        ["1 thing is wrong", "misrouted: ", BEFORE, AFTER, "old workers: 0 of 2 failed", "reloaded ", "down"]
    {
        assert!(words.contains(part), "{part} is not in {stdout}");
    }
    assert!(stdout.lines().all(|line| line.chars().count() <= 80), "{stdout}");

    let (code, json, _) = ends(&mut scene.agent.asked_by(&["status", "--json"]));
    let status: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(code, Some(1));
    assert_eq!(status["findings"][0]["finding"], "misrouted", "{json}");
    let upstream = &status["upstreams"][0];
    assert_eq!((&upstream["upstream"], &upstream["state"]), (&"api".into(), &"down".into()), "{json}");

    let (code, stdout, stderr) = ends(&mut scene.agent.asked_by(&["status", "api"]));
    println!("{stdout}");
    assert_eq!((code, &*stderr), (Some(1), ""), "{stdout}");
    for part in [
        "misrouted: ",
        "new workers: 8 of 8 failed",
        "ROUTES THAT LEAD THERE",
        "proxy_pass http://api",
        "LAST HOUR",
        "refused 8",
    ] {
        assert!(stdout.contains(part), "{part} is not in {stdout}");
    }
    let (code, _, stderr) = ends(&mut scene.agent.asked_by(&["status", "apo"]));
    assert!(code == Some(1) && stderr.contains("no upstream is called apo; there are api"), "{stderr}");

    let records = remembered(&scene.agent, "");
    let kinds: Vec<_> = records.iter().map(|record| &*record.kind).collect();
    let reload = kinds.iter().position(|kind| *kind == "reload").expect("the reload is remembered");
    let failure = kinds.iter().position(|kind| *kind == "connect").expect("the first failure is remembered");
    assert!(reload < failure, "{kinds:?}");
    assert_eq!((&*records[failure].outcome, &*records[failure].address), ("refused", AFTER));

    scene.nginx.reload(&api(BEFORE));
    scene.gets(5, 200);
    scene.cleared("misrouted");
    let (code, stdout, _) = ends(&mut scene.agent.asked_by(&["status"]));
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains("nothing is wrong"), "{stdout}");
}

#[test]
fn what_several_names_share_is_shown_once_with_its_numbers() {
    let http = format!(
        "upstream api {{\nserver {BEFORE};\n}} {}",
        server(&format!(
            "location / {{ proxy_pass http://api; }} location /d {{ proxy_pass http://{BEFORE}; }}"
        ))
    );
    let scene = Lookout::begin(&http);
    scene.gets(5, 502);
    let status = || serde_json::from_str::<Value>(&scene.agent.ask("/status").body).expect("JSON");
    wait::until_true("both names to be down", SOON * 3, || {
        status()["findings"].as_array().is_some_and(|all| all.len() == 2)
    });
    let (code, stdout, _) = ends(&mut scene.agent.asked_by(&["status"]));
    println!("{stdout}");
    let words = stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, Some(1), "{stdout}");
    let row = " api,127.0.0.1 down ";
    for part in ["2 things are wrong", "The same holds for upstream", row, "refused 5"] {
        assert!(words.contains(part), "{part} is not in {stdout}");
    }
    assert!(stdout.matches("upstream_down: ").count() == 1 && !words.contains(" api down "), "{stdout}");
    let status = status();
    let upstreams = status["upstreams"].as_array().expect("upstreams");
    let attempts = upstreams.iter().filter_map(|upstream| upstream["recent"]["attempts"].as_u64());
    assert_eq!(attempts.sum::<u64>(), 5, "each connect is counted once: {status}");
    assert!(upstreams.iter().all(|upstream| upstream["state"] == "down"), "{status}");
    let (_, stdout, _) = ends(&mut scene.agent.asked_by(&["status", "api"]));
    assert!(stdout.contains("refused 5") && !stdout.contains("no line of the configuration"), "{stdout}");
}

#[test]
fn an_upstream_that_answers_on_connections_from_before_is_ok_without_a_connect() {
    let netns = Netns::new();
    let _backend = Backend::start(&netns, BEFORE, Manner::Answer);
    let start = |netns: &Netns| {
        let http = format!(
            "upstream api {{ server {BEFORE}; keepalive 4; }} {}",
            server(
                "proxy_http_version 1.1; proxy_set_header Connection ''; location / { proxy_pass http://api; }"
            )
        );
        let nginx = Nginx::start(netns, &http);
        assert_eq!(nginx.get("/"), 200);
        nginx
    };
    let scene = Lookout::of(netns, start, &[]);
    let api = || {
        let status: Value = serde_json::from_str(&scene.agent.ask("/status").body).expect("JSON");
        status["upstreams"][0].clone()
    };
    wait::until_true("it to be seen at work", SOON, || {
        scene.gets(1, 200);
        thread::sleep(Duration::from_millis(50));
        api()["state"] == "ok"
    });
    assert_eq!(api()["recent"], serde_json::json!({}), "nothing was counted");
}

#[test]
fn where_requests_wait_far_longer_than_is_usual_not_all_is_well() {
    let scene = Lookout::begin(&api(BEFORE));
    let upstream = || {
        let status: Value = serde_json::from_str(&scene.agent.ask("/status").body).expect("JSON");
        assert_eq!(status["findings"], serde_json::json!([]), "two prove nothing");
        status["upstreams"][0].clone()
    };
    let backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(3, 200);
    wait::for_a_tick();
    drop(backend);
    let backend = Backend::start(&scene.netns, BEFORE, Manner::HoldThenClose);
    let waiting = [(); 2].map(|()| scene.nginx.begin("/"));
    wait::until_true("requests to be late", SOON * 4, || upstream()["waiting"]["late"] == 2);
    assert_eq!(upstream()["state"], "failing", "{}", upstream());
    drop(waiting);
    wait::until_true("nobody to wait", SOON * 2, || upstream()["state"] == "ok");
    drop(backend);
}

#[test]
fn the_socket_is_for_root_and_the_group_of_the_agent() {
    let agent = Agent::start(&[]);
    let metadata = fs::metadata(agent.socket()).expect("the socket is there");
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.uid()), (0o660, 0));
    let (_directory, program) = proxytrace_tests::proxytrace::copy_for_everybody();
    let mut command = Command::new(program);
    command.uid(65534).gid(65534).env("PROXYTRACE_SOCKET", agent.socket()).arg("status");
    let (code, _, stderr) = ends(&mut command);
    assert_eq!(code, Some(3), "{stderr}");
    assert!(stderr.contains("may not ask the agent"), "{stderr}");
    agent.stop();
}
