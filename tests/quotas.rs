//! Tables that others fill: a proxy of somebody else is counted to the attempt all the same, and so is who fills them.

use proxytrace_tests::backend::full_backlog;
use proxytrace_tests::client::{Client, How, Plan};
use proxytrace_tests::metrics::Metrics;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON};

use crate::clients::CONNECTOR;
use crate::scene::{Expected, counted};

const NOBODY: u32 = 65_534;

/// What stands for the addresses that had no capacity.
const OTHER: &str = "~other";

const CAPACITY: u32 = 16;

#[test]
fn addresses_of_another_user_take_no_capacity_from_a_proxy() {
    let netns = Netns::new();
    let many: Vec<_> = (1..=3 * CAPACITY).map(|n| format!("127.10.0.{n}:9")).collect();
    let hostile = Client::start_as(NOBODY, CONNECTOR, &netns, &Plan::simple(&many, How::Blocking, 2));
    let honest = Honest::start(&netns);
    let (nginx, name) = (honest.nginx.name(), shown(&hostile));
    let processes = ["--process", nginx, "--process", hostile.name()];
    let agent = Agent::start(&[&processes[..], &["--table-size", &format!("ledger={CAPACITY}")]].concat());
    let trace = Trace::start(&[&processes[..], &["--table-size", &format!("ledger={CAPACITY}")]].concat());

    hostile.go();
    let truth = hostile.finish();
    assert_eq!(truth.attempts(), 6 * u64::from(CAPACITY));
    honest.fails_at_each(&agent, 3);

    let metrics = agent.metrics();
    let of_hostile = [("proxy", name.as_str())];
    assert_eq!(
        metrics.count("proxytrace_connect_attempts_total", &of_hostile),
        truth.attempts(),
        "none is missing"
    );
    assert_eq!(metrics.count("proxytrace_connect_failures_total", &of_hostile), truth.attempts());
    let own = metrics.addresses(&name).len() as u64 - 1;
    assert!(own <= u64::from(CAPACITY) / 2, "{own} rows");
    let other = metrics.account(&name, OTHER);
    assert_eq!(
        other,
        Expected::at_once("refused", 111).account(truth.attempts() - 2 * own),
        "the rest, and in balance"
    );
    let labels = [("proxy", name.as_str()), ("upstream", OTHER), ("address", OTHER)];
    assert!(metrics.has("proxytrace_connect_attempts_total", &labels));
    let why = |why| metrics.count("proxytrace_untracked_total", &[("why", why)]);
    assert_eq!(
        (why("ledger_full"), metrics.count("proxytrace_untracked_total", &[])),
        (other.attempts, other.attempts)
    );
    assert!(filled(&metrics, "ledger") < f64::from(CAPACITY), "a table never fills up");

    let ended = trace.stop();
    let recorded = ended.records.iter().filter(|record| record.kind == "connect" && record.proxy == name);
    assert!(
        recorded.clone().all(|record| record.address.starts_with("127.10.")),
        "records have the address itself"
    );
    assert_eq!(recorded.count() as u64, truth.attempts());
    assert!(ended.stderr.contains("--table-size ledger=N"), "{}", ended.stderr);
}

#[test]
fn attempts_and_connections_of_another_user_take_no_capacity_from_a_proxy() {
    let netns = Netns::new();
    netns.firewall("tcp dport 8099 drop");
    let hostile = Client::start_as(
        NOBODY,
        CONNECTOR,
        &netns,
        &Plan::simple(&["127.0.0.1:8099"], How::Held, 4 * CAPACITY),
    );
    let honest = Honest::start(&netns);
    let (nginx, name) = (honest.nginx.name(), shown(&hostile));
    let agent = Agent::start(&[
        "--process",
        nginx,
        "--process",
        hostile.name(),
        "--table-size",
        &format!("attempts={CAPACITY}"),
    ]);

    hostile.go();
    let share = u64::from(CAPACITY) / 2;
    wait::until_true("what does not fit", SOON, || {
        let metrics = agent.metrics();
        metrics.count("proxytrace_untracked_total", &[("why", "attempt_table_full")])
            == 4 * u64::from(CAPACITY) - share
            && metrics.account(&name, "127.0.0.1:8099").in_flight == share
    });
    assert!((filled(&agent.metrics(), "attempts") - share as f64).abs() < 0.5);
    honest.fails_at_each(&agent, 3);

    drop(hostile.finish());
    wait::until_true("capacity that came free", SOON, || filled(&agent.metrics(), "attempts") == 0.0);
}

#[test]
fn threads_of_another_user_that_wait_in_connect_take_no_capacity_from_a_proxy() {
    let (netns, directory) = (Netns::new(), scratch::directory());
    let path = |name| format!("unix:{}", directory.path().join(name).display());
    let (full, missing) = (path("full"), path("missing"));
    // Each waits until there is room in the backlog.
    let backlog = full_backlog(&directory.path().join("full"));
    let plan = Plan { processes: 4 * CAPACITY, ..Plan::simple(&[&full], How::Blocking, 1) };
    let hostile = Client::start_as(NOBODY, CONNECTOR, &netns, &plan);
    let honest = Client::start(CONNECTOR, &netns, &Plan::simple(&[&missing], How::Blocking, 3));
    let (name, honest_name) = (shown(&hostile), honest.name().to_owned());
    let processes = ["--process", hostile.name(), "--process", &honest_name];
    let agent = Agent::start(&[&processes[..], &["--table-size", &format!("calls={CAPACITY}")]].concat());

    hostile.go();
    let share = u64::from(CAPACITY) / 2;
    let unseen = 4 * u64::from(CAPACITY) - share;
    wait::until_true("what does not fit", SOON, || {
        let metrics = agent.metrics();
        metrics.count("proxytrace_untracked_total", &[("why", "call_table_full")]) == unseen
            && metrics.account(&name, &full).in_flight == share
    });
    assert!((filled(&agent.metrics(), "calls") - share as f64).abs() < 0.5);
    honest.go();
    assert_eq!(honest.finish().attempts(), 3);
    counted(&agent, &honest_name, &missing, &Expected::at_once("no_such_socket", 2).account(3));

    drop(backlog);
    drop(hostile.finish());
    wait::until_true("capacity that came free", SOON, || filled(&agent.metrics(), "calls") == 0.0);
    assert_eq!(agent.metrics().account(&name, &full).in_flight, 0);
}

#[test]
fn unix_sockets_of_another_user_take_no_capacity_from_a_proxys() {
    let (netns, directory) = (Netns::new(), scratch::directory());
    let path = |name: &str| format!("unix:{}", directory.path().join(name).display());
    let many: Vec<_> = (0..CAPACITY + 8).map(|n| path(&format!("missing{n}"))).collect();
    let hostile = Client::start_as(NOBODY, CONNECTOR, &netns, &Plan::simple(&many, How::Blocking, 1));
    let address = path("missing");
    let honest = Client::start(CONNECTOR, &netns, &Plan::simple(&[&address], How::Blocking, 3));
    let (name, honest_name) = (shown(&hostile), honest.name().to_owned());
    let processes = ["--process", hostile.name(), "--process", &honest_name];
    // There is capacity for as many paths.
    let agent = Agent::start(&[&processes[..], &["--table-size", &format!("ledger={CAPACITY}")]].concat());

    hostile.go();
    assert_eq!(hostile.finish().attempts(), many.len() as u64);
    honest.go();
    assert_eq!(honest.finish().attempts(), 3);
    let expected = Expected::at_once("no_such_socket", 2).account(3);
    let metrics = counted(&agent, &honest_name, &address, &expected);
    assert_eq!(metrics.count("proxytrace_untracked_total", &[("why", "path_table_full")]), 0);
    assert_eq!(metrics.count("proxytrace_connect_attempts_total", &[("proxy", &name)]), many.len() as u64);
}

#[test]
fn every_table_reports_how_full_it_is() {
    let netns = Netns::new();
    let client =
        Client::start(CONNECTOR, &netns, &Plan::simple(&["127.0.0.1:9", "127.0.0.2:9"], How::Blocking, 1));
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name, "--table-size", "ledger=500"]);
    client.go();
    drop(client.finish());

    let metrics = agent.metrics();
    let tables = metrics.values_of("table", "proxytrace_table_capacity", &[]);
    assert_eq!(tables.join(" "), "attempts calls connections ledger paths processes proxies timeouts");
    assert_eq!(tables, metrics.values_of("table", "proxytrace_table_entries", &[]));
    assert_eq!(metrics.count("proxytrace_table_capacity", &[("table", "ledger")]), 500);
    assert!((filled(&metrics, "ledger") - 2.0).abs() < 0.5, "{}", metrics.text);
}

/// What a client is called that runs as another user than root.
fn shown(client: &Client) -> String {
    format!("{}@{NOBODY}", client.name())
}

fn filled(metrics: &Metrics, table: &str) -> f64 {
    metrics.sum("proxytrace_table_entries", &[("table", table)])
}

/// A real nginx of root, with upstreams that refuse.
struct Honest {
    nginx: Nginx,
}

impl Honest {
    const ADDRESSES: [&'static str; 3] = ["127.0.0.1:8081", "127.0.0.1:8082", "127.0.0.1:8083"];

    fn start(netns: &Netns) -> Self {
        let location =
            |(n, address): (usize, &&str)| format!("location /{n} {{ proxy_pass http://{address}; }}");
        let locations: String = Self::ADDRESSES.iter().enumerate().map(location).collect();
        Self { nginx: Nginx::start(netns, &server(&locations)) }
    }

    /// So many requests to each upstream fail, and are counted.
    #[track_caller]
    fn fails_at_each(&self, agent: &Agent, times: u64) {
        for (n, address) in Self::ADDRESSES.iter().enumerate() {
            for _ in 0..times {
                assert_eq!(self.nginx.get(&format!("/{n}")), 502);
            }
            counted(agent, self.nginx.name(), address, &Expected::at_once("refused", 111).account(times));
        }
        assert_eq!(agent.metrics().account(self.nginx.name(), OTHER).attempts, 0, "it has rows of its own");
    }
}
