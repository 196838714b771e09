//! What nginx connects to without requests: in `stream {}` connections are passed on as they come, and are read, named and
//! followed like requests; in `mail {}` somebody else says where to.

use std::io::{BufRead, BufReader, Read, Write};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, module, server};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};
use proxytrace_tests::{http, skip};
use serde_json::{Value, json};

use crate::causes::local_host;
use crate::routing::{addresses_of, changes_by_check};
use crate::scene::{Expected, Watch, short_timeout};

const STREAM: &str = "ngx_stream_module";
const MAIL: &str = "ngx_mail_module";

/// nginx with servers of `stream {}`, and one of http that says that it serves.
fn nginx(netns: &Netns, stream: &str) -> Nginx {
    let main = format!("load_module {};\nstream {{\n{stream}\n}}", module(STREAM));
    Nginx::with(Options { main, ..Options::default() }, netns, &server(""))
}

#[test]
fn connections_that_are_passed_on_go_where_the_configuration_was_read_to_send_them() {
    if !skip::unless_installed(&module(STREAM)) {
        return;
    }
    // The socket that clients come to, the upstream, its address, and what becomes of a connect.
    let rows = [
        ("block", "db", "127.0.0.1:9001", "established"),
        ("plain", "127.0.0.1", "127.0.0.1:9002", "refused"),
        ("mapped", "db", "127.0.0.1:9001", "established"),
    ];
    let netns = Netns::new();
    let _backend = Backend::start(&netns, "127.0.0.1:9001", Manner::AnswerAndClose);
    let nginx = nginx(
        &netns,
        "upstream db { server 127.0.0.1:9001; }
         map $remote_addr $to { default db; }
         server { listen unix:{dir}/block; proxy_pass db; }
         server { listen unix:{dir}/plain; proxy_pass 127.0.0.1:9002; }
         server { listen unix:{dir}/mapped; proxy_pass $to; }",
    );
    let process = ["--process", nginx.name()];
    let (trace, agent) = (Trace::start(&[&process[..], &["--all"]].concat()), Agent::start(&process));
    let changes = changes_by_check(&netns, &nginx);
    let page: Value = serde_json::from_str(&agent.get("/routes").body).expect("JSON");

    for (at, (socket, upstream, address, outcome)) in rows.into_iter().enumerate() {
        let routes = page[0]["routes"].as_array().expect("routes");
        let listens = |route: &&Value| {
            route["listen"][0].as_str().is_some_and(|listen| listen.ends_with(&format!("/{socket}")))
        };
        let route = routes.iter().find(listens).unwrap_or_else(|| panic!("no {socket} in {page}"));
        assert_eq!((&route["context"], &route["location"]), (&json!("stream"), &json!([])), "{route}");
        assert_eq!(addresses_of(&page[0], route), [address], "{page}");
        // What a variable holds is said of the map that makes it.
        let place = format!("/{socket}): all → passes to ");
        let is_it = |line: &&String| line.contains(&place) && (line.contains(address) || line.contains('$'));
        assert!(changes.iter().any(|line| is_it(&line)), "{place}: {changes:#?}");

        let mut client = nginx.connect_to(socket);
        if outcome == "established" {
            http::ask(&mut client, "/", &[]);
            assert_eq!(http::answer(&mut client).status, 200);
        } else {
            assert_eq!(client.read(&mut [0]).expect("the end of a connection"), 0);
            nginx.says("(111: Connection refused) while connecting to upstream");
        }
        let record = trace.next_of("connect");
        let reported = (&*record.proxy, &*record.upstream, &*record.address, &*record.outcome);
        assert_eq!(reported, (nginx.name(), upstream, address, outcome), "{record:?}");

        let labels = [("proxy", nginx.name()), ("upstream", upstream), ("address", address)];
        let attempts = rows[..=at].iter().filter(|row| row.2 == address).count() as u64;
        wait::until_true("the attempt to be counted", SOON, || {
            agent.metrics().count("proxytrace_connect_attempts_total", &labels) == attempts
        });
        assert_eq!(agent.metrics().count("proxytrace_upstream_declared", &labels), 1);
    }
    agent.stop();
}

#[test]
fn dropped_syns_end_with_the_connect_timeout_of_a_stream_server() {
    if !skip::unless_installed(&module(STREAM)) {
        return;
    }
    let stage = Stage::new(Family::V4);
    stage.upstream.firewall("tcp dport 8080 drop");
    let (address, timeout) = (stage.upstream_address(8080), short_timeout());
    // Another timeout further out: only what the configuration says of this server has the cause.
    let nginx = nginx(
        &stage.proxy,
        &format!(
            "proxy_connect_timeout 50s;
             server {{ listen unix:{{dir}}/block; {} proxy_pass {address}; }}",
            timeout.directive()
        ),
    );
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());

    let mut client = nginx.connect_to("block");
    assert_eq!(client.read(&mut [0]).expect("the end of a connection"), 0);

    nginx.says("(110: Connection timed out) while connecting to upstream");
    let resent = stage.retransmits();
    let expected = Expected::at_once("proxy_timeout", 0)
        .from(local_host(Family::V4))
        .after(timeout.least(), resent..=resent);
    watch.saw(&address, 1, &expected);
    watch.end();
}

#[test]
fn silence_in_a_stream_is_no_failure() {
    if !skip::unless_installed(&module(STREAM)) {
        return;
    }
    let netns = Netns::new();
    let address = "127.0.0.1:8080";
    let backend = Backend::start(&netns, address, Manner::HoldThenClose);
    let nginx = nginx(
        &netns,
        &format!("proxy_timeout 2s; server {{ listen unix:{{dir}}/silent; proxy_pass {address}; }}"),
    );
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());

    let mut client = nginx.connect_to("silent");
    http::ask(&mut client, "/", &[]);
    assert_eq!(client.read(&mut [0]).expect("the end of a connection"), 0);

    assert_eq!(backend.accepted(), 1);
    watch.saw(address, 1, &Expected::at_once("established", 0).from("127.0.0.1:"));
    let metrics = watch.agent.metrics();
    for metric in ["proxytrace_connections_broken_total", "proxytrace_requests_unanswered"] {
        assert_eq!(metrics.count(metric, &[("proxy", nginx.name())]), 0, "{metric}");
    }
    watch.end();
}

#[test]
fn mail_is_named_for_whom_it_asks_and_unknown_for_where_it_is_sent() {
    if !skip::unless_installed(&module(MAIL)) {
        return;
    }
    let netns = Netns::new();
    let main = format!(
        "load_module {};
         mail {{ auth_http 127.0.0.1:9001/where; server {{ listen unix:{{dir}}/imap; protocol imap; }} }}",
        module(MAIL)
    );
    let answer = "server { listen 127.0.0.1:9001; location / { add_header Auth-Status OK;
         add_header Auth-Server 127.0.0.1; add_header Auth-Port 9002; return 204; } }";
    let options = Options { main, ..Options::default() };
    let nginx = Nginx::with(options, &netns, &format!("{answer} {}", server("")));
    let trace = Trace::start(&["--process", nginx.name(), "--all"]);

    let mut client = BufReader::new(nginx.connect_to("imap"));
    let mut greeting = String::new();
    client.read_line(&mut greeting).expect("a greeting");
    assert!(greeting.starts_with("* OK"), "{greeting}");
    client.get_mut().write_all(b"a LOGIN somebody secret\r\n").expect("log in");
    for (upstream, address, outcome) in
        [("auth_http", "127.0.0.1:9001", "established"), ("unknown", "127.0.0.1:9002", "refused")]
    {
        let record = trace.next_of("connect");
        let reported = (&*record.upstream, &*record.address, &*record.outcome);
        assert_eq!(reported, (upstream, address, outcome), "{record:?}");
    }
    nginx.says("recv() failed (111: Connection refused) while reading response from upstream");
}
