//! Recordings: what `trace --record` keeps, and `replay` shows again.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::{Captured, Guarded};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{self, Trace};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};
use proxytrace_tests::{scratch, skip};

#[test]
fn an_outage_is_replayed_as_it_was_shown() {
    let stage = Stage::new(Family::V4);
    let (good, bad) = (stage.upstream_address(8080), stage.upstream_address(8081));
    let _upstream = Backend::start(&stage.upstream, &good, Manner::Answer);
    let nginx = Nginx::start(&stage.proxy, &proxy_to(&good, ""));
    let directory = scratch::directory();
    let (for_people, for_programs) = (directory.path().join("people"), directory.path().join("programs"));
    let (people, stdout, mut notes) = live(&nginx, &for_people, &[]);
    let (programs, json, mut json_notes) = live(&nginx, &for_programs, &["--json"]);

    assert_eq!(nginx.get("/"), 200);
    nginx.reload(&proxy_to(&bad, ""));
    for _ in 0..3 {
        assert_eq!(nginx.get("/"), 502);
    }
    nginx.reload(&proxy_to(&good, ""));
    assert_eq!(nginx.get("/"), 200);

    let (shown, printed) = (end(people, stdout), end(programs, json));
    assert!(shown.contains("reload_accepted") && shown.contains("refused"), "{shown}");
    let (again, said) = replay(&[for_people.as_os_str().to_str().expect("a path"), "--all"]);
    assert_eq!(said, "");
    let without_time = |text: &str| {
        text.lines().filter(|line| !line.starts_with("summary of ")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(without_time(&again), without_time(&shown), "{}", notes.whole());
    let (again, summary) = replay(&[for_programs.as_os_str().to_str().expect("a path"), "--all", "--json"]);
    assert_eq!(again, printed);
    let summary_of = |text: &str| {
        text.lines().filter(|line| line.contains("10.0.0.5")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(summary_of(&summary), summary_of(&json_notes.whole()));
}

/// What stands at the end has been counted on, and what went by time alone went at the same time.
#[test]
fn findings_are_replayed_to_the_letter_with_how_long_all_took() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to("127.0.0.1:8080", "proxy_next_upstream off;"));
    let directory = scratch::directory();
    let (for_people, for_programs) = (directory.path().join("people"), directory.path().join("programs"));
    let (people, stdout, _notes) = live(&nginx, &for_people, &[]);
    let (programs, json, mut json_notes) = live(&nginx, &for_programs, &["--json"]);
    let refused = |times: usize| (0..times).for_each(|_| assert_eq!(nginx.get("/"), 502));
    let start = |manner| Backend::start(&netns, "127.0.0.1:8080", manner);
    let good = start(Manner::AnswerAndClose);
    assert_eq!(nginx.get("/"), 200);
    drop(good);
    wait::for_a_tick();
    refused(4);
    wait::for_a_tick();
    refused(5);
    let wrong = start(Manner::CloseUnanswered);
    for _ in 0..8 {
        refused(1);
        std::thread::sleep(std::time::Duration::from_millis(250));
    }
    drop(wrong);
    // Nothing is answered that anybody sees: what is not closed for a while is taken for it.
    let holding = start(Manner::HoldThenClose);
    let clients = [(); 3].map(|()| nginx.begin("/"));
    std::thread::sleep(std::time::Duration::from_millis(4500));
    drop(clients);
    drop(holding);
    refused(3);
    wait::for_a_tick();
    refused(40);

    let (shown, printed) = (end(people, stdout), end(programs, json));
    for words in
        ["FINDING  upstream_down", "CLEARED  upstream_down", "FINDING  wrong_service", "findings raised"]
    {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    let (again, said) = replay(&[for_people.as_os_str().to_str().expect("a path"), "--all"]);
    assert_eq!((again, said), (shown, String::new()));
    let (again, summary) = replay(&[for_programs.as_os_str().to_str().expect("a path"), "--all", "--json"]);
    assert_eq!(again, printed);
    let of_findings = |text: &str| {
        text.lines()
            .filter(|line| {
                line.contains("findings raised")
                    || line.starts_with("summary of ")
                    || line.contains("FINDING")
            })
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_findings(&summary), of_findings(&json_notes.whole()));
}

#[test]
fn what_is_recorded_does_not_depend_on_what_is_shown() {
    let (_netns, nginx) = failing();
    let (_directory, file) = place();
    let path = file.to_str().expect("a path");
    let trace = Trace::start(&["--process", nginx.name(), "--record", path, "--address", ":1"]);
    assert_eq!(nginx.get("/"), 502);
    wait_for(&file, "refused");
    let ended = trace.stop();
    assert!(ended.status.success() && ended.records.is_empty(), "{ended:?}");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);

    let rows: &[(&[&str], bool)] = &[
        (&[], true),
        (&["--address", "127.0.0.1:8081"], true),
        (&["--address", "10.0.0.0/8"], false),
        (&["--cause", "refused"], true),
        (&["--cause", "stalled"], false),
    ];
    for (filters, is_shown) in rows {
        let (shown, _) = replay(&[&[path, "--json"], *filters].concat());
        assert_eq!(shown.contains("\"outcome\":\"refused\""), *is_shown, "{filters:?}: {shown}");
    }
    let (shown, _) = replay(&[path]);
    assert!(shown.contains("established connects were not recorded"), "{shown}");
}

#[test]
fn nothing_is_overwritten() {
    let (_directory, file) = place();
    fs::write(&file, "precious").expect("write a file");
    let output = proxytrace::command().arg("trace").arg("--record").arg(&file).output().expect("run trace");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is there already"), "{output:?}");
    assert_eq!(fs::read_to_string(&file).expect("read it"), "precious");
}

#[test]
fn what_was_seen_a_second_before_a_kill_is_there() {
    let (_netns, nginx) = failing();
    let (_directory, file) = place();
    let trace = Trace::start(&["--process", nginx.name(), "--record", file.to_str().expect("a path")]);
    assert_eq!(nginx.get("/"), 502);
    wait_for(&file, "refused");
    trace.signal(Signal::SIGKILL);
    let (shown, _) = replay(&[file.to_str().expect("a path")]);
    assert!(shown.contains("127.0.0.1:8081"), "{shown}");
}

#[test]
fn a_full_recording_is_rotated_while_everything_but_that_is_forbidden() {
    const ATTEMPTS: usize = 600;
    let (_netns, nginx) = failing();
    let (_directory, file) = place();
    let path = file.to_str().expect("a path");
    let previous = format!("{path}.1");
    let trace = Trace::start(&["--process", nginx.name(), "--record", path, "--record-max", "64K"]);
    for _ in 0..ATTEMPTS {
        assert_eq!(nginx.get("/"), 502);
    }
    let ended = trace.stop();
    assert!(ended.status.success(), "{}", ended.stderr);

    for file in [path, &*previous] {
        let metadata = fs::metadata(file).expect("a file");
        assert!(metadata.len() <= 64 * 1024, "{file}: {}", metadata.len());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    let (shown, _) = replay(&["--json", &*previous, path]);
    let shown: Vec<_> = shown.lines().filter(|line| line.contains(r#""kind":"connect""#)).collect();
    let connects = ended.records.iter().filter(|record| record.kind == "connect");
    let live: Vec<_> = connects.filter_map(|record| record.time.as_deref()).collect();
    assert_eq!(live.len(), ATTEMPTS);
    assert!(shown.len() > 100 && shown.len() < ATTEMPTS, "the oldest are gone: {}", shown.len());
    for (line, time) in shown.iter().rev().zip(live.iter().rev()) {
        assert!(line.contains(time), "{line} is not of {time}");
    }
}

/// `tests/recordings/outage.jsonl`: a reload with the wrong port, the one that fixes it, and a firewall that drops.
#[test]
fn the_previous_outage_is_shown_as_it_was() {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings");
    let mut command = proxytrace::command();
    command.env("TZ", "UTC").arg("replay").arg(recordings.join("outage.jsonl"));
    let output = command.output().expect("run replay");
    assert!(output.status.success(), "{output:?}");
    let expected = fs::read_to_string(recordings.join("outage.txt")).expect("read how it was shown");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let status = command.arg("--fail-on-finding").output().expect("run replay").status;
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_recording_that_was_compressed_is_replayed_as_it_is() {
    let (directory, _) = place();
    let file = directory.path().join("outage.jsonl");
    let outage = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings/outage.jsonl");
    fs::copy(outage, &file).expect("copy a recording");
    let plain = replay(&[file.to_str().expect("UTF-8")]);
    assert!(Command::new("gzip").arg(&file).status().expect("run gzip").success());
    let compressed = directory.path().join("outage.jsonl.gz");
    assert_eq!(replay(&[compressed.to_str().expect("UTF-8")]), plain);
    let output = through_stdin(&fs::read(&compressed).expect("read it"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), plain.0);
}

#[test]
fn wherever_a_recording_is_cut_off_everything_before_is_shown() {
    let (_netns, nginx) = failing();
    let (directory, file) = place();
    let trace = Trace::start(&["--process", nginx.name(), "--record", file.to_str().expect("a path")]);
    for _ in 0..3 {
        assert_eq!(nginx.get("/"), 502);
    }
    assert!(trace.stop().status.success());
    let whole = fs::read(&file).expect("read the recording");
    let cut = directory.path().join("cut");
    for length in (0..whole.len()).step_by(23).chain([whole.len() - 1, whole.len()]) {
        fs::write(&cut, &whole[..length]).expect("write a part");
        let output = proxytrace::command().args(["replay", "--json"]).arg(&cut).output().expect("run replay");
        let (shown, said) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let ends = whole[..length].iter().filter(|byte| **byte == b'\n').count();
        let rest = whole[..length].rsplit(|byte| *byte == b'\n').next().expect("a part");
        let is_whole = rest.is_empty() || serde_json::from_slice::<serde_json::Value>(rest).is_ok();
        // What findings are made of is in a recording and not shown; nor does it hold findings.
        let is_record = |line: &&str| {
            ["header", "connect"].iter().any(|kind| line.contains(&format!("\"kind\":\"{kind}\"")))
        };
        let text = String::from_utf8_lossy(&whole[..length]);
        let lines = text.lines().take(ends + usize::from(is_whole));
        assert_eq!(
            shown.lines().filter(is_record).count(),
            lines.filter(is_record).count(),
            "{length}: {shown}"
        );
        assert_eq!(output.status.code(), Some(if is_whole { 0 } else { 2 }), "{length}: {said}");
        let words =
            if ends == 0 { "not a recording".to_owned() } else { format!("line {} is cut off", ends + 1) };
        assert_eq!(said.contains(&words), !is_whole, "{length}: {said}");
    }
}

#[test]
fn what_is_not_a_recording_or_is_newer_is_said() {
    const HEADER: &str = r#"{"time":"2026-11-22T06:39:51.000000000Z","kind":"header","format":9,"host":"h","kernel":"k","version":"9.0.0"}"#;
    const CONNECT: &str = r#"{"time":"2026-11-22T06:39:51.120000000Z","kind":"connect","proxy":"nginx","pid":9,"generation":2,"upstream":"api","address":"10.0.0.5:8080","new":[],"outcome":"refused","errno":111,"duration_us":330,"syn_retransmits":0}"#;
    const UNKNOWN: &str = r#"{"time":"2026-11-22T06:39:51.120000000Z","kind":"unheard_of","proxy":"nginx"}"#;
    let check = |bytes: &[u8], code: i32, shown: &str, said: &str| {
        let output = through_stdin(bytes);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert!(out.contains(shown), "{shown:?} in {out}");
        assert!(err.contains(said), "{said:?} in {err}");
        assert!(!err.contains("panic"), "{err}");
    };
    check(&[0xff, 0, b'\n', 7, 0x80].repeat(100), 2, "no connect to an upstream", "not a recording");
    check(b"error_log /var/log/nginx;\n", 2, "no connect", "not a recording");
    let missing = proxytrace::command().args(["replay", "/nowhere"]).output().expect("run replay");
    assert_eq!((missing.status.code(), missing.stdout.len()), (Some(2), 0), "{missing:?}");
    let newer = format!("{HEADER}\n{UNKNOWN}\n{CONNECT}\n{UNKNOWN}\n");
    check(
        newer.as_bytes(),
        0,
        "nobody listens there, or a firewall rejects it",
        "2 records were skipped: a newer proxytrace wrote it",
    );
    let damaged = format!("{HEADER}\n{CONNECT}\n\0\0\0\n{CONNECT}\n");
    check(damaged.as_bytes(), 2, "nobody listens there, or a firewall rejects it", "line 3 is not a record");
    check(b"", 0, "no connect", "");

    // What cannot be read does not keep the rest from being shown.
    let (_directory, file) = place();
    fs::write(&file, newer).expect("write a recording");
    let output =
        proxytrace::command().args(["replay", "/no/such/file"]).arg(&file).output().expect("run replay");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("10.0.0.5:8080"), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/file"), "{output:?}");
}

#[test]
fn replay_needs_no_privileges() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    let output = command.arg(program).args(["replay", "/dev/null"]).output().expect("run setpriv");
    assert!(output.status.success(), "{output:?}");
}

/// nginx in front of a port where nobody listens.
fn failing() -> (Netns, Nginx) {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to("127.0.0.1:8081", ""));
    (netns, nginx)
}

/// A path where nothing is yet.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = scratch::directory();
    let file = directory.path().join("recording");
    (directory, file)
}

/// A running `trace --all --record`, and what it prints, when it is attached.
fn live(nginx: &Nginx, file: &Path, arguments: &[&str]) -> (Guarded, Captured, Captured) {
    let mut command = proxytrace::command();
    command.args(["trace", "--process", nginx.name(), "--all", "--record"]).arg(file).args(arguments);
    let mut trace = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let stdout = Captured::from(trace.inner().stdout.take().expect("a pipe"));
    let stderr = Captured::from(trace.inner().stderr.take().expect("a pipe"));
    wait::until_true("the first line", SOON, || !stdout.text().is_empty());
    (trace, stdout, stderr)
}

/// Ends it, and gives all that it printed.
fn end(mut trace: Guarded, mut stdout: Captured) -> String {
    trace.signal(Signal::SIGINT);
    assert!(trace.wait(SOON).success());
    stdout.whole()
}

/// What `replay` prints, and says, about something that is well.
#[track_caller]
fn replay(arguments: &[&str]) -> (String, String) {
    let output = proxytrace::command().arg("replay").args(arguments).output().expect("run replay");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    (String::from_utf8_lossy(&output.stdout).into_owned(), said)
}

fn through_stdin(bytes: &[u8]) -> Output {
    let mut command = proxytrace::command();
    command.args(["replay", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut replay = command.spawn().expect("start replay");
    // It may end before it has read everything.
    let _ = replay.stdin.take().expect("a pipe").write_all(bytes);
    replay.wait_with_output().expect("wait for replay")
}

/// The recording comes to hold these words, without its trace being asked to end.
#[track_caller]
fn wait_for(file: &Path, words: &str) {
    wait::until_true("the recording", SOON, || {
        fs::read_to_string(file).is_ok_and(|text| text.contains(words))
    });
}

#[test]
fn on_a_full_disk_the_trace_goes_on_and_the_recording_is_right_up_to_there() {
    const ATTEMPTS: usize = 300;
    let (_netns, nginx) = failing();
    let (directory, _) = place();
    let mount = directory.path().join("disk");
    fs::create_dir(&mount).expect("make a directory");
    let kept = directory.path().join("kept");
    // In a mount namespace of its own; what was recorded is fetched when the trace has ended.
    let script =
        r#"mount -t tmpfs -o size=32k none "$DISK"; "$@"; code=$?; cp "$DISK/recording" "$KEPT"; exit $code"#;
    let mut command = proxytrace::command_of("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(proxytrace::binary());
    command.env("DISK", &mount).env("KEPT", &kept);
    let file = mount.join("recording").display().to_string();
    let count = ATTEMPTS.to_string();
    let trace = Trace::by(command, &["--process", nginx.name(), "--record", &file, "--count", &count]);
    for _ in 0..ATTEMPTS {
        assert_eq!(nginx.get("/"), 502);
    }
    let ended = trace.end();

    assert!(ended.status.success(), "{}", ended.stderr);
    let connects = ended.records.iter().filter(|record| record.kind == "connect").count();
    assert_eq!(connects, ATTEMPTS, "{}", ended.stderr);
    for words in ["it ends here and can be replayed up to here, the trace goes on", "lacks the last "] {
        assert_eq!(ended.stderr.matches(words).count(), 1, "{}", ended.stderr);
    }
    assert!(ended.stderr.contains("summary of "), "{}", ended.stderr);
    let (shown, said) = replay(&["--json", kept.to_str().expect("a path")]);
    let recorded = shown.lines().filter(|line| line.contains(r#""kind":"connect""#)).count();
    assert!(recorded > 20 && recorded < ATTEMPTS, "{recorded}: {said}");
}

#[test]
fn a_recording_that_cannot_be_begun_leaves_no_file_behind() {
    let (_netns, nginx) = failing();
    let (_directory, file) = place();
    let path = file.to_str().expect("a path");
    fs::write(format!("{path}.1"), "somebody's").expect("write a file");
    let mut command = proxytrace::command();
    command.args(["trace", "--process", nginx.name(), "--record", path, "--record-max", "64K"]);
    let output = command.output().expect("run proxytrace");
    assert!(!output.status.success());
    assert!(!file.exists());

    let mut command = proxytrace::command();
    command.args(["trace", "--process", nginx.name(), "--record", "/dev/null/there"]);
    let output = command.output().expect("run proxytrace");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("record to /dev/null/there: "), "{stderr}");
    assert_eq!(stderr.matches("(os error ").count(), 1, "what the system said is said once: {stderr}");
}

#[test]
fn what_is_too_wide_or_too_long_is_shown_or_skipped_and_the_rest_is_replayed() {
    const HEADER: &str = r#"{"time":"2026-11-22T06:39:51.000000000Z","kind":"header","format":2,"host":"h","kernel":"k","version":"0.1.0","all":true}"#;
    let connect = |upstream: &str| {
        format!(
            r#"{{"time":"2026-11-22T06:39:51.120000000Z","kind":"connect","proxy":"{upstream}","pid":9,"generation":0,"upstream":"{upstream}","address":"10.0.0.5:8080","outcome":"refused","errno":111,"duration_us":330,"syn_retransmits":0}}"#
        )
    };
    let (wide, long) = ("w".repeat(70_000), "l".repeat(17 << 20));
    let text = [HEADER.to_owned(), connect(&wide), connect(&long), connect("after\\u001b[2J\\u202e")]
        .join("\n")
        + "\n";
    let (_directory, file) = place();
    fs::write(&file, text).expect("write a recording");
    let (shown, said) = replay(&[file.to_str().expect("a path")]);
    assert!(shown.contains(&wide), "the wide name is shown");
    assert!(
        shown.contains(r"after\u{1b}[2J\u{202e}"),
        "what comes after it is shown, and does nothing to a terminal"
    );
    assert!(said.contains("1 lines were skipped: too long for a record"), "{said}");
}
