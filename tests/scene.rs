//! The set that most stories play on: a proxy, with `trace` and `agent` both watching what it does.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proxytrace_tests::client::Truth;
use proxytrace_tests::metrics::{Account, Metrics};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{self, Nginx, proxy_to};
use proxytrace_tests::proxytrace::{Agent, Record, Trace};
use proxytrace_tests::wait::{self, SOON, is_slow};

/// A connect timeout of nginx that a story can wait for.
pub(crate) struct ShortTimeout {
    /// The kernel sends a SYN again once a second at most.
    pub(crate) nginx_seconds: u32,
    /// What proxytrace is given where it has no configuration to read; and how long an attempt takes at least.
    assumed: Duration,
}

/// nginx counts its timeout from a clock that it reads once per turn of its event loop; proxytrace allows an
/// eighth of the timeout for that. Where the processor is emulated and shared with other stories, a turn can take half a second and more.
pub(crate) fn short_timeout() -> ShortTimeout {
    if is_slow() {
        ShortTimeout { nginx_seconds: 5, assumed: Duration::from_secs(4) }
    } else {
        ShortTimeout { nginx_seconds: 3, assumed: Duration::from_secs(3) }
    }
}

impl ShortTimeout {
    /// For a location.
    pub(crate) fn directive(&self) -> String {
        format!("proxy_connect_timeout {}s;", self.nginx_seconds)
    }

    /// How long an attempt takes at least that ends with it, in seconds.
    pub(crate) fn least(&self) -> f64 {
        self.assumed.as_secs_f64() - 0.1
    }
}

/// nginx in front of one address.
pub(crate) struct Scene {
    pub(crate) nginx: Nginx,
    pub(crate) address: String,
    pub(crate) watch: Watch,
}

impl Scene {
    /// nginx passes everything to `address`; `directives` go into its location.
    pub(crate) fn begin(netns: &Netns, address: &str, directives: &str) -> Self {
        Self::with(netns, address, &proxy_to(address, directives))
    }

    /// The same with a whole configuration, in which `address` is the only destination.
    pub(crate) fn with(netns: &Netns, address: &str, http: &str) -> Self {
        let nginx = Nginx::start(netns, http);
        let assumed = short_timeout().assumed.as_secs().to_string();
        let watch = Watch::begin(&["--process", nginx.name(), "--connect-timeout", &assumed], nginx.name());
        Self { nginx, address: address.to_owned(), watch }
    }

    /// Clients ask so many times, and each gets this status.
    #[track_caller]
    pub(crate) fn gets(&self, times: u64, status: u16) {
        for _ in 0..times {
            assert_eq!(self.nginx.get("/"), status, "nginx says: {}", self.nginx.error_log());
        }
    }

    /// So many attempts went as expected: `trace` said so, and the agent counts them and no others.
    #[track_caller]
    pub(crate) fn saw(&self, attempts: u64, expected: &Expected) {
        let workers = self.nginx.worker_pids();
        for record in self.watch.saw(&self.address, attempts, expected) {
            assert!(workers.contains(&record.pid), "{record:?} is by none of the workers {workers:?}");
        }
        assert_eq!(self.watch.agent.metrics().addresses(self.nginx.name()), [self.address.as_str()]);
    }

    /// Whether the cause of its one attempt is known, which an ICMP message ended. Old kernels wake nginx before they close
    /// the socket, and over IPv6 they keep nothing of the message: nginx may have cleared its error by then
    /// (docs/kernel-notes.md). That has to be counted as what it is, and must not happen elsewhere.
    #[track_caller]
    pub(crate) fn knows_the_cause(&self) -> bool {
        let (agent, mut last) = (&self.watch.agent, Account::default());
        wait::until_true("the attempt to end", SOON, || {
            last = agent.metrics().account(self.nginx.name(), &self.address);
            last.attempts == 1 && last.in_flight == 0
        });
        let unknown = agent.metrics().count("proxytrace_untracked_total", &[("why", "end_missed")]);
        assert_eq!(last.failures.get("other").copied().unwrap_or(0), unknown, "{last:?}");
        let symbols = fs::read_to_string("/proc/kallsyms").expect("the kernel's symbols");
        let closes_first = symbols.lines().any(|line| line.ends_with(" tcp_done_with_error"));
        assert!(
            unknown == 0 || !closes_first,
            "this kernel closes the socket before it wakes nginx: {last:?}"
        );
        unknown == 0
    }

    /// Nothing else was recorded.
    #[track_caller]
    pub(crate) fn end(self) {
        self.watch.end();
    }
}

/// How attempts ended.
pub(crate) struct Expected {
    pub(crate) outcome: &'static str,
    pub(crate) errno: i32,
    /// What the local address begins with, where there was one.
    pub(crate) local: Option<&'static str>,
    pub(crate) took: Range<Duration>,
    pub(crate) retransmits: RangeInclusive<u32>,
}

impl Expected {
    /// An outcome that comes at once, without a local address.
    pub(crate) fn at_once(outcome: &'static str, errno: i32) -> Self {
        Self { outcome, errno, local: None, took: Duration::ZERO..Duration::from_secs(1), retransmits: 0..=0 }
    }

    /// The same, from a local address.
    pub(crate) fn from(self, local: &'static str) -> Self {
        Self { local: Some(local), ..self }
    }

    /// It takes at least that long, with so many SYNs sent again.
    pub(crate) fn after(self, seconds: f64, retransmits: RangeInclusive<u32>) -> Self {
        // On a busy machine everything may take longer, but nothing shorter.
        let least = wait::at_least(Duration::from_secs_f64(seconds));
        Self { took: least..least + SOON * 3, retransmits, ..self }
    }

    /// What the ledger has to say after so many of them.
    pub(crate) fn account(&self, attempts: u64) -> Account {
        let (established, failures) = match self.outcome {
            "established" => (attempts, BTreeMap::new()),
            cause => (0, BTreeMap::from([(cause.to_owned(), attempts)])),
        };
        Account { attempts, established, failures, in_flight: 0 }
    }
}

/// Where upstreams have their names from.
#[derive(Clone, Copy)]
pub(crate) enum Named {
    /// A client of our own has no configuration.
    Unknown,
    /// `proxy_pass` has the address itself, without more.
    ByHost,
    /// An `upstream` block.
    As(&'static str),
}

/// `trace --all` and `agent` side by side, attached to the same processes.
pub(crate) struct Watch {
    pub(crate) trace: Trace,
    pub(crate) agent: Agent,
    proxy: String,
    pub(crate) named: Named,
    begun: Timestamp,
}

impl Watch {
    /// Starts both with `arguments`; what they trace will be called `proxy`.
    pub(crate) fn begin(arguments: &[&str], proxy: &str) -> Self {
        let agent = Agent::start(arguments);
        let trace = Trace::start(&[arguments, &["--all"]].concat());
        let named = if proxy.starts_with(nginx::NAME) { Named::ByHost } else { Named::Unknown };
        Self { trace, agent, proxy: proxy.to_owned(), named, begun: Timestamp::now() }
    }

    /// The next `connect` records are so many, to that address, all as expected, and the agent has counted just them.
    #[track_caller]
    pub(crate) fn saw(&self, address: &str, attempts: u64, expected: &Expected) -> Vec<Record> {
        let mut records = Vec::new();
        for _ in 0..attempts {
            records.push(self.saw_next(address, expected));
        }
        self.counted(address, &expected.account(attempts));

        let metrics = self.agent.metrics();
        let labels = [("proxy", self.proxy.as_str()), ("address", address)];
        let resent: u64 = records.iter().filter_map(|record| record.syn_retransmits).map(u64::from).sum();
        assert_eq!(metrics.count("proxytrace_syn_retransmits_total", &labels), resent, "SYNs sent again");
        records
    }

    /// The next attempt to end was to that address, and as expected. Where its SYN was sent again, it was `stalled`
    /// before, once.
    #[track_caller]
    pub(crate) fn saw_next(&self, address: &str, expected: &Expected) -> Record {
        let mut record = self.trace.next_about_connections();
        let stalled = record.kind == "stalled";
        if stalled {
            assert_eq!(record.address, address, "{record:?}");
            record = self.trace.next_about_connections();
        }
        assert_eq!(record.kind, "connect", "{record:?}");
        self.check(&record, address, expected);
        assert!(stalled || record.syn_retransmits == Some(0), "it was not stalled before: {record:?}");
        record
    }

    /// The next `connect` records and the agent's counts are just what a client says that it did.
    #[track_caller]
    pub(crate) fn agrees_with(&self, truth: &Truth) {
        let mut recorded = Truth::default();
        let mut odd = Vec::new();
        for _ in 0..truth.attempts() {
            let record = self.trace.next_of("connect");
            recorded.add(&record.address, &record.outcome, 1);
            if !truth.has(&record.address, &record.outcome) {
                odd.push(record);
            }
        }
        assert_eq!(
            recorded, *truth,
            "records (left) and truth (right), to which these do not belong: {odd:#?}"
        );
        agrees(&self.agent, &self.proxy, truth);
    }

    /// The agent comes to count this for that address, no attempt is missing, and nothing was lost on the way.
    #[track_caller]
    pub(crate) fn counted(&self, address: &str, expected: &Account) {
        lost_nothing(&counted(&self.agent, &self.proxy, address, expected));
    }

    /// Ends both; nothing else may have been recorded about connections.
    #[track_caller]
    pub(crate) fn end(self) {
        let ended = self.trace.stop();
        assert!(ended.status.success(), "trace ended with {}: {}", ended.status, ended.stderr);
        let about_connections =
            |record: &&Record| matches!(&*record.kind, "connect" | "stalled" | "broken" | "lost");
        let more: Vec<_> = ended.records.iter().filter(about_connections).collect();
        assert!(more.is_empty(), "more records: {more:#?}");
        self.agent.stop();
    }

    /// What an upstream is called.
    pub(crate) fn upstream_of<'a>(&self, address: &'a str) -> &'a str {
        match (self.named, address.rsplit_once(':')) {
            (Named::Unknown, _) => "unknown",
            (Named::As(name), _) => name,
            (Named::ByHost, Some((host, _))) if host != "unix" => host,
            (Named::ByHost, _) => address,
        }
    }

    /// The record is as expected.
    #[track_caller]
    pub(crate) fn check(&self, record: &Record, address: &str, expected: &Expected) {
        let Expected { outcome, errno, local, ref took, ref retransmits } = *expected;
        assert_eq!((&*record.outcome, &*record.address), (outcome, address), "{record:?}");
        assert_eq!(record.errno.unwrap_or(0), errno, "{record:?}");
        assert_eq!(
            (&*record.proxy, &*record.upstream, record.generation),
            (&*self.proxy, self.upstream_of(address), 0),
            "{record:?}"
        );
        assert!(took.contains(&record.duration()), "not in {took:?}: {record:?}");
        assert!(
            record.syn_retransmits.is_some_and(|n| retransmits.contains(&n)),
            "{retransmits:?}: {record:?}"
        );
        match (local, &record.local) {
            (None, None) => {}
            (Some(host), Some(have)) => {
                let port = have.strip_prefix(host).and_then(|port| port.parse::<u16>().ok());
                assert!(port.is_some_and(|port| port != 0), "not from {host}: {record:?}");
            }
            _ => panic!("local address {local:?} expected: {record:?}"),
        }
        let time: Timestamp = record.time.as_deref().expect("a time").parse().expect("a time as in RFC 3339");
        let slack = SignedDuration::from_secs(1);
        assert!(
            self.begun - slack <= time && time <= Timestamp::now() + slack,
            "begun {}: {record:?}",
            self.begun
        );
    }
}

/// The agent comes to count this for that proxy and address; gives the scrape that says so.
#[track_caller]
pub(crate) fn counted(agent: &Agent, proxy: &str, address: &str, expected: &Account) -> Metrics {
    let (mut last, mut measured) = (Account::default(), Vec::new());
    // The proxy may close a socket a moment after its client has the answer.
    let metrics = wait::within(SOON, || {
        let metrics = agent.metrics();
        last = metrics.account(proxy, address);
        assert!(last.balances(), "at every moment: {last:?}");
        measured = measured_of(&metrics, proxy, address);
        (last == *expected && measured.iter().all(|(_, times, established)| times == established))
            .then_some(metrics)
    });
    let Some(metrics) = metrics else {
        panic!("{proxy} {address}: {last:?} instead of {expected:?}; measured and established: {measured:?}")
    };
    metrics
}

/// Of each upstream of that proxy and address: how many connect times its histogram has, and how many connects were established.
fn measured_of(metrics: &Metrics, proxy: &str, address: &str) -> Vec<(String, u64, u64)> {
    let labels = [("proxy", proxy), ("address", address)];
    let upstreams = metrics.values_of("upstream", "proxytrace_connect_attempts_total", &labels);
    let counts = |upstream: String| {
        let of = |name| metrics.count(name, &[("proxy", proxy), ("upstream", &upstream)]);
        let times = of("proxytrace_connect_duration_seconds_count");
        let established = of("proxytrace_connects_established_total");
        (upstream, times, established)
    };
    upstreams.into_iter().map(counts).collect()
}

/// The agent comes to count just what a client says that it did, and has lost nothing on the way.
#[track_caller]
pub(crate) fn agrees(agent: &Agent, proxy: &str, truth: &Truth) {
    let is_skipped = |(via, since, of_type): &(&str, u32, u64)| {
        let is_counted = || agent.recursion_misses(|other| other == *of_type) > 0;
        sees_connect_by(agent, via) && (is_kernel(*since) || *via == WHILE_MAPS_ARE_READ && is_counted())
    };
    if MAY_BE_SKIPPED.iter().any(is_skipped) {
        agrees_but_for_missed_returns(agent, proxy, truth);
        return;
    }
    for (address, account) in &truth.0 {
        counted(agent, proxy, address, account);
    }
    let metrics = agent.metrics();
    assert_eq!(metrics.addresses(proxy), truth.0.keys().cloned().collect::<Vec<_>>());
    lost_nothing(&metrics);
}

/// The ways in which a connect() may not be seen, from which kernel on (its major number), and the type of the programs
/// (`enum bpf_prog_type`). A kprobe misses returns on any; from 7.0 on a process can be preempted where the kernel then skips
/// programs of others on that CPU (docs/kernel-notes.md), and entries are missed as well.
const MAY_BE_SKIPPED: &[(&str, u32, u64)] =
    &[("kprobe", 0, 2), ("tracepoint", 7, 5), ("raw_tp", 7, 17), ("tp_btf", 7, 26)];

/// The way whose programs no kernel runs on a CPU where a process is in a system call on a map. Before 7.0 another can come to that CPU
/// only where the kernel itself is preempted, and it says how often it skipped programs (6.7).
const WHILE_MAPS_ARE_READ: &str = "tracepoint";

/// How often the kernel skipped its programs (recursion misses), as the agent says.
pub(crate) const RECURSION_MISSES: &str = "proxytrace_bpf_recursion_misses_total";

/// Whether the agent sees connect() in that way.
pub(crate) fn sees_connect_by(agent: &Agent, via: &str) -> bool {
    agent.metrics().has("proxytrace_hook_attached", &[("hook", "connect"), ("via", via)])
}

/// Whether the kernel has this major number, or a later one.
fn is_kernel(major: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel's release");
    release
        .split('.')
        .next()
        .and_then(|number| number.parse().ok())
        .is_some_and(|number: u32| number >= major)
}

/// The same where returns may be missed: every attempt is counted and has ended; where the cause is not the true one, it
/// is `other`, and so many are counted under `end_missed`, which is given. Not seen are at most so many attempts as the
/// kernel says that it skipped programs, and one in a hundred.
#[track_caller]
pub(crate) fn agrees_but_for_missed_returns(agent: &Agent, proxy: &str, truth: &Truth) -> u64 {
    let others = |account: &Account| account.failures.get("other").copied().unwrap_or(0);
    let ways: Vec<_> = MAY_BE_SKIPPED.iter().filter(|(via, ..)| sees_connect_by(agent, via)).collect();
    let recursion_misses = agent.recursion_misses(|of_type| ways.iter().any(|(.., way)| *way == of_type));
    let (mut differing, mut unseen) = (0, 0);
    for (address, expected) in &truth.0 {
        let mut last = Account::default();
        let ended = wait::within(SOON, || {
            last = agent.metrics().account(proxy, address);
            // What only the call shows is not seen where its entry is missed.
            let missing = expected.attempts.checked_sub(last.attempts)?;
            (missing <= recursion_misses && last.in_flight == 0).then_some(())
        });
        assert!(ended.is_some() && last.balances(), "{proxy} {address}: {last:?} instead of {expected:?}");
        unseen += expected.attempts - last.attempts;
        let has_no_more_of = |(cause, count): (&String, &u64)| {
            cause == "other" || *count <= expected.failures.get(cause).copied().unwrap_or(0)
        };
        assert!(last.established <= expected.established, "{address}: {last:?} instead of {expected:?}");
        assert!(last.failures.iter().all(has_no_more_of), "{address}: {last:?} instead of {expected:?}");
        differing += others(&last) - others(expected);
    }
    let all = truth.attempts();
    assert!(
        unseen <= recursion_misses && unseen * 100 <= all,
        "{unseen} of {all} were not seen, and programs were skipped {recursion_misses} times"
    );
    let metrics = agent.metrics();
    assert!(recursion_misses <= metrics.count(RECURSION_MISSES, &[]), "the agent says it too");
    assert_eq!(metrics.addresses(proxy), truth.0.keys().cloned().collect::<Vec<_>>());
    let missed = metrics.count("proxytrace_untracked_total", &[("why", "end_missed")]);
    assert_eq!(differing, missed, "what is unknown is counted as other, and under end_missed");
    let not_looked_at = metrics.count("proxytrace_untracked_total", &[("why", "not_looked_at")]);
    assert_eq!(
        metrics.count("proxytrace_untracked_total", &[]),
        missed,
        "nothing else is unknown; not looked at were {not_looked_at}"
    );
    missed
}

/// Everything could be followed, and every event was read.
#[track_caller]
pub(crate) fn lost_nothing(metrics: &Metrics) {
    for name in ["proxytrace_untracked_total", "proxytrace_events_lost_total"] {
        assert!(metrics.has(name, &[]), "{name} is exposed");
        let why = metrics.values_of("why", name, &[]);
        let why: Vec<_> = why.iter().map(|why| (why, metrics.count(name, &[("why", why)]))).collect();
        assert_eq!(metrics.count(name, &[]), 0, "{name}: {why:?}");
    }
}

/// Waits until so many attempts are in flight.
#[track_caller]
pub(crate) fn wait_for_in_flight(agent: &Agent, proxy: &str, address: &str, attempts: u64) {
    wait::until_true("attempts in flight", SOON, || {
        agent.metrics().account(proxy, address).in_flight == attempts
    });
}
