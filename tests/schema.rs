//! What programs read: every line and finding is as docs/records.schema.json has it, and none has more.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Options, server};
use proxytrace_tests::proxytrace::{self, Trace};
use proxytrace_tests::wait::{self, SOON};
use proxytrace_tests::{scratch, skip};

use crate::lookout::{AFTER, BEFORE, Lookout};

/// Validates each line of standard input, and says how many of each kind there were. What the schema does not know is a mistake here.
const VALIDATE: &str = "
import collections, json, sys
import jsonschema

schema = json.load(open(sys.argv[1]))

def strict(part):
    if isinstance(part, dict):
        if 'properties' in part:
            part.setdefault('additionalProperties', False)
        for inner in part.values():
            strict(inner)
    elif isinstance(part, list):
        for inner in part:
            strict(inner)

strict(schema)
counts = collections.Counter()
for line in sys.stdin:
    value = json.loads(line)
    name = {'finding': 'finding_record'}.get(value.get('kind'), value.get('kind', 'finding'))
    of = {'$schema': schema['$schema'], '$ref': '#/$defs/' + name, '$defs': schema['$defs']}
    for error in jsonschema.Draft202012Validator(of).iter_errors(value):
        print(f'{error.json_path}: {error.message} in {line}')
    counts[name] += 1
print(' '.join(sorted(counts)))
";

/// Where `cargo xtask setup` puts the validator, or the system's own.
fn python() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/setup/jsonschema-4.26.0/bin/python");
    if own.exists() { own } else { "python3".into() }
}

/// What Python's validator of schemas says.
fn validated(lines: &str) -> String {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/records.schema.json");
    let mut python = Command::new(python())
        .args(["-c", VALIDATE])
        .arg(schema)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run python3");
    python.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("write lines");
    let output = python.wait_with_output().expect("wait for python3");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_record_and_finding_is_as_the_schema_has_it() {
    let has_validator = Command::new(python()).args(["-c", "import jsonschema"]).output();
    if !has_validator.is_ok_and(|output| output.status.success()) {
        return skip::skip("Python's jsonschema is not there: cargo xtask setup");
    }
    let http = |port: &str| {
        format!(
            "upstream api {{ server {port} max_fails=0; server {AFTER} backup; }} {}",
            server(
                "location / { proxy_pass http://api; proxy_next_upstream off; }
                 location /bind { proxy_bind 10.77.0.9; proxy_pass http://api; }"
            )
        )
    };
    let scene = Lookout::on(Netns::new(), Options::default(), &http(BEFORE), &[]);
    let directory = scratch::directory();
    let file = directory.path().join("recording");
    let path = file.to_str().expect("a path");
    let trace = Trace::start(&["--process", scene.nginx.name(), "--all", "--record", path]);
    let backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    wait::for_a_tick();
    scene.gets(5, 200);
    for _ in 0..5 {
        assert_eq!(scene.nginx.get("/bind"), 500);
    }
    scene.raised("proxy_fails", "");
    drop(backend);
    let wrong = Backend::start(&scene.netns, BEFORE, Manner::CloseUnanswered);
    scene.gets(2, 502);
    drop(wrong);
    scene.nginx.reload(&http("127.0.0.1:8099"));
    scene.gets(4, 502);
    scene.nginx.configure("no_such_directive on;");
    scene.nginx.signal(Signal::SIGHUP);
    wait::until_true("the reload to be found rejected", SOON, || {
        scene.agent.get("/findings").body.contains("reload_rejected")
    });
    scene.netns.firewall("tcp dport 8099 drop");
    let client = scene.nginx.begin("/");
    let _ = trace.next_among(&["stalled"]);
    drop(client);
    let findings: serde_json::Value = serde_json::from_str(&scene.agent.get("/findings").body).expect("JSON");
    let findings: String =
        findings.as_array().expect("a list").iter().map(|finding| format!("{finding}\n")).collect();
    assert!(trace.stop().status.success());

    let recorded = fs::read_to_string(&file).expect("the recording");
    let replayed =
        proxytrace::command().args(["replay", "--json", "--all", path]).output().expect("run replay");
    let replayed = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert_eq!(validated(&findings).trim(), "finding");
    assert_eq!(
        validated(&recorded).trim(),
        "broken complaints connect counts declared generation header rejection reload stalled tick worker_exited worker_started"
    );
    assert_eq!(
        validated(&replayed).trim(),
        "broken connect finding_record header reload stalled worker_exited worker_started"
    );
    let is_failure =
        |line: &&str| line.contains(r#""kind":"connect""#) && !line.contains(r#""outcome":"established""#);
    let failures: Vec<_> = recorded.lines().filter(is_failure).collect();
    assert!(failures.len() >= 4 && failures.iter().all(|line| line.contains(r#""cause":"#)), "{failures:#?}");
    assert!(
        replayed
            .lines()
            .filter(|line| line.contains(r#""kind":"finding""#))
            .all(|line| line.contains(r#""sentence":"#))
    );
}
