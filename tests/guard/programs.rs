//! What a guard runs: it ends all of it, and nothing of it changes files that were put back.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::wait::{self, SOON, patient};
use serde_json::Value;

use super::site::{Site, WRONG};

/// A program that changes the files late, by a process that does not end when it is asked to. Nobody waits for what it prints.
fn late(site: &Site, seconds: u32) -> String {
    let change = site.change_to(&format!("server {WRONG};"));
    let begun = site.state.path().join("begun");
    format!(
        "exec > /dev/null 2>&1; sh -c 'trap \"\" TERM; touch {}; sleep {seconds}; {change}' & wait",
        begun.display()
    )
}

#[test]
fn what_was_ended_changes_nothing_later() {
    let site = Site::new();
    let files = site.files();
    let ended = site.guard(&["--timeout", "1", "--apply", &late(&site, 5)], &site.reload()).end();
    ended.is(1, "failed", "did not end within 1 s");
    thread::sleep(Duration::from_secs(5));
    assert_eq!(site.files(), files);
}

#[test]
fn what_a_killed_guard_had_started_is_ended_before_files_are_put_back() {
    let site = Site::new();
    let files = site.files();
    let running = site.guard(&["--apply", &late(&site, 6)], &site.reload());
    wait::until_true("the program to begin", SOON, || site.state.path().join("begun").exists());
    running.child.signal(Signal::SIGKILL);
    let _ = running.end();
    let ended = site.recover(&[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(ended.stderr.contains("ends what the guard had started"), "{}", ended.stderr);
    thread::sleep(Duration::from_secs(6));
    assert_eq!(site.files(), files);
}

#[test]
fn what_was_changed_when_the_guard_was_killed_is_put_back_also_after_a_refused_change() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, "127.0.0.1:8082", Manner::Answer);
    let files = site.files();
    let wrong = site.change_to(&format!("server {WRONG};"));
    site.guard(&["--apply", &wrong], &site.reload()).end().is(1, "failed", WRONG);
    let well = site.change_to("server 127.0.0.1:8082;");
    let running = site.guard(
        &["--no-check", "--apply", &format!("{well}; exec sleep 60 > /dev/null 2>&1")],
        &site.reload(),
    );
    wait::until_true("the change", SOON, || {
        fs::read_to_string(site.path("api.conf")).is_ok_and(|text| text.contains("8082"))
    });
    running.child.signal(Signal::SIGKILL);
    let _ = running.end();
    let ended = site.recover(&[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
}

#[test]
fn where_no_nginx_runs_none_is_missed() {
    let site = Site::new();
    let files = site.files();
    site.nginx.signal(Signal::SIGTERM);
    wait::until_true("nginx to end", SOON, || site.nginx.worker_pids().is_empty());
    thread::sleep(patient(Duration::from_millis(200)));
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--no-check", "--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", "ended with exit status: 1");
    assert_eq!(ended.report["rollback"]["reloaded_by"], Value::Null, "{ended:#?}");
    assert_eq!(site.files(), files);
}

#[test]
fn a_route_of_which_only_requests_say_where_it_leads_is_proven_by_requests() {
    let site = Site::new();
    let open = fs::read_to_string(site.path("api.conf"))
        .expect("read")
        .replace("http://api", "http://127.0.0.1:$http_x");
    let ended = site.guard(&["--apply", &site.change(&open)], &site.reload()).end();
    ended.is(1, "unproven", "only a request says where it leads");
    ended.was_taken_back(&["api.conf"]);
}

#[test]
fn what_nginx_makes_when_it_looks_at_a_change_is_taken_away_with_that() {
    let site = Site::new();
    let files = site.files();
    let log = site.path("logs/new.log");
    let text = fs::read_to_string(site.path("api.conf")).expect("read");
    let text = text
        .replace("location", &format!("access_log {}; location", log.display()))
        .replace(":8080", ":8081");
    let apply = format!("mkdir {}; {}", site.path("logs").display(), site.change(&text));
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", WRONG);
    assert_eq!(ended.report["rollback"]["left"], serde_json::json!([]), "{ended:#?}");
    assert_eq!(site.files(), files);
}
