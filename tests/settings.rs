//! The agent's own configuration: a file, the environment and options, and what SIGHUP changes.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to, server};
use proxytrace_tests::proxytrace::{self, Agent};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON};

use crate::fairness::reader_of;
use crate::scene::{Expected, counted};

const NOBODY: u32 = 65534;

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";

const SUCCESSFUL: &str = "proxytrace_agent_config_last_reload_successful";
const READ_AT: &str = "proxytrace_agent_config_last_reload_success_timestamp_seconds";

#[test]
fn options_come_from_a_file_and_the_environment_and_the_command_line_win() {
    let directory = scratch::directory();
    let path = directory.path().join("agent.toml");
    fs::write(
        &path,
        "process = [\"nobody-at-all\"]\nno-routes = true\nno-findings = true\nlisten = \"127.0.0.1:1\"\n",
    )
    .expect("write a configuration");
    let mut command = proxytrace::command();
    command.env("PROXYTRACE_NO_FINDINGS", "false").env("PROXYTRACE_CONFIG", &path);
    // It listens where the command line says.
    let agent = Agent::by(command, &[]);
    for (page, status) in [("/routes", 404), ("/findings", 200), ("/metrics", 200)] {
        assert_eq!(agent.get(page).status, status, "{page}");
    }
    let index = agent.get("/").body;
    assert!(index.contains("/findings") && !index.contains("/routes"), "{index}");
    agent.stop();
}

#[test]
fn a_file_that_cannot_be_used_is_a_usage_error_that_names_the_line() {
    let directory = scratch::directory();
    let path = directory.path().join("agent.toml");
    let rows = [
        ("max-addreses = 5", "agent.toml:1: unknown key max-addreses; did you mean max-addresses?"),
        ("# a\nmax-addresses = 0", "agent.toml:2: invalid value '0' for '--max-addresses <N>': with 0 no"),
        (
            "max-addresses = [1]",
            "agent.toml:1: max-addresses: a string or a number is expected here, not a list",
        ),
        ("listen = \"localhost\"", "write 127.0.0.1:9947"),
        ("listen = ", "agent.toml:1: "),
    ];
    for (text, expected) in rows {
        fs::write(&path, text).expect("write a configuration");
        for more in [&[][..], &["--check-config"]] {
            let output = proxytrace::command().args(["agent", "--config"]).arg(&path).args(more).output();
            let output = output.expect("run proxytrace");
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{text}: {stderr}");
            assert!(stderr.contains(expected), "{text}: {stderr}");
        }
    }
    fs::write(&path, "max-addresses = 5\n").expect("write a configuration");
    let checked = |path: &Path| {
        let output = proxytrace::command().args(["agent", "--check-config", "--config"]).arg(path).output();
        output.expect("run proxytrace").status.code()
    };
    assert_eq!(checked(&path), Some(0));
    // Root could read it, but not the agent, which reads it without capabilities.
    chown(&path, Some(NOBODY), Some(NOBODY)).expect("change an owner");
    fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("change permissions");
    assert_eq!(checked(&path), Some(2));
    assert_eq!(checked(&directory.path().join("nothing.toml")), Some(2));
}

#[test]
fn sighup_changes_what_it_can_names_the_rest_and_loses_no_count() {
    let directory = scratch::directory();
    let path = directory.path().join("agent.toml");
    let write = |text: &str| fs::write(&path, text).expect("write a configuration");
    write("no-resolve = false\n");
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    let config = path.display().to_string();
    let agent = Agent::start(&["--process", nginx.name(), "--config", &config]);
    let refused = |attempts| {
        counted(&agent, nginx.name(), ADDRESS, &Expected::at_once("refused", 111).account(attempts))
    };
    assert_eq!(nginx.get("/"), 502);
    let started = refused(1).sum(READ_AT, &[]);
    assert!(started > 1.7e9, "seconds since 1970: {started}");
    assert_eq!(agent.get("/routes").status, 200);

    write("no-resolve = true\nno-routes = true\nverbose = 1\n");
    // As `systemctl kill` does: it signals every process of a service.
    let reader = reader_of(agent.pid());
    signal::kill(Pid::from_raw(reader.cast_signed()), Signal::SIGHUP).expect("signal the reader");
    agent.signal(Signal::SIGHUP);
    wait::until_true("/routes to be switched off", SOON, || agent.get("/routes").status == 404);
    wait::until_true("what needs a restart to be said", SOON, || {
        let stderr = agent.stderr();
        stderr.contains("no-resolve has changed in") && stderr.contains("restart the agent")
    });
    assert_eq!(nginx.get("/"), 502);
    let metrics = refused(2);
    assert_eq!(metrics.count(SUCCESSFUL, &[]), 1);
    let read_at = metrics.sum(READ_AT, &[]);
    assert!(read_at > started);

    write("no-rutes = false\n");
    agent.signal(Signal::SIGHUP);
    wait::until_true("what is wrong to be said", SOON, || agent.stderr().contains("did you mean no-routes?"));
    wait::until_true("the metric to say so", SOON, || agent.metrics().count(SUCCESSFUL, &[]) == 0);
    assert!((agent.metrics().sum(READ_AT, &[]) - read_at).abs() < 1e-6);
    assert_eq!(agent.get("/routes").status, 404, "what was in use stays");

    write("no-routes = false\n");
    agent.signal(Signal::SIGHUP);
    wait::until_true("/routes to be back", SOON, || agent.get("/routes").status == 200);
    wait::until_true("the metric to say so", SOON, || agent.metrics().count(SUCCESSFUL, &[]) == 1);
    assert_eq!(nginx.get("/"), 502);
    refused(3);
    assert_eq!(reader_of(agent.pid()), reader);
    agent.stop();
}

#[test]
fn sighup_changes_which_series_there_are_and_no_count_moves() {
    let directory = scratch::directory();
    let path = directory.path().join("agent.toml");
    let write = |text: &str| fs::write(&path, text).expect("write a configuration");
    write("");
    let netns = Netns::new();
    let body = "location / { proxy_pass http://127.0.0.1:8081; } location /b { proxy_pass http://127.0.0.1:8082; } \
                location /c { proxy_pass http://127.0.0.1:8083; }";
    let nginx = Nginx::start(&netns, &server(body));
    let agent = Agent::start(&["--process", nginx.name(), "--config", &path.display().to_string()]);
    let refused = |address, attempts| {
        counted(&agent, nginx.name(), address, &Expected::at_once("refused", 111).account(attempts));
    };
    let request = |path| assert_eq!(nginx.get(path), 502, "{path}");
    let has_histogram = |address| {
        let labels = [("proxy", nginx.name()), ("address", address)];
        agent.metrics().has("proxytrace_connect_duration_seconds_count", &labels)
    };
    request("/");
    refused(ADDRESS, 1);
    assert!(!has_histogram(ADDRESS));

    write("max-addresses = 1\nhistogram-by = \"address\"\n");
    agent.signal(Signal::SIGHUP);
    for changed in ["max-addresses is changed", "histogram-by is changed", "max-addresses 1 is in force"] {
        wait::until_true(changed, SOON, || agent.stderr().contains(changed));
    }
    ["/", "/b"].into_iter().for_each(request);
    refused(ADDRESS, 2);
    refused("~other", 1);
    assert!(has_histogram(ADDRESS) && has_histogram("~other"));

    write("");
    agent.signal(Signal::SIGHUP);
    wait::until_true("room for addresses", SOON, || {
        agent.stderr().contains("max-addresses 1000 is in force")
    });
    wait::until_true("histograms of upstreams", SOON, || !has_histogram(ADDRESS));
    ["/", "/b", "/c"].into_iter().for_each(request);
    for (address, attempts) in [(ADDRESS, 3), ("~other", 2), ("127.0.0.1:8083", 1)] {
        refused(address, attempts);
    }
    assert!(!agent.stderr().contains("restart the agent"), "{}", agent.stderr());
    agent.stop();
}
