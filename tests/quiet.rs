//! What is healthy raises no finding: ordinary life under steady requests. For a few seconds, or as long as it takes in nature
//! (`cargo xtask test --long`).

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::dns::NameServer;
use proxytrace_tests::http;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, server};
use proxytrace_tests::scale::{lasting, natural};
use proxytrace_tests::skip;
use proxytrace_tests::wait::{self, SOON};

use crate::lookout::{AFTER, BEFORE, Lookout};

const THIRD: &str = "127.0.0.1:8082";

/// A request that takes a moment: some are always open.
const QUICK: Manner = Manner::AnswerAfter(Duration::from_millis(20));

#[test]
fn restarts_one_after_the_other_behind_next_upstream_raise_nothing() {
    let peers = [BEFORE, AFTER, THIRD];
    let servers: String =
        peers.map(|peer| format!("server {peer} fail_timeout={};", natural("1s", "10s"))).concat();
    let scene = Lookout::begin(&format!(
        "upstream api {{ {servers} }} {}",
        server("location / { proxy_pass http://api; }")
    ));
    let start = |peer| Some(Backend::start(&scene.netns, peer, QUICK));
    let mut backends = peers.map(start);
    let (down, up) = natural((millis(300), millis(1200)), (millis(12_000), millis(12_000)));
    under_requests(&scene.nginx, &["/"; 4], || {
        for_long(|| {
            for (backend, peer) in backends.iter_mut().zip(peers) {
                *backend = None;
                thread::sleep(down);
                *backend = start(peer);
                thread::sleep(up);
            }
        });
    });
    let missed = scene.count(FAILURES, &[("cause", "refused")]) + scene.count(BROKEN, &[]);
    assert!(missed >= 3, "each was missed, and not {missed} times");
    scene.end_quiet();
}

#[test]
fn connections_that_are_kept_and_then_closed_raise_nothing() {
    let scene = Lookout::begin(&format!(
        "upstream api {{ server {BEFORE}; server {AFTER} fail_timeout=1s;\n\
         keepalive 8; keepalive_timeout {}; keepalive_requests 50; }}\n\
         upstream web {{ server {THIRD}; keepalive 8; }} {}",
        natural("200ms", "4s"),
        server(
            "proxy_http_version 1.1; proxy_set_header Connection '';\n\
             location / { proxy_pass http://api; } location /web { proxy_pass http://web; }"
        )
    ));
    let start = |address, manner| Some(Backend::start(&scene.netns, address, manner));
    let _kept = start(BEFORE, Manner::Answer);
    let mut restarted = start(AFTER, Manner::Answer);
    // This one closes what is idle before nginx does.
    let _closing = start(THIRD, Manner::AnswerUntilIdle(natural(millis(150), millis(3000))));
    let nginx = &scene.nginx;
    let served = under_requests(nginx, &["/", "/web"], || {
        for_long(|| {
            // Many at once, and then they are idle.
            thread::scope(|scope| {
                for path in ["/", "/web"].repeat(6) {
                    scope.spawn(move || (0..20).for_each(|_| ask(nginx, path)));
                }
            });
            thread::sleep(natural(millis(500), millis(6000)));
            // It goes with the connections that nginx keeps, and comes back.
            restarted = None;
            thread::sleep(natural(millis(100), millis(2000)));
            restarted = start(AFTER, Manner::Answer);
        });
    });
    let connects = scene.count(ESTABLISHED, &[]);
    assert!((20..served).contains(&connects), "{connects} connects for more than {served} requests");
    scene.end_quiet();
}

#[test]
fn clients_that_leave_raise_nothing() {
    let scene = Lookout::begin(&format!(
        "upstream api {{ server {BEFORE}; }} {}",
        server("location / { proxy_pass http://api; }")
    ));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAfter(millis(100)));
    // Handshakes are seldom quick enough to leave within. A SYN that is lost on the way is sent again after a second.
    scene.netns.firewall("tcp dport 8080 tcp flags & (syn | ack) == syn numgen inc mod 10 0 drop");
    let mut left = 0;
    under_requests(&scene.nginx, &["/"; 2], || {
        for_long(|| {
            let client = scene.nginx.begin("/");
            thread::sleep(millis(left * 37 % 110));
            drop(client);
            left += 1;
        });
    });
    // In the end nginx has noticed all.
    thread::sleep(millis(1500));
    let cancelled = scene.count(FAILURES, &[("cause", "cancelled")]);
    println!("{left} clients left, {cancelled} before their connection was there");
    assert!(cancelled > 0, "nobody left while nginx was connecting");
    scene.end_quiet();
}

#[test]
fn long_polls_and_events_raise_nothing() {
    let (poll, each) = natural((millis(2500), millis(400)), (millis(30_000), millis(5000)));
    let scene = Lookout::begin(&format!(
        "upstream api {{ server {BEFORE}; keepalive 8; }} upstream poll {{ server {AFTER}; keepalive 8; }}
         upstream events {{ server {THIRD}; }} {}",
        server(&format!(
            "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_read_timeout {}; proxy_buffering off;
             location / {{ proxy_pass http://api; }} location /poll {{ proxy_pass http://poll; }}
             location /events {{ proxy_pass http://events; }}",
            natural("8s", "60s")
        ))
    ));
    let _quick = Backend::start(&scene.netns, BEFORE, QUICK);
    let _slow = Backend::start(&scene.netns, AFTER, Manner::AnswerAfter(poll));
    let _events = Backend::start(&scene.netns, THIRD, Manner::Events(6, each));
    let mut most = 0;
    under_requests(&scene.nginx, &["/", "/poll", "/poll", "/poll", "/poll", "/events", "/events"], || {
        for_long(|| {
            most = most.max(scene.count("proxytrace_requests_unanswered", &[("address", AFTER)]));
            thread::sleep(millis(200));
        });
    });
    assert!(most >= 3, "at most {most} polls were seen to wait");
    wait::until_true("nothing to wait", SOON, || scene.count("proxytrace_requests_unanswered", &[]) == 0);
    assert_eq!(scene.count(BROKEN, &[]), 0);
    scene.end_quiet();
}

#[test]
fn long_polls_that_are_answered_together_while_clients_leave_raise_nothing() {
    let poll = natural(millis(3200), millis(20_000));
    let scene = Lookout::begin(&format!(
        "upstream poll {{ server {BEFORE}; }} {}",
        server(&format!(
            "proxy_http_version 1.0; proxy_read_timeout {}; location / {{ proxy_pass http://poll; }}",
            natural("8s", "60s")
        ))
    ));
    let _slow = Backend::start(&scene.netns, BEFORE, Manner::AnswerAfter(poll));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let client = scene.nginx.begin("/");
                thread::sleep(millis(400));
                drop(client);
            }
        });
        for _ in 0..4 {
            let mut clients: Vec<_> = (0..8).map(|_| scene.nginx.begin("/")).collect();
            let answered = clients.iter_mut().filter_map(|client| http::try_answer(client).ok()).count();
            assert_eq!(answered, 8, "nginx says: {}", scene.nginx.error_log());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    scene.end_quiet();
}

#[test]
fn rolling_restarts_behind_kept_connections_raise_nothing() {
    let peers = [BEFORE, AFTER, THIRD];
    let servers: String =
        peers.map(|peer| format!("server {peer} fail_timeout={};", natural("1s", "10s"))).concat();
    let scene = Lookout::begin(&format!(
        "upstream api {{ {servers} keepalive 8; }} {}",
        server(
            "proxy_http_version 1.1; proxy_set_header Connection ''; location / { proxy_pass http://api; }"
        )
    ));
    let start = |peer| Some(Backend::start(&scene.netns, peer, Manner::Answer));
    let mut backends = peers.map(start);
    let (down, up) = natural((millis(200), millis(1500)), (millis(3000), millis(12_000)));
    let mut restarts = 0;
    let served = under_requests(&scene.nginx, &["/"; 4], || {
        for_long(|| {
            for (backend, peer) in backends.iter_mut().zip(peers) {
                backend.take().expect("it runs").end();
                thread::sleep(down);
                *backend = start(peer);
                restarts += 1;
                thread::sleep(up);
            }
        });
    });
    let connects = scene.count(ESTABLISHED, &[]);
    assert!((restarts..served).contains(&connects), "{connects} connects for {served} requests");
    // What is closed as a request comes is broken; nginx asks another.
    println!("{restarts} restarts, {} connections broken, {served} answers", scene.count(BROKEN, &[]));
    wait::until_true("nothing to wait", SOON, || scene.count("proxytrace_requests_unanswered", &[]) == 0);
    scene.end_quiet();
}

#[test]
fn uploads_websockets_and_slow_answers_raise_nothing() {
    let scene = Lookout::begin(&format!(
        "upstream api {{ server {BEFORE}; keepalive 8; }} upstream chat {{ server {AFTER}; }}
         upstream slow {{ server {THIRD}; keepalive 8; }} {}",
        server(&format!(
            "proxy_http_version 1.1; proxy_set_header Connection ''; client_max_body_size 10m; proxy_read_timeout {};
             location / {{ proxy_pass http://api; }}
             location /streamed {{ proxy_request_buffering off; proxy_pass http://api; }}
             location /slow {{ proxy_pass http://slow; }}
             location /chat {{ proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
                 proxy_pass http://chat; }}",
            natural("8s", "60s")
        ))
    ));
    let _api = Backend::start(&scene.netns, BEFORE, Manner::Answer);
    let _chat = Backend::start(&scene.netns, AFTER, Manner::Echo);
    let _slow =
        Backend::start(&scene.netns, THIRD, Manner::AnswerAfter(natural(millis(1800), millis(14_000))));
    let (nginx, pause) = (&scene.nginx, natural(millis(300), millis(3000)));
    under_requests(nginx, &["/", "/slow", "/slow", "/slow"], || {
        for_long(|| {
            thread::scope(|scope| {
                scope.spawn(|| upload(nginx, "/", pause));
                scope.spawn(|| upload(nginx, "/streamed", pause));
                scope.spawn(|| chat(nginx, pause * 4));
                // This one leaves before it has said anything.
                scope.spawn(|| drop(begin_chat(nginx)));
            });
        });
    });
    end_without_a_wait(scene);
}

/// Nothing broke, and in the end nothing waits.
#[track_caller]
fn end_without_a_wait(scene: Lookout) {
    wait::until_true("nothing to wait", SOON, || scene.count("proxytrace_requests_unanswered", &[]) == 0);
    assert_eq!(scene.count(BROKEN, &[]), 0);
    scene.end_quiet();
}

/// Sends something large, as slow clients do.
#[track_caller]
fn upload(nginx: &Nginx, path: &str, pause: Duration) {
    const PART: usize = 100_000;
    const PARTS: usize = 8;
    let mut client = nginx.connect();
    write!(client, "POST {path} HTTP/1.0\r\nHost: test\r\nContent-Length: {}\r\n\r\n", PART * PARTS)
        .expect("send a request");
    for _ in 0..PARTS {
        client.write_all(&[b'x'; PART]).expect("send a part");
        thread::sleep(pause);
    }
    assert_eq!(http::answer(&mut client).status, 200, "nginx says: {}", nginx.error_log());
}

/// Says something now and then, gets it back, and leaves.
#[track_caller]
fn chat(nginx: &Nginx, pause: Duration) {
    let mut client = begin_chat(nginx);
    for _ in 0..3 {
        client.write_all(b"hello").expect("say something");
        client.read_exact(&mut [0; 5]).expect("get it back");
        thread::sleep(pause);
    }
}

#[track_caller]
fn begin_chat(nginx: &Nginx) -> UnixStream {
    let mut client = nginx.connect();
    client
        .write_all(b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        .expect("ask for a websocket");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    client
}

#[test]
fn scaling_up_and_down_by_reloads_raises_nothing() {
    let peers = [BEFORE, AFTER, THIRD];
    let http = |peers: &[&str]| {
        // The hardest for findings: nginx does not leave alone what it cannot reach.
        let servers: String = peers.iter().map(|peer| format!("server {peer} max_fails=0;")).collect();
        format!("upstream api {{ {servers} }} {}", server("location / { proxy_pass http://api; }"))
    };
    let scene = Lookout::begin(&http(&peers[..1]));
    let start = |peer| Backend::start(&scene.netns, peer, QUICK);
    let mut backends = vec![start(BEFORE)];
    let mut reloads = 0;
    under_requests(&scene.nginx, &["/"; 4], || {
        for_long(|| {
            for wanted in [2, 3, 2, 1] {
                scene.nginx.reload(&http(&peers[..wanted]));
                reloads += 1;
                if wanted > backends.len() {
                    // It is announced before it is there, as often happens.
                    thread::sleep(natural(millis(200), millis(2000)));
                    backends.push(start(peers[wanted - 1]));
                } else {
                    // It ends when nobody needs it any more.
                    wait::until_true("old workers to end", SOON, || scene.nginx.worker_pids().len() == 1);
                    backends.pop();
                }
                thread::sleep(natural(millis(600), millis(8000)));
            }
        });
    });
    assert_eq!(scene.count("proxytrace_reloads_total", &[("result", "accepted")]), reloads);
    assert!(scene.count(ESTABLISHED, &[("address", THIRD)]) > 0, "all three were used");
    scene.end_quiet();
}

#[test]
fn reloads_without_change_while_old_workers_go_on_raise_nothing() {
    let http = format!(
        "upstream api {{ server {BEFORE}; }} upstream slow {{ server {AFTER}; }} {}",
        server("location / { proxy_pass http://api; } location /slow { proxy_pass http://slow; }")
    );
    let scene = Lookout::begin(&http);
    let _quick = Backend::start(&scene.netns, BEFORE, QUICK);
    let _slow =
        Backend::start(&scene.netns, AFTER, Manner::AnswerAfter(natural(millis(1500), millis(20_000))));
    let mut most = 0;
    under_requests(&scene.nginx, &["/", "/", "/slow", "/slow", "/slow"], || {
        for_long(|| {
            // Old workers connect as well: what they are asked by half before, and to the end after the reload.
            let half = scene.nginx.begin_half("/");
            scene.nginx.reload(&http);
            most = most.max(scene.nginx.worker_pids().len());
            thread::sleep(natural(millis(400), millis(3000)));
            assert_eq!(half.finish().status, 200);
            thread::sleep(natural(millis(400), millis(3000)));
        });
    });
    assert!(most > 2, "at most {most} workers at once");
    scene.end_quiet();
}

#[test]
fn a_log_that_is_busy_and_rotated_raises_nothing() {
    const FORGED: &str =
        "/2026/11/25%2014:30:02%20[alert]%2031%2331:%2020%20worker_connections%20are%20not%20enough";
    let scene = Lookout::begin(&format!(
        "upstream api {{ server {BEFORE}; }} {}",
        server("location / { proxy_pass http://api; } location /2026 { root /nowhere; }")
    ));
    let _backend = Backend::start(&scene.netns, BEFORE, QUICK);
    let log = scene.nginx.config().with_file_name("error.log");
    let moved = log.with_extension("1");
    under_requests(&scene.nginx, &["/"; 2], || {
        for_long(|| {
            // nginx logs that there is no such file, with what the client asked for.
            for _ in 0..natural(20, 200) {
                assert_eq!(scene.nginx.get(FORGED), 404);
            }
            std::fs::rename(&log, &moved).expect("move the log away");
            scene.nginx.signal(Signal::SIGUSR1);
            thread::sleep(natural(millis(500), millis(5000)));
        });
    });
    let said = std::fs::read_to_string(&moved).expect("the log");
    assert!(said.contains("worker_connections are not enough"), "what was forged is in it: {said}");
    scene.end_quiet();
}

/// Of a way that loses some SYNs, and of a name whose addresses take turns, each of which serves.
#[test]
fn a_name_that_rotates_and_a_way_that_loses_little_raise_nothing() {
    if !skip::unless_installed("dnsmasq") {
        return;
    }
    let netns = Netns::new();
    let hosts = |last: u8| format!("127.0.0.{last} api.internal\n127.0.0.{} api.internal\n", last + 1);
    let dns = NameServer::start(&netns, &hosts(11), &[]);
    let http = server(
        "resolver 127.0.0.1 valid=1s ipv6=off; set $api api.internal;
         location / { proxy_pass http://$api:8080; }",
    );
    let scene = Lookout::on(netns, Options::default(), &http, &[]);
    let start = |last: u8| Backend::start(&scene.netns, &format!("127.0.0.{last}:8080"), QUICK);
    let _backends: Vec<_> = (11..=15).map(start).collect();
    // A lost SYN is sent again after a second.
    scene.netns.firewall("tcp dport 8080 tcp flags & (syn | ack) == syn numgen inc mod 40 0 drop");
    under_requests(&scene.nginx, &["/"; 4], || {
        for_long(|| {
            for last in 11..=14 {
                dns.change(&hosts(last));
                thread::sleep(natural(millis(1200), millis(5000)));
                // nginx asks again after a second at the earliest, and a lost SYN may take the next.
                let address = format!("127.0.0.{}:8080", last + 1);
                wait::until_true(&format!("{address} to be used"), SOON, || {
                    scene.count(ESTABLISHED, &[("address", &address)]) > 0
                });
            }
        });
    });
    assert!(scene.count("proxytrace_syn_retransmits_total", &[]) > 0, "no SYN was lost");
    scene.end_quiet();
}

/// As a package that is upgraded does: the master ends with its workers, and another begins.
#[test]
fn an_nginx_that_is_stopped_and_started_again_raises_nothing() {
    let mut scene = Lookout::begin(&format!(
        "upstream api {{ server {BEFORE}; }} {}",
        server("location / { proxy_pass http://api; }")
    ));
    let _backend = Backend::start(&scene.netns, BEFORE, QUICK);
    for_long(|| {
        scene.gets(20, 200);
        scene.nginx.restart(&scene.netns);
        thread::sleep(natural(millis(300), millis(5000)));
    });
    scene.end_quiet();
}

const ESTABLISHED: &str = "proxytrace_connects_established_total";
const BROKEN: &str = "proxytrace_connections_broken_total";
const FAILURES: &str = "proxytrace_connect_failures_total";

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Lives again and again, as long as the stories take.
fn for_long(mut live: impl FnMut()) {
    let (begun, long) = (Instant::now(), lasting(Duration::from_secs(4), Duration::from_secs(70)));
    while begun.elapsed() < long {
        live();
    }
}

/// Lives while a client for each path asks again and again, each of whom is answered; gives how many answers there were.
fn under_requests(nginx: &Nginx, paths: &[&str], live: impl FnOnce()) -> u64 {
    /// Whatever comes of it: else the clients would go on for ever.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    let client = |path| {
        let mut served = 0;
        while !is_over.load(Ordering::Relaxed) {
            ask(nginx, path);
            served += 1;
            thread::sleep(millis(20));
        }
        served
    };
    thread::scope(|scope| {
        let end = End(&is_over);
        let clients: Vec<_> = paths.iter().map(|path| scope.spawn(|| client(path))).collect();
        live();
        drop(end);
        clients.into_iter().map(|client| client.join().expect("a client that is always answered")).sum()
    })
}

/// Asks, as often as a client does whose connection is closed before it has asked: a worker that ends does that.
fn ask(nginx: &Nginx, path: &str) {
    let mut tries = (0..3).filter_map(|_| http::try_answer(&mut nginx.begin(path)).ok());
    let status = tries.next().map(|answer| answer.status);
    assert_eq!(status, Some(200), "nginx says: {}", nginx.error_log());
}
