//! Guards that are ended, killed, or meet another one; and a host that allows none.

use std::fs;
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::proxytrace::{binary, command_of, copy_for_everybody};
use proxytrace_tests::wait::{self, SOON, patient};

use super::site::{Running, Site, WELL, WRONG};

#[test]
fn a_guard_that_is_interrupted_takes_the_change_back() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let old = site.nginx.worker_pids();
        let running = site.guard(&["--window", "60", "--apply", &apply], &site.reload());
        site.wait_for_new_workers(&old);
        running.child.signal(signal);
        // Nothing interrupts that, but it is watched for as long as the change would be.
        running.says("takes the change back");
        site.wait_for_the_files(&files);
        running.child.signal(Signal::SIGKILL);
        let _ = running.end();
        let ended = site.recover(&[]);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
    let running = site.guard(&["--window", "2", "--apply", &apply], &site.reload());
    running.says("runs ");
    running.child.signal(Signal::SIGTERM);
    let ended = running.end();
    ended.is(1, "failed", "interrupted by SIGTERM");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
}

/// A guard that has loaded its change is killed.
pub(super) fn kill_in_the_middle(site: &Site) {
    let apply = site.change_to(&format!("server {WRONG};"));
    let old = site.nginx.worker_pids();
    let running = site.guard(&["--window", "60", "--apply", &apply], &site.reload());
    site.wait_for_new_workers(&old);
    thread::sleep(patient(Duration::from_millis(500)));
    running.child.signal(Signal::SIGKILL);
    let _ = running.end();
}

#[test]
fn what_a_killed_guard_left_is_found_and_nothing_is_lost() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    kill_in_the_middle(&site);
    assert_ne!(site.files(), files);
    // The next one says so, and changes nothing.
    let next = site.guard(&["--apply", "touch /nonexistent/x"], &site.reload()).end();
    assert_eq!(next.code, Some(1), "{next:#?}");
    assert!(next.stderr.contains("`proxytrace guard --recover`"), "{}", next.stderr);
    let ended = site.recover(&[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(site.files(), files);
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(ended.report["rollback"]["reloaded_by"], "SIGHUP", "{ended:#?}");
    assert_eq!(site.recover(&[]).code, Some(0), "there is nothing to recover any more");
    kill_in_the_middle(&site);
    let ended = site.recover(&["--discard"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(fs::read_to_string(site.path("api.conf")).expect("read").contains(WRONG));
    assert!(!site.kept().join("change").exists());
}

/// proxytrace as it is run after the machine was started again: the kernel gives that another id.
fn after_another_start(site: &Site) -> Command {
    let id = site.state.path().join("boot_id");
    fs::write(&id, "00000000-0000-4000-8000-000000000000\n").expect("write an id");
    let mut command = command_of("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"",
    ]);
    command.arg(id).arg(binary());
    command
}

#[test]
fn a_change_that_ended_with_the_machine_is_found_when_that_starts_again() {
    let mut site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    kill_in_the_middle(&site);
    // The process id that is noted belongs to somebody else by now.
    fs::write(site.kept().join("lock"), lock_of(process::id(), &site)).expect("write the lock");
    // nginx starts with what is on disk.
    site.nginx.restart(&site.netns);
    let next =
        site.guard_by(after_another_start(&site), &["--apply", "touch /nonexistent/x"], &site.reload()).end();
    assert_eq!(next.code, Some(1), "{next:#?}");
    assert!(next.stderr.contains("before this machine was started again"), "{}", next.stderr);
    assert!(next.stderr.contains("`proxytrace guard --recover`"), "{}", next.stderr);
    let ended = site.recover_by(after_another_start(&site), &[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(ended.report["rollback"]["reloaded_by"], "SIGHUP", "{ended:#?}");
    assert_eq!((site.files(), site.nginx.get("/")), (files.clone(), 200));

    // The other way round: it is taken back before nginx starts.
    kill_in_the_middle(&site);
    site.nginx.signal(Signal::SIGTERM);
    wait::until_true("nginx to end", SOON, || site.nginx.worker_pids().is_empty());
    let ended = site.recover_by(after_another_start(&site), &[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended.was_taken_back(&["api.conf"]);
    let notes = ended.report["rollback"]["notes"].to_string();
    assert!(notes.contains("it takes these files when it starts"), "{notes}");
    assert_eq!(site.files(), files);
    site.nginx.restart(&site.netns);
    assert_eq!(site.nginx.get("/"), 200);
}

fn lock_of(pid: u32, site: &Site) -> String {
    let lock = fs::read_to_string(site.kept().join("lock")).expect("read the lock");
    let (_, rest) = lock.split_once(',').expect("a process and a directory");
    format!("{{\"pid\":{pid},{rest}")
}

#[test]
fn a_change_that_was_not_ended_is_in_the_way_of_its_own_directory_only() {
    let site = Site::new();
    let other = site.beside();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    kill_in_the_middle(&site);
    let apply = other.change_to(&format!("server {WELL} weight=2;"));
    other.guard(&["--apply", &apply], &other.reload()).end().is(0, "passed", "[]");
    let next = site.guard(&[], &site.reload()).end();
    assert_eq!(next.code, Some(1), "{next:#?}");
    assert_eq!(site.recover(&[]).code, Some(0));
}

#[test]
fn who_may_not_trace_is_told_so_and_nothing_is_changed() {
    let (_directory, program) = copy_for_everybody();
    let mut command = command_of("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    command.args(["guard", "--apply", "touch /nonexistent/x", "--", "true"]);
    let ended = Running::spawn(&mut command).end();
    assert_eq!(ended.code, Some(3), "{ended:#?}");
    assert!(ended.stderr.contains("CAP_BPF"), "{}", ended.stderr);
}

#[test]
fn two_guards_do_not_work_at_once() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let apply = site.change_to(&format!("server {WRONG};"));
    let first = site.guard(&["--window", "4", "--apply", &apply], &site.reload());
    first.says("runs ");
    let refused = site.guard(&["--timeout", "0.5"], &site.reload()).end();
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("another guard is at work"), "{}", refused.stderr);
    let second = site.guard(&[], &site.reload());
    second.says("waiting for another guard to end");
    first.end().is(0, "passed", "[]");
    second.end().is(0, "passed", "[]");
}
