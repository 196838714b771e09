//! What is put back and what is left; disks that are full.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::{self, Guarded};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON, patient};
use serde_json::Value;

use super::site::{Running, Site, WELL, WRONG, api, write};

#[test]
fn what_somebody_else_changed_meanwhile_is_left_and_named() {
    let site = Site::new();
    let _wrong = Backend::start(&site.netns, WRONG, Manner::Answer);
    let apply = site.change_to(&format!("server {WRONG};"));
    let old = site.nginx.worker_pids();
    let running = site.guard(&["--window", "60", "--apply", &apply], &site.reload());
    running.says("runs ");
    site.wait_for_new_workers(&old);
    thread::sleep(patient(Duration::from_millis(300)));
    let theirs = api(&site.nginx, &format!("server {WELL}; # theirs"));
    write(site.directory.path(), "api.conf", &theirs);
    write(site.directory.path(), "theirs", "theirs");
    running.child.signal(Signal::SIGTERM);
    running.says("takes the change back");
    wait::until_true("the end of the rollback's first part", SOON, || {
        site.kept().join("taken-back").exists()
    });
    thread::sleep(patient(Duration::from_millis(500)));
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), theirs);
    assert_eq!(fs::read_to_string(site.path("theirs")).expect("read"), "theirs");
    running.child.signal(Signal::SIGKILL);
    let _ = running.end();
    let ended = site.recover(&[]);
    assert_eq!(ended.report["rollback"]["left"], serde_json::json!(["api.conf"]), "{ended:#?}");
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), theirs);
}

#[test]
fn a_full_disk_changes_nothing() {
    let site = Site::new();
    fs::write(site.path("large"), vec![b'x'; 1 << 20]).expect("write a large file");
    let files = site.files();
    let small = site.state.path().join("small");
    fs::create_dir(&small).expect("make a directory");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\""])
        .arg(&small);
    command.arg(proxytrace_tests::proxytrace::binary()).args(["guard", "--process", site.nginx.name()]);
    command.arg("--state").arg(small.join("guard")).arg("--rollback-files").arg(site.directory.path());
    command.args(["--apply", "touch /nonexistent/x", "--"]).args(site.reload());
    let child = site.netns.enter(|| Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())));
    let ended = Running::start(child).end();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("nothing was changed"), "{}", ended.stderr);
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
    assert_eq!(site.files(), files);
}

/// A file system with little room.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn on_a_small_disk() -> (SmallDisk, Site) {
    let directory = scratch::directory();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m,mode=755", "none"]).arg(directory.path());
    child::run(&mut mount);
    let disk = SmallDisk(directory.path().to_owned());
    (disk, Site::within(directory))
}

/// Takes all the room that is left, until the file is dropped.
fn fill(directory: &Path) -> File {
    let path = directory.join("filler");
    let mut file = File::create_new(&path).expect("make a file");
    fs::remove_file(path).expect("remove its name");
    loop {
        match file.write(&[b'x'; 512]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return file,
            Err(error) => panic!("fill the disk: {error}"),
        }
    }
}

#[test]
fn a_disk_that_is_full_by_then_is_no_obstacle() {
    let (_disk, site) = on_a_small_disk();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let old = site.nginx.worker_pids();
    let running = site.guard(&["--window", "8", "--apply", &apply], &site.reload());
    site.wait_for_new_workers(&old);
    let _full = fill(site.directory.path());
    running.child.signal(Signal::SIGTERM);
    let ended = running.end();
    ended.is(1, "failed", "interrupted by SIGTERM");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
}

#[test]
fn where_there_is_no_room_to_put_files_back_nothing_is_lost() {
    let (_disk, site) = on_a_small_disk();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let full = fill(site.directory.path());
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("nothing was changed: reserve room to put "), "{}", ended.stderr);
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
    assert!(!site.kept().join("change").exists());
    assert_eq!(site.files(), files);
    drop(full);

    // What a guard has reserved is gone with it.
    let old = site.nginx.worker_pids();
    let running = site.guard(&["--window", "60", "--apply", &apply], &site.reload());
    site.wait_for_new_workers(&old);
    thread::sleep(patient(Duration::from_millis(500)));
    running.child.signal(Signal::SIGKILL);
    let _ = running.end();
    let (full, changed) = (fill(site.directory.path()), site.files());
    let ended = site.recover(&[]);
    assert_eq!(ended.code, Some(4), "{ended:#?}");
    let reasons = ended.report["rollback"]["reasons"].to_string();
    assert!(reasons.contains("api.conf: No space left on device"), "{reasons}");
    assert!(reasons.contains("the copy from before is kept in"), "{reasons}");
    assert_eq!(site.files(), changed, "half of it is put back");
    drop(full);
    let ended = site.recover(&[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
}

#[test]
fn a_log_in_the_directory_keeps_what_is_written_to_it() {
    let site = Site::new();
    let log = site.path("access.log");
    let logging = |server: &str| {
        let directive = format!("access_log {}; location", log.display());
        api(&site.nginx, &format!("server {server};")).replace("location", &directive)
    };
    write(site.directory.path(), "api.conf", &logging(WELL));
    let old = site.nginx.worker_pids();
    site.nginx.signal(Signal::SIGHUP);
    site.wait_for_new_workers(&old);
    let traffic = site.traffic();
    let apply = site.change(&logging(WRONG));
    let ended = site.guard(&["--no-check", "--no-probe", "--apply", &apply], &site.reload()).end();
    let (failed, _) = traffic.end();
    ended.is(1, "failed", "misrouted");
    ended.was_taken_back(&["api.conf"]);
    let rollback = &ended.report["rollback"];
    assert_eq!(rollback["written"], serde_json::json!(["access.log"]), "{ended:#?}");
    assert!(
        rollback["reloaded_by"].to_string().contains("-s reload"),
        "COMMAND has not written it: {ended:#?}"
    );
    let logged = fs::read_to_string(&log).expect("read the log");
    let [well, wrong] = [" 200 ", " 502 "].map(|status| logged.matches(status).count());
    assert!(failed > 0 && wrong > 0 && well > 0, "{well} and {wrong} lines of {failed} that failed");
}

#[test]
fn what_was_removed_before_its_guard_began_is_put_back_as_well() {
    let site = Site::new();
    site.guard(&[], &site.reload()).end().is(0, "passed", "[]");
    let was = fs::read_to_string(site.path("api.conf")).expect("read");
    // No file is newer than the workers.
    fs::remove_file(site.path("api.conf")).expect("remove a file");
    let ended = site.guard(&["--expect-upstream", "api"], &site.reload()).end();
    ended.is(1, "failed", "has none of that name");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), was);
    assert_eq!(site.nginx.get("/"), 200);
}

#[test]
fn a_change_that_comes_before_its_guard_is_taken_back_to_what_worked_last() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    // As of a service manager, which only reloads. What is changed within a tick of the start may have been there before.
    thread::sleep(Duration::from_millis(50));
    site.write_servers(&format!("server {WRONG};"));
    let ended = site.guard(&[], &site.reload()).end();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(
        ended.stderr.contains("no copy from before is there to be put back: nothing was changed"),
        "{ended:#?}"
    );
    site.write_servers(&format!("server {WELL};"));
    site.nginx.signal(Signal::SIGHUP);
    wait::for_a_tick();
    site.guard(&[], &site.reload()).end().is(0, "passed", "[]");
    site.write_servers(&format!("server {WRONG};"));
    write(site.directory.path(), "new", "");
    for options in [&["--no-check", "--no-probe"][..], &[]] {
        let ended = site.guard(options, &site.reload()).end();
        ended.is(1, "failed", "api");
        ended.was_taken_back(&["api.conf"]);
        assert_eq!(ended.report["rollback"]["removed"], serde_json::json!(["new"]));
        let contents = |files: Vec<(String, String)>| -> Vec<_> {
            files
                .into_iter()
                .map(|(path, what)| (path, what.rsplit(") ").next().map(str::to_owned)))
                .collect()
        };
        assert_eq!(contents(site.files()), contents(files.clone()));
        site.write_servers(&format!("server {WRONG};"));
        write(site.directory.path(), "new", "");
    }
    assert!(traffic.end().1 < patient(Duration::from_secs(1)));
}

#[test]
fn files_that_were_changed_before_are_compared_with_what_is_given() {
    let site = Site::new();
    let old = site.state.path().join("old.conf");
    let text = |name: &str| fs::read_to_string(site.path(name)).expect("read");
    fs::write(&old, format!("events {{}} http {{ {} }}", text("api.conf"))).expect("write");
    site.write_servers(&format!("server {WRONG};"));
    let traffic = site.traffic();
    let options = ["--no-check", "--against", old.to_str().expect("text")];
    let ended = site.guard_without_files(&options, &site.reload()).end();
    ended.is(1, "failed", "api");
    assert!(ended.report["changes"].to_string().contains("became 127.0.0.1:8081"), "{ended:#?}");
    assert_eq!(ended.report["rollback"], Value::Null, "none was asked for");
    traffic.end();
}
