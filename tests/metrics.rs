//! What monitoring gets: the exposition formats, the endpoints, the real Prometheus; and what the agent leaves behind.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use proxytrace_tests::bpf::Objects;
use proxytrace_tests::child::{Guarded, as_pid};
use proxytrace_tests::client::{Client, How, Plan};
use proxytrace_tests::metrics::Metrics;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::{backend, skip, wait};

use crate::clients::CONNECTOR;
use crate::prometheus::Prometheus;
use crate::scene::{Expected, counted};

#[test]
fn promtool_has_nothing_to_say() {
    if !skip::unless_installed("promtool") {
        return;
    }
    let (_front, agent) = busy();
    let text = agent.get("/metrics").body;

    let mut promtool = Guarded::spawn(
        Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    promtool
        .inner()
        .stdin
        .take()
        .expect("a pipe")
        .write_all(text.as_bytes())
        .expect("give promtool the metrics");
    let status = promtool.wait(wait::SOON);
    let said = [
        std::io::read_to_string(promtool.inner().stdout.take().expect("a pipe")),
        std::io::read_to_string(promtool.inner().stderr.take().expect("a pipe")),
    ];
    let said = said.map(|said| said.expect("what promtool says")).concat();
    assert!(status.success() && said.is_empty(), "promtool: {status}: {said}\n{text}");
}

#[test]
fn the_format_is_the_one_that_was_asked_for() {
    let (front, agent) = busy();
    let rows = [
        (None, "text/plain", false),
        (Some("*/*"), "text/plain", false),
        (Some("text/plain;version=0.0.4"), "text/plain", false),
        (Some("application/openmetrics-text"), "application/openmetrics-text", true),
        (
            Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3"),
            "application/openmetrics-text",
            true,
        ),
        (Some("application/openmetrics-text;q=0.2,text/plain;version=0.0.4;q=0.9"), "text/plain", false),
    ];
    for (accept, format, ends_with_eof) in rows {
        let fields: Vec<_> = accept.into_iter().map(|accept| ("Accept", accept)).collect();
        let response = agent.get_with("/metrics", &fields);
        let content_type = response.header("content-type").unwrap_or_default().to_owned();
        assert!(content_type.starts_with(format), "{accept:?}: {content_type}");
        assert_eq!(response.body.ends_with("\n# EOF\n"), ends_with_eof, "{accept:?}");
        // Whatever the format, the numbers are the same.
        let account = Metrics::parse(&response.body).account(front.nginx.name(), &front.closed);
        assert_eq!(account, Expected::at_once("refused", 111).account(3), "{accept:?}");
    }
}

#[test]
fn causes_that_have_not_happened_are_zero() {
    let (front, agent) = busy();
    let metrics = agent.metrics();
    let labels = [("proxy", front.nginx.name()), ("address", front.closed.as_str())];
    let causes = metrics.values_of("cause", "proxytrace_connect_failures_total", &labels);
    let all = "backlog_full cancelled given_up host_unreachable network_unreachable no_local_port no_such_socket other \
               permission_denied proxy_timeout refused reset timed_out";
    assert_eq!(causes.join(" "), all);
    let broken = metrics.values_of("cause", "proxytrace_connections_broken_total", &labels);
    let all = "closed_before_response reset reset_before_response response_timeout tls_refused";
    assert_eq!(broken.join(" "), all);
}

#[test]
fn addresses_beyond_the_limit_are_summed() {
    let netns = Netns::new();
    let addresses: Vec<_> = (8081..8086).map(|port| format!("127.0.0.1:{port}")).collect();
    let client = Client::start(CONNECTOR, &netns, &Plan::simple(&addresses, How::Blocking, 3));
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name, "--max-addresses", "2"]);

    client.go();
    assert_eq!(client.finish().attempts(), 15);

    let metrics = agent.metrics();
    assert_eq!(metrics.addresses(&name).len(), 3);
    assert_eq!(metrics.account(&name, "~other"), Expected::at_once("refused", 111).account(9));
    assert_eq!(metrics.count("proxytrace_connect_attempts_total", &[("proxy", &name)]), 15);
}

#[test]
fn the_endpoints_report_its_state() {
    let agent = Agent::start(&["--process", "nobody-at-all"]);
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/no-such-page", 404)] {
        assert_eq!(agent.get(path).status, status, "{path}");
    }
    let metrics = agent.metrics();
    assert_eq!(metrics.count("proxytrace_build_info", &[]), 1);
    assert!(metrics.sum("proxytrace_hook_attached", &[]) > 0.0, "says how each hook was attached");
    assert!(metrics.sum("process_resident_memory_bytes", &[]) > 0.0, "says what it costs");
}

#[test]
fn the_real_prometheus_scrapes_it() {
    if !skip::unless_installed("prometheus") {
        return;
    }
    let (front, agent) = busy();
    let prometheus = Prometheus::scraping(agent.port());
    let proxy = format!("proxy=\"{}\"", front.nginx.name());

    let failures = format!("sum by (cause) (proxytrace_connect_failures_total{{{proxy}}}) > 0");
    let causes = prometheus.asks_until(&failures, |result| !result.is_empty());
    assert_eq!(causes.len(), 1, "{causes:?}");
    assert_eq!((&causes[0]["metric"]["cause"], &causes[0]["value"][1]), (&"refused".into(), &"3".into()));

    let median = format!(
        "histogram_quantile(0.5, sum by (le) (proxytrace_connect_duration_seconds_bucket{{{proxy}}}))"
    );
    let median = prometheus.asks_until(&median, |result| !result.is_empty());
    let seconds: f64 = median[0]["value"][1].as_str().expect("a value").parse().expect("a number");
    assert!(seconds > 0.0 && seconds < 1.0, "a handshake over a cable takes {seconds} s");
}

#[test]
fn two_agents_count_side_by_side() {
    let (front, first) = busy();
    let second = Agent::start(&["--process", front.nginx.name()]);
    assert_eq!(front.nginx.get("/closed"), 502);

    counted(&first, front.nginx.name(), &front.closed, &Expected::at_once("refused", 111).account(4));
    counted(&second, front.nginx.name(), &front.closed, &Expected::at_once("refused", 111).account(1));

    first.stop();
    assert_eq!(front.nginx.get("/closed"), 502);
    counted(&second, front.nginx.name(), &front.closed, &Expected::at_once("refused", 111).account(2));
}

#[test]
fn an_agent_that_is_asked_to_end_does_so_within_a_second_and_leaves_nothing() {
    let (_front, agent) = busy();
    let (objects, pinned) = (Objects::of(agent.pid()), pinned_files());
    assert!(objects.is_complete(), "it had programs and maps: {objects:?}");

    let took = agent.stop();

    assert!(took < Duration::from_secs(1), "it took {took:?}");
    wait::until_true("its objects to go", wait::SOON, || objects.alive().is_empty());
    assert_eq!(pinned, pinned_files(), "files in /sys/fs/bpf");
}

#[test]
fn whichever_way_it_ends_nothing_stays_in_the_kernel() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL, Signal::SIGABRT] {
        let trace = Trace::start(&["--process", "nobody-at-all"]);
        let objects = Objects::of(trace.pid());
        assert!(objects.is_complete(), "it had programs and maps: {objects:?}");

        nix::sys::signal::kill(as_pid(trace.pid()), signal).expect("signal trace");
        let _ = trace.end();

        wait::until_true(&format!("its objects to go after {signal}"), wait::SOON, || {
            objects.alive().is_empty()
        });
    }
}

/// nginx with an upstream that answers and one that refuses; an agent that has seen three requests to each.
fn busy() -> (Front, Agent) {
    let stage = Stage::new(Family::V4);
    let (alive, closed) = (stage.upstream_address(8080), stage.upstream_address(8081));
    let upstream = backend::Backend::start(&stage.upstream, &alive, backend::Manner::Answer);
    let nginx = Nginx::start(
        &stage.proxy,
        &server(&format!(
            "location / {{ proxy_pass http://{alive}; }} location /closed {{ proxy_pass http://{closed}; }}"
        )),
    );
    let agent = Agent::start(&["--process", nginx.name()]);
    for (path, status, address, outcome) in
        [("/", 200, &alive, "established"), ("/closed", 502, &closed, "refused")]
    {
        for _ in 0..3 {
            assert_eq!(nginx.get(path), status);
        }
        counted(&agent, nginx.name(), address, &Expected::at_once(outcome, 0).account(3));
    }
    (Front { nginx, closed, _upstream: upstream, _stage: stage }, agent)
}

struct Front {
    nginx: Nginx,
    closed: String,
    _upstream: backend::Backend,
    _stage: Stage,
}

/// What is pinned.
fn pinned_files() -> Vec<String> {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
