//! The directory itself: where it goes away, another one is put in its place, or it cannot be looked at.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::wait::patient;

use super::interrupted::kill_in_the_middle;
use super::site::{Site, WELL, WRONG, api, write};

#[test]
fn a_directory_that_is_gone_is_made_again() {
    let site = Site::new();
    fs::set_permissions(site.directory.path(), Permissions::from_mode(0o751)).expect("set the mode");
    let files = site.files();
    let directory = site.directory.path().display();
    let next = site.state.path().join("empty");
    fs::create_dir(&next).expect("make a directory");
    let replace = |how: &str| format!("rm -rf {directory} && {how}");
    for (apply, words) in [
        (replace("false"), "No such file or directory"),
        (replace(&format!("ln -s {} {directory}", next.display())), "a link is in its place"),
        (format!("chmod 700 {directory}; echo x > {directory}/new; false"), "exit status: 1"),
    ] {
        let ended = site.guard(&["--apply", &apply], &site.reload()).end();
        assert_eq!(ended.code, Some(1), "{apply}: {ended:#?}");
        let said = format!("{}{}", ended.report["reasons"], ended.stderr);
        assert!(said.contains(words) || said.contains("exit status: 1"), "{words}: {ended:#?}");
        assert_eq!(site.files(), files, "{apply}: {ended:#?}");
        let mode = fs::metadata(site.directory.path()).expect("a directory").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o751, "{apply}: {ended:#?}");
        assert_eq!(fs::read_dir(&next).expect("read").count(), 0, "nothing is done behind the link");
    }
    assert_eq!(site.nginx.get("/"), 200);
}

#[test]
fn what_is_too_large_to_be_taken_back_is_not_loaded() {
    let site = Site::new();
    let files = site.files();
    let workers = site.nginx.worker_pids();
    let large = site.path("large");
    let apply =
        format!("{}; truncate -s 1100M {}", site.change_to(&format!("server {WRONG};")), large.display());
    let ended = site.guard(&["--no-check", "--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", "it holds more than a configuration does");
    assert!(!ended.stderr.contains("guard: runs "), "{}", ended.stderr);
    assert_eq!((site.files(), site.nginx.worker_pids()), (files, workers));
}

/// Two releases, of which a link leads to the first, and what nginx reads by that link.
fn released(site: &Site) -> PathBuf {
    let current = site.state.path().join("current");
    for (name, address) in [("one", WELL), ("two", WRONG)] {
        let release = site.state.path().join(name);
        fs::create_dir(&release).expect("make a directory");
        write(&release, "api.inc", &api(&site.nginx, &format!("server {address};")));
    }
    fs::set_permissions(site.state.path(), Permissions::from_mode(0o755)).expect("open it");
    symlink("one", &current).expect("link");
    write(site.directory.path(), "api.conf", &format!("include {}/*.inc;\n", current.display()));
    let old = site.nginx.worker_pids();
    site.nginx.signal(Signal::SIGHUP);
    site.wait_for_new_workers(&old);
    thread::sleep(patient(Duration::from_millis(300)));
    current
}

#[test]
fn a_link_that_is_turned_to_another_directory_is_turned_back() {
    let site = Site::new();
    let current = released(&site);
    let link = current.to_str().expect("text");
    let flip = format!("ln -sfn two {link}");
    let options = ["--rollback-files", link, "--no-check", "--apply", &flip];
    let ended = site.guard_without_files(&options, &site.reload()).end();
    ended.is(1, "failed", WRONG);
    ended.was_taken_back(&[link]);
    assert_eq!(fs::read_link(&current).expect("a link"), PathBuf::from("one"));
    assert_eq!(site.nginx.get("/"), 200);

    // The same where the guard is killed.
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let old = site.nginx.worker_pids();
    let running = site.guard_without_files(&[&options[..], &["--window", "60"]].concat(), &site.reload());
    site.wait_for_new_workers(&old);
    thread::sleep(patient(Duration::from_millis(500)));
    running.child.signal(Signal::SIGKILL);
    let _ = running.end();
    let ended = site.recover(&["--rollback-files", link]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended.was_taken_back(&[link]);
    assert_eq!(fs::read_link(&current).expect("a link"), PathBuf::from("one"));
}

#[test]
fn what_was_changed_before_apply_is_put_back_as_it_was_then() {
    let site = Site::new();
    site.guard(&[], &site.reload()).end().is(0, "passed", "[]");
    // It needs no reload.
    write(site.directory.path(), "htpasswd", "bob:x");
    write(site.directory.path(), "notes", "by hand");
    // A backup by hard links changes times of files, and nothing else.
    fs::hard_link(site.path("api.conf"), site.state.path().join("backup")).expect("link");
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--no-check", "--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", WRONG);
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
}

#[test]
fn what_a_killed_guard_had_half_written_is_removed() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    kill_in_the_middle(&site);
    drop(File::create(site.path(".proxytrace-guard.4711.1")).expect("make a file"));
    assert_eq!(site.recover(&[]).code, Some(0));
    assert_eq!(site.files(), files);
}

#[test]
fn a_directory_that_is_not_there_is_wrong_usage() {
    let site = Site::new();
    let missing = site.state.path().join("missing");
    let options = ["--rollback-files", missing.to_str().expect("text")];
    let ended = site.guard_without_files(&options, &site.reload()).end();
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("missing: No such file or directory"), "{}", ended.stderr);
}
