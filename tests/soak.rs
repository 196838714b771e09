//! An agent amid reloads, short-lived processes, scrapes and hostile neighbours: exact to the attempt, and no larger at the end
//! than at the beginning. For some seconds, or with `PROXYTRACE_TEST_LONG=1` for an hour.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::Guarded;
use proxytrace_tests::client::{How, Plan};
use proxytrace_tests::http;
use proxytrace_tests::metrics::Metrics;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::scale::natural;
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON};
use tempfile::TempDir;

use crate::clients::CONNECTOR;

/// Only the honest nginx connects there.
const HONEST: &str = "127.0.0.1:8080";

/// For so many turns the hostile neighbours connect to addresses that nobody has connected to before. What an agent keeps of those is
/// bounded (some thousand addresses of one user, and `--history`), but these seconds do not reach that: so they are the same again then.
const FEW_TURNS: u32 = 8;

/// How much more resident memory an agent and its reader may have at the end, in KiB.
const MAX_GROWTH_KIB: u64 = 8 << 10;

/// How many more descriptors: a scrape that is still being closed.
const MAX_MORE_DESCRIPTORS: usize = 4;

#[test]
fn an_agent_amid_churn_and_hostile_neighbours_stays_exact_and_does_not_grow() {
    let seconds = Duration::from_secs;
    let (warm_up, length) = natural((seconds(4), seconds(8)), (seconds(300), seconds(3600)));
    let netns = Netns::new();
    let backend = Backend::start(&netns, HONEST, Manner::AnswerAndClose);
    let nginx = Nginx::start(&netns, &configuration(0));
    let agent = Agent::start(&["--process", nginx.name()]);
    let neighbours = Neighbours::beside(&netns, nginx.name());
    let turns_with_new_addresses = natural(FEW_TURNS, u32::MAX);

    let mut reloads = 0;
    let mut live = |time: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < time {
            let hostile = neighbours.act(reloads % turns_with_new_addresses);
            reloads += 1;
            nginx.reload(&configuration(reloads));
            for _ in 0..20 {
                ask(&nginx);
            }
            assert_eq!(agent.get("/healthz").status, 200);
            assert_eq!(agent.get("/readyz").status, 200);
            let metrics = agent.metrics();
            let [entries, capacity] = fill(&metrics, "ledger");
            assert!(entries * 4 <= capacity, "the ledger holds {entries} of {capacity} rows");
            drop(hostile);
        }
    };
    live(warm_up);
    let before = Figures::once_quiet(&agent);
    live(length);
    let after = Figures::once_quiet(&agent);

    println!("{reloads} reloads; before {before:?}; after {after:?}");
    assert!(after.resident_kib <= before.resident_kib + MAX_GROWTH_KIB, "{before:?} became {after:?}");
    assert!(after.descriptors <= before.descriptors + MAX_MORE_DESCRIPTORS, "{before:?} became {after:?}");
    let metrics = agent.metrics();
    let tables = metrics.values_of("table", CAPACITY, &[]);
    assert!(tables.len() > 5, "{tables:?}");
    for table in tables {
        let [entries, capacity] = fill(&metrics, &table);
        assert!(entries * 4 <= capacity, "table {table} holds {entries} of {capacity}");
    }
    let honest = |metric| metrics.count(metric, &[("address", HONEST)]);
    let accepted = backend.accepted();
    assert!(accepted >= 20 * u64::from(reloads), "{accepted} connections in {reloads} turns");
    assert_eq!(honest("proxytrace_connect_attempts_total"), accepted);
    assert_eq!(honest("proxytrace_connects_established_total"), accepted);
    assert_eq!(honest("proxytrace_connects_in_flight"), 0);
    assert_eq!(metrics.count("proxytrace_events_lost_total", &[]), 0);
    agent.stop();
}

const ENTRIES: &str = "proxytrace_table_entries";
const CAPACITY: &str = "proxytrace_table_capacity";

/// How many entries a table holds, and may hold.
fn fill(metrics: &Metrics, table: &str) -> [u64; 2] {
    [ENTRIES, CAPACITY].map(|metric| metrics.count(metric, &[("table", table)]))
}

/// A configuration whose declared addresses change with each reload.
fn configuration(turn: u32) -> String {
    let declared: String = (0..200)
        .map(|n| {
            format!("upstream other{n} {{ server 127.{}.{}.{n}:9; }}\n", 1 + turn % 200, turn / 200 % 250)
        })
        .collect();
    let locations: String =
        (0..200).map(|n| format!("location /other{n} {{ proxy_pass http://other{n}; }}\n")).collect();
    let api = format!("upstream api {{ server {HONEST}; }}\n");
    let body = format!("location / {{ proxy_pass http://api; proxy_next_upstream off; }}\n{locations}");
    format!("{declared}{api}{}", server(&body))
}

/// Asks until it is answered: a worker that ends closes connections that have not asked yet.
fn ask(nginx: &Nginx) {
    let mut tries = (0..3).filter_map(|_| http::try_answer(&mut nginx.begin("/")).ok());
    let status = tries.next().map(|answer| answer.status);
    assert_eq!(status, Some(200), "nginx says: {}", nginx.error_log());
}

/// Processes of a local user that have the name of the honest nginx.
struct Neighbours<'a> {
    netns: &'a Netns,
    connector: PathBuf,
    nginx: PathBuf,
    _directory: TempDir,
}

impl<'a> Neighbours<'a> {
    fn beside(netns: &'a Netns, name: &str) -> Self {
        let directory = scratch::directory();
        let copy = directory.path().join("program");
        fs::copy(CONNECTOR, &copy).expect("copy the connector to where everybody may run it");
        let link = |program: &Path, place: &str| {
            let place = directory.path().join(place);
            fs::create_dir(&place).expect("make a directory");
            scratch::alias(program, &place, name)
        };
        let connector = link(&copy, "connectors");
        let nginx = link(Path::new("/usr/sbin/nginx"), "tests");
        Self { netns, connector, nginx, _directory: directory }
    }

    /// A crowd that connects to addresses which nobody has connected to before, and `nginx -v` as a cron job runs it.
    fn act(&self, turn: u32) -> Vec<Guarded> {
        let addresses: Vec<_> =
            (0..50).map(|n| format!("127.{}.{}.{n}:9", 200 + turn / 250 % 50, turn % 250)).collect();
        let plan = Plan { processes: 4, ..Plan::simple(&addresses, How::Blocking, 1) };
        let plan = serde_json::to_string(&plan).expect("write a plan");
        let mut crowd = self.netns.spawn(
            Command::new("setpriv")
                .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
                .arg(&self.connector)
                .arg(plan)
                .stdin(Stdio::piped())
                .stdout(Stdio::null()),
        );
        // It connects, and ends with its standard input.
        let mut stdin = crowd.inner().stdin.take().expect("a pipe");
        stdin.write_all(b"go\n").expect("have the connector begin");
        drop(stdin);
        let tested = Command::new(&self.nginx).arg("-v").stderr(Stdio::null()).status();
        assert!(tested.expect("run nginx -v").success());
        vec![crowd]
    }
}

/// What an agent and its reader take.
#[derive(Debug)]
struct Figures {
    resident_kib: u64,
    descriptors: usize,
}

impl Figures {
    /// Once the rows of processes that have ended are carried over.
    fn once_quiet(agent: &Agent) -> Self {
        wait::until_true("the rows of ended processes to be carried over", SOON * 3, || {
            let [entries, capacity] = fill(&agent.metrics(), "ledger");
            entries * 100 <= capacity
        });
        thread::sleep(Duration::from_secs(2));
        let pids = [vec![agent.pid()], children(agent.pid())].concat();
        Self {
            resident_kib: pids.iter().map(|pid| resident_kib(*pid)).sum(),
            descriptors: pids.iter().map(|pid| descriptors(*pid)).sum(),
        }
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
