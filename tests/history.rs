//! What the agent remembers outlives it, takes bounded room, and nobody who reads it holds it up.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::client::{Client, How, Plan, Step};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, server};
use proxytrace_tests::proxytrace::{Agent, Record};
use proxytrace_tests::scale::{lasting, scaled};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON, patient};
use serde_json::Value;

use crate::clients::CONNECTOR;
use crate::lookout::{AFTER, BEFORE, api};
use crate::scene::agrees;

/// What an agent says at its socket.
fn status_of(agent: &Agent) -> Value {
    let response = agent.ask("/status");
    assert_eq!(response.status, 200, "{}", response.body);
    serde_json::from_str(&response.body).expect("JSON")
}

fn records_of(agent: &Agent) -> Vec<Record> {
    let response = agent.ask("/records");
    assert_eq!(response.status, 200, "{}", response.body);
    response.body.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

/// The outage: two users of the old workers are well, those of the new ones get errors.
fn bad_reload(nginx: &mut Nginx, agent: &Agent) {
    for _ in 0..12 {
        assert_eq!(nginx.get("/"), 200);
    }
    wait::for_a_tick();
    let old = [(); 2].map(|()| nginx.begin_half("/"));
    nginx.reload(&api(AFTER));
    for _ in 0..8 {
        assert_eq!(nginx.get("/"), 502);
    }
    for half in old {
        assert_eq!(half.finish().status, 200);
    }
    wait::until_true("misrouted to be found", SOON, || {
        let status = status_of(agent);
        status["findings"][0]["evidence"]["old_workers"]["of"] == 2
    });
    wait::for_a_tick();
}

/// What `status` says, in one line.
#[track_caller]
fn words_of_status(agent: &Agent) -> String {
    let output = agent.asked_by(&["status"]).output().expect("run proxytrace");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_was_is_known_after_the_agent_was_restarted_and_after_it_was_killed() {
    let (netns, state) = (Netns::new(), scratch::directory());
    let mut nginx = Nginx::start(&netns, &api(BEFORE));
    let backend = Backend::start(&netns, BEFORE, Manner::AnswerAndClose);
    let directory = state.path().join("state");
    let arguments =
        ["--process", nginx.name(), "--state", &directory.display().to_string()].map(str::to_owned);
    let start = || Agent::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());

    let agent = start();
    bad_reload(&mut nginx, &agent);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&directory.join("history.0"))), (0o750, 0o640));
    agent.stop();

    for end in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut agent = start();
        let words = words_of_status(&agent);
        let expected = [
            "1 thing is wrong",
            "misrouted: ",
            BEFORE,
            AFTER,
            "old workers: 0 of 2 failed",
            "with the reload at",
            "before it was restarted",
            "reloaded ",
        ];
        for part in expected {
            assert!(words.contains(part), "{part} is not in {words}");
        }
        let records = records_of(&agent);
        let position = |kind: &str| records.iter().position(|record| record.kind == kind);
        let (reload, failure) =
            (position("reload").expect("the reload"), position("connect").expect("a failure"));
        assert!(reload < failure && records[failure].address == AFTER, "{records:#?}");
        let minutes = agent.ask("/minutes").body;
        assert!(minutes.contains(r#""refused":8"#), "{minutes}");
        let mut trace = agent.asked_by(&["trace", "--since", "10m", "--until", "1ms"]);
        let text = String::from_utf8_lossy(&trace.output().expect("run proxytrace").stdout).into_owned();
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words} is not in {text}"));
        let order = ["-- before this command", "reload_accepted", "  refused  ", "summary of"];
        assert!(order.map(at).is_sorted() && text.contains("FINDING  misrouted: "), "{text}");
        agent.signal(end);
        agent.wait();
    }

    // What is wrong no more is not told again.
    let agent = start();
    nginx.reload(&api(BEFORE));
    assert_eq!(nginx.get("/"), 200);
    wait::until_true("nothing to be wrong", SOON, || status_of(&agent)["findings"] == serde_json::json!([]));
    agent.stop();
    let agent = start();
    assert_eq!(status_of(&agent)["findings"], serde_json::json!([]));
    // All that is remembered: what one agent raised and another cleared, and when each of them began.
    let mut trace = agent.asked_by(&["trace", "--until", "1ms"]);
    let text = String::from_utf8_lossy(&trace.output().expect("run proxytrace").stdout).into_owned();
    let raised = text.find("FINDING  misrouted").unwrap_or_else(|| panic!("{text}"));
    let cleared = text.find("CLEARED  misrouted").unwrap_or_else(|| panic!("{text}"));
    let began: Vec<_> = text.match_indices("an agent began:").map(|(place, _)| place).collect();
    assert!(raised < cleared && text.matches("CLEARED  misrouted").count() == 1, "{text}");
    assert!(began.iter().filter(|place| (raised..cleared).contains(*place)).count() == 3, "{text}");
    agent.stop();
    drop(backend);
}

/// Whoever starts it has ended: the agents before and after know the proxy by its master.
#[test]
fn what_stood_is_known_after_a_restart_also_of_an_nginx_that_went_into_the_background_meanwhile() {
    let (netns, state) = (Netns::new(), scratch::directory());
    let options = Options { daemon: true, ..Options::default() };
    let mut nginx = Nginx::prepare(options, &api(BEFORE));
    let _backend = Backend::start(&netns, BEFORE, Manner::AnswerAndClose);
    let arguments =
        ["--process", nginx.name(), "--state", &state.path().display().to_string()].map(str::to_owned);
    let start = || Agent::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut agent = start();
    nginx.launch(&netns);
    wait::until_true("nginx to be known", SOON, || status_of(&agent)["proxies"][0]["workers"] == 1);
    assert_eq!(
        status_of(&agent)["proxies"][0]["pid"],
        nginx.master_pid(),
        "the master, and no process that has ended"
    );
    bad_reload(&mut nginx, &agent);
    for end in [Signal::SIGKILL, Signal::SIGTERM] {
        agent.signal(end);
        agent.wait();
        agent = start();
        let words = words_of_status(&agent);
        for part in
            ["1 thing is wrong", "misrouted: ", "before it was restarted", " 1 worker; reloaded ", " down "]
        {
            assert!(words.contains(part), "{part} is not in {words}");
        }
    }
    agent.stop();
}

#[test]
fn of_failures_that_are_being_folded_an_agent_that_is_killed_loses_seconds() {
    const FAILURES: u64 = 300;
    let (netns, state) = (Netns::new(), scratch::directory());
    let nginx = Nginx::start(&netns, &api(AFTER));
    let arguments =
        ["--process", nginx.name(), "--state", &state.path().display().to_string()].map(str::to_owned);
    let start = || Agent::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let failures = |agent: &Agent| {
        let lines = agent.ask("/records").body;
        let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let connects = records.filter(|record| record["kind"] == "connect");
        connects.map(|record| record["times"].as_u64().unwrap_or(1)).sum::<u64>()
    };
    let mut agent = start();
    for _ in 0..FAILURES {
        assert_eq!(nginx.get("/"), 502);
    }
    wait::until_true("all to be remembered", SOON, || failures(&agent) == FAILURES);
    // What docs/protocol.md says, and a tick.
    thread::sleep(Duration::from_secs(16));
    for _ in 0..2 {
        agent.signal(Signal::SIGKILL);
        agent.wait();
        agent = start();
        assert_eq!(failures(&agent), FAILURES, "killed again before anything else is written: each once");
    }
    let sizes = fs::metadata(state.path().join("history.now")).expect("it is there").len();
    assert!(sizes < 300 << 10, "{sizes}");
    let minutes = agent.ask("/minutes").body;
    let refused = minutes.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let refused: u64 = refused.filter_map(|minute| minute["failures"]["refused"].as_u64()).sum();
    assert_eq!(refused, FAILURES, "{minutes}");
    agent.stop();
    let agent = start();
    assert_eq!(failures(&agent), FAILURES);
    agent.stop();
}

#[test]
fn a_second_agent_on_the_host_goes_on_without_the_files_of_the_first() {
    let state = scratch::directory();
    let arguments = ["--state", &state.path().display().to_string()].map(str::to_owned);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (first, second) = (Agent::start(&arguments), Agent::start(&arguments));
    assert!(!first.stderr().contains("another agent"), "{}", first.stderr());
    assert!(second.stderr().contains("another agent writes there"), "{}", second.stderr());
    second.stop();
    first.stop();
}

#[test]
fn damaged_files_are_no_obstacle() {
    let state = scratch::directory();
    let arguments = ["--state", &state.path().display().to_string()].map(str::to_owned);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Agent::start(&arguments).stop();
    for name in ["history.0", "history.1"] {
        let mut file =
            fs::OpenOptions::new().append(true).open(state.path().join(name)).expect("open a file");
        file.write_all(b"R {\"time\":\"2026-\nF \xff\xff\n\0\0\0").expect("damage it");
    }
    let agent = Agent::start(&arguments);
    wait::until_true("it to say so", SOON, || agent.stderr().contains("damaged"));
    assert_eq!(agent.ask("/status").status, 200);
    let headers = records_of(&agent).iter().filter(|record| record.kind == "header").count();
    assert_eq!(headers, 3, "the head of the answer, and the beginnings of two agents");
    agent.stop();
}

/// A client that follows.
fn follow(agent: &Agent) -> UnixStream {
    let mut stream = UnixStream::connect(agent.socket()).expect("connect to the agent");
    write!(stream, "GET /records?since=now&follow=1 HTTP/1.0\r\n\r\n").expect("ask");
    stream
}

/// What `/proc` says of an agent's memory, in KiB.
fn resident(agent: &Agent) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("read a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// How long a question takes at most, of some.
fn slowest(agent: &Agent) -> Duration {
    let ask = |_| {
        let start = Instant::now();
        assert_eq!(agent.get("/readyz").status, 200);
        start.elapsed()
    };
    (0..20).map(ask).max().expect("some")
}

#[test]
fn fifty_readers_of_which_one_stands_still_do_not_hold_up_the_agent() {
    const READERS: usize = 50;
    const PROCESSES: u32 = 4;
    let netns = Netns::new();
    let steps = Step::each(&["127.0.0.1:8080"], How::Blocking, scaled(10_000));
    let client = Client::start(CONNECTOR, &netns, &Plan { processes: PROCESSES, fork_every: 0, steps });
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name]);
    let stopped = follow(&agent);
    let readers: Vec<_> = (1..READERS).map(|_| Reader::start(follow(&agent))).collect();
    thread::sleep(Duration::from_millis(300));
    let before = resident(&agent);

    client.go();
    let truth = client.finish();
    agrees(&agent, &name, &truth);
    let latency = slowest(&agent);
    let (attempts, grown) = (truth.attempts(), resident(&agent).saturating_sub(before));
    println!("{attempts} failures, {READERS} readers: {latency:?} for /readyz, {grown} KiB more");
    assert!(latency < patient(Duration::from_millis(250)), "{latency:?}");
    assert!(grown < 16 << 10, "{before} KiB, and {grown} more");

    // Each gets everything, or learns how much it has missed; so does the one that stood still.
    let stopped = Reader::start(stopped);
    for reader in readers.iter().chain([&stopped]) {
        wait::until_true("a reader to know of everything", SOON * 2, || {
            let (records, lost) = reader.seen();
            records + lost >= attempts
        });
    }
    let (records, lost) = stopped.seen();
    let metrics = agent.metrics();
    assert_eq!(metrics.count("proxytrace_readers", &[("page", "records")]), READERS as u64);
    assert!(metrics.sum("proxytrace_records_missed_total", &[]) >= lost as f64);
    println!("the one that stood still: {records} records, {lost} missed");
    assert!(records > 0 && lost > 0, "{records} records, {lost} lost, of {attempts}");
    agent.stop();
}

/// Reads what an agent tells.
struct Reader(Arc<[AtomicU64; 2]>);

impl Reader {
    fn start(stream: UnixStream) -> Self {
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let seen = Arc::clone(&counts);
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let Ok(record) = serde_json::from_str::<Record>(&line) else { continue };
                match &*record.kind {
                    "connect" => seen[0].fetch_add(1, Relaxed),
                    "lost" => seen[1].fetch_add(record.count, Relaxed),
                    _ => 0,
                };
            }
        });
        Self(counts)
    }

    /// Connects, and records that were missed.
    fn seen(&self) -> (u64, u64) {
        (self.0[0].load(Relaxed), self.0[1].load(Relaxed))
    }
}

#[test]
fn after_a_storm_memory_is_bounded_and_the_first_failures_are_still_there() {
    const PROCESSES: u32 = 4;
    let netns = Netns::new();
    let ports: Vec<_> = (1..=40).map(|port| format!("127.0.0.1:{}", 20_000 + port)).collect();
    let addresses: Vec<_> = ports.iter().map(String::as_str).collect();
    let steps = Step::each(&addresses, How::Blocking, scaled(500));
    let client = Client::start(CONNECTOR, &netns, &Plan { processes: PROCESSES, fork_every: 0, steps });
    let name = client.name().to_owned();
    let state = scratch::directory();
    let directory = state.path().display().to_string();
    let agent = Agent::start(&["--process", &name, "--history", "1M", "--state", &directory]);
    let before = resident(&agent);
    client.go();
    let truth = client.finish();
    agrees(&agent, &name, &truth);
    let grown = resident(&agent).saturating_sub(before);
    let body = agent.ask("/records").body;
    let written: u64 = fs::read_dir(state.path())
        .expect("read a directory")
        .map(|entry| entry.expect("an entry").metadata().expect("its size").len())
        .sum();
    println!(
        "{} failures at {} addresses: {grown} KiB more, {} bytes told, {written} bytes written",
        truth.attempts(),
        addresses.len(),
        body.len()
    );
    assert!(body.len() < 1 << 20, "{} bytes", body.len());
    assert!(written <= 2 << 20, "{written} bytes");
    assert!(grown < 20 << 10, "{grown} KiB more");
    let metrics = agent.metrics();
    let value = |name| metrics.sum(name, &[]);
    let (bytes, capacity) = (value("proxytrace_history_bytes"), value("proxytrace_history_capacity_bytes"));
    assert!(bytes > 10_000.0 && bytes <= capacity && capacity == f64::from(1 << 20), "{bytes} {capacity}");
    let oldest = value("proxytrace_history_oldest_timestamp_seconds");
    let began = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    assert!((0.0..3600.0).contains(&(began.as_secs_f64() - oldest)), "{oldest}");
    assert!(value("proxytrace_history_unwritten_total") < 1.0, "{}", agent.stderr());
    let records = records_of(&agent);
    for address in addresses {
        let first = records.iter().find(|record| record.kind == "connect" && record.address == address);
        assert!(first.is_some(), "no failure at {address}");
    }
    agent.stop();
}

/// For some seconds, or with `PROXYTRACE_TEST_LONG=1` for ten minutes.
#[test]
fn a_storm_that_goes_on_and_on_takes_no_more_memory_and_its_first_failures_stay() {
    const PLACES: u16 = 40;
    const HISTORY: u64 = 1 << 20;
    let length = lasting(Duration::from_secs(12), Duration::from_secs(600));
    let (netns, state) = (Netns::new(), scratch::directory());
    let place = |n: u16| format!("location /{n}/ {{ proxy_pass http://127.0.0.1:{}; }} ", 20_000 + n);
    let dead = server(&(1..=PLACES).map(place).collect::<String>());
    let nginx = Nginx::start(&netns, &server("return 200;"));
    let directory = state.path().display().to_string();
    let options = ["--process", nginx.name(), "--history", "1M", "--state", &directory].map(str::to_owned);
    let start = || Agent::start(&options.iter().map(String::as_str).collect::<Vec<_>>());
    let mut agent = start();
    assert_eq!(nginx.get("/"), 200);
    wait::for_a_tick();
    nginx.reload(&dead);

    let (begun, mut failures, mut early) = (Instant::now(), 0, None);
    let written = || {
        let files = fs::read_dir(state.path()).expect("read a directory");
        files.map(|file| file.expect("a file").metadata().expect("its size").len()).sum::<u64>()
    };
    while begun.elapsed() < length {
        for n in 1..=PLACES {
            assert_eq!(nginx.get(&format!("/{n}/")), 502);
            failures += 1;
        }
        // Others need the processors as well.
        thread::sleep(Duration::from_millis(20));
        if begun.elapsed() > length / 4 {
            early.get_or_insert_with(|| resident(&agent));
        }
        assert!(written() <= 2 * HISTORY + (300 << 10), "{} bytes", written());
    }
    let (early, late) = (early.expect("it has gone on"), resident(&agent));
    println!("{failures} failures in {length:?}: {early} KiB became {late} KiB, {} bytes written", written());
    assert!(late < early + (6 << 10), "{early} KiB became {late} KiB");

    let remembered = |agent: &Agent| {
        let body = agent.ask("/records").body;
        body.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>()
    };
    let is_connect = |record: &&Value| record["kind"] == "connect";
    let times = |record: &Value| record["times"].as_u64().unwrap_or(1);
    let sum = |records: &[Value]| records.iter().filter(is_connect).map(times).sum::<u64>();
    wait::until_true("all to be remembered", SOON, || sum(&remembered(&agent)) == failures);
    // The last of what is folded is written by then, see docs/protocol.md.
    thread::sleep(Duration::from_secs(6));
    for _ in 0..2 {
        let records = remembered(&agent);
        assert_eq!(sum(&records), failures);
        let reload = records.iter().find(|record| record["kind"] == "reload").expect("the reload");
        let time = |record: &Value| record["time"].as_str().expect("a time").parse().expect("a time");
        let at: jiff::Timestamp = time(reload);
        for n in 1..=PLACES {
            let address = format!("127.0.0.1:{}", 20_000 + n);
            let first = records.iter().filter(is_connect).find(|record| record["address"] == *address);
            let first = first.unwrap_or_else(|| panic!("no failure at {address}"));
            let after = time(first).duration_since(at);
            assert!(after.as_secs_f64() < patient(SOON).as_secs_f64() && times(first) == 1, "{first}");
        }
        agent.signal(Signal::SIGKILL);
        agent.wait();
        agent = start();
    }
    agent.stop();
}

#[test]
fn whoever_follows_gets_what_was_and_what_comes_once() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &api(AFTER));
    let agent = Agent::start(&["--process", nginx.name()]);
    for _ in 0..3 {
        assert_eq!(nginx.get("/"), 502);
    }
    wait::until_true("the failures to be remembered", SOON, || {
        records_of(&agent).iter().filter(|record| record.kind == "connect").count() == 3
    });
    let mut stream = UnixStream::connect(agent.socket()).expect("connect to the agent");
    stream.set_read_timeout(Some(patient(SOON))).expect("limit the wait");
    write!(stream, "GET /records?follow=1 HTTP/1.1\r\nhost: test\r\n\r\n").expect("ask");
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let mut next = || {
        let records = lines.by_ref().filter_map(|line| serde_json::from_str::<Record>(&line).ok());
        records.into_iter().find(|record| record.kind == "connect").expect("a record")
    };
    let past: Vec<_> = (0..3).map(|_| next()).collect();
    assert_eq!(nginx.get("/"), 502);
    let live = next();
    assert!(past.iter().all(|record| record.time < live.time), "{past:#?} {live:#?}");
    agent.stop();
}

#[test]
fn an_agent_that_speaks_otherwise_is_not_asked() {
    let directory = scratch::directory();
    let socket = directory.path().join("agent.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("listen");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nproxytrace-protocol: 9\r\n\r\nalive\n");
        }
    });
    let mut command: Command = proxytrace_tests::proxytrace::command();
    let output = command.args(["status", "--process", "nobody-at-all"]).arg("--socket").arg(&socket).output();
    let output = output.expect("run proxytrace");
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(output.status.code(), Some(0), "{stdout} {stderr}");
    assert!(stderr.contains("speaks protocol 9") && stderr.contains("tracing"), "{stderr}");
    assert!(stdout.contains("no agent was asked"), "{stdout}");
}
