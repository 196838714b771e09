//! Upstreams are called what the configuration calls them that the running nginx uses.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{Agent, Record, Trace};
use proxytrace_tests::wait::{self, SOON};
use proxytrace_tests::{http, scratch};

use crate::fairness::reader_of;

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";

/// A server that passes everything to the upstream `name`, which is at `address`.
fn upstream(name: &str, address: &str) -> String {
    format!(
        "upstream {name} {{ server {address}; }} {}",
        server(&format!("location / {{ proxy_pass http://{name}; }}"))
    )
}

#[track_caller]
pub(crate) fn named(record: &Record, proxy: &str, generation: u32, upstream: &str, address: &str) {
    let reported = (&*record.proxy, record.generation, &*record.upstream, &*record.address);
    assert_eq!(reported, (proxy, generation, upstream, address), "{record:?}");
}

#[track_caller]
pub(crate) fn counted(agent: &Agent, proxy: &str, upstream: &str, address: &str, attempts: u64) {
    let labels = [("proxy", proxy), ("upstream", upstream), ("address", address)];
    wait::until_true(&format!("{attempts} attempts of {proxy} to {upstream}"), SOON, || {
        agent.metrics().count("proxytrace_connect_attempts_total", &labels) == attempts
    });
}

#[test]
fn two_proxies_in_networks_of_their_own_have_the_same_addresses_and_their_own_names() {
    let networks = [Netns::new(), Netns::new()];
    let nginx = [("one", &networks[0]), ("two", &networks[1])]
        .map(|(name, netns)| (name, Nginx::start(netns, &upstream(name, ADDRESS))));
    let names: Vec<_> = nginx.iter().flat_map(|(_, nginx)| ["--process", nginx.name()]).collect();
    let (trace, agent) = (Trace::start(&names), Agent::start(&names));

    for (name, nginx) in &nginx {
        assert_eq!(nginx.get("/"), 502);
        named(&trace.next_of("connect"), nginx.name(), 0, name, ADDRESS);
        counted(&agent, nginx.name(), name, ADDRESS, 1);
        let labels = [("proxy", nginx.name()), ("upstream", *name), ("address", ADDRESS)];
        assert_eq!(agent.metrics().count("proxytrace_upstream_declared", &labels), 1);
    }
    agent.stop();
}

#[test]
fn a_configuration_that_was_changed_after_nginx_had_taken_it_is_reported() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &upstream("api", ADDRESS));
    // Of a trace that begins now, when the name of the upstream is known.
    let says_so = |upstream: &str| {
        let trace = Trace::start(&["--process", nginx.name()]);
        assert_eq!(nginx.get("/"), 502);
        named(&trace.next_of("connect"), nginx.name(), 0, upstream, ADDRESS);
        let ended = trace.stop();
        let words = format!("{} was changed at ", nginx.config_path());
        assert_eq!(ended.stderr.contains("was changed"), ended.stderr.contains(&words), "{}", ended.stderr);
        ended.stderr.contains("was changed")
    };
    assert!(!says_so("api"), "nobody has changed anything");

    // Nothing is reported of a change within a tick of the start.
    thread::sleep(Duration::from_millis(50));
    nginx.configure(&upstream("web", ADDRESS));
    assert!(says_so("web"), "nginx was not reloaded");
    nginx.configure(&upstream("web", "127.0.0.1:10"));
    assert!(says_so("unknown"), "what the file says now is not what runs");

    let _ = nginx.reload(&upstream("web", ADDRESS));
    assert!(!says_so("web"), "nginx has taken it");
}

#[test]
fn a_configuration_that_is_changed_before_it_is_read_is_not_taken_for_what_runs() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &upstream("api", ADDRESS));
    let trace = Trace::start(&["--process", nginx.name()]);
    assert_eq!(nginx.get("/"), 502);
    named(&trace.next_of("connect"), nginx.name(), 0, "api", ADDRESS);
    // The host is so busy that the reader gets no processor.
    let reader = Pid::from_raw(reader_of(trace.pid()).cast_signed());
    kill(reader, Signal::SIGSTOP).expect("stop the reader");
    let _ = nginx.reload(&upstream("web", ADDRESS));
    thread::sleep(Duration::from_millis(50));
    nginx.configure(&upstream("next", "127.0.0.1:10"));
    assert_eq!(nginx.get("/"), 502);
    kill(reader, Signal::SIGCONT).expect("have the reader go on");
    named(&trace.next_of("connect"), nginx.name(), 1, "unknown", ADDRESS);
    let words = format!("{} was changed at ", nginx.config_path());
    wait::until_true("it to be said", SOON, || trace.stderr().contains(&words));
}

#[test]
fn after_a_reload_old_workers_go_by_the_old_configuration_and_new_ones_by_the_new() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &upstream("api", ADDRESS));
    let arguments = ["--process", nginx.name()];
    let (trace, agent) = (Trace::start(&arguments), Agent::start(&arguments));

    // The old worker has read half of a request, and stays until it has answered.
    let descriptors =
        || fs::read_dir(format!("/proc/{}/fd", nginx.worker_pids()[0])).map_or(0, Iterator::count);
    let before = descriptors();
    let mut old = nginx.connect();
    old.write_all(b"GET / HTTP/1.0\r\nHost:").expect("send half of a request");
    wait::until_true("the worker to accept", SOON, || descriptors() > before);
    let _ = nginx.reload(&upstream("web", ADDRESS));
    wait::until_true("the new configuration", SOON, || agent.get("/routes").body.contains("\"web\""));

    old.write_all(b" x\r\n\r\n").expect("send the other half");
    assert_eq!(http::answer(&mut old).status, 502);
    named(&trace.next_of("connect"), nginx.name(), 0, "api", ADDRESS);
    assert_eq!(nginx.get("/"), 502);
    named(&trace.next_of("connect"), nginx.name(), 1, "web", ADDRESS);
    counted(&agent, nginx.name(), "api", ADDRESS, 1);
    counted(&agent, nginx.name(), "web", ADDRESS, 1);
    agent.stop();
}

#[test]
fn a_destination_that_the_configuration_does_not_name_is_called_out() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &upstream("api", ADDRESS));
    let directory = scratch::directory();
    let other = directory.path().join("other.conf");
    fs::write(&other, "events {} http { server { location / { proxy_pass http://127.0.0.1:9; } } }")
        .expect("write a configuration");
    let trace = Trace::start(&["--process", nginx.name(), "--nginx-config", &other.display().to_string()]);

    assert_eq!(nginx.get("/"), 502);
    named(&trace.next_of("connect"), nginx.name(), 0, "undeclared", ADDRESS);
}

#[test]
fn what_cannot_be_read_is_said_once_and_traced_as_unknown() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &upstream("api", ADDRESS));
    let directory = scratch::directory();
    let broken = directory.path().join("broken.conf");
    fs::write(&broken, "events {}\nhttp { server {\n").expect("write a configuration");
    let path = broken.display().to_string();
    let trace = Trace::start(&["--process", nginx.name(), "--nginx-config", &path]);

    for _ in 0..2 {
        assert_eq!(nginx.get("/"), 502);
        named(&trace.next_of("connect"), nginx.name(), 0, "unknown", ADDRESS);
    }
    let stderr = trace.stop().stderr;
    assert_eq!(stderr.matches(&format!("{path}:")).count(), 1, "{stderr}");
}

#[test]
fn a_name_server_that_is_silent_holds_up_no_other_proxy() {
    let netns = Netns::new();
    // Whoever asks there gets no answer, not even that nobody listens.
    netns.firewall("udp dport 53 drop\ntcp dport 53 drop");
    let slow = Nginx::start(
        &netns,
        &server("resolver 127.0.0.1; set $app app.test; location / { proxy_pass http://$app:8081; }"),
    );
    let quick = Nginx::start(&netns, &upstream("api", ADDRESS));
    let trace = Trace::start(&["--process", slow.name(), "--process", quick.name()]);
    assert_eq!(quick.get("/"), 502);
    let record = trace.within(Duration::from_secs(1)).expect("a record within a second");
    named(&record, quick.name(), 0, "api", ADDRESS);
}

#[test]
fn a_trace_shows_the_upstream_that_was_asked_for() {
    let netns = Netns::new();
    let http = format!(
        "upstream api {{ server {ADDRESS}; }} {}",
        server("location / { proxy_pass http://api; } location /web { proxy_pass http://127.0.0.1:8082; }")
    );
    let nginx = Nginx::start(&netns, &http);
    let trace = Trace::start(&["--process", nginx.name(), "--upstream", "api"]);
    for path in ["/web", "/", "/web"] {
        assert_eq!(nginx.get(path), 502);
    }
    named(&trace.next_of("connect"), nginx.name(), 0, "api", ADDRESS);
    let ended = trace.stop();
    assert!(ended.records.iter().all(|record| record.upstream == "api" || !record.is_about_connections()));
    assert!(ended.stderr.contains(ADDRESS) && !ended.stderr.contains(":8082"), "{}", ended.stderr);
}
