//! Nothing grows with reloads, addresses and proxies that come and go, and what is forgotten was counted.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{Agent, Trace, command_of};
use proxytrace_tests::scale::{natural, scaled};
use proxytrace_tests::wait::{self, SOON};

/// What a process may take more at the end than after the first reloads, in KiB.
const MOST_GROWTH: u64 = 5 * 1024;

/// Reloads until everything has been done once.
const FIRST: u32 = 10;

const ATTEMPTS: &str = "proxytrace_connect_attempts_total";

/// 170 KB, which lead to an address that is declared and one that is not. Nobody listens at either.
fn large() -> String {
    let mut locations = "location /declared { proxy_pass http://127.0.0.1:8081; } \
                         location /other { proxy_pass http://127.0.0.1:$arg_port; }"
        .to_owned();
    for n in 0..2_000 {
        writeln!(
            locations,
            "location /some/of/the/paths/that/lead/to/backend/{n:04} {{ proxy_pass http://127.2.0.1:8080; }}"
        )
        .expect("a string takes everything");
    }
    server(&locations)
}

#[test]
fn reloads_take_no_memory_and_no_capacity_of_the_ledger_whoever_scrapes() {
    let reloads = natural(scaled(60), 2_000);
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &large());
    // Without housekeeping, two rows for each generation are more than fit.
    let arguments = ["--process", nginx.name(), "--table-size", "ledger=100"];
    let (scraped, unseen) = (Agent::start(&arguments), Agent::start(&arguments));
    let trace = Trace::start(&arguments);
    let proxy = ("proxy", nginx.name());
    let resident = || [scraped.pid(), unseen.pid(), trace.pid()].map(resident_kib);

    let mut begun = resident();
    let mut last = 0;
    for reload in 1..=reloads {
        assert_eq!((nginx.get("/declared"), nginx.get("/other?port=8082")), (502, 502));
        reload_unchanged(&nginx);
        let counted = scraped.metrics().count(ATTEMPTS, &[proxy]);
        assert!(
            (last..=u64::from(reload) * 2).contains(&counted),
            "{counted} attempts after {last}, {reload} reloads"
        );
        last = counted;
        if reload == FIRST {
            begun = resident();
        }
    }

    wait::for_a_tick();
    let ended = resident();
    println!("after {FIRST} reloads {begun:?} KiB, after {reloads} {ended:?} KiB");
    for (begun, ended) in begun.into_iter().zip(ended) {
        assert!(ended <= begun + MOST_GROWTH, "from {begun} KiB to {ended} KiB");
    }
    for agent in [&scraped, &unseen] {
        let count = |address: &str| agent.metrics().count(ATTEMPTS, &[proxy, ("address", address)]);
        for address in ["127.0.0.1:8081", "127.0.0.1:8082"] {
            wait::until_true("every attempt to be counted", SOON, || count(address) == u64::from(reloads));
        }
        assert_eq!(agent.metrics().count("proxytrace_untracked_total", &[]), 0);
    }
    assert_eq!(
        trace.stop().records.iter().filter(|record| record.kind == "connect").count() as u32,
        2 * reloads
    );
}

#[test]
fn what_the_workers_before_a_reload_counted_keeps_its_name() {
    let netns = Netns::new();
    let http = |upstream: &str| {
        format!("upstream {upstream} {{ server 127.0.0.1:8081; }} ")
            + &server(&format!("location / {{ proxy_pass http://{upstream}; }}"))
    };
    let nginx = Nginx::start(&netns, &http("name_0"));
    let agent = Agent::start(&["--process", nginx.name()]);
    let counted = |name: &str| {
        let metrics = agent.metrics();
        let count = |labels: &[_]| metrics.count(ATTEMPTS, &[&[("proxy", nginx.name())], labels].concat());
        (count(&[("upstream", name)]), count(&[]))
    };
    let reloads = 4;
    for reload in 0..=reloads {
        let name = format!("name_{reload}");
        assert_eq!(nginx.get("/"), 502);
        wait::until_true("the attempt to have its name", SOON, || counted(&name) == (1, reload + 1));
        if reload < reloads {
            let old = nginx.reload(&http(&format!("name_{}", reload + 1)));
            wait::until_true("the old workers to end", SOON, || {
                nginx.worker_pids().iter().all(|worker| !old.contains(worker))
            });
        }
    }
    for _ in 0..3 {
        wait::for_a_tick();
        for reload in 0..=reloads {
            assert_eq!(counted(&format!("name_{reload}")), (1, reloads + 1));
        }
    }
}

/// Twice what the kernel half asks for: after that a row can leave a ledger of which more than a quarter is full.
const IDLE: Duration = Duration::from_secs(20);

#[test]
fn a_row_that_leaves_a_full_ledger_loses_nothing_of_what_begins_there_meanwhile() {
    /// A quarter of the ledger, and so many that have to leave.
    const ADDRESSES: u16 = 24 + LEAVING;
    const LEAVING: u16 = 16;
    /// One proxy gets eight ninths of the ledger, 85 rows.
    const MORE: u16 = 85 - 24 - 1;
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &server("location / { proxy_pass http://127.0.0.1:$arg_port; }"));
    let agent = Agent::start(&["--process", nginx.name(), "--table-size", "ledger=96"]);
    let get = |port: u16| assert_eq!(nginx.get(&format!("/?port={port}")), 502);
    let ports = 9000..9000 + ADDRESSES;

    ports.clone().for_each(get);
    let idle = Instant::now() + IDLE;
    thread::sleep(idle - Instant::now());
    // Over the two seconds in which they leave.
    for port in ports.clone().take(LEAVING.into()) {
        get(port);
        thread::sleep(Duration::from_millis(130));
    }

    let all = u64::from(ADDRESSES + LEAVING);
    for _ in 0..2 {
        wait::until_true("every attempt to be counted", SOON, || agent.metrics().count(ATTEMPTS, &[]) == all);
        let metrics = agent.metrics();
        for port in ports.clone() {
            let times = 1 + u64::from(port < 9000 + LEAVING);
            let account = metrics.account(nginx.name(), &format!("127.0.0.1:{port}"));
            assert_eq!(
                (account.attempts, account.failures.get("refused")),
                (times, Some(&times)),
                "port {port}"
            );
        }
        wait::for_a_tick();
    }
    assert_eq!(agent.metrics().count("proxytrace_untracked_total", &[]), 0);
    // As many again fit, or the others would not have left.
    let more = 9500..9500 + MORE;
    more.clone().for_each(get);
    let all = all + u64::from(MORE);
    wait::until_true("the new ones to be counted", SOON, || agent.metrics().count(ATTEMPTS, &[]) == all);
    assert_eq!(agent.metrics().count("proxytrace_untracked_total", &[]), 0, "the ledger was never full");
}

#[test]
fn a_proxy_that_has_ended_has_no_routes_whoever_scrapes() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &large());
    let agent = Agent::start(&["--process", nginx.name()]);
    wait::until_true("routes", SOON, || agent.get("/routes").body.contains(nginx.name()));
    drop(nginx);
    wait::until_true("no routes", SOON, || agent.get("/routes").body == "[]");
}

#[test]
fn events_have_their_time_also_where_the_clocks_of_a_container_are_shifted() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &server("location / { proxy_pass http://127.0.0.1:8081; }"));
    let mut shifted = command_of("unshare");
    shifted.args(["--time", "--boottime", "100000", "--monotonic", "5000", "--fork", "--kill-child"]);
    shifted.arg(proxytrace_tests::proxytrace::binary());
    let trace = Trace::by(shifted, &["--process", nginx.name(), "--count", "1"]);

    let before = jiff::Timestamp::now();
    assert_eq!(nginx.get("/"), 502);
    let record = trace.next_of("connect");

    let time: jiff::Timestamp = record.time.expect("a time").parse().expect("a time");
    let late = time.duration_since(before).as_secs_f64();
    assert!((-0.5..5.0).contains(&late), "{late} s after the request");
    let _ = trace.end();
}

/// Returns when the old workers have ended. The file stays as it is: it may be read late.
fn reload_unchanged(nginx: &Nginx) {
    let old = nginx.worker_pids();
    nginx.signal(Signal::SIGHUP);
    wait::until_true("new workers instead of the old", SOON, || {
        let workers = nginx.worker_pids();
        !workers.is_empty() && workers.iter().all(|worker| !old.contains(worker))
    });
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
