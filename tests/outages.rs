//! Outages as people report them: each is found in its time and in words that help, and gone when it is over.

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::dns::NameServer;
use proxytrace_tests::haproxy::Haproxy;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, proxy_to, server};
use proxytrace_tests::proxytrace::{Agent, Record, Trace};
use proxytrace_tests::wait::{self, SOON, patient};
use proxytrace_tests::{scratch, skip};

use crate::lookout::{AFTER, BEFORE, Lookout, api};

/// A finding is raised within 250 ms of what proves it, on a machine that has time for it.
const RAISED: Duration = Duration::from_millis(250);

fn says(record: &Record, words: &[&str]) {
    for words in words {
        assert!(record.sentence.contains(words), "{words:?} is not in {:?}", record.sentence);
    }
}

#[test]
fn a_proxy_that_is_left_without_workers_is_found_at_once_with_the_last_words_of_one() {
    let scene = Lookout::begin(&api(BEFORE));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(5, 200);
    // Workers that cannot go there end with exit code 2, and are not started again.
    let broken = "working_directory /nowhere;";
    let conf = std::fs::read_to_string(scene.nginx.config()).expect("the configuration");
    std::fs::write(scene.nginx.config(), format!("{broken}\n{conf}")).expect("write a configuration");
    scene.nginx.signal(Signal::SIGHUP);
    let record = scene.raised("no_workers", "");
    says(&record, &["has no worker since", "after the reload at", "with exit code 2"]);
    // Where the host is busy its last words are known a moment later.
    wait::until_true("the last words of a worker", SOON, || {
        let finding = scene.standing("no_workers");
        let sentence = finding["sentence"].as_str().unwrap_or_default();
        sentence.contains("It says: chdir(\"/nowhere\") failed")
    });
    assert_eq!(record.severity, "critical");
    std::fs::write(scene.nginx.config(), conf).expect("write the configuration again");
    scene.nginx.signal(Signal::SIGHUP);
    assert_eq!(scene.cleared("no_workers").because, "workers run again");
    scene.gets(3, 200);
    let old = scene.nginx.worker_pids();
    scene.nginx.reload(&api(BEFORE));
    let worker = wait::until("the new worker alone", SOON, || match scene.nginx.worker_pids()[..] {
        [worker] if !old.contains(&worker) => Some(worker),
        _ => None,
    });
    kill(Pid::from_raw(worker.cast_signed()), Signal::SIGKILL).expect("end a worker");
    wait::until_true("another worker", SOON, || scene.nginx.worker_pids().iter().any(|pid| *pid != worker));
    scene.gets(3, 200);
    wait::for_a_tick();
    assert_eq!(scene.agent.get("/findings").body, "[]", "one that is started again leaves nobody without");
}

#[test]
fn workers_whose_master_was_killed_are_counted_for_as_long_as_they_serve() {
    let options = Options { workers: 2, ..Options::default() };
    let scene = Lookout::on(Netns::new(), options, &api(BEFORE), &[]);
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    let counted = |workers| {
        wait::until_true(&format!("{workers} workers to be counted"), SOON, || {
            scene.count("proxytrace_workers", &[("proxy", scene.nginx.name())]) == workers
        });
    };
    scene.gets(3, 200);
    counted(2);
    let workers = scene.nginx.worker_pids();
    scene.nginx.signal(Signal::SIGKILL);
    wait::until_true("the master to end", SOON, || {
        std::fs::read_to_string(format!("/proc/{}/stat", workers[0]))
            .is_ok_and(|stat| stat.split(' ').nth(3) != Some(&*scene.nginx.master_pid().to_string()))
    });
    scene.gets(3, 200);
    wait::for_a_tick();
    counted(2);
    kill(Pid::from_raw(workers[0].cast_signed()), Signal::SIGKILL).expect("end a worker");
    counted(1);
    scene.gets(3, 200);
    wait::for_a_tick();
    assert_eq!(scene.agent.get("/findings").body, "[]", "one worker serves");
}

#[test]
fn a_way_that_loses_a_third_of_what_is_sent_is_overloaded_and_no_black_hole() {
    let scene = Lookout::begin(&api(BEFORE));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(60, 200);
    wait::for_a_tick();
    scene.netns.firewall("tcp dport 8080 tcp flags & (syn | ack) == syn numgen inc mod 2 0 drop");
    let ask = || {
        thread::scope(|scope| {
            (0..8).for_each(|_| drop(scope.spawn(|| scene.nginx.get("/"))));
        });
    };
    let record = scene.raised_while(SOON * 6, "overloaded", BEFORE, ask);
    says(
        &record,
        &["took over a second or failed unanswered", "some succeed", "nstat -az TcpExtListenOverflows"],
    );
    assert_eq!(record.severity, "warning");
    scene.netns.firewall("");
    let cleared = scene.cleared_while(SOON * 6, "overloaded", ask);
    assert!(cleared.because.starts_with("hardly any SYN is lost any more"), "{cleared:?}");
}

#[test]
fn a_proxy_that_reaches_nothing_is_one_finding() {
    const PORTS: std::ops::Range<u16> = 8080..8088;
    let upstreams: String =
        PORTS.map(|port| format!("upstream u{port} {{ server 127.0.0.1:{port}; }} ")).collect();
    let locations: String =
        PORTS.map(|port| format!("location /{port} {{ proxy_pass http://u{port}; }} ")).collect();
    let scene = Lookout::begin(&(upstreams + &server(&locations)));
    let start = || {
        PORTS
            .map(|port| Backend::start(&scene.netns, &format!("127.0.0.1:{port}"), Manner::AnswerAndClose))
            .collect::<Vec<_>>()
    };
    let ask = |status: u16| {
        for port in PORTS {
            assert_eq!(scene.nginx.get(&format!("/{port}")), status);
        }
    };
    let backends = start();
    (0..3).for_each(|_| ask(200));
    wait::for_a_tick();
    drop(backends);
    let began = Instant::now();
    ask(502);
    let record = scene.raised("proxy_down", "");
    println!("proxy_down {:?} after the first failure", began.elapsed());
    says(
        &record,
        &["hardly anything that", "8 of 8 upstreams fail", "connects were refused", "Check this host first"],
    );
    assert_eq!(record.severity, "critical");
    ask(502);
    wait::for_a_tick();
    scene.stands("upstream_down", 0);
    let _backends = start();
    ask(200);
    assert_eq!(scene.cleared("proxy_down").because, "upstreams can be reached again");
}

#[test]
fn a_proxy_whose_network_is_gone_is_one_finding_too() {
    const PORTS: std::ops::Range<u16> = 8080..8086;
    let each = |line: fn(u16) -> String| PORTS.map(line).collect::<String>();
    let upstreams = each(|port| format!("upstream u{port} {{ server 127.0.0.1:{port}; }} "));
    let locations = each(|port| format!("location /{port} {{ proxy_pass http://u{port}; }} "));
    let scene = Lookout::begin(&(upstreams + &server(&locations)));
    let _backends: Vec<_> = PORTS
        .map(|port| Backend::start(&scene.netns, &format!("127.0.0.1:{port}"), Manner::AnswerAndClose))
        .collect();
    let get = |port: u16| scene.nginx.get(&format!("/{port}"));
    assert!(PORTS.into_iter().all(|port| get(port) == 200));
    wait::for_a_tick();
    scene.netns.firewall("tcp dport 8080-8085 drop");
    thread::scope(|scope| {
        for port in PORTS {
            scope.spawn(move || get(port));
        }
        let record = scene.raised("proxy_down", "");
        says(&record, &["6 of 6 upstreams fail", "; nothing answers; ", "Check this host first"]);
        scene.stands("upstream_down", 0);
        scene.stands("black_hole", 0);
        scene.netns.firewall("tcp dport 9 drop");
    });
    assert!(PORTS.into_iter().all(|port| get(port) == 200));
    let _ = scene.cleared("proxy_down");
}

#[test]
fn an_upstream_that_only_its_backup_serves_says_so() {
    let scene = Lookout::begin(&format!(
        "upstream api {{ server {BEFORE} max_fails=0; server {AFTER} backup; }} {}",
        server("location / { proxy_pass http://api; }")
    ));
    let backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    let _backup = Backend::start(&scene.netns, AFTER, Manner::AnswerAndClose);
    scene.gets(20, 200);
    drop(backend);
    let ask = || {
        scene.gets(1, 200);
        thread::sleep(Duration::from_millis(100));
    };
    let record = scene.raised_while(Duration::from_secs(90), "address_down", BEFORE, ask);
    says(
        &record,
        &[&format!("and only its backup {AFTER} is left"), "were refused", "mark the \"server\" line at"],
    );
    assert_eq!(record.severity, "warning");
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.cleared_while(SOON * 2, "address_down", ask);
}

/// HAProxy gives up after 400 ms, long before a SYN is sent again.
#[test]
fn another_proxy_that_gives_up_soon_shows_a_black_hole_as_well() {
    if !skip::unless_installed("haproxy") {
        return;
    }
    let netns = Netns::new();
    let _backend = Backend::start(&netns, BEFORE, Manner::AnswerAndClose);
    let mut haproxy = Haproxy::prepare(BEFORE);
    haproxy.configure(BEFORE, " timeout connect 400ms");
    let own = format!("{}=0.4", haproxy.name());
    let trace = Trace::start(&["--process", haproxy.name()]);
    let told =
        Trace::start(&["--process", haproxy.name(), "--connect-timeout", &format!("60,{own}"), "--all"]);
    haproxy.launch(&netns);
    for _ in 0..15 {
        assert_eq!(haproxy.get(), 200);
    }
    wait::for_a_tick();
    netns.firewall("tcp dport 8080 drop");
    let began = Instant::now();
    let mut asked = 0;
    let finding = |trace: &Trace| loop {
        let record = trace.next_among(&["finding"]);
        if record.finding == "black_hole" {
            break record;
        }
    };
    while asked < 4 {
        assert_eq!(haproxy.get(), 503);
        asked += 1;
    }
    let record = finding(&trace);
    println!("black_hole {:?} after the first connect", began.elapsed());
    says(&record, &[&format!("nothing answers at {BEFORE} since"), "given up without an answer"]);
    assert_eq!(record.state, "raised");
    // Who is told how long HAProxy waits knows that each is a timeout of its own.
    let timeout = loop {
        let record = told.next_among(&["connect"]);
        if record.outcome != "established" {
            break record;
        }
    };
    assert_eq!((&*timeout.outcome, &*timeout.cause), ("proxy_timeout", "proxy_timeout"), "{timeout:?}");
    assert_eq!(finding(&told).state, "raised");
    netns.firewall("");
    assert_eq!(haproxy.get(), 200);
    let cleared = finding(&trace);
    assert_eq!(cleared.state, "cleared");
    assert_eq!(cleared.because, format!("there is an answer from {BEFORE}"));
}

/// Envoy gives up after 250 ms. It connects in threads, whose names are not its own.
#[test]
fn envoy_that_gives_up_within_a_quarter_of_a_second_shows_a_black_hole_by_address_alone() {
    let Some(program) = envoy() else { return skip::skip("Envoy is not there: cargo xtask setup") };
    let (netns, directory, port) = (Netns::new(), scratch::directory(), 8082);
    let _backend = Backend::start(&netns, BEFORE, Manner::AnswerAndClose);
    let name = scratch::unique_name("env");
    let alias = scratch::alias(&program, directory.path(), &name);
    let http = "type.googleapis.com/envoy.extensions.filters";
    let config = format!(
        "static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': {http}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: i
          route_config: {{ virtual_hosts: [ {{ name: v, domains: ['*'], routes: [ {{ match: {{ prefix: / }}, route: {{ cluster: c }} }} ] }} ] }}
          http_protocol_options: {{ accept_http_10: true }}
          http_filters: [ {{ name: envoy.filters.http.router, typed_config: {{ '@type': {http}.http.router.v3.Router }} }} ]
  clusters:
  - name: c
    connect_timeout: 0.25s
    load_assignment: {{ cluster_name: c, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 8080 }} }} }} }} ] }} ] }}
"
    );
    let file = directory.path().join("envoy.yaml");
    std::fs::write(&file, config).expect("write a configuration");
    let mut command = Command::new(alias);
    command.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "off"]);
    let _envoy = netns.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    let ask = || {
        netns.enter(|| {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
            proxytrace_tests::http::ask(&mut stream, "/", &[]);
            proxytrace_tests::http::try_answer(&mut stream).ok().map(|answer| answer.status)
        })
    };
    wait::until_true("Envoy to serve", SOON * 2, || ask() == Some(200));
    let trace = Trace::start(&["--process", &name]);
    (0..10).for_each(|_| assert_eq!(ask(), Some(200)));
    wait::for_a_tick();
    netns.firewall("tcp dport 8080 drop");
    let began = Instant::now();
    (0..4).for_each(|_| assert_eq!(ask(), Some(503)));
    let finding = || loop {
        let record = trace.next_among(&["finding"]);
        if record.finding == "black_hole" {
            break record;
        }
    };
    let record = finding();
    println!("black_hole {:?} after the first connect", began.elapsed());
    says(&record, &[&format!("nothing answers at {BEFORE} since"), "given up without an answer"]);
    assert!(!record.sentence.contains("nginx"), "{record:?}");
    netns.firewall("");
    wait::until_true("Envoy to serve again", SOON * 2, || ask() == Some(200));
    assert_eq!(finding().state, "cleared");
}

/// Where `cargo xtask setup` puts it.
fn envoy() -> Option<std::path::PathBuf> {
    let installed = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/setup/envoy-1.40.0/lib");
    let mut versions = std::fs::read_dir(installed).ok()?.flatten();
    let python = versions.find(|entry| entry.file_name().to_string_lossy().starts_with("python3"))?;
    Some(python.path().join("site-packages/envoy/_bin/envoy")).filter(|program| program.exists())
}

#[test]
fn what_a_reload_marks_down_is_out_of_use() {
    let http = |other: &str| {
        format!(
            "upstream api {{ server {BEFORE}; server {AFTER} {other}; }} {}",
            server("location / { proxy_connect_timeout 1s; proxy_pass http://api; }")
        )
    };
    let scene = Lookout::begin(&http(""));
    let _backends = [BEFORE, AFTER].map(|at| Backend::start(&scene.netns, at, Manner::AnswerAndClose));
    scene.gets(10, 200);
    wait::for_a_tick();
    scene.netns.firewall("tcp dport 8081 drop");
    let ask = || {
        let _ = scene.nginx.get("/");
        thread::sleep(Duration::from_millis(20));
    };
    let _ = scene.raised_while(SOON * 6, "black_hole", AFTER, ask);
    let _ = scene.nginx.reload(&http("down"));
    let record = scene.cleared_while(SOON * 3, "black_hole", ask);
    assert_eq!(record.because, "a reload took it out of use", "{record:?}");
}

/// As blue and green are switched by hand: the block of what is dead stays.
#[test]
fn what_a_reload_leads_away_from_is_out_of_use() {
    let http = |pool: &str| {
        format!(
            "map $host $pool {{ default {pool}; }} upstream blue {{ server {BEFORE}; }} upstream green {{ server {AFTER}; }} {}",
            server("location / { proxy_pass http://$pool; proxy_next_upstream off; }")
        )
    };
    let scene = Lookout::begin(&http("blue"));
    let _green = Backend::start(&scene.netns, AFTER, Manner::AnswerAndClose);
    let blue = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(10, 200);
    wait::for_a_tick();
    drop(blue);
    scene.gets(4, 502);
    assert_eq!(scene.raised("upstream_down", "").upstream, "blue");
    let _ = scene.nginx.reload(&http("green"));
    scene.gets(3, 200);
    let record = scene.cleared("upstream_down");
    assert_eq!(record.because, "a reload took it out of use", "{record:?}");
    let _ = scene.nginx.reload(&http("blue"));
    scene.gets(4, 502);
    assert_eq!(scene.raised("upstream_down", "").upstream, "blue");
}

#[test]
fn a_service_that_died_under_requests_and_closes_what_it_accepts_since_is_found_as_soon_as_any() {
    let scene = Lookout::begin(&api(BEFORE));
    let dying = Backend::start(&scene.netns, BEFORE, Manner::HoldThenClose);
    thread::scope(|scope| {
        let asked: Vec<_> = (0..20).map(|_| scope.spawn(|| scene.nginx.get("/"))).collect();
        thread::sleep(Duration::from_secs(1));
        dying.release();
        assert!(asked.into_iter().all(|asked| asked.join().expect("a status") == 502));
    });
    drop(dying);
    let well = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(5, 200);
    wait::for_a_tick();
    drop(well);
    let _wrong = Backend::start(&scene.netns, BEFORE, Manner::CloseUnanswered);
    let _ = scene.raised_while(SOON * 3, "wrong_service", BEFORE, || {
        scene.gets(1, 502);
        thread::sleep(Duration::from_millis(100));
    });
}

#[test]
fn an_address_that_no_address_of_this_host_reaches_is_not_out_of_ports() {
    if !skip::unless_installed("dnsmasq") {
        return;
    }
    let netns = Netns::new();
    netns.sysctl("net.ipv6.conf.all.disable_ipv6", "1");
    let _dns = NameServer::start(&netns, "fd77::2 api.internal\n", &["--local=/internal/"]);
    let http =
        server("resolver 127.0.0.1; set $api api.internal; location / { proxy_pass http://$api:8080; }");
    let scene = Lookout::on(netns, Options::default(), &http, &[]);
    scene.gets(1, 502);
    println!("nginx says: {}", scene.nginx.error_log().lines().last().unwrap_or_default());
    scene.gets(4, 502);
    let record = scene.raised("upstream_down", "");
    says(
        &record,
        &["since at least", "there is no IPv6 address on this host", "`ipv6=off` in its \"resolver\" line"],
    );
    scene.stands("ports_exhausted", 0);
}

#[test]
fn a_socket_that_nginx_looks_for_in_a_mount_namespace_of_its_own_is_said_to_be_elsewhere() {
    let (directory, netns) = (scratch::directory(), Netns::new());
    let path = directory.path().join("app.sock");
    let _listener = UnixListener::bind(&path).expect("listen at a socket");
    let address = format!("unix:{}", path.display());
    let mut nginx = Nginx::prepare(Options::default(), &proxy_to(&address, ""));
    let inner = nginx.command();
    // As PrivateTmp= does it: another file system is mounted over the directory, for nginx alone.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg(format!("mount -t tmpfs none {} && exec \"$0\" \"$@\"", directory.path().display()));
    command.arg(inner.get_program()).args(inner.get_args());
    let _process = netns.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    nginx.wait_until_serving();
    let (trace, agent) =
        (Trace::start(&["--process", nginx.name()]), Agent::start(&["--process", nginx.name()]));
    for _ in 0..5 {
        assert_eq!(nginx.get("/"), 502);
    }
    let record = trace.next_among(&["finding"]);
    assert_eq!((&*record.finding, &*record.state), ("upstream_down", "raised"), "{record:?}");
    // Where the host is busy the reason is known a moment later.
    let page = wait::until("the agent to say why", SOON, || {
        let page = agent.get("/findings").body;
        page.contains("PrivateTmp=no").then_some(page)
    });
    for words in
        ["no_such_socket", "the socket is on this host, but not in nginx's mount namespace (PrivateTmp?)"]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
}

/// nginx tries each once, and none again for ten seconds: it answers 502 itself.
#[test]
fn wrong_ports_are_found_after_one_try_of_each_by_a_trace_that_started_late() {
    let scene = Lookout::begin(&format!(
        "upstream api {{ server {BEFORE}; server {AFTER}; }} {}",
        server("location / { proxy_pass http://api; }")
    ));
    let began = Instant::now();
    scene.gets(1, 502);
    let record = scene.raised("upstream_down", "");
    assert!(began.elapsed() < patient(RAISED) + SOON, "{:?}", began.elapsed());
    says(
        &record,
        &[
            "cannot be reached at any of its 2 addresses since at least",
            "nginx leaves each alone for its fail_timeout (unless max_fails is 0), and turns clients away itself meanwhile",
        ],
    );
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.cleared_while(Duration::from_secs(30), "upstream_down", || {
        let _ = scene.nginx.get("/");
        thread::sleep(Duration::from_millis(200));
    });
}

#[test]
fn where_several_proxies_are_traced_a_finding_says_which_it_is_about() {
    let netns = Netns::new();
    let [first, second] = [(), ()].map(|()| Nginx::start(&netns, &api(BEFORE)));
    let trace = Trace::start(&["--process", first.name(), "--process", second.name()]);
    let backend = Backend::start(&netns, BEFORE, Manner::AnswerAndClose);
    for nginx in [&first, &second] {
        (0..3).for_each(|_| assert_eq!(nginx.get("/"), 200));
    }
    wait::for_a_tick();
    drop(backend);
    (0..4).for_each(|_| assert_eq!(second.get("/"), 502));
    let record = trace.next_among(&["finding"]);
    says(&record, &[&format!("upstream \"api\" of {} cannot be reached since", second.name())]);
}
