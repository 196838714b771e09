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

/// Kinds of errors and warnings whose examples nginx accepts, or refuses for want of what only stands around them.
const ACCEPTED: [&str; 14] = [
    "nothing",
    "port-shared",
    "upstream-down",
    "upstream-unused",
    "no-resolver",
    "socket-missing",
    "http-to-443",
    "https-to-80",
    "server-name-twice",
    "server-name-odd",
    "location-shadowed",
    "location-missing",
    "long-connect-timeout",
    "outside",
];

/// The nginx that the examples are judged by: Debian 12's.
const DOCUMENTED: &str = "1.22.1";

/// Debian's nginx has it in a file of its own.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

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
        // A part of a configuration has no `events` either.
        let config = match id {
            "part" | "events-missing" => place.write_as_is("nginx.conf", example),
            _ => place.write("nginx.conf", example),
        };
        let mut arguments = vec!["--format", "json", "--nginx-version", DOCUMENTED, &*config];
        // A name that is known not to resolve is a finding of another kind.
        arguments.extend((id == "upstream-undefined").then_some("--no-resolve"));
        let (code, stdout, stderr) = place.check(&arguments);
        let report: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{id}: {stdout}{stderr}"));
        let findings = report["findings"].as_array().expect("findings");
        let finding = findings.iter().find(|finding| finding["id"] == id);
        let finding = finding.unwrap_or_else(|| panic!("{id}: {stdout}"));
        assert_eq!(finding["file"], config, "{id}");
        let has_error = findings.iter().any(|finding| finding["severity"] == "error");
        assert_eq!(code, Some(i32::from(has_error)), "{id}: {stdout}");

        let (accepts, said) = place.nginx_says(&config);
        assert_eq!(accepts, ACCEPTED.contains(&id), "{id}: {said}");
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
    check(&WELL.replace(' ', "\n \t"), "nothing changes for requests\n");
    check(
        &WELL.replace("8080", "8081"),
        "what changes: peers\n  api: 10.0.0.5:8080 became 10.0.0.5:8081 ← server example.org (80): /api/\n",
    );
    check(
        &WELL.replace("http://api", "http://api/"),
        "upstreams and their addresses do not change\nwhat changes: routes\n  server example.org (*:80): /api/ → ",
    );
}

#[test]
fn a_copied_tree_with_absolute_includes_is_told_apart_from_the_live_one() {
    let place = Place::new();
    let live = place.path("live");
    let copy = place.path("copy");
    for (tree, port) in [(&live, 8080), (&copy, 8081)] {
        fs::create_dir_all(format!("{tree}/conf.d")).expect("make a tree");
        let api = format!(
            "upstream api {{ server 10.0.0.5:{port}; }} server {{ location / {{ proxy_pass http://api; }} }}"
        );
        fs::write(format!("{tree}/conf.d/api.conf"), api).expect("write a file");
        let main = format!("events {{}} http {{ include {live}/conf.d/*.conf; }}");
        fs::write(format!("{tree}/nginx.conf"), main).expect("write a file");
    }
    let (_, stdout, _) = place.check(&[&copy, "--against", &live]);
    assert!(stdout.contains("warning [outside]") && stdout.contains("nothing changes"), "{stdout}");
    let map = format!("{live}={copy}");
    let (_, stdout, _) = place.check(&[&copy, "--against", &live, "--map", &map]);
    assert!(
        !stdout.contains("[outside]") && stdout.contains("10.0.0.5:8080 became 10.0.0.5:8081"),
        "{stdout}"
    );
    // As an image has it: the paths are those of nginx's own root.
    let root = place.path("root");
    fs::create_dir_all(format!("{root}{live}/conf.d")).expect("make a tree");
    for name in ["nginx.conf", "conf.d/api.conf"] {
        fs::copy(format!("{copy}/{name}"), format!("{root}{live}/{name}")).expect("copy");
    }
    let main = format!("{live}/nginx.conf");
    let (_, stdout, _) = place.check(&["--root", &root, &main, "--against", &live]);
    assert!(stdout.contains("10.0.0.5:8080 became 10.0.0.5:8081"), "{stdout}");
}

#[test]
fn what_is_useless_to_say_is_not_said_and_what_is_said_comes_in_one_order() {
    let place = Place::new();
    let config = place.write(
        "nginx.conf",
        "http { server { listen 80 default_server; server_name _; return 444; } server { listen 80; server_name _; return 404; } }",
    );
    let (code, stdout, _) = place.check(&[&config]);
    assert_eq!((code, &*stdout), (Some(0), "errors 0, warnings 0, notes 0\n"));
    let many: String = (0..20).map(|n| format!("upstream u{n} {{ server 10.0.0.{n}:80; }}")).collect();
    let servers: String =
        (0..20).map(|n| format!("server {{ listen 80; listen 81; listen 82; server_name a; location / {{ proxy_pass http://10.1.0.{n}; }} }}")).collect();
    let config = place.write("nginx.conf", &format!("http {{ {many} {servers} }}"));
    let (code, first, _) = place.check(&[&config, "--fail-on", "warning", "-q"]);
    assert!(code == Some(1) && !first.contains("note ["), "{first}");
    for _ in 0..5 {
        assert_eq!(place.check(&[&config, "--fail-on", "warning", "-q"]).1, first);
    }
}

#[test]
fn each_planted_mistake_is_judged_by_nginx_as_the_table_says() {
    let place = Place::new();
    let planted =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxytrace/src/check/planted.txt"));
    let planted = planted.expect("read what is planted");
    let mut judged = 0;
    for section in planted.split("### ").skip(1) {
        let (head, text) = section.split_once('\n').expect("a head");
        let mut columns = head.split(" | ");
        let (name, debian) = (columns.next().expect("a name"), columns.next().expect("a verdict"));
        let config = place.write("nginx.conf", text);
        let (accepts, said) = place.nginx_says(&config);
        assert_eq!(if accepts { "accepts" } else { "refuses" }, debian, "{name}: {said}");
        judged += 1;
    }
    assert!(judged > 60, "{judged} mistakes");
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
    let text = format!(
        "user root; http {{ upstream api {{ {peers} }} server {{ location / {{ proxy_pass http://api; }} }} }}"
    );
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
pub(crate) struct Place {
    directory: TempDir,
    netns: Netns,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: scratch::directory(), netns: Netns::new() }
    }

    pub(crate) const fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(crate) fn path(&self, name: &str) -> String {
        let path: PathBuf = self.directory.path().join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    pub(crate) fn write_as_is(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("write a configuration");
        path
    }

    /// With what nginx needs to judge it, before its first line.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let pid = self.path("pid");
        self.write_as_is(
            name,
            &format!("load_module {STREAM}; events {{}} pid {pid}; error_log stderr; {text}"),
        )
    }

    pub(crate) fn check(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = proxytrace::command();
        command.arg("check").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child: Guarded = self.netns.spawn(&mut command);
        let mut stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
        let mut stderr = Captured::from(child.inner().stderr.take().expect("a pipe"));
        let status = child.wait(wait::SOON);
        (status.code(), stdout.whole(), stderr.whole())
    }

    /// Whether `nginx -t` accepts a configuration, and what it says.
    pub(crate) fn nginx_says(&self, config: &str) -> (bool, String) {
        let output = self.netns.enter(|| Command::new("nginx").args(["-t", "-c", config]).output());
        let output = output.expect("run nginx -t");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
