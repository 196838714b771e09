//! A good guest: what it takes in the kernel is known and can be set, it gets along with others, and whatever happens to
//! it, nothing stays behind.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use proxytrace_tests::bpf::Objects;
use proxytrace_tests::child::{self, Captured, Guarded, as_pid};
use proxytrace_tests::client::{Client, How, Plan};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::skip;
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};

use crate::clients::CONNECTOR;
use crate::cost::kernel_bytes;
use crate::scene::{Expected, RECURSION_MISSES, counted};

const CLOSED: &str = "127.0.0.1:8081";

#[test]
fn agents_traces_and_bpftrace_see_the_same_side_by_side_and_one_that_is_killed_disturbs_nobody() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to(CLOSED, ""));
    let of_nginx = ["--process", nginx.name()];
    let (first, second, trace) = (Agent::start(&of_nginx), Agent::start(&of_nginx), Trace::start(&of_nginx));
    let stranger = Stranger::start(nginx.name());
    let refused = |attempts: u64| Expected::at_once("refused", 111).account(attempts);

    for _ in 0..5 {
        assert_eq!(nginx.get("/"), 502);
    }

    counted(&first, nginx.name(), CLOSED, &refused(5));
    counted(&second, nginx.name(), CLOSED, &refused(5));
    for _ in 0..5 {
        assert_eq!(trace.next_of("connect").outcome, "refused");
    }

    let objects = Objects::of(first.pid());
    assert!(objects.is_complete(), "it had programs and maps: {objects:?}");
    kill(as_pid(first.pid()), Signal::SIGKILL).expect("kill an agent");
    wait::until_true("its objects to go", SOON, || objects.alive().is_empty());

    assert_eq!(nginx.get("/"), 502);
    counted(&second, nginx.name(), CLOSED, &refused(6));
    assert_eq!(trace.next_of("connect").outcome, "refused");
    if let Some(stranger) = stranger {
        stranger.saw(6);
    }
}

/// bpftrace, counting the same processes' connect() calls.
struct Stranger {
    process: Guarded,
    stdout: Captured,
}

impl Stranger {
    fn start(name: &str) -> Option<Self> {
        if !skip::unless_installed("bpftrace") {
            return None;
        }
        let program = format!(
            "BEGIN {{ printf(\"attached\\n\"); }} \
             tracepoint:syscalls:sys_exit_connect /comm == \"{name}\"/ {{ @connects = count(); }} \
             tracepoint:sock:inet_sock_set_state {{ @states = count(); }}"
        );
        // It looks for tracepoints where debugfs usually is; mounted for it alone, wherever this host has it.
        let script = "mount -t debugfs none /sys/kernel/debug && exec bpftrace -e \"$0\"";
        let mut process = Guarded::spawn(
            Command::new("unshare")
                .args(["--mount", "sh", "-c", script, &program])
                .stdin(Stdio::null())
                .stdout(Stdio::piped()),
        );
        let stdout = Captured::from(process.inner().stdout.take().expect("a pipe"));
        wait::until_true("bpftrace to be attached", SOON * 3, || stdout.text().contains("attached"));
        Some(Self { process, stdout })
    }

    #[track_caller]
    fn saw(mut self, connects: u64) {
        self.process.signal(Signal::SIGINT);
        self.process.wait(SOON);
        let text = self.stdout.whole();
        assert!(
            text.contains(&format!("@connects: {connects}\n")),
            "bpftrace saw {connects} connects: {text}"
        );
    }
}

#[test]
fn kernel_memory_is_reported_and_can_be_set() {
    let reported = |arguments: &[&str]| {
        let agent = Agent::start(&[&["--process", "nobody-at-all"], arguments].concat());
        let reported = agent.metrics().count("proxytrace_kernel_memory_bytes", &[]);
        assert_eq!(reported, kernel_bytes(agent.pid()), "as the kernel says beside each descriptor");
        reported
    };
    let usual = reported(&[]);
    let small = reported(&["--table-size", "connections=1000", "--table-size", "ledger=500,attempts=500"]);
    println!("kernel memory: {} KiB by default, {} KiB with small tables", usual / 1024, small / 1024);
    assert!(usual <= 6 << 20, "{usual} bytes where nothing runs");
    assert!(small < usual, "{small} instead of {usual} bytes");
}

#[test]
fn tables_are_as_large_as_what_runs_at_the_start_may_need() {
    let netns = Netns::new();
    let client = Client::start(CONNECTOR, &netns, &Plan::simple(&[CLOSED], How::Blocking, 1));
    // More than 20 000 takes a right that not every machine gives to its tests.
    for (descriptors, connections, rows) in [(1024, 8192, 2048), (18_000, 16_384, 4096)] {
        let limit = format!("--nofile={descriptors}:");
        child::run(Command::new("prlimit").args([format!("--pid={}", client.pid()), limit]));
        let agent = Agent::start(&["--process", client.name(), "--table-size", "calls=7"]);
        let metrics = agent.metrics();
        let capacity = |table| metrics.count("proxytrace_table_capacity", &[("table", table)]);
        let capacities = ["connections", "ledger", "calls"].map(capacity);
        assert_eq!(capacities, [connections, rows, 7], "at most {descriptors} descriptors");
    }
}

#[test]
fn recursion_misses_are_reported_as_the_kernel_counts_them() {
    let agent = Agent::start(&["--process", "nobody-at-all"]);
    let counted = || agent.recursion_misses(|_| true);
    let before = counted();
    let metrics = agent.metrics();
    assert!(metrics.has(RECURSION_MISSES, &[]), "kernels from 5.12 on count that");
    let reported = metrics.count(RECURSION_MISSES, &[]);
    assert!((before..=counted()).contains(&reported), "{reported}, before {before}");
}

#[test]
fn what_does_not_fit_into_a_table_is_counted() {
    let rows = [
        ("attempts=2", "attempt_table_full", 3),
        // The rows are those of the addresses: one of the two fits. What does not is counted elsewhere.
        ("ledger=1", "ledger_full", 5),
    ];
    for (size, why, untracked) in rows {
        let stage = Stage::new(Family::V4);
        stage.upstream.firewall("tcp dport { 8080, 8082 } drop");
        let [one, other] = [8080, 8082].map(|port| stage.upstream_address(port));
        let addresses = if why == "ledger_full" { vec![one, other] } else { vec![one] };
        let client = Client::start(CONNECTOR, &stage.proxy, &Plan::simple(&addresses, How::Held, 5));
        let name = client.name().to_owned();
        let agent = Agent::start(&["--process", &name, "--table-size", size]);

        client.go();

        wait::until_true(&format!("{untracked} that do not fit ({size})"), SOON, || {
            agent.metrics().count("proxytrace_untracked_total", &[("why", why)]) == untracked
        });
        let attempts = agent.metrics().count("proxytrace_connect_attempts_total", &[("proxy", &name)]);
        let missing = if why == "ledger_full" { 0 } else { untracked };
        assert_eq!(attempts, 5 * addresses.len() as u64 - missing, "{size}");
        drop(client.finish());
    }
}
