//! What is healthy raises no finding: ordinary life under steady requests. For a few seconds, or as long as it takes in nature
//! (`cargo xtask test --long`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::http;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::scale::natural;
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

const ESTABLISHED: &str = "proxytrace_connects_established_total";
const BROKEN: &str = "proxytrace_connections_broken_total";
const FAILURES: &str = "proxytrace_connect_failures_total";

const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Lives again and again, as long as the stories take.
fn for_long(mut live: impl FnMut()) {
    let (begun, long) = (Instant::now(), natural(Duration::from_secs(4), Duration::from_secs(70)));
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
