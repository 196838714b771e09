//! Names that nginx looks up while it runs are followed, wherever they lead.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::dns::NameServer;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, server};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::wait::{self, SOON, patient};
use proxytrace_tests::{scratch, skip};
use serde_json::Value;

use crate::lookout::Lookout;
use crate::names::{counted, named};
use crate::routing::addresses_of;

/// A server that goes wherever `app.test` is.
fn to_app() -> String {
    server(
        "resolver 127.0.0.1 valid=1s ipv6=off; set $app app.test; location / { proxy_pass http://$app:8081; }",
    )
}

#[test]
fn a_name_that_nginx_follows_is_followed_to_its_new_address() {
    if !skip::unless_installed("dnsmasq") {
        return;
    }
    let netns = Netns::new();
    let dns = NameServer::start(&netns, "127.0.0.2 app.test\n", &[]);
    let nginx = Nginx::start(&netns, &to_app());
    let arguments = ["--process", nginx.name()];
    let (trace, agent) = (Trace::start(&arguments), Agent::start(&arguments));

    assert_eq!(nginx.get("/"), 502);
    named(&trace.next_of("connect"), nginx.name(), 0, "app.test", "127.0.0.2:8081");

    dns.change("127.0.0.3 app.test\n");
    let moved = wait::until("nginx to follow the name", SOON, || {
        assert_eq!(nginx.get("/"), 502);
        let record = trace.next_of("connect");
        (record.address == "127.0.0.3:8081").then_some(record)
    });
    named(&moved, nginx.name(), 0, "app.test", "127.0.0.3:8081");
    counted(&agent, nginx.name(), "app.test", "127.0.0.3:8081", 1);
    agent.stop();
}

#[test]
fn a_name_that_moves_to_where_nobody_listens_is_an_outage_and_what_it_has_left_is_none() {
    if !skip::unless_installed("dnsmasq") {
        return;
    }
    let netns = Netns::new();
    let dns = NameServer::start(&netns, "127.0.0.2 app.test\n", &[]);
    let scene = Lookout::on(netns, Options::default(), &to_app(), &[]);
    let _first = Backend::start(&scene.netns, "127.0.0.2:8081", Manner::AnswerAndClose);
    scene.gets(20, 200);
    wait::for_a_tick();
    let ask = || {
        let _ = scene.nginx.get("/");
        thread::sleep(Duration::from_millis(50));
    };

    dns.change("127.0.0.3 app.test\n");
    let record = scene.raised_while(SOON * 3, "upstream_down", "", ask);
    assert_eq!(record.severity, "critical", "{record:?}");

    let _second = Backend::start(&scene.netns, "127.0.0.4:8081", Manner::AnswerAndClose);
    dns.change("127.0.0.4 app.test\n");
    let record = scene.cleared_while(SOON * 3, "upstream_down", ask);
    assert_eq!(record.because, "a connect succeeded to 127.0.0.4:8081", "{record:?}");
    (0..10).for_each(|_| ask());
    wait::for_a_tick();
    assert_eq!(scene.agent.get("/findings").body, "[]");
}

#[test]
fn a_name_with_a_thousand_addresses_is_followed_to_all_of_them() {
    const ADDRESSES: usize = 1000;
    /// What the agent may show by themselves.
    const MOST: usize = 100;
    if !skip::unless_installed("dnsmasq") {
        return;
    }
    let netns = Netns::new();
    let mut hosts = String::new();
    for n in 0..ADDRESSES {
        writeln!(hosts, "127.1.{}.{} app.test", n / 250, n % 250 + 1).expect("a string takes everything");
    }
    let _dns = NameServer::start(&netns, &hosts, &[]);
    let nginx = Nginx::start(&netns, &to_app());
    let process = ["--process", nginx.name()];
    let trace = Trace::start(&process);
    let most = MOST.to_string();
    let agent = Agent::start(&[&process[..], &["--max-addresses", &most]].concat());

    // nginx tries each of them before it gives up.
    let start = Instant::now();
    assert_eq!(nginx.get("/"), 502);
    let mut seen = BTreeSet::new();
    for _ in 0..ADDRESSES {
        let record = trace.next_of("connect");
        named(&record, nginx.name(), 0, "app.test", &record.address);
        assert_eq!(record.outcome, "refused", "{record:?}");
        seen.insert(record.address);
    }
    let named_after = start.elapsed();
    assert_eq!(seen.len(), ADDRESSES);

    let attempts = "proxytrace_connect_attempts_total";
    let of = |upstream| [("proxy", nginx.name()), ("upstream", upstream)];
    wait::until_true("a thousand attempts", SOON, || {
        agent.metrics().count(attempts, &of("app.test")) == ADDRESSES as u64
    });
    let start = Instant::now();
    let metrics = agent.metrics();
    let scraped = start.elapsed();
    // So long an answer does not fit into a datagram: nginx has asked for it over TCP.
    assert_eq!(metrics.count(attempts, &of("resolver")), 1);
    assert_eq!(metrics.count(attempts, &[("proxy", nginx.name())]), ADDRESSES as u64 + 1, "no others");
    let shown = |name: &str| {
        let mut addresses = metrics.values_of("address", name, &[]);
        addresses.retain(|address| *address != "~other");
        addresses
    };
    let mut own = shown(attempts);
    assert_eq!(own.len(), MOST);
    // The name server may be among them, and is no upstream.
    own.retain(|address| *address != "127.0.0.1:53");
    assert_eq!(shown("proxytrace_upstream_declared"), own);
    let page: Value = serde_json::from_str(&agent.get("/routes").body).expect("JSON");
    let listed: BTreeSet<_> = addresses_of(&page[0], &page[0]["routes"][0]).into_iter().collect();
    assert_eq!(listed, seen.iter().map(String::as_str).collect(), "/routes");

    // The page before this one may be in memory still.
    let resident = wait::until("pages that were sent to be given back", SOON, || {
        let resident = agent.metrics().sum("process_resident_memory_bytes", &[]) / f64::from(1 << 20);
        println!("{resident:.1} MiB resident");
        (resident < 30.0).then_some(resident)
    });
    println!(
        "a thousand addresses: named in {named_after:?}, scraped in {scraped:?}, agent {resident:.1} MiB resident"
    );
    assert!(named_after < patient(Duration::from_secs(5)) && scraped < patient(Duration::from_secs(1)));
    agent.stop();
}

#[test]
fn a_service_is_followed_to_the_hosts_and_ports_of_its_records() {
    if !skip::unless_installed("dnsmasq") {
        return;
    }
    let netns = Netns::new();
    let records =
        ["--srv-host=_http._tcp.app.test,one.test,8081", "--srv-host=_http._tcp.app.test,two.test,8082"];
    let dns = NameServer::start(&netns, "127.0.0.2 one.test\n127.0.0.3 two.test\n", &records);
    // An nginx before 1.27.3 does not know `service=`: it goes to the same places, and the other configuration names them.
    let nginx = Nginx::start(
        &netns,
        &server(
            "location /one { proxy_pass http://127.0.0.2:8081; } location /two { proxy_pass http://127.0.0.3:8082; }
             location /three { proxy_pass http://127.0.0.3:8081; }",
        ),
    );
    let directory = scratch::directory();
    let path = directory.path().join("nginx.conf").display().to_string();
    let config =
        "http { upstream api { zone z 1m; resolver 127.0.0.1; server app.test service=http resolve; }
        server { location / { proxy_pass http://api; } } }";
    fs::write(&path, config).expect("write a configuration");
    let arguments = ["--process", nginx.name(), "--nginx-config", &path];
    let paths = [("/one", "127.0.0.2:8081"), ("/two", "127.0.0.3:8082"), ("/three", "127.0.0.3:8081")];
    let check = |upstreams: [&str; 3]| {
        let trace = Trace::start(&arguments);
        for ((path, address), upstream) in paths.into_iter().zip(upstreams) {
            assert_eq!(nginx.get(path), 502);
            named(&trace.next_of("connect"), nginx.name(), 0, upstream, address);
        }
        trace.stop().stderr
    };
    check(["api", "api", "undeclared"]);
    drop(dns);
    let said = check(["unknown"; 3]);
    assert_eq!(said.matches("\"_http._tcp.app.test\" could not be looked up").count(), 1, "{said}");
}
