//! Reloads and workers: what the proxy took and what it did not, and who crashed.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::as_pid;
use proxytrace_tests::metrics::Account;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, module, proxy_to, server};
use proxytrace_tests::proxytrace::{Record, Trace};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON, patient};
use serde_json::{Value, json};

use crate::scene::Watch;

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";
/// nginx reads it and refuses.
const BROKEN: &str = "no_such_directive on;";

#[test]
fn an_accepted_reload_is_reported_with_its_new_and_its_old_workers() {
    let (_netns, nginx, watch) = failing(2);
    let old = nginx.reload(&proxy_to(ADDRESS, ""));
    let new = nginx.worker_pids();

    let reload = watch.trace.next_among(LIFECYCLE);
    assert_eq!((&*reload.kind, &*reload.result), ("reload", "accepted"), "before all else: {reload:?}");
    assert_eq!((&*reload.proxy, reload.pid, reload.generation), (nginx.name(), nginx.master_pid(), 1));
    for _ in 0..2 {
        let started = watch.trace.next_among(LIFECYCLE);
        assert_eq!((&*started.kind, started.generation), ("worker_started", 1), "{started:?}");
        assert!(new.contains(&started.pid), "{started:?} is none of {new:?}");
    }
    for _ in 0..2 {
        let exited = watch.trace.next_among(LIFECYCLE);
        assert_eq!(
            (&*exited.kind, exited.generation, exited.signal, exited.code),
            ("worker_exited", 0, None, Some(0))
        );
        assert!(old.contains(&exited.pid), "{exited:?} is none of {old:?}");
    }
    counted(&watch, &nginx, &Counts { generation: 1, accepted: 1, rejected: 0, crashes: 0 });
    let metrics = watch.agent.metrics();
    let time = metrics.sum("proxytrace_last_reload_timestamp_seconds", &[("proxy", nginx.name())]);
    let now = jiff::Timestamp::now().as_duration().as_secs_f64();
    assert!((now - 60.0..=now + 1.0).contains(&time), "{time} is not just before {now}");
    watch.end();
}

#[test]
fn a_rejected_reload_is_reported_within_a_second_and_changes_no_generation() {
    let (_netns, nginx, watch) = failing(1);
    nginx.configure(BROKEN);
    for n in 1..=2 {
        let asked = Instant::now();
        nginx.signal(Signal::SIGHUP);
        let reload = watch.trace.next_among(LIFECYCLE);
        let took = asked.elapsed();
        assert_eq!(
            (&*reload.kind, &*reload.result, reload.generation),
            ("reload", "rejected", 0),
            "{reload:?}"
        );
        assert_eq!(reload.pid, nginx.master_pid());
        assert!(took < patient(Duration::from_secs(1)), "{took:?}");
        nginx.says("unknown directive");
        counted(&watch, &nginx, &Counts { generation: 0, accepted: 0, rejected: n, crashes: 0 });
    }

    // Who takes the place of a crashed worker runs the previous configuration.
    let crashed = nginx.worker_pids()[0];
    kill(as_pid(crashed), Signal::SIGKILL).expect("kill the worker");
    let exited = watch.trace.next_among(LIFECYCLE);
    assert_eq!(
        (&*exited.kind, exited.pid, exited.signal, exited.code),
        ("worker_exited", crashed, Some(9), None)
    );
    let started = watch.trace.next_among(LIFECYCLE);
    assert_eq!((&*started.kind, started.generation), ("worker_started", 0), "{started:?}");
    assert_eq!(nginx.get("/"), 502);
    let record = watch.trace.next_of("connect");
    assert_eq!((record.pid, record.generation), (started.pid, 0));
    counted(&watch, &nginx, &Counts { generation: 0, accepted: 0, rejected: 2, crashes: 1 });

    // What is fixed is accepted.
    nginx.reload(&proxy_to(ADDRESS, ""));
    let reload = watch.trace.next_among(LIFECYCLE);
    assert_eq!((&*reload.kind, &*reload.result, reload.generation), ("reload", "accepted", 1), "{reload:?}");
    counted(&watch, &nginx, &Counts { generation: 1, accepted: 1, rejected: 2, crashes: 1 });
    watch.end();
}

#[test]
fn many_reloads_upon_each_other_are_counted_as_nginx_itself_says() {
    let (_netns, nginx, watch) = failing(2);
    let said = |words: &str| nginx.error_log().matches(words).count() as u64;
    let counts = || (said(": reconfiguring"), said("[emerg]"));
    // Signals that come while one is pending are one: on a slow machine it takes more of them.
    let is_enough = |(asked, rejected): (u64, u64)| asked > 15 && rejected > 3;
    for n in (0..600).take_while(|n| *n < 60 || !is_enough(counts())) {
        // Sometimes the next comes while nginx still is at the one before, or ends its old workers.
        nginx.configure(if n % 3 == 1 { BROKEN } else { "" });
        nginx.signal(Signal::SIGHUP);
        std::thread::sleep(Duration::from_millis(n * 37 % 23 * 5));
    }
    nginx.reload(&proxy_to(ADDRESS, ""));

    // A file that nginx reads while it is written is broken as well.
    let (asked, rejected) = counts();
    assert!(is_enough((asked, rejected)), "asked {asked}, rejected {rejected}");
    let accepted = asked - rejected;
    counted(&watch, &nginx, &Counts { generation: accepted, accepted, rejected, crashes: 0 });

    let mut reported = (0, 0);
    while reported.0 + reported.1 < asked {
        match &*watch.trace.next_among(&["reload"]).result {
            "accepted" => reported.0 += 1,
            _ => reported.1 += 1,
        }
    }
    assert_eq!(reported, (accepted, rejected));
    assert_eq!(nginx.get("/"), 502);
    assert_eq!(u64::from(watch.trace.next_of("connect").generation), accepted);
    watch.end();
}

#[test]
fn a_crash_is_distinguished_from_an_orderly_end() {
    let (_netns, nginx, watch) = failing(1);
    for (signal, crashes) in [(Signal::SIGSEGV, 1), (Signal::SIGKILL, 2)] {
        let worker = nginx.worker_pids()[0];
        kill(as_pid(worker), signal).expect("signal the worker");
        let exited = watch.trace.next_among(LIFECYCLE);
        assert_eq!(
            (&*exited.kind, exited.pid, exited.signal),
            ("worker_exited", worker, Some(signal as i32))
        );
        assert_eq!(watch.trace.next_among(LIFECYCLE).kind, "worker_started");
        counted(&watch, &nginx, &Counts { generation: 0, accepted: 0, rejected: 0, crashes });
    }
    let seen_by_people = Trace::start(&["--process", nginx.name()]);

    // A worker that its master did not ask to go, but that goes in an orderly way; and the end of all.
    let worker = nginx.worker_pids()[0];
    kill(as_pid(worker), Signal::SIGTERM).expect("signal the worker");
    let orderly = |record: &Record| (record.kind.clone(), record.signal, record.code);
    let exit = ("worker_exited".to_owned(), None, Some(0));
    assert_eq!(orderly(&watch.trace.next_among(LIFECYCLE)), exit);
    let started = watch.trace.next_among(LIFECYCLE);
    assert_eq!(started.kind, "worker_started");
    nginx.signal(Signal::SIGTERM);
    let last = watch.trace.next_among(LIFECYCLE);
    assert_eq!((orderly(&last), last.pid), (exit, started.pid));

    let shown: Vec<_> = seen_by_people.stop().records.into_iter().map(|record| record.kind).collect();
    assert!(shown.is_empty(), "the routine is not shown: {shown:?}");
    watch.end();
}

#[test]
fn both_generations_are_right_to_the_attempt_while_old_workers_go_on() {
    const OLD: u64 = 3;
    const NEW: u64 = 4;
    let stage = Stage::new(Family::V4);
    let (holding, next, moved) =
        (stage.upstream_address(8080), stage.upstream_address(8081), stage.upstream_address(8082));
    let upstream = Backend::start(&stage.upstream, &holding, Manner::HoldThenClose);
    let nginx = Nginx::start(
        &stage.proxy,
        &format!(
            "upstream api {{ server {holding} max_fails=0; server {next} max_fails=0 backup; }} {}",
            server("location / { proxy_pass http://api; proxy_next_upstream error; }")
        ),
    );
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    let clients: Vec<_> = (0..OLD).map(|_| nginx.begin("/")).collect();
    for _ in 0..OLD {
        assert_eq!(watch.trace.next_of("connect").outcome, "established");
    }

    let old = nginx.reload(&proxy_to(&moved, ""));
    // One that is rejected while the old workers still serve changes nothing.
    nginx.configure(BROKEN);
    nginx.signal(Signal::SIGHUP);
    nginx.says("unknown directive");
    for _ in 0..NEW {
        assert_eq!(nginx.get("/"), 502);
        let record = watch.trace.next_of("connect");
        assert_eq!((&*record.address, &*record.outcome, record.generation), (&*moved, "refused", 1));
        assert!(!old.contains(&record.pid), "{record:?}");
    }
    upstream.release();
    for mut client in clients {
        assert_eq!(proxytrace_tests::http::answer(&mut client).status, 502);
    }
    let (mut broken, mut refused) = (0, 0);
    for _ in 0..2 * OLD {
        let record = watch.trace.next_about_connections();
        assert_eq!(record.generation, 0, "{record:?}");
        assert!(old.contains(&record.pid), "{record:?}");
        match &*record.kind {
            "broken" => broken += 1,
            _ => refused += u64::from(record.outcome == "refused" && record.address == next),
        }
    }
    assert_eq!((broken, refused), (OLD, OLD));
    counted(&watch, &nginx, &Counts { generation: 1, accepted: 1, rejected: 1, crashes: 0 });
    watch.end();
}

#[test]
fn old_workers_go_on_connecting_well_while_new_ones_fail() {
    const WELL: &str = "127.0.0.1:8080";
    const EACH: u64 = 5;
    let http = |address: &str| {
        let location = "location / { proxy_pass http://api; }";
        format!("upstream api {{ server {address} max_fails=0; }} {}", server(location))
    };
    let netns = Netns::new();
    let backend = Backend::start(&netns, WELL, Manner::AnswerAndClose);
    let nginx = Nginx::start(&netns, &http(WELL));
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    let saw = |generation, address: &str, outcome: &str, workers: &[u32]| {
        let record = watch.trace.next_of("connect");
        let reported = (record.generation, &*record.upstream, &*record.address, &*record.outcome);
        assert_eq!(reported, (generation, "api", address, outcome), "{record:?}");
        assert!(workers.contains(&record.pid), "{record:?} is by none of {workers:?}");
    };
    let workers = nginx.worker_pids();
    for _ in 0..12 {
        assert_eq!(nginx.get("/"), 200);
        saw(0, WELL, "established", &workers);
    }
    let halves: Vec<_> = (0..=EACH).map(|_| nginx.begin_half("/")).collect();
    // What came before the reload is known before it comes.
    wait::for_a_tick();

    let old = nginx.reload(&http(ADDRESS));
    let new: Vec<_> = nginx.worker_pids().into_iter().filter(|pid| !old.contains(pid)).collect();
    let mut halves = halves.into_iter();
    for half in halves.by_ref().take(EACH as usize) {
        assert_eq!(nginx.get("/"), 502);
        saw(1, ADDRESS, "refused", &new);
        assert_eq!(half.finish().status, 200);
        saw(0, WELL, "established", &old);
    }
    // In the end the old workers have one failure of their own.
    drop(backend);
    for half in halves {
        assert_eq!(half.finish().status, 502);
        saw(0, WELL, "refused", &old);
    }

    let account = |address: &str, established, refused: u64| {
        let failures = [("refused".to_owned(), refused)].into();
        let attempts = established + refused;
        watch.counted(address, &Account { attempts, established, failures, in_flight: 0 });
    };
    account(WELL, 12 + EACH, 1);
    account(ADDRESS, 0, EACH);
    let expected = json!({
        "failed": EACH, "of": EACH, "causes": { "refused": EACH }, "from": [WELL], "generation": 1,
        "old_workers": { "failed": 1, "of": EACH + 1 },
    });
    let mut evidence = Value::Null;
    let is_reached = wait::within(SOON, || {
        let page: Value = serde_json::from_str(&watch.agent.get("/findings").body).expect("JSON");
        evidence = page[0]["evidence"].clone();
        evidence.as_object_mut()?.remove("reload")?;
        (evidence == expected && page[0]["finding"] == "misrouted").then_some(())
    });
    assert!(is_reached.is_some(), "{evidence} and not {expected}");
    counted(&watch, &nginx, &Counts { generation: 1, accepted: 1, rejected: 0, crashes: 0 });
    watch.end();
}

#[test]
fn a_binary_upgrade_is_an_accepted_reload_by_the_new_master() {
    let netns = Netns::new();
    let options = Options { daemon: true, ..Options::default() };
    let mut nginx = Nginx::prepare(options, &proxy_to(ADDRESS, ""));
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    // Going into the background is a fork as well, and no worker.
    nginx.launch(&netns);
    let started = watch.trace.next_among(LIFECYCLE);
    assert_eq!((&*started.kind, started.pid), ("worker_started", nginx.worker_pids()[0]));

    let old_worker = started.pid;
    let old_master = nginx.upgrade();
    let (new_master, worker) = (nginx.master_pid(), nginx.worker_pids()[0]);
    let next = || {
        let Record { kind, pid, generation, .. } = watch.trace.next_among(LIFECYCLE);
        (kind, pid, generation)
    };
    // For a moment the new master is a process of the old one's, like a worker.
    assert_eq!(next(), ("worker_started".to_owned(), new_master, 0));
    assert_eq!(next(), ("reload".to_owned(), new_master, 1));
    assert_eq!(next(), ("worker_started".to_owned(), worker, 1));
    assert_eq!(next(), ("worker_exited".to_owned(), old_worker, 0));

    kill(as_pid(old_master), Signal::SIGQUIT).expect("end the old master");
    wait::until_true("the old master to end", SOON, || kill(as_pid(old_master), None).is_err());
    kill(as_pid(worker), Signal::SIGKILL).expect("kill the worker");
    assert_eq!(next(), ("worker_exited".to_owned(), worker, 1), "a master's end is no worker's");
    counted(&watch, &nginx, &Counts { generation: 1, accepted: 1, rejected: 0, crashes: 1 });
    watch.end();
}

#[test]
fn a_refused_binary_upgrade_is_a_rejected_reload() {
    let netns = Netns::new();
    let options = Options { daemon: true, ..Options::default() };
    let nginx = Nginx::with(options, &netns, &proxy_to(ADDRESS, ""));
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    let (old_master, old_worker) = (nginx.master_pid(), nginx.worker_pids()[0]);

    nginx.configure(BROKEN);
    kill(as_pid(old_master), Signal::SIGUSR2).expect("ask for an upgrade");
    let started = watch.trace.next_among(LIFECYCLE);
    assert_eq!((&*started.kind, started.generation), ("worker_started", 0), "{started:?}");
    let reload = watch.trace.next_among(LIFECYCLE);
    let reported = (&*reload.kind, &*reload.result, reload.pid, reload.generation);
    assert_eq!(reported, ("reload", "rejected", started.pid, 0), "by the new master: {reload:?}");
    nginx.says("unknown directive");
    counted(&watch, &nginx, &Counts { generation: 0, accepted: 0, rejected: 1, crashes: 0 });

    // The worker still is of the old generation, and what is right is accepted.
    kill(as_pid(old_worker), Signal::SIGKILL).expect("kill the worker");
    let exited = watch.trace.next_among(LIFECYCLE);
    assert_eq!(
        (&*exited.kind, exited.pid, exited.generation),
        ("worker_exited", old_worker, 0),
        "{exited:?}"
    );
    assert_eq!(watch.trace.next_among(LIFECYCLE).kind, "worker_started");
    wait::until_true("a worker to be there again", SOON, || nginx.worker_pids().len() == 1);
    nginx.configure(&proxy_to(ADDRESS, ""));
    nginx.upgrade();
    let next = || watch.trace.next_among(LIFECYCLE);
    assert_eq!(next().kind, "worker_started");
    let reload = next();
    assert_eq!((&*reload.kind, &*reload.result, reload.generation), ("reload", "accepted", 1), "{reload:?}");
    counted(&watch, &nginx, &Counts { generation: 1, accepted: 1, rejected: 1, crashes: 1 });
    kill(as_pid(old_master), Signal::SIGQUIT).expect("end the old master");
    watch.end();
}

#[test]
fn a_worker_that_starts_helpers_stays_a_worker() {
    let netns = Netns::new();
    let load =
        ["ndk_http_module", "ngx_http_lua_module"].map(module).map(|path| format!("load_module {path};\n"));
    let options = Options { main: load.concat(), ..Options::default() };
    let helps =
        r#"content_by_lua_block { io.popen("true"):close() io.popen("sleep 30 &"):close() ngx.say("ok") }"#;
    let http =
        server(&format!("location / {{ proxy_pass http://{ADDRESS}; }} location /helps {{ {helps} }}"));
    let nginx = Nginx::with(options, &netns, &http);
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    for found_running in [true, false] {
        let worker = nginx.worker_pids()[0];
        for _ in 0..2 {
            assert_eq!(nginx.get("/helps"), 200, "{}", nginx.error_log());
        }
        let workers = watch.agent.metrics().count("proxytrace_workers", &[("proxy", nginx.name())]);
        assert_eq!(workers, 1, "found running: {found_running}");
        // Were its helpers workers, they would be reported before.
        kill(as_pid(worker), Signal::SIGKILL).expect("kill the worker");
        let exited = watch.trace.next_among(LIFECYCLE);
        assert_eq!(
            (&*exited.kind, exited.pid, exited.signal),
            ("worker_exited", worker, Some(9)),
            "{exited:?}"
        );
        let started = watch.trace.next_among(LIFECYCLE);
        assert_eq!((&*started.kind, started.generation), ("worker_started", 0), "{started:?}");
        wait::until_true("a new worker", SOON, || nginx.worker_pids() == [started.pid]);
    }
    // A signal to its whole group asks for a reload of the master alone.
    assert_eq!(nginx.get("/helps"), 200);
    kill(as_pid(nginx.worker_pids()[0]), Signal::SIGHUP).expect("signal the worker");
    nginx.reload(&http);
    counted(&watch, &nginx, &Counts { generation: 1, accepted: 1, rejected: 0, crashes: 2 });
    watch.end();
}

/// The kinds of records that these stories are about.
const LIFECYCLE: &[&str] = &["reload", "worker_started", "worker_exited"];

/// What the agent counts of a proxy.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    generation: u64,
    accepted: u64,
    rejected: u64,
    crashes: u64,
}

/// The agent comes to count just this.
#[track_caller]
fn counted(watch: &Watch, nginx: &Nginx, expected: &Counts) {
    let counts = || {
        let metrics = watch.agent.metrics();
        let count = |name: &str, labels: &[(&str, &str)]| {
            metrics.count(name, &[&[("proxy", nginx.name())], labels].concat())
        };
        Counts {
            generation: count("proxytrace_config_generation", &[]),
            accepted: count("proxytrace_reloads_total", &[("result", "accepted")]),
            rejected: count("proxytrace_reloads_total", &[("result", "rejected")]),
            crashes: count("proxytrace_worker_crashes_total", &[]),
        }
    };
    let is_reached = wait::within(SOON, || (counts() == *expected).then_some(()));
    assert!(is_reached.is_some(), "{:?} and not {expected:?}", counts());
}

/// nginx in front of a port where nobody listens, watched. The agent knows of no reload and no crash yet, which are 0.
fn failing(workers: usize) -> (Netns, Nginx, Watch) {
    let netns = Netns::new();
    let nginx = Nginx::with(Options { workers, ..Options::default() }, &netns, &proxy_to(ADDRESS, ""));
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    let metrics = watch.agent.metrics();
    for name in [
        "proxytrace_reloads_total",
        "proxytrace_worker_crashes_total",
        "proxytrace_last_reload_timestamp_seconds",
    ] {
        assert!(metrics.has(name, &[("proxy", nginx.name())]), "{name}");
    }
    counted(&watch, &nginx, &Counts { generation: 0, accepted: 0, rejected: 0, crashes: 0 });
    (netns, nginx, watch)
}
