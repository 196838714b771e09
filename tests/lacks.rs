//! Requests that fail before nginx connects: only its own error log shows them.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::dns::NameServer;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, server};
use proxytrace_tests::wait::{self, SOON};
use proxytrace_tests::{child, http, scratch, skip};

use crate::lookout::{AFTER, BEFORE, Lookout};

/// An address that the host may have or not.
const VIP: &str = "10.77.0.9/32";

fn bound() -> String {
    format!(
        "upstream api {{ server {BEFORE}; }} {}",
        server("location / { proxy_bind 10.77.0.9; proxy_pass http://api; }")
    )
}

#[test]
fn an_address_to_bind_to_that_has_moved_away_is_named_until_it_is_back_wherever_the_log_goes() {
    let netns = Netns::new();
    netns.ip(&format!("addr add {VIP} dev lo"));
    let scene = Lookout::on(netns, Options::default(), &bound(), &[]);
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(20, 200);
    wait::for_a_tick();
    scene.netns.ip(&format!("addr del {VIP} dev lo"));
    scene.gets(15, 500);
    let record = scene.raised("proxy_fails", "");
    let words = "bind(10.77.0.9) failed (99: Cannot assign requested address)";
    assert!(record.sentence.contains(&format!("\"{words}\"")), "{record:?}");
    assert!(record.sentence.contains("Check \"proxy_bind\" against `ip address`"), "{record:?}");
    assert_eq!(record.severity, "critical");
    let evidence = || scene.standing("proxy_fails")["evidence"].clone();
    wait::until_true("all to be counted", SOON, || evidence()["causes"]["local_address"] == 15);

    // As logrotate does it, and then as it does with copytruncate.
    let log = scene.nginx.config().with_file_name("error.log");
    fs::rename(&log, log.with_extension("1")).expect("move the log away");
    scene.gets(2, 500);
    scene.nginx.signal(Signal::SIGUSR1);
    wait::until_true("a new log", SOON, || log.exists());
    scene.gets(3, 500);
    wait::until_true("both logs to be read", SOON * 2, || evidence()["causes"]["local_address"] == 20);
    fs::File::options().write(true).open(&log).expect("the log").set_len(0).expect("empty it");
    scene.gets(4, 500);
    let mut last = serde_json::Value::Null;
    let is_read = wait::within(SOON, || {
        last = evidence();
        (last["causes"]["local_address"] == 24).then_some(())
    });
    assert!(is_read.is_some(), "{last}; nginx says: {}", scene.nginx.error_log());

    scene.netns.ip(&format!("addr add {VIP} dev lo"));
    let cleared = scene.cleared_while(SOON * 3, "proxy_fails", || scene.gets(1, 200));
    assert_eq!(cleared.because, "it has connected for long and said nothing of the kind");
    assert_eq!(scene.count("proxytrace_log_skipped_bytes_total", &[]), 0);
}

#[test]
fn a_worker_that_has_no_connection_left_says_so() {
    let slow = Manner::AnswerAfter(Duration::from_secs(20));
    let options = Options { connections: 16, ..Options::default() };
    let http =
        format!("upstream slow {{ server {BEFORE}; }} {}", server("location / { proxy_pass http://slow; }"));
    let scene = Lookout::on(Netns::new(), options, &http, &[]);
    let _backend = Backend::start(&scene.netns, BEFORE, slow);
    // Both have begun to read its log by then.
    wait::for_a_tick();
    let mut clients: Vec<UnixStream> = Vec::new();
    let record = scene.raised_while(SOON * 2, "proxy_fails", "", || {
        let mut client = scene.nginx.connect();
        // It may be closed at once.
        let _ = client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        clients.push(client);
        thread::sleep(Duration::from_millis(20));
    });
    assert!(record.sentence.contains("\"16 worker_connections are not enough\""), "{record:?}");
    assert!(record.sentence.contains("raise \"worker_connections\""), "{record:?}");
    scene.nginx.says("worker_connections are not enough");
}

#[test]
fn a_name_that_does_not_resolve_is_named_where_the_configuration_has_it_and_not_where_a_client_says_it() {
    if !skip::unless_installed("dnsmasq") {
        return;
    }
    let netns = Netns::new();
    let dns = NameServer::start(&netns, "127.0.0.1 api.internal\n", &["--no-negcache"]);
    let http = server(
        "resolver 127.0.0.1 valid=1s ipv6=off; set $api api.internal;
         location / { proxy_pass http://$api:8080; } location /any { proxy_pass http://$http_x_name:8080; }",
    );
    let scene = Lookout::on(netns, Options::default(), &http, &[]);
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(3, 200);
    for _ in 0..10 {
        let mut client = scene.nginx.connect();
        http::ask(&mut client, "/any", &[("X-Name", "forged.by.a.client")]);
        assert_eq!(http::answer(&mut client).status, 502);
    }
    wait::for_a_tick();
    assert_eq!(scene.agent.get("/findings").body, "[]");
    dns.change("");
    let record = scene.raised_while(SOON * 3, "proxy_fails", "", || {
        let _ = scene.nginx.get("/");
        thread::sleep(Duration::from_millis(100));
    });
    assert!(record.sentence.contains("\"api.internal could not be resolved ("), "{record:?}");
}

#[test]
fn a_certificate_that_nginx_refuses_is_named_until_it_takes_one() {
    let directory = scratch::directory();
    let path = |name: &str| directory.path().join(name).display().to_string();
    for name in ["own", "other"] {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-days", "2", "-subj", "/CN=api.internal", "-keyout", &path("key")]);
        let _ = child::run(openssl.args(["-out", &path(name)]));
        let _ = fs::copy(path("key"), path(&format!("{name}.key"))).expect("keep the key");
    }
    let trusting = |name: &str| {
        let (own, key, trusted) = (path("own"), path("own.key"), path(name));
        format!(
            "server {{ listen 127.0.0.1:8443 ssl; ssl_certificate {own}; ssl_certificate_key {key}; return 200; }}
             {}",
            server(&format!(
                "proxy_ssl_verify on; proxy_ssl_trusted_certificate {trusted}; proxy_ssl_name api.internal;
                 location / {{ proxy_pass https://127.0.0.1:8443; }}"
            ))
        )
    };
    let scene = Lookout::begin(&trusting("own"));
    scene.gets(5, 200);
    wait::for_a_tick();
    let _ = scene.nginx.reload(&trusting("other"));
    let ask = || {
        let _ = scene.nginx.get("/");
        thread::sleep(Duration::from_millis(20));
    };
    let record = scene.raised_while(SOON * 3, "proxy_fails", "", ask);
    assert!(record.sentence.contains("refuses what upstreams identify themselves with"), "{record:?}");
    assert!(record.sentence.contains("\"upstream SSL certificate verify error: ("), "{record:?}");
    assert_eq!(record.severity, "critical", "{record:?}");
    let _ = scene.nginx.reload(&trusting("own"));
    let _ = scene.cleared_while(SOON * 6, "proxy_fails", ask);
}

#[test]
fn a_log_that_is_no_file_is_not_read() {
    let options = Options { error_log: "stderr", ..Options::default() };
    let netns = Netns::new();
    netns.ip(&format!("addr add {VIP} dev lo"));
    let scene = Lookout::on(netns, options, &bound(), &[]);
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(3, 200);
    scene.netns.ip(&format!("addr del {VIP} dev lo"));
    scene.gets(10, 500);
    thread::sleep(Duration::from_millis(2500));
    scene.end_quiet();
}

#[test]
fn of_a_log_that_two_proxies_write_each_has_its_own_words() {
    let netns = Netns::new();
    netns.ip(&format!("addr add {VIP} dev lo"));
    let first = Lookout::on(netns, Options::default(), &bound(), &[]);
    let _backend = Backend::start(&first.netns, BEFORE, Manner::AnswerAndClose);
    let log: &'static str = first.nginx.config().with_file_name("error.log").display().to_string().leak();
    let options = Options { error_log: log, ..Options::default() };
    let other = Nginx::with(
        options,
        &first.netns,
        &format!("upstream web {{ server {AFTER}; }} {}", server("location / { proxy_pass http://web; }")),
    );
    let agent = proxytrace_tests::proxytrace::Agent::start(&[
        "--process",
        other.name(),
        "--process",
        first.nginx.name(),
    ]);
    first.gets(3, 200);
    first.netns.ip(&format!("addr del {VIP} dev lo"));
    first.gets(10, 500);
    first.raised("proxy_fails", "");
    wait::until_true("the other agent to find it too", SOON, || {
        first.gets(1, 500);
        agent.get("/findings").body.contains("proxy_fails")
    });
    thread::sleep(Duration::from_millis(1500));
    let findings: serde_json::Value = serde_json::from_str(&agent.get("/findings").body).expect("JSON");
    let proxies: Vec<_> =
        findings.as_array().expect("a list").iter().map(|finding| finding["proxy"].clone()).collect();
    assert_eq!(proxies, [first.nginx.name()], "{findings}");
}
