//! Configurations of one line each, and whether nginx takes them: Debian's and the newest are the judges, and `check` must say the
//! same as each of them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use proxytrace_tests::nginx;
use serde_json::Value;

use crate::check::Place;

/// One a line; `{dir}` stands for a directory. Lines that begin with `#` say what follows.
const CONFIGURATIONS: &str = include_str!("judged.txt");

/// Mistakes, each behind a head.
const PLANTED: &str = include_str!("../proxytrace/src/check/planted.txt");

/// Errors about what nginx takes and cannot run.
const AFTERWARDS: [&str; 3] = ["port-shared", "upstream-down", "no-resolver"];

/// A judge, with its version and its module for streams.
struct Judge {
    program: PathBuf,
    version: String,
    stream: PathBuf,
}

impl Judge {
    fn new(program: PathBuf) -> Self {
        let told = Command::new(&program).arg("-v").output().expect("ask nginx for its version").stderr;
        let told = String::from_utf8_lossy(&told).into_owned();
        let version = told.split("nginx/").nth(1).and_then(|rest| rest.split_whitespace().next());
        let usr = program.ancestors().nth(2).unwrap_or(Path::new("/usr"));
        let stream = usr.join("lib/nginx/modules/ngx_stream_module.so");
        Self { version: version.expect("a version").to_owned(), stream, program }
    }

    /// What it says against one.
    fn refusal(&self, place: &Place, name: &str, text: &str) -> Option<String> {
        let load = format!("load_module {}; ", self.stream.display());
        let config = place.write_as_is(name, &format!("{load}{text}"));
        let output = place.netns().enter(|| Command::new(&self.program).args(["-t", "-c", &config]).output());
        let output = output.expect("run nginx -t");
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn check_refuses_what_nginx_refuses_and_nothing_else() {
    let judges: Vec<_> = [Some(PathBuf::from("/usr/sbin/nginx")), nginx::newest()]
        .into_iter()
        .flatten()
        .map(Judge::new)
        .collect();
    let place = Place::new();
    let lines = CONFIGURATIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let planted = PLANTED.split("### ").skip(1).filter_map(|section| section.split_once('\n'));
    let lines: Vec<_> = lines.chain(planted.map(|(_, text)| text)).collect();
    let next = AtomicUsize::new(0);
    let judged = |worker: usize| {
        let mut wrong = String::new();
        while let Some(line) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
            for judge in &judges {
                let directory = place.path(&format!("w{worker}"));
                fs::create_dir_all(&directory).expect("make a directory");
                let text = format!(
                    "events {{}} pid {directory}/pid; error_log stderr; {}",
                    line.replace("{dir}", &directory)
                );
                let refusal = judge.refusal(&place, &format!("w{worker}/nginx.conf"), &text);
                let config = place.write_as_is(&format!("w{worker}/nginx.conf"), &text);
                let (_, stdout, stderr) =
                    place.check(&["--format", "json", "--nginx-version", &judge.version, &config]);
                let report: Value =
                    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{line}: {stdout}{stderr}"));
                let findings = report["findings"].as_array().expect("findings");
                let is_refusal = |finding: &&Value| {
                    finding["severity"] == "error" && !AFTERWARDS.iter().any(|id| finding["id"] == *id)
                };
                if refusal.is_some() != findings.iter().any(|finding| is_refusal(&finding)) {
                    let said = refusal.as_deref().unwrap_or("takes it");
                    let _ = writeln!(wrong, "{line}\n  nginx {}: {said}\n  check: {stdout}", judge.version);
                }
            }
        }
        wrong
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let wrong: String = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|worker| scope.spawn(move || judged(worker))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker")).collect()
    });
    // The first of them say enough: where all of one judge are wrong it would be megabytes.
    let first: String = wrong.chars().take(4000).collect();
    assert!(wrong.is_empty(), "{first}");
    assert!(lines.len() > 400, "{} configurations", lines.len());
}
