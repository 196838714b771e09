//! The truth table of the answer (docs/kernel-notes.md, "After the handshake"): what becomes of a request when the handshake is done, on
//! fresh and on kept connections, and what is said while it waits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use proxytrace_tests::backend::{Backend, Manner, Next};
use proxytrace_tests::child::as_pid;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to, server};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON, patient};

use crate::lookout::{BEFORE, Lookout};

/// nginx's read timeout, in seconds.
const TIMEOUT: u64 = 2;

/// More than a tick of the kernel's clock, whatever that is.
const TICK: Duration = Duration::from_millis(25);

/// A cell of the table.
struct Cell {
    /// Whether nginx keeps connections.
    is_kept: bool,
    manner: Manner,
    /// More for the location.
    directives: &'static str,
    /// The statuses that clients get, one after the other; 0 for a client that leaves.
    statuses: &'static [u16],
    /// How many of them come before tracing begins.
    earlier: usize,
    /// The causes of the connections that broke, in their order.
    causes: &'static [&'static str],
}

const CELL: Cell = Cell {
    is_kept: false,
    manner: Manner::Answer,
    directives: "",
    statuses: &[200],
    earlier: 0,
    causes: &[],
};

macro_rules! cells {
    ($($name:ident: $cell:expr;)+) => {$(
        #[test]
        fn $name() {
            play(&$cell);
        }
    )+};
}

cells! {
    fresh_answered_at_once: Cell { manner: Manner::AnswerAndClose, statuses: &[200, 200, 200], ..CELL };
    fresh_answered_late: Cell { manner: Manner::AnswerAfter(Duration::from_millis(1500)), ..CELL };
    fresh_fin: Cell { manner: Manner::CloseUnanswered, statuses: &[502], causes: &["closed_before_response"], ..CELL };
    fresh_rst: Cell { manner: Manner::ResetUnanswered, statuses: &[502], causes: &["reset_before_response"], ..CELL };
    fresh_silence: Cell { manner: Manner::HoldThenClose, statuses: &[504, 504], causes: &["response_timeout"; 2], ..CELL };
    fresh_client_leaves: Cell { manner: Manner::HoldThenClose, statuses: &[0, 0], ..CELL };
    fresh_tls_refused: Cell {
        manner: Manner::RefuseTls,
        directives: "proxy_pass https://api;",
        statuses: &[502],
        causes: &["tls_refused"],
        ..CELL
    };
    fresh_tls_silence: Cell {
        manner: Manner::HoldThenClose,
        directives: "proxy_connect_timeout 2s; proxy_pass https://api;",
        statuses: &[504],
        causes: &["response_timeout"],
        ..CELL
    };
    fastcgi_silence: Cell {
        manner: Manner::HoldThenClose,
        directives: "fastcgi_read_timeout 2s; fastcgi_pass api; # proxy_pass",
        statuses: &[504],
        causes: &["response_timeout"],
        ..CELL
    };
    uwsgi_silence: Cell {
        manner: Manner::HoldThenClose,
        directives: "uwsgi_read_timeout 2s; uwsgi_pass api; # proxy_pass",
        statuses: &[504],
        causes: &["response_timeout"],
        ..CELL
    };
    scgi_silence: Cell {
        manner: Manner::HoldThenClose,
        directives: "scgi_read_timeout 2s; scgi_pass api; # proxy_pass",
        statuses: &[504],
        causes: &["response_timeout"],
        ..CELL
    };
    grpc_silence_without_a_byte: Cell {
        manner: Manner::HoldThenClose,
        directives: "grpc_read_timeout 2s; grpc_pass grpc://api; # proxy_pass",
        statuses: &[504],
        causes: &["response_timeout"],
        ..CELL
    };
    kept_answered_at_once: Cell { is_kept: true, statuses: &[200; 5], ..CELL };
    kept_answered_late: Cell {
        is_kept: true,
        manner: Manner::AnswerAfter(Duration::from_millis(1200)),
        statuses: &[200; 3],
        ..CELL
    };
    kept_race_fin: Cell {
        is_kept: true,
        manner: Manner::AnswerThen(2, Next::Close),
        statuses: &[200, 200, 502],
        causes: &["closed_before_response"],
        ..CELL
    };
    kept_race_rst: Cell {
        is_kept: true,
        manner: Manner::AnswerThen(2, Next::Reset),
        statuses: &[200, 200, 502],
        causes: &["reset_before_response"],
        ..CELL
    };
    kept_silence: Cell {
        is_kept: true,
        manner: Manner::AnswerThen(1, Next::Hold),
        statuses: &[200, 504],
        causes: &["response_timeout"],
        ..CELL
    };
    kept_client_leaves: Cell { is_kept: true, manner: Manner::AnswerThen(1, Next::Hold), statuses: &[200, 0], ..CELL };
    kept_idle_closed_by_the_upstream: Cell {
        is_kept: true,
        manner: Manner::AnswerUntilIdle(Duration::from_millis(1500)),
        statuses: &[200, 200],
        ..CELL
    };
    kept_idle_reset_by_the_upstream: Cell {
        is_kept: true,
        manner: Manner::ResetWhenIdle(Duration::from_millis(1500)),
        statuses: &[200, 200],
        ..CELL
    };
    kept_idle_closed_by_nginx_after_its_read_timeout: Cell {
        is_kept: true,
        directives: "proxy_pass http://short;",
        statuses: &[200, 200],
        ..CELL
    };
    earlier_answered_at_once: Cell { is_kept: true, statuses: &[200; 5], earlier: 2, ..CELL };
    earlier_race_fin: Cell {
        is_kept: true,
        manner: Manner::AnswerThen(2, Next::Close),
        statuses: &[200, 200, 502],
        earlier: 2,
        causes: &["closed_before_response"],
        ..CELL
    };
    earlier_race_rst: Cell {
        is_kept: true,
        manner: Manner::AnswerThen(2, Next::Reset),
        statuses: &[200, 200, 502],
        earlier: 1,
        causes: &["reset_before_response"],
        ..CELL
    };
    earlier_silence: Cell {
        is_kept: true,
        manner: Manner::AnswerThen(1, Next::Hold),
        statuses: &[200, 504],
        earlier: 1,
        causes: &["response_timeout"],
        ..CELL
    };
    earlier_client_leaves: Cell {
        is_kept: true,
        manner: Manner::AnswerThen(1, Next::Hold),
        statuses: &[200, 0],
        earlier: 1,
        ..CELL
    };
    earlier_idle_closed_by_the_upstream: Cell {
        is_kept: true,
        manner: Manner::AnswerUntilIdle(Duration::from_millis(1500)),
        statuses: &[200],
        earlier: 1,
        ..CELL
    };
    earlier_idle_reset_by_the_upstream: Cell {
        is_kept: true,
        manner: Manner::ResetWhenIdle(Duration::from_millis(1500)),
        statuses: &[200],
        earlier: 1,
        ..CELL
    };
    a_route_that_upgrades_is_judged_by_no_order: Cell {
        is_kept: true,
        manner: Manner::AnswerThen(1, Next::Hold),
        directives: "proxy_set_header Upgrade $http_upgrade;",
        statuses: &[200, 504],
        ..CELL
    };
}

fn http(cell: &Cell) -> String {
    let upstream =
        |name: &str, keepalive: &str| format!("upstream {name} {{ server {BEFORE}; {keepalive} }}");
    let keepalive = if cell.is_kept { "keepalive 4;" } else { "" };
    let idle = format!("keepalive 4; keepalive_timeout {TIMEOUT}s;");
    let pass = if cell.directives.contains("proxy_pass") { "" } else { "proxy_pass http://api;" };
    format!(
        "{} {} {}",
        upstream("api", keepalive),
        upstream("short", &idle),
        server(&format!(
            "proxy_next_upstream off; proxy_read_timeout {TIMEOUT}s; proxy_http_version 1.1;
             location / {{ proxy_set_header Connection ''; {} {pass}
 }}",
            cell.directives
        ))
    )
}

#[track_caller]
fn play(cell: &Cell) {
    let (earlier, statuses) = cell.statuses.split_at(cell.earlier);
    let netns = Netns::new();
    let backend = Backend::start(&netns, BEFORE, cell.manner);
    let start = |netns: &Netns| {
        let nginx = Nginx::start(netns, &http(cell));
        for status in earlier {
            thread::sleep(TICK);
            assert_eq!(nginx.get("/"), *status, "nginx says: {}", nginx.error_log());
        }
        nginx
    };
    let scene = known(Lookout::of(netns, start, &[]));
    let accepted_before = backend.accepted();
    let mut accepted = accepted_before;
    for status in statuses {
        // Within a tick of the kernel's clock the order of bytes is not always known.
        thread::sleep(TICK);
        if *status == 0 {
            let client = scene.nginx.begin("/");
            // Well before the read timeout, also where everything takes long.
            thread::sleep(Duration::from_millis(300));
            drop(client);
            scene.nginx.says("client prematurely closed connection");
        } else {
            assert_eq!(scene.nginx.get("/"), *status, "nginx says: {}", scene.nginx.error_log());
        }
        accepted = backend.accepted();
    }
    for cause in cell.causes {
        let record = scene.trace.next_of("broken");
        assert_eq!(
            (&*record.cause, &*record.address, &*record.upstream),
            (*cause, BEFORE, "api,short"),
            "{record:?}"
        );
    }
    // What is idle ends by itself.
    if cell.is_kept {
        thread::sleep(Duration::from_millis(2500));
    }
    let broken = "proxytrace_connections_broken_total";
    wait::until_true("the connections to be counted", SOON, || {
        scene.count(broken, &[]) == cell.causes.len() as u64
    });
    for cause in cell.causes {
        let same = cell.causes.iter().filter(|other| *other == cause).count() as u64;
        assert_eq!(scene.count(broken, &[("cause", cause)]), same, "{cause}");
    }
    assert_eq!(order_unknown(&scene), 0, "nothing is left open");
    assert_eq!(
        scene.count("proxytrace_connect_attempts_total", &[]),
        accepted - accepted_before,
        "connections from before are not counted as attempts"
    );
    if cell.is_kept && cell.statuses.iter().all(|status| *status == 200) {
        assert!(accepted < cell.statuses.len() as u64 || accepted == 1, "{accepted} connections");
    }
    wait::until_true("nothing to wait", SOON, || scene.count("proxytrace_requests_unanswered", &[]) == 0);
}

/// Clients have connections to the proxy as well, which it has accepted.
#[test]
fn connections_of_clients_that_were_there_before_are_not_taken_for_upstreams() {
    let netns = Netns::new();
    let _backend = Backend::start(&netns, BEFORE, Manner::Answer);
    let mut clients = Vec::new();
    let start = |netns: &Netns| {
        let kept = Cell { is_kept: true, ..CELL };
        let http = http(&kept).replace("server {", "server { listen 127.0.0.1:8000; listen [::1]:8000;");
        let nginx = Nginx::start(netns, &http);
        for address in ["127.0.0.1:8000", "[::1]:8000"] {
            let mut client = netns.enter(|| TcpStream::connect(address)).expect("connect to nginx");
            client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("send a request");
            client.read_exact(&mut [0; 15]).expect("read an answer");
            clients.push(client);
        }
        nginx
    };
    let scene = known(Lookout::of(netns, start, &[]));
    assert_eq!(scene.nginx.get("/"), 200);
    let metrics = scene.agent.metrics();
    let addresses = metrics.values_of("address", "proxytrace_connect_attempts_total", &[]);
    assert_eq!(addresses, [BEFORE]);
    // Only the one that was kept is watched.
    assert_eq!(metrics.count("proxytrace_table_entries", &[("table", "connections")]), 1);
    drop(clients);
}

#[test]
fn a_request_that_nobody_acknowledges_times_out_as_well() {
    let kept = Cell { is_kept: true, ..CELL };
    let scene = begin(&http(&kept));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::Answer);
    assert_eq!(scene.nginx.get("/"), 200);
    scene.netns.firewall("tcp dport 8080 drop");
    assert_eq!(scene.nginx.get("/"), 504);
    let record = scene.trace.next_among(&["broken"]);
    assert_eq!((&*record.cause, &*record.address), ("response_timeout", BEFORE), "{record:?}");
    wait::until_true("the connection to be counted", SOON, || {
        scene.count("proxytrace_connections_broken_total", &[("cause", "response_timeout")]) == 1
    });
}

#[test]
fn a_request_that_crosses_the_end_of_an_idle_connection_is_broken() {
    crosses_after(1);
}

/// Here it is not known at that end whether a request waits: the last one and its answer mostly are within a tick.
#[test]
fn a_request_that_crosses_the_end_of_a_connection_in_use_is_broken() {
    crosses_after(4);
}

#[track_caller]
fn crosses_after(answers: u32) {
    let scene = begin(&http(&Cell { is_kept: true, ..CELL }));
    let backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerUntilReleased(answers));
    // This client's connection stays: its next request is there before the end of the other is.
    let mut client = scene.nginx.connect();
    let mut ask = || {
        client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").expect("send a request");
    };
    for _ in 0..answers {
        ask();
        wait::until_true("the first to be connected", SOON, || backend.accepted() == 1);
        thread::sleep(patient(Duration::from_millis(100)));
    }
    let [worker] = scene.nginx.worker_pids()[..] else { panic!("one worker") };
    let signal = |signal| kill(as_pid(worker), signal).expect("signal the worker");
    signal(Signal::SIGSTOP);
    thread::sleep(patient(Duration::from_millis(50)));
    ask();
    thread::sleep(patient(Duration::from_millis(50)));
    backend.release();
    thread::sleep(patient(Duration::from_millis(50)));
    signal(Signal::SIGCONT);
    let record = scene.trace.next_among(&["broken"]);
    assert_eq!((&*record.cause, &*record.address), ("closed_before_response", BEFORE), "{record:?}");
    assert!(record.kept, "{record:?}");
    scene.nginx.says("prematurely closed connection");
}

#[test]
fn idle_connections_that_the_upstream_soon_closes_are_not_left_open() {
    let scene = begin(&http(&Cell { is_kept: true, ..CELL }));
    // Sooner than a look would find them idle.
    let backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerUntilIdle(Duration::from_millis(150)));
    for _ in 0..5 {
        for _ in 0..4 {
            assert_eq!(scene.nginx.get("/"), 200);
        }
        thread::sleep(patient(Duration::from_millis(300)));
    }
    assert!(backend.accepted() >= 5, "{} connections", backend.accepted());
    assert_eq!(scene.count("proxytrace_connections_broken_total", &[]), 0);
    assert_eq!(order_unknown(&scene), 0);
}

/// While nobody knows whether the rest of a request comes, the upstream is not to blame.
#[test]
fn clients_that_pause_in_a_body_that_is_passed_on_as_it_comes_are_not_the_upstreams_failure() {
    let scene = begin(&format!(
        "upstream api {{ server {BEFORE}; keepalive 4; }} {}",
        server(&format!(
            "proxy_request_buffering off; proxy_http_version 1.1; proxy_read_timeout {TIMEOUT}s;
             proxy_send_timeout 60s; location / {{ proxy_pass http://api; }}"
        ))
    ));
    let backend = Backend::start(&scene.netns, BEFORE, Manner::Answer);
    let clients: Vec<_> = (1..=4)
        .map(|n| {
            let mut client = scene.nginx.connect();
            client
                .write_all(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\nthe beginning")
                .expect("send a part of a request");
            wait::until_true("nginx to pass it on", SOON, || backend.accepted() == n);
            client
        })
        .collect();
    for _ in 0..30 {
        assert_eq!(scene.count("proxytrace_requests_unanswered", &[]), 0);
        thread::sleep(Duration::from_millis(100));
    }
    drop(clients);
    wait::until_true("the connections to be counted", SOON, || order_unknown(&scene) == 4);
    assert_eq!(scene.count("proxytrace_connections_broken_total", &[]), 0);
    scene.end_quiet();
}

#[test]
fn over_a_unix_socket_silence_is_not_seen() {
    let directory = scratch::directory();
    let path = directory.path().join("app");
    let scene = begin(&proxy_to(&format!("unix:{}", path.display()), "proxy_read_timeout 1s;"));
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))
        .expect("open it to nginx");
    let _backend = Backend::unix(&path, Manner::HoldThenClose);
    assert_eq!(scene.nginx.get("/"), 504);
    thread::sleep(Duration::from_secs(1));
    assert_eq!(scene.count("proxytrace_connections_broken_total", &[]), 0);
    assert_eq!(scene.count("proxytrace_requests_unanswered", &[]), 0);
}

#[test]
fn what_waits_shows_while_it_waits_and_is_found() {
    let scene = begin(&format!(
        "upstream api {{ server {BEFORE}; keepalive 8; }} {}",
        server(
            "proxy_next_upstream off; proxy_read_timeout 60s; proxy_http_version 1.1; proxy_set_header Connection '';
             location / { proxy_pass http://api; }"
        )
    ));
    let backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerThen(20, Next::Hold));
    for _ in 0..20 {
        assert_eq!(scene.nginx.get("/"), 200);
        thread::sleep(Duration::from_millis(100));
    }
    let begun = Instant::now();
    let waiting: Vec<_> = (0..3).map(|_| hang(&scene)).collect();
    wait::until_true("the requests to be seen waiting", SOON * 3, || {
        scene.count("proxytrace_requests_unanswered", &[("address", BEFORE)]) >= 3
    });
    let record = scene.trace.next_among(&["unanswered"]);
    assert_eq!((&*record.address, &*record.upstream), (BEFORE, "api"), "{record:?}");
    let oldest =
        scene.agent.metrics().sum("proxytrace_oldest_unanswered_seconds", &[("proxy", scene.nginx.name())]);
    assert!(oldest > 1.0 && oldest < begun.elapsed().as_secs_f64() + 1.0, "{oldest}");
    scene.raised("no_response", BEFORE);
    backend.release();
    drop(waiting);
    assert_eq!(scene.nginx.get("/"), 200);
    scene.cleared("no_response");
    wait::until_true("nothing to wait", SOON, || scene.count("proxytrace_requests_unanswered", &[]) == 0);
}

fn order_unknown(scene: &Lookout) -> u64 {
    scene.agent.metrics().count("proxytrace_untracked_total", &[("why", "answer_order_unknown")])
}

#[test]
fn an_application_that_hangs_is_found_where_clients_leave_before_the_proxy_would() {
    let scene = begin(&format!(
        "upstream api {{ server {BEFORE}; keepalive 8; }} {}",
        server(
            "proxy_read_timeout 60s; proxy_http_version 1.1; proxy_set_header Connection '';
             location / { proxy_pass http://api; }"
        )
    ));
    let backend = Backend::start(&scene.netns, BEFORE, Manner::Answer);
    scene.gets(10, 200);
    backend.end();
    let _hanging = Backend::start(&scene.netns, BEFORE, Manner::HoldThenClose);
    scene.raised_while(SOON * 4, "no_response", BEFORE, || {
        let clients: Vec<_> = (0..8).map(|_| scene.nginx.begin("/")).collect();
        // On a busy host a look may have found an answer on its way: it is taken to have come a second later at most, and twice that is not late.
        thread::sleep(Duration::from_millis(4500));
        drop(clients);
    });
    assert_eq!(scene.count("proxytrace_connections_broken_total", &[]), 0, "clients left");
}

/// The set, when `trace` knows the configuration as well: until then it cannot tell what it means that a connection ends.
fn begin(http: &str) -> Lookout {
    known(Lookout::begin(http))
}

/// The same as soon as its configuration is known.
fn known(scene: Lookout) -> Lookout {
    thread::sleep(patient(Duration::from_millis(300)));
    scene
}

/// Asks until a request hangs, and gives its client.
fn hang(scene: &Lookout) -> std::os::unix::net::UnixStream {
    use std::io::Read as _;
    for _ in 0..100 {
        let mut client = scene.nginx.begin("/");
        client.set_read_timeout(Some(patient(Duration::from_millis(300)))).expect("a time limit");
        if client.read(&mut [0]).is_err() {
            return client;
        }
    }
    panic!("every request is answered")
}

#[test]
fn a_host_that_vanishes_behind_kept_connections_is_found_within_five_seconds() {
    let scene = begin(&format!(
        "upstream api {{ server {BEFORE}; keepalive 8; }} {}",
        server(
            "proxy_read_timeout 60s; proxy_http_version 1.1; proxy_set_header Connection '';
             location / { proxy_pass http://api; }"
        )
    ));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::Answer);
    for _ in 0..30 {
        assert_eq!(scene.nginx.get("/"), 200);
        thread::sleep(Duration::from_millis(50));
    }
    scene.netns.firewall("tcp dport 8080 drop");
    let vanished = Instant::now();
    let _client = scene.nginx.begin("/");
    scene.raised("upstream_down", "");
    scene.raised("black_hole", BEFORE);
    let took = vanished.elapsed();
    println!("black_hole {took:?} after the host vanished");
    assert!(took < patient(Duration::from_secs(5)), "{took:?}");
    assert!(scene.count("proxytrace_data_retransmits_total", &[("address", BEFORE)]) >= 3);
    assert_eq!(scene.count("proxytrace_connect_failures_total", &[]), 0, "no connect was made");
}
