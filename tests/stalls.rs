//! Nobody keeps it waiting: neither its clients, nor whoever should read its log, nor the process that reads configurations.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::unistd::pipe2;
use proxytrace_tests::child::{self, Captured, Guarded, as_pid};
use proxytrace_tests::client::{Client, How, Plan, Step};
use proxytrace_tests::http;
use proxytrace_tests::metrics::{Account, Metrics};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to, server};
use proxytrace_tests::proxytrace::{self, Agent};
use proxytrace_tests::scale::scaled;
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON, patient};

use crate::clients::CONNECTOR;
use crate::scene::counted;

/// Where nobody listens.
const ADDRESS: &str = "127.0.0.1:8081";

/// Health, readiness and signals.
const AT_ONCE: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn two_hundred_slow_clients_take_no_place_from_health_or_from_a_scraper() {
    let agent = Agent::start(&["--process", "nobody-at-all"]);
    let pages = "GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n".repeat(100);
    let health = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1000);
    let manners = [
        "",
        "GET /metrics HTTP/1.1\r\nHost:",
        "GET /healthz HTTP/1.1\r\nHost: test\r\nContent-Length: 1000000\r\n\r\n",
        &pages,
        &health,
    ];
    for manner in manners {
        let _clients: Vec<_> = (0..200)
            .map(|_| {
                let mut client = TcpStream::connect(("127.0.0.1", agent.port())).expect("connect");
                client.set_write_timeout(Some(Duration::from_millis(10))).expect("limit a write");
                // The agent may close it, or take no more of it.
                let _ = client.write_all(manner.as_bytes());
                client
            })
            .collect();
        answers_at_once(agent.port());
        assert_eq!(agent.get("/metrics").status, 200, "{manner:.60}");
    }
    ends_within_a_second(agent);
}

#[test]
fn a_request_that_is_too_long_is_refused_and_a_client_that_goes_on_asking_is_served() {
    let agent = Agent::start(&["--process", "nobody-at-all"]);
    let long = "x".repeat(100_000);
    let mut client = TcpStream::connect(("127.0.0.1", agent.port())).expect("connect");
    // The agent closes it in the middle.
    let _ = write!(client, "GET / HTTP/1.1\r\nHost: test\r\nX: {long}\r\n\r\n");
    let _ = client.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer);
    assert!(!answer.contains("200 OK"), "{answer}");

    let mut client = TcpStream::connect(("127.0.0.1", agent.port())).expect("connect");
    let asks = "GET /findings HTTP/1.1\r\nHost: test\r\n\r\n".repeat(4)
        + "GET /findings HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    client.write_all(asks.as_bytes()).expect("ask");
    let mut answers = String::new();
    client.read_to_string(&mut answers).expect("read the answers");
    assert_eq!(answers.matches("200 OK").count(), 5, "{answers}");
    agent.stop();
}

#[test]
fn slow_readers_of_a_large_page_keep_no_more_of_it_in_memory_than_the_cap() {
    const READERS: usize = 20;
    /// Of pages on their way; docs/security.md has it.
    const CAP: u64 = 64 << 20;
    let netns = Netns::new();
    // nginx sorts the locations of a server, which takes long where there are many.
    let long = "x".repeat(2000);
    let servers: String = (0..25)
        .map(|server_number| {
            let mut body = format!("server_name host-{server_number};");
            for n in 0..100 {
                write!(body, "location /{n}{long} {{ proxy_pass http://{ADDRESS}; }}").expect("a string");
            }
            server(&body)
        })
        .collect();
    let nginx = Nginx::start(&netns, &servers);
    let agent = Agent::start(&["--process", nginx.name()]);
    let page = wait::until("the routes", SOON * 2, || {
        let size = agent.get("/routes").body.len();
        (size > 100_000).then_some(size as u64)
    });
    let before = peak(agent.pid());

    let mut clients = Vec::new();
    for _ in 0..READERS {
        let mut client = TcpStream::connect(("127.0.0.1", agent.port())).expect("connect");
        client.set_read_timeout(Some(patient(SOON))).expect("limit a read");
        http::ask(&mut client, "/routes", &[]);
        // It has begun: the next client gets another rendering.
        let mut begin = [0; 15];
        client.read_exact(&mut begin).expect("read the status line");
        assert_eq!(&begin, b"HTTP/1.0 200 OK");
        clients.push(client);
    }
    answers_at_once(agent.port());
    let grown = peak(agent.pid()).saturating_sub(before);
    println!("{READERS} slow readers of {page} bytes: {grown} bytes more at the peak");
    assert!(page * READERS as u64 > CAP * 3 / 2, "{page} bytes are too few to prove it");
    // Beside the pages there is the one that is being rendered, in text and as what it is made of.
    assert!(grown < CAP + 3 * page, "{grown} bytes");

    // Those that were slowest had to go; the last one is served to its end.
    let mut last = clients.pop().expect("a client");
    let mut rest = Vec::new();
    last.read_to_end(&mut rest).expect("read the rest");
    assert!(rest.len() as u64 > page);
    ends_within_a_second(agent);
}

#[test]
fn twenty_scrapers_during_a_storm_lose_no_event() {
    const PROCESSES: u32 = 4;
    let netns = Netns::new();
    let each = scaled(12_500);
    let many: Vec<_> = (0..40).map(|n| format!("127.1.0.{}:9", n + 1)).collect();
    let mut steps = Step::each(&many, How::Blocking, 1);
    steps.extend(Step::each(&[ADDRESS], How::Blocking, each));
    let client = Client::start(CONNECTOR, &netns, &Plan { processes: PROCESSES, fork_every: 0, steps });
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name, "--max-addresses", "10000"]);

    let is_over = AtomicBool::new(false);
    let scrapes: usize = thread::scope(|scope| {
        let scraper = || {
            let mut count = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(agent.get("/metrics").status, 200);
                count += 1;
            }
            count
        };
        let scrapers: Vec<_> = (0..20).map(|_| scope.spawn(scraper)).collect();
        client.go();
        let finished = scope.spawn(|| client.finish());
        let mut times = Vec::new();
        while !finished.is_finished() {
            times.push(health(agent.port()));
        }
        // Whatever has come of it, the scrapers are not to go on.
        is_over.store(true, Ordering::Relaxed);
        let usual = median(times);
        println!("health and readiness took {usual:?}");
        assert!(usual < patient(AT_ONCE), "health and readiness took {usual:?}");
        scrapers.into_iter().map(|scraper| scraper.join().expect("a scraper")).sum()
    });

    let failures = u64::from(PROCESSES * each);
    let expected = Account {
        attempts: failures,
        failures: [("refused".to_owned(), failures)].into(),
        ..Account::default()
    };
    counted(&agent, &name, ADDRESS, &expected);
    let lost = agent.metrics().count("proxytrace_events_lost_total", &[]);
    println!("{scrapes} scrapes, {failures} failures, {lost} events lost");
    assert_eq!(lost, 0);
    agent.stop();
}

#[test]
fn an_agent_without_descriptors_left_answers_newcomers() {
    let agent = Agent::start(&["--process", "nobody-at-all"]);
    let pid = agent.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("read its descriptors").count();
    child::run(Command::new("prlimit").args([format!("--pid={pid}"), format!("--nofile={}", open + 6)]));
    let clients = (0..40).map(|_| TcpStream::connect(("127.0.0.1", agent.port())).expect("connect"));
    let _clients: Vec<_> = clients.collect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(agent.get(path).status, 200, "{path}");
    }
    ends_within_a_second(agent);
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_the_agent_nor_its_end() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    let (_unread, full) = full_pipe();
    let port = scratch::free_port();
    let mut agent = Guarded::spawn(
        proxytrace::command()
            .args(["-v", "agent", "--listen", &format!("127.0.0.1:{port}"), "--process", nginx.name()])
            .stdout(Stdio::null())
            .stderr(full),
    );
    wait::until_true("the agent to be ready", SOON, || {
        TcpStream::connect(("127.0.0.1", port)).is_ok() && get(port, "/readyz").status == 200
    });
    // A finding is a line of the log.
    for _ in 0..20 {
        assert_eq!(nginx.get("/"), 502);
    }
    wait::until_true("the finding and the counts", SOON, || {
        let metrics = Metrics::parse(&get(port, "/metrics").body);
        metrics.account(nginx.name(), ADDRESS).attempts == 20
            && metrics.sum("proxytrace_finding_active", &[("proxy", nginx.name())]) > 0.0
    });
    answers_at_once(port);

    let start = Instant::now();
    agent.signal(Signal::SIGTERM);
    let status = agent.wait(SOON);
    assert!(start.elapsed() < patient(SECOND), "{:?}", start.elapsed());
    println!("with a log that nobody reads it ended with {status} after {:?}", start.elapsed());
}

#[test]
fn a_trace_whose_output_nobody_reads_ends_within_a_second() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let (unread, full) = full_pipe();
        let mut trace = Guarded::spawn(
            proxytrace::command()
                .args(["trace", "--json", "--process", nginx.name()])
                .stdout(full)
                .stderr(Stdio::null()),
        );
        wait::until_true("it to wait for its reader", SOON, || {
            let stat = fs::read_to_string(format!("/proc/{}/wchan", trace.pid())).unwrap_or_default();
            stat.contains("pipe")
        });
        let start = Instant::now();
        trace.signal(signal);
        let status = trace.wait(SOON);
        assert!(start.elapsed() < patient(SECOND), "{signal}: {:?}", start.elapsed());
        assert_eq!(status.code(), Some(1), "what was to be shown was not");
        drop(unread);
    }
}

#[test]
fn when_the_process_that_reads_configurations_is_killed_the_agent_ends_and_says_so() {
    let mut agent = Guarded::spawn(
        proxytrace::command()
            .args(["agent", "--listen", &format!("127.0.0.1:{}", scratch::free_port())])
            .stderr(Stdio::piped()),
    );
    let mut stderr = Captured::from(agent.inner().stderr.take().expect("a pipe"));
    wait::until_true("the agent to run", SOON, || stderr.text().contains("system calls"));

    let start = Instant::now();
    kill(as_pid(reader(agent.pid())), Signal::SIGKILL).expect("kill the reader");
    let status = agent.wait(SOON);
    assert!(start.elapsed() < patient(SECOND), "{:?}", start.elapsed());
    assert_eq!(status.code(), Some(1));
    let said = stderr.whole();
    assert!(said.contains("the process that reads nginx's configurations has ended"), "{said}");
}

#[test]
fn a_process_that_reads_no_configuration_any_more_delays_nothing_but_names() {
    let netns = Netns::new();
    let first = Nginx::start(&netns, &proxy_to(ADDRESS, ""));
    let mut second = Nginx::prepare(Default::default(), &proxy_to(ADDRESS, ""));
    let agent = Agent::start(&["--process", first.name(), "--process", second.name()]);
    let names_ready = |name: &str| agent.metrics().count("proxytrace_names_ready", &[("proxy", name)]);
    assert_eq!(names_ready(first.name()), 1);
    assert_eq!(agent.get("/readyz").body, "ready\n");

    kill(as_pid(reader(agent.pid())), Signal::SIGSTOP).expect("stop the reader");
    second.launch(&netns);
    for nginx in [&first, &second] {
        assert_eq!(nginx.get("/"), 502);
    }
    wait::until_true("it to say whose names are missing", SOON, || {
        let ready = agent.get("/readyz");
        assert_eq!(ready.status, 200, "missing names leave it ready: {}", ready.body);
        ready.body.lines().any(|line| line == second.name())
    });
    assert_eq!((names_ready(first.name()), names_ready(second.name())), (1, 0));
    answers_at_once(agent.port());
    ends_within_a_second(agent);
}

/// Asks for health and readiness; gives how long both took.
#[track_caller]
fn health(port: u16) -> Duration {
    let start = Instant::now();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(port, path).status, 200, "{path}");
    }
    start.elapsed()
}

/// Health and readiness answer at once, not counting what others on this machine delay now and then.
#[track_caller]
fn answers_at_once(port: u16) {
    let took = median((0..9).map(|_| health(port)).collect());
    assert!(took < patient(AT_ONCE), "health and readiness took {took:?}");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[track_caller]
fn get(port: u16, path: &str) -> http::Response {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect to the agent");
    stream.set_read_timeout(Some(patient(SOON))).expect("limit the wait for the agent");
    http::ask(&mut stream, path, &[]);
    http::answer(&mut stream)
}

#[track_caller]
fn ends_within_a_second(agent: Agent) {
    let took = agent.stop();
    assert!(took < patient(SECOND), "its end took {took:?}");
}

/// A pipe that takes nothing more, and its other end.
fn full_pipe() -> (OwnedFd, Stdio) {
    let (unread, full) = pipe2(OFlag::O_CLOEXEC).expect("make a pipe");
    let mut file = File::from(full);
    // The kernel's usual size of a pipe.
    file.write_all(&[b'\n'; 65_536]).expect("fill a pipe");
    (unread, file.into())
}

/// The process that reads configurations for the agent `pid`.
#[track_caller]
fn reader(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("read its children");
    let children: Vec<_> = children.split_whitespace().map(str::to_owned).collect();
    assert_eq!(children.len(), 1, "{children:?}");
    children[0].parse().expect("a pid")
}

/// The most memory that it has had at once, in bytes.
#[track_caller]
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status of a process");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
    kib.expect("a peak").trim().parse::<u64>().expect("a number") << 10
}
