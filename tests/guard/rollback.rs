//! What taking a change back does, and what where that fails as well.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::wait::patient;
use serde_json::Value;

use super::site::{Site, WELL, WRONG, api, write};

#[test]
fn what_nginx_does_not_take_is_put_back_with_its_own_words() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    let broken = site.change("no_such_directive on;");
    let ended = site.guard(&["--apply", &broken], &site.reload()).end();
    ended.is(1, "failed", "nginx -t: [emerg] ");
    ended.was_taken_back(&["api.conf"]);
    let ended = site.guard(&["--no-check", "--apply", &broken], &site.hang_up()).end();
    ended.is(1, "failed", "unknown directive \\\"no_such_directive\\\"");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(ended.report["rollback"]["reloaded_by"], Value::Null, "nothing was loaded");
    // A name that does not resolve.
    let typo = site.change_to("server backedn.invalid:80;");
    let ended = site.guard(&["--apply", &typo], &site.reload()).end();
    ended.is(1, "failed", "host not found in upstream");
    ended.was_taken_back(&["api.conf"]);
    let ended = site.guard(&["--no-check", "--apply", &typo], &site.reload()).end();
    ended.is(1, "failed", "-s reload ended with exit status: 1");
    ended.is(1, "failed", "host not found in upstream");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(traffic.end().0, 0);
    assert_eq!(site.files(), files);
}

#[test]
fn workers_that_exit_at_once_are_taken_back() {
    let site = Site::new();
    let files = site.files();
    // nginx -t does not see that the workers may not enter it.
    let cores = site.state.path().join("cores");
    fs::create_dir(&cores).expect("make a directory");
    fs::set_permissions(&cores, Permissions::from_mode(0o700)).expect("close it");
    write(site.state.path(), "cores.main", &format!("working_directory {};", cores.display()));
    let apply =
        format!("cp {}/cores.main {}", site.state.path().display(), site.path("cores.main").display());
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", "worker");
    ended.was_taken_back(&[]);
    assert_eq!(ended.report["rollback"]["removed"], serde_json::json!(["cores.main"]));
    assert_eq!(site.files(), files);
    assert_eq!(site.nginx.get("/"), 200);
}

#[test]
fn a_change_is_taken_back_by_a_command_where_one_is_given() {
    let site = Site::new();
    let was = fs::read_to_string(site.path("api.conf")).expect("read");
    write(site.state.path(), "was.conf", &was);
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    let reload = site.reload().join(" ");
    let back = format!(
        "cp {}/was.conf {} && {reload}",
        site.state.path().display(),
        site.path("api.conf").display()
    );
    let options = ["--no-check", "--no-probe", "--apply", &apply, "--rollback", &back];
    let ended = site.guard_without_files(&options, &site.reload()).end();
    ended.is(1, "failed", "misrouted");
    ended.was_taken_back(&[]);
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), was);
    assert!(traffic.end().1 < patient(Duration::from_secs(1)));
    let options = ["--no-check", "--apply", &apply, "--rollback", "false"];
    let ended = site.guard_without_files(&options, &site.reload()).end();
    ended.is(4, "failed", "");
    let reasons = ended.report["rollback"]["reasons"].to_string();
    assert!(reasons.contains("false ended with exit status: 1"), "{reasons}");
}

#[test]
fn where_the_rollback_fails_as_well_it_ends_with_4_and_keeps_the_copy() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    // The service from before goes as well.
    site.netns.firewall("tcp dport 8082 drop");
    let reload = site.reload().join(" ");
    let gone = format!(
        "{reload}; nft add rule inet filter input tcp dport 8080 reject with tcp reset 2>/dev/null || ip route add unreachable 127.0.0.1 table local; ip link set lo down"
    );
    let run = ["/bin/sh", "-c", &gone].map(str::to_owned);
    let ended = site.guard(&["--no-check", "--apply", &apply, "--window", "3"], &run).end();
    drop(traffic);
    assert_eq!(ended.code, Some(4), "{ended:#?}");
    assert_eq!(site.files(), files, "the files are put back nevertheless");
    assert!(site.kept().join("change/journal.json").exists());
    let reasons = ended.report["rollback"]["reasons"].to_string();
    assert!(reasons.contains("the copy from before is kept in"), "{reasons}");
}

#[test]
fn where_nginx_does_not_take_what_is_put_back_its_words_are_in_the_report() {
    let site = Site::new();
    let outside = site.state.path().join("outside.inc");
    fs::write(&outside, "").expect("write a file");
    let files = format!("{}\ninclude {};\n", api(&site.nginx, &format!("server {WELL};")), outside.display());
    write(site.directory.path(), "api.conf", &files);
    let old = site.nginx.worker_pids();
    site.nginx.signal(Signal::SIGHUP);
    site.wait_for_new_workers(&old);
    // The change needs it no more, and takes it away. nginx's own command would see that.
    let apply = format!("{} && rm {}", site.change_to(&format!("server {WRONG};")), outside.display());
    let ended = site.guard(&["--no-check", "--apply", &apply], &site.hang_up()).end();
    ended.is(4, "failed", WRONG);
    assert!(ended.notes().contains("which are not put back"), "{ended:#?}");
    assert!(ended.notes().contains("outside.inc"), "{ended:#?}");
    let reasons = ended.report["rollback"]["reasons"].to_string();
    assert!(reasons.contains("did not take the change: ") && reasons.contains("outside.inc"), "{reasons}");
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), files);
    // What is missing is put there, and it goes back.
    fs::write(&outside, "").expect("write a file");
    let ended = site.recover(&[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(site.nginx.get("/"), 200);
}

#[test]
fn a_command_that_hangs_is_ended_and_one_that_is_not_there_is_never_begun() {
    let site = Site::new();
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let run = ["sleep", "600"].map(str::to_owned);
    let ended = site.guard(&["--no-check", "--timeout", "2", "--apply", &apply], &run).end();
    ended.is(1, "failed", "sleep 600 did not end within 2 s (--timeout)");
    assert_eq!(site.files(), files);
    let ended = site.guard(&["--no-check", "--timeout", "2", "--apply", &apply], &["true".to_owned()]).end();
    ended.is(1, "failed", "no new generation came within 2 s (--timeout)");
    assert_eq!(site.files(), files);
    let ended = site.guard(&["--apply", &apply], &["no-such-program".to_owned()]).end();
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("no-such-program: no such program"), "{}", ended.stderr);
    assert_eq!(site.files(), files);
}

#[test]
fn what_was_loaded_is_loaded_away_again_also_where_a_later_reload_was_rejected() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let old = site.nginx.worker_pids();
    let running = site.guard(&["--window", "20", "--apply", &apply], &site.reload());
    site.wait_for_new_workers(&old);
    thread::sleep(patient(Duration::from_millis(500)));
    // Somebody else reloads while a file of theirs is half written.
    write(site.directory.path(), "theirs.conf", "broken {");
    site.nginx.signal(Signal::SIGHUP);
    running.says("did not take the change");
    fs::remove_file(site.path("theirs.conf")).expect("remove a file");
    let ended = running.end();
    assert_eq!(site.files(), files);
    assert!(ended.report["rollback"]["reloaded_by"] != Value::Null, "{ended:#?}");
}

#[test]
fn what_runs_the_change_still_was_not_taken_back() {
    let site = Site::new();
    let outside = site.state.path().join("outside.conf");
    fs::rename(site.path("api.conf"), &outside).expect("move a file");
    std::os::unix::fs::symlink(&outside, site.path("api.conf")).expect("link");
    let old = site.nginx.worker_pids();
    site.nginx.signal(Signal::SIGHUP);
    site.wait_for_new_workers(&old);
    // cp writes where the link leads.
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--no-check", "--apply", &apply], &site.reload()).end();
    ended.is(4, "failed", WRONG);
    let reasons = ended.report["rollback"]["reasons"].to_string();
    assert!(reasons.contains("the proxy still runs the change: "), "{reasons}");
    assert!(reasons.contains("a connect to 127.0.0.1:8081 fails: refused"), "{reasons}");
}
