//! Other proxies of the same host: whatever they do is no reason to take a change back. And proxies that are no nginx.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::Guarded;
use proxytrace_tests::haproxy::Haproxy;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, proxy_to};
use proxytrace_tests::proxytrace::command;
use proxytrace_tests::{scratch, skip};

use super::site::{Ended, Running, Site, WELL, WRONG, write};

const NOBODY: u32 = 65534;

#[test]
fn what_goes_wrong_at_another_proxy_meanwhile_is_no_fault_of_the_change() {
    let site = Site::new();
    let other = Nginx::start(&site.netns, &proxy_to(WRONG, ""));
    let stop = Arc::new(AtomicBool::new(false));
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(other.get("/"), 502);
                thread::sleep(Duration::from_millis(20));
            }
        });
        // It begins to fail in the middle of it, as far as anybody can see.
        let options = ["--process", other.name(), "--baseline", "0", "--window", "3"];
        let ended = site.guard(&options, &site.reload()).end();
        stop.store(true, Ordering::SeqCst);
        ended
    });
    ended.is(0, "passed", "[]");
    let generations = ended.report["generations"].as_array().expect("generations");
    assert_eq!(generations.len(), 1, "{ended:#?}");
}

/// Reloads that proxy, which does not work, again and again while a harmless change of the site is guarded.
fn guarded_beside(site: &Site, other: &Nginx) -> Ended {
    let stop = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                other.signal(Signal::SIGHUP);
                thread::sleep(Duration::from_millis(100));
                assert_eq!(other.get("/"), 502);
            }
        });
        let apply = site.change_to(&format!("server {WELL} weight=2;"));
        let options = ["--process", other.name(), "--baseline", "0", "--window", "3", "--apply", &apply];
        let ended = site.guard(&options, &site.reload()).end();
        stop.store(true, Ordering::SeqCst);
        ended
    })
}

#[track_caller]
fn was_only_reported(ended: &Ended, site: &Site, other: &Nginx) {
    ended.is(0, "passed", "[]");
    // Where it is of another user, that is in its name.
    let note =
        |name: &str| name.contains(other.name()) && name.contains(" took a new configuration meanwhile");
    let notes = ended.report["notes"].as_array().expect("notes");
    assert!(notes.iter().any(|one| note(one.as_str().expect("text"))), "{ended:#?}");
    let generations = ended.report["generations"].as_array().expect("generations");
    assert_eq!(generations.len(), 1, "{ended:#?}");
    assert_eq!(generations[0]["proxy"], site.nginx.name(), "{ended:#?}");
}

#[test]
fn another_users_nginx_that_reloads_meanwhile_decides_nothing() {
    let site = Site::new();
    let mut other = Nginx::prepare(Options::default(), &proxy_to(WRONG, ""));
    chown(other.config().parent().expect("a directory"), Some(NOBODY), Some(NOBODY)).expect("give it away");
    let _child = site.netns.spawn(other.command().uid(NOBODY).gid(NOBODY));
    other.wait_until_serving();
    was_only_reported(&guarded_beside(&site, &other), &site, &other);
}

#[test]
fn an_nginx_whose_configuration_is_elsewhere_decides_nothing() {
    let site = Site::new();
    let other = Nginx::start(&site.netns, &proxy_to(WRONG, ""));
    was_only_reported(&guarded_beside(&site, &other), &site, &other);
}

#[test]
fn where_the_files_cannot_be_read_no_other_nginx_is_sent_a_signal() {
    let site = Site::new();
    let other = Nginx::start(&site.netns, &proxy_to(WELL, ""));
    let guard = |options: &[&str]| {
        site.guard(&[options, &["--process", other.name()]].concat(), &site.reload()).end()
    };
    // Nobody knows what was there before.
    write(site.directory.path(), "broken.conf", "upstream broken {");
    let ended = guard(&[]);
    assert_eq!((ended.code, &ended.report), (Some(1), &serde_json::Value::Null), "{ended:#?}");
    assert!(ended.stderr.contains("no copy from before is there to be put back"), "{ended:#?}");
    fs::remove_file(site.path("broken.conf")).expect("remove it");
    guard(&["--apply", "true"]).is(0, "passed", "[]");

    let workers = other.worker_pids();
    let said = "unexpected end of file";
    for (options, reason) in [(&["--no-check"][..], "ended with exit status: 1"), (&[], said)] {
        write(site.directory.path(), "broken.conf", "upstream broken {");
        let ended = guard(options);
        ended.is(1, "failed", reason);
        ended.is(1, "failed", said);
        assert!(
            ended.report["rollback"]["worked"] == true && !site.path("broken.conf").exists(),
            "{ended:#?}"
        );
        assert!(!ended.notes().contains("nothing that nginx is known to read"), "{ended:#?}");
    }
    assert_eq!(other.worker_pids(), workers, "it was not reloaded");
}

/// Anybody may start a process that calls itself nginx, with a program and a configuration of its own.
#[test]
fn another_users_process_that_calls_itself_nginx_is_neither_run_nor_read() {
    let site = Site::new();
    let place = scratch::directory();
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).expect("open it to all");
    let program = place.path().join(site.nginx.name());
    fs::copy("/bin/bash", &program).expect("copy a shell");
    // nginx would refuse it, so whoever looks at it finds a fault.
    write(
        place.path(),
        "evil.conf",
        &format!("events {{}}\nhttp {{ upstream u {{ server {WELL} weight=0; }} }}\n"),
    );
    let config = place.path().join("evil.conf");
    let mut command = Command::new(&program);
    command.arg0(format!("nginx: master process nginx -c {}", config.display()));
    command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut forged = site.netns.spawn(&mut command);
    forged.fork_once();

    let ended =
        site.guard(&["--apply", &site.change_to(&format!("server {WELL} weight=2;"))], &site.reload()).end();

    ended.is(0, "passed", "[]");
    assert!(
        !ended.stderr.contains("evil.conf") && !ended.report.to_string().contains("evil.conf"),
        "{ended:#?}"
    );
}

#[test]
fn another_proxy_is_judged_without_names() {
    if !skip::unless_installed("haproxy") {
        return;
    }
    let netns = Netns::new();
    let state = scratch::directory();
    let _backend = Backend::start(&netns, WELL, Manner::AnswerAndClose);
    let mut haproxy = Haproxy::prepare(WELL);
    haproxy.launch(&netns);
    let master = haproxy.master_pid().to_string();
    let guard = |options: &[&str]| {
        let mut command = command();
        command.args(["guard", "--json", "--process", haproxy.name(), "--baseline", "1", "--window", "3"]);
        command.arg("--state").arg(state.path()).args(options).args(["--", "kill", "-USR2", &master]);
        let child = netns.enter(|| Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())));
        let running = Running::start(child);
        running.says("runs ");
        running
    };
    let running = guard(&[]);
    let ended = running.end();
    ended.is(1, "unproven", "its configuration is not known");
    let running = guard(&[]);
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(250));
        assert_eq!(haproxy.get(), 200);
    }
    let ended = running.end();
    ended.is(0, "passed", "[]");
}
