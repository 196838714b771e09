//! Configurations that are large, odd or broken, while nginx runs: what can be read is reported, and tracing goes on.

use std::fs;
use std::time::{Duration, Instant};

use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON, patient};

use crate::names::{counted, named};

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";

#[test]
fn ten_thousand_files_that_a_pattern_names_are_read() {
    const FILES: usize = 10_000;
    let netns = Netns::new();
    let directory = scratch::directory();
    let address = |n: usize| format!("127.1.{}.{}:8081", n / 250, n % 250 + 1);
    for n in 0..FILES {
        let text = format!("upstream u{n} {{ server {}; }}\n", address(n));
        fs::write(directory.path().join(format!("{n}.conf")), text).expect("write a file");
    }
    let last = format!("u{}", FILES - 1);
    let http = format!(
        "include {}/*.conf; {}",
        directory.path().display(),
        server(&format!("location / {{ proxy_pass http://{last}; }}"))
    );
    let nginx = Nginx::start(&netns, &http);
    let process = ["--process", nginx.name()];
    let start = Instant::now();
    let trace = Trace::start(&process);
    assert_eq!(nginx.get("/"), 502);
    named(&trace.next_of("connect"), nginx.name(), 0, &last, &address(FILES - 1));
    let named_after = start.elapsed();

    let agent = Agent::start(&[&process[..], &["--max-addresses", "100"]].concat());
    wait::until_true("the routes", SOON, || agent.get("/routes").body.contains(&address(FILES - 1)));
    assert_eq!(nginx.get("/"), 502);
    counted(&agent, nginx.name(), &last, &address(FILES - 1), 1);
    let metrics = agent.metrics();
    let declared = metrics.values_of("address", "proxytrace_upstream_declared", &[]);
    assert!(declared.len() <= 100, "{} addresses", declared.len());
    let resident = metrics.sum("process_resident_memory_bytes", &[]) / f64::from(1 << 20);
    println!("ten thousand files: named {named_after:?} after the start, agent {resident:.1} MiB resident");
    assert!(named_after < patient(Duration::from_secs(5)));
    assert!(resident < 100.0, "{resident} MiB");
    agent.stop();
}

#[test]
fn a_configuration_that_includes_itself_is_reported_once_and_read_when_it_is_fixed() {
    let netns = Netns::new();
    let upstream = |name: &str| {
        format!(
            "upstream {name} {{ server {ADDRESS}; }}\n{}",
            server(&format!("location / {{ proxy_pass http://{name}; }}"))
        )
    };
    let nginx = Nginx::start(&netns, &upstream("api"));
    nginx.configure("include {dir}/nginx.conf;");
    let arguments = ["--process", nginx.name()];
    let (trace, agent) = (Trace::start(&arguments), Agent::start(&arguments));

    for attempts in 1..=2 {
        assert_eq!(nginx.get("/"), 502);
        named(&trace.next_of("connect"), nginx.name(), 0, "unknown", ADDRESS);
        counted(&agent, nginx.name(), "unknown", ADDRESS, attempts);
    }
    let _ = nginx.reload(&upstream("web"));
    assert_eq!(nginx.get("/"), 502);
    named(&trace.next_of("connect"), nginx.name(), 1, "web", ADDRESS);
    counted(&agent, nginx.name(), "web", ADDRESS, 1);
    for said in [trace.stop().stderr, agent.stderr()] {
        assert_eq!(said.matches("includes itself").count(), 1, "{said}");
        assert!(said.contains("nginx.conf:8:"), "{said}");
    }
    agent.stop();
}

#[test]
fn the_servers_of_a_state_file_have_their_upstreams_name_and_others_are_unknown() {
    let netns = Netns::new();
    let nginx = Nginx::start(
        &netns,
        &server(
            "location /kept { proxy_pass http://127.0.0.1:8081; } location /new { proxy_pass http://127.0.0.1:8082; }",
        ),
    );
    // Only the commercial nginx knows `state`: this one goes to the same places, and the other configuration names them.
    let directory = scratch::directory();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("api.state"), format!("server {ADDRESS} max_fails=2;\n")).expect("write the state");
    let config = "http { upstream api { zone z 1m; state api.state; } server { location / { proxy_pass http://api; } } }";
    fs::write(file("nginx.conf"), config).expect("write a configuration");
    let path = file("nginx.conf").display().to_string();
    let trace = Trace::start(&["--process", nginx.name(), "--nginx-config", &path]);
    for (path, upstream, address) in [("/kept", "api", ADDRESS), ("/new", "unknown", "127.0.0.1:8082")] {
        assert_eq!(nginx.get(path), 502);
        named(&trace.next_of("connect"), nginx.name(), 0, upstream, address);
    }
}
