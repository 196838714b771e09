//! What `proxytrace check` says about a configuration, next to what nginx itself says about it.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proxytrace_tests::backend::{full_backlog, unlistened};
use proxytrace_tests::child::{Captured, Guarded};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::{proxytrace, scratch, wait};
use serde_json::Value;
use tempfile::TempDir;

/// Kinds of findings that say that nginx refuses the configuration.
const REFUSED: [&str; 9] = [
    "out-of-place",
    "bad-address",
    "port-of-upstream",
    "upstream-twice",
    "upstream-empty",
    "default-server-twice",
    "location-twice",
    // In a namespace without a route no name resolves.
    "name-unresolved",
    "upstream-undefined",
];

/// A configuration that nothing is to be said about but notes.
const WELL: &str = "http {
    upstream api { server 10.0.0.5:8080; }
    server {
        listen 80; server_name example.org;
        location /api/ { proxy_pass http://api; }
    }
}
";

#[test]
fn each_example_of_the_docs_is_found_and_nginx_agrees_on_what_it_refuses() {
    let place = Place::new();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/check.md");
    let page = fs::read_to_string(page).expect("read docs/check.md");
    let mut examples = 0;
    for section in page.split("\n## ").skip(1) {
        let (id, section) = section.split_once('\n').expect("a heading");
        let Some((_, example)) = section.split_once("```nginx\n") else { continue };
        let (example, _) = example.split_once("```").expect("the end of an example");
        examples += 1;
        let config = place.write("nginx.conf", example);
        let (code, stdout, stderr) = place.check(&["--format", "json", &config]);
        let report: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{id}: {stdout}{stderr}"));
        let findings = report["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["id"] == id);
        let finding = finding.unwrap_or_else(|| panic!("{id}: {stdout}"));
        assert_eq!(finding["file"], config, "{id}");
        let has_error = findings.iter().any(|finding| finding["severity"] == "error");
        assert_eq!(code, Some(i32::from(has_error)), "{id}: {stdout}");

        let (accepts, said) = place.nginx_says(&config);
        assert_eq!(accepts, !REFUSED.contains(&id), "{id}: {said}");
        if id == "server-name-twice" {
            assert!(said.contains("conflicting server name"), "{said}");
        }
    }
    assert!(examples > 10, "{examples} examples in docs/check.md");
}

#[test]
fn a_syntax_error_is_shown_where_it_is() {
    let place = Place::new();
    let config = place.write("nginx.conf", "http {\n    server }\n}\n");
    let (code, stdout, _) = place.check(&[&config]);
    let expected = format!(
        "{config}:2: error [syntax]\n    nginx refuses the configuration: unexpected \"}}\"\n      |     server }}\n      |            ^\n"
    );
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.starts_with(&expected), "{stdout}");
    assert!(!place.nginx_says(&config).0);

    let (code, stdout, _) = place.check(&["--format", "github", &config]);
    assert_eq!(code, Some(1));
    let expected = format!("::error file={config},line=2,title=syntax::nginx refuses");
    assert!(stdout.starts_with(&expected), "{stdout}");
}

#[test]
fn what_cannot_be_read_is_said_and_ends_with_2() {
    let place = Place::new();
    let missing = place.path("missing.conf");
    let plain = place.write("empty.conf", "");
    for arguments in
        [&[missing.as_str()][..], &["-"], &[&plain, "--against", &missing], &["-", "--against", "-"]]
    {
        let (code, stdout, stderr) = place.check(arguments);
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("proxytrace: "), "{arguments:?}: {stderr}");
    }
}

#[test]
fn bad_input_ends_soon_with_its_place() {
    let place = Place::new();
    let own = place.path("self.conf");
    fs::create_dir(place.path("many")).expect("make a directory");
    for n in 0..10_000 {
        fs::write(place.path(&format!("many/{n}.conf")), "# nothing\n").expect("write a file");
    }
    let rows: &[(&str, &str, i32, &str)] = &[
        ("truncated.conf", "http {\n  server {\n", 1, "truncated.conf:"),
        ("binary.conf", "\u{0}\u{1}\u{7f}ELF}\n;;{", 1, "binary.conf:"),
        ("deep.conf", &"a {".repeat(100_000), 2, "blocks inside each other"),
        ("self.conf", &format!("include {own};\n"), 1, "includes itself"),
        ("globbed.conf", "http { include many/*.conf; }\n", 0, "errors 0"),
        ("large.conf", &"# 100 MB of comments, as a log that was renamed\n".repeat(2_100_000), 2, "bytes"),
        ("missing.conf", "\ninclude gone.conf;\n", 1, "missing.conf:2"),
    ];
    for (name, text, expected, said) in rows {
        let config = place.write_as_is(name, text);
        let (code, stdout, stderr) = place.check(&[&config]);
        assert_eq!(code, Some(*expected), "{name}: {stdout}{stderr}");
        assert!((stdout.clone() + &stderr).contains(said), "{name}: {stdout}{stderr}");
    }
}

#[test]
fn routing_that_changes_is_reported_and_reformatting_is_not() {
    let place = Place::new();
    let old = place.write("old.conf", WELL);
    let check = |text: &str, expected: &str| {
        let new = place.write("nginx.conf", text);
        // The directory stands for its nginx.conf.
        let directory = Path::new(&new).parent().expect("a directory").to_str().expect("a path");
        let (code, stdout, stderr) = place.check(&[directory, "--against", &old]);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        assert!(stdout.contains(expected), "{stdout}");
    };
    check(&WELL.replace(' ', "\n \t"), "routing does not change\n");
    check(
        &WELL.replace("8080", "8081"),
        "  server example.org (80): /api/ → api: 10.0.0.5:8080 became 10.0.0.5:8081\n",
    );
}

#[test]
fn users_and_passwords_in_targets_are_not_shown() {
    let place = Place::new();
    let config = |targets: [&str; 2]| {
        let [one, other] = targets;
        format!(
            "http {{ server {{ listen 80; location /a {{ proxy_pass {one}; }} location /b {{ proxy_pass {other}; }} }} }}"
        )
    };
    let secret = ["http://svc:hunter2@10.0.0.5", "https://svc:hunter2@$host:8443/x?key=hunter2"];
    let (old, new) = (config(["http://10.0.0.5", "http://10.0.0.6"]), config(secret));
    let (old, new) = (place.write("old.conf", &old), place.write("new.conf", &new));
    for format in ["text", "json", "github"] {
        let (_, stdout, stderr) = place.check(&["--format", format, "--against", &old, &new]);
        assert!(stdout.contains("$host:8443"), "{format}: {stdout}{stderr}");
        assert!(!stdout.contains("hunter2") && !stderr.contains("hunter2"), "{format}: {stdout}{stderr}");
    }
}

#[test]
fn the_output_of_nginx_t_is_read_from_a_file_and_from_standard_input() {
    let place = Place::new();
    place.write_as_is("api.conf", "upstream api { server 10.0.0.5:8080 down; }\n");
    let config = place.write(
        "nginx.conf",
        "http { include api.conf;\n server { location / { proxy_pass http://api; } } }\n",
    );
    let nginx = || {
        let mut command = Command::new("nginx");
        command.args(["-T", "-q", "-c", &config]).stderr(Stdio::null());
        command
    };
    let dump = place.netns.enter(|| nginx().output().expect("run nginx -T").stdout);
    let saved = place.path("dump");
    fs::write(&saved, &dump).expect("save a dump");
    let place_of_it = format!("{}:1: error [upstream-down]", place.path("api.conf"));
    let (code, stdout, stderr) = place.check(&[&saved]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.contains(&place_of_it), "{stdout}");

    let mut child = place
        .netns
        .spawn(proxytrace::command().args(["check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
    child.inner().stdin.take().expect("a pipe").write_all(&dump).expect("write a dump");
    assert_eq!(child.wait(wait::SOON).code(), Some(1));
    assert!(stdout.whole().contains(&place_of_it), "{}", stdout.text());
}

#[test]
fn a_probe_names_the_cause_in_the_words_of_the_contract() {
    let place = Place::new();
    place.netns.ip("route add prohibit 198.51.100.0/24");
    place.netns.firewall("tcp dport 8004 drop");
    let _listener = place.netns.enter(|| TcpListener::bind("127.0.0.1:8001").expect("listen"));
    let _socket = UnixListener::bind(place.path("well")).expect("listen");
    let _deaf = unlistened(Path::new(&place.path("deaf")));
    let _full = full_backlog(Path::new(&place.path("full")));
    let rows = [
        ("127.0.0.1:8001".to_owned(), "established"),
        ("127.0.0.1:8002".to_owned(), "refused"),
        ("127.0.0.1:8004".to_owned(), "timed_out"),
        ("198.51.100.1:80".to_owned(), "permission_denied"),
        ("203.0.113.1:80".to_owned(), "network_unreachable"),
        (format!("unix:{}", place.path("well")), "established"),
        (format!("unix:{}", place.path("gone")), "no_such_socket"),
        (format!("unix:{}", place.path("deaf")), "refused"),
        (format!("unix:{}", place.path("full")), "backlog_full"),
    ];
    let peers: String = rows.iter().map(|(address, _)| format!("server {address};\n")).collect();
    let text =
        format!("http {{ upstream api {{ {peers} }} server {{ location / {{ proxy_pass http://api; }} }} }}");
    let config = place.write("nginx.conf", &text);
    let (code, stdout, stderr) =
        place.check(&["--probe", "--probe-timeout", "0.5", "--format", "json", &config]);
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    let report: Value = serde_json::from_str(&stdout).expect("a report");
    let probes = report["probes"].as_array().expect("probes");
    for (address, outcome) in &rows {
        let probe = probes.iter().find(|probe| probe["address"] == **address);
        assert_eq!(probe.map(|probe| &probe["outcome"]), Some(&Value::from(*outcome)), "{address}: {stdout}");
    }
    let failed = report["findings"].as_array().expect("findings").iter();
    assert_eq!(failed.filter(|finding| finding["id"] == "probe-failed").count(), 7, "{stdout}");
}

/// A directory for configurations, and a network without any way out.
struct Place {
    directory: TempDir,
    netns: Netns,
}

impl Place {
    fn new() -> Self {
        Self { directory: scratch::directory(), netns: Netns::new() }
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.directory.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    fn write_as_is(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("write a configuration");
        path
    }

    /// With what nginx needs to judge it, before its first line.
    fn write(&self, name: &str, text: &str) -> String {
        let pid = self.path("pid");
        self.write_as_is(name, &format!("events {{}} pid {pid}; error_log stderr; {text}"))
    }

    fn check(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = proxytrace::command();
        command.arg("check").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child: Guarded = self.netns.spawn(&mut command);
        let mut stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
        let mut stderr = Captured::from(child.inner().stderr.take().expect("a pipe"));
        let status = child.wait(wait::SOON);
        (status.code(), stdout.whole(), stderr.whole())
    }

    /// Whether `nginx -t` accepts a configuration, and what it says.
    fn nginx_says(&self, config: &str) -> (bool, String) {
        let output = self.netns.enter(|| Command::new("nginx").args(["-t", "-c", config]).output());
        let output = output.expect("run nginx -t");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
