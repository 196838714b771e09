//! The same deploy once more, through `proxytrace guard`: it takes itself back.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::Nginx;
use proxytrace_tests::{http, proxytrace, scratch};

const REQUESTS_A_SECOND: u32 = 200;

/// Has guard deploy `wrong` in place of `right`, both what goes into `http {}`, while users come.
pub(crate) fn run(netns: &Netns, nginx: &Nginx, [right, wrong]: [&str; 2]) -> Result<()> {
    let (conf, state) = (scratch::directory(), scratch::directory());
    // What nginx's helper would fill in.
    let directory = nginx.config().parent().unwrap_or(Path::new("")).display().to_string();
    let write = |path: &Path, text: &str| fs::write(path, text.replace("{dir}", &directory));
    let (live, new) = (conf.path().join("api.conf"), state.path().join("api.conf"));
    write(&live, right)?;
    write(&new, wrong)?;
    nginx.reload(&format!("include {}/*.conf;", conf.path().display()));

    let mut guard = proxytrace::command();
    guard.args(["guard", "--process", nginx.name(), "--baseline", "2", "--window", "3"]);
    // A probe would find it before it is loaded.
    guard.args(["--no-check", "--no-probe", "--state"]).arg(state.path().join("guard"));
    guard.arg("--rollback-files").arg(conf.path());
    guard.args(["--apply", &format!("cp {} {}", new.display(), live.display()), "--"]);
    guard.args(["kill", "-HUP", &nginx.master_pid().to_string()]);
    let stop = AtomicBool::new(false);
    let (output, failed) = thread::scope(|scope| {
        let users = scope.spawn(|| users(nginx, &stop));
        let output = netns.enter(|| guard.output());
        stop.store(true, Ordering::SeqCst);
        (output, users.join())
    });
    let output = output?;
    io::stdout().write_all(&output.stderr)?;
    io::stdout().write_all(&output.stdout)?;
    let (failed, took) = failed.unwrap_or_default();
    println!(
        "demo: {failed} requests at {REQUESTS_A_SECOND} a second got 502, over {:.0} ms; in the postmortem it was 75 minutes",
        took.as_secs_f64() * 1000.0
    );
    ensure!(output.status.code() == Some(1), "guard ended with {}", output.status);
    ensure!(fs::read_to_string(&live)? == right.replace("{dir}", &directory), "the file is not as it was");
    ensure!(nginx.get("/") == 200, "nginx does not serve");
    Ok(())
}

/// How many requests got something else than 200, and from the first to the last of those.
fn users(nginx: &Nginx, stop: &AtomicBool) -> (usize, Duration) {
    let (start, mut failed) = (Instant::now(), Vec::new());
    for n in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let mut stream = nginx.begin("/");
        if http::answer(&mut stream).status != 200 {
            failed.push(Instant::now());
        }
        let next = start + Duration::from_secs(1) / REQUESTS_A_SECOND * n;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let took = failed.first().zip(failed.last()).map(|(first, last)| *last - *first);
    (failed.len(), took.unwrap_or_default())
}
