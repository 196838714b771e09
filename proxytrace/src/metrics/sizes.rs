//! How many series a page has: the formula of docs/metrics.md. Its factors are counted from pages, and pages of all sizes keep to it.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use jiff::Timestamp;
use proxytrace_ebpf::{
    abi::{Owner, Row},
    hooks,
};

use super::{ConfigRead, Format, HistogramBy, Kept, render};
use crate::{
    kernel::tables::{Filled, TABLES},
    model::{Clock, Entry, Key, Kind, Severity, Subject},
    watch::{ProxyView, View},
};

/// What an agent sees.
#[derive(Clone, Copy)]
struct Host {
    proxies: usize,
    upstreams: usize,
    addresses: usize,
    findings: usize,
}

impl Host {
    /// With one proxy, no finding, and upstreams of five addresses.
    const fn with(addresses: usize) -> Self {
        Self { proxies: 1, upstreams: addresses.div_ceil(5), addresses, findings: 0 }
    }

    /// How many series its page has.
    fn series(self, by: HistogramBy) -> usize {
        let proxy: Arc<str> = "nginx.service".into();
        let entry = |address: usize| {
            let upstream = format!("service-{}", address % self.upstreams).into();
            let key = Key { proxy: Arc::clone(&proxy), upstream, address: format!("[::1]:{address}").into() };
            Entry { key, owner: Owner::HOST_ROOT, row: Row::ZERO }
        };
        let rows: Vec<_> = (0..self.addresses).map(entry).collect();
        let finding = |_| {
            let (proxy, kind) = (Arc::clone(&proxy), Kind::UpstreamDown);
            (Subject { proxy, kind, upstream: None, address: None }, Severity::Critical)
        };
        let proxies = (0..self.proxies).map(|number| {
            (number.to_string().into(), ProxyView { names_ready: Some(true), ..ProxyView::default() })
        });
        let view = View {
            declared: rows.iter().map(|entry| entry.key.clone()).collect(),
            findings: (0..self.findings).map(finding).collect(),
            proxies: proxies.collect::<BTreeMap<_, _>>(),
            tables: TABLES.iter().map(|table| Filled { name: table.name, entries: 0, capacity: 0 }).collect(),
            memory_bytes: Some(0),
            recursion_misses: Some(0),
            ..View::of(&rows, Clock::new(0, Timestamp::UNIX_EPOCH))
        };
        let hooks = hooks::all().map(|hook| (hook.name, "kprobe")).collect();
        let (config, kept) = (ConfigRead::default(), Kept::default());
        let page = render(view, hooks, by, config, kept, Format::OpenMetrics).unwrap();
        page.lines().filter(|line| !line.starts_with('#')).count()
    }
}

/// How many series there are for each.
struct Formula {
    agent: usize,
    proxy: usize,
    upstream: usize,
    address: usize,
    finding: usize,
}

impl Formula {
    fn of(by: HistogramBy) -> Self {
        let none = Host { proxies: 0, upstreams: 0, addresses: 0, findings: 0 };
        let two = Host { upstreams: 1, addresses: 2, ..none };
        let more = |host: Host, than: Host| host.series(by) - than.series(by);
        Self {
            agent: none.series(by),
            proxy: more(Host { proxies: 1, ..none }, none),
            upstream: more(Host { upstreams: 2, ..two }, two),
            address: more(Host { addresses: 3, ..two }, two),
            finding: more(Host { findings: 1, ..none }, none),
        }
    }

    const fn series(&self, host: Host) -> usize {
        self.agent
            + self.proxy * host.proxies
            + self.upstream * host.upstreams
            + self.address * host.addresses
            + self.finding * host.findings
    }
}

/// The section of docs/metrics.md.
pub(super) fn section() -> String {
    let [default, on_request] = [HistogramBy::Upstream, HistogramBy::Address].map(Formula::of);
    let mut text = format!(
        "\n## How many series\n\n\
         An agent has {} series for itself, and so many for each of these:\n\n\
         | for each | series | with `--histogram-by address` |\n|---|---|---|\n",
        default.agent
    );
    for (what, one, other) in [
        ("proxy", default.proxy, on_request.proxy),
        ("upstream of a proxy", default.upstream, on_request.upstream),
        ("address of an upstream, declared or used within the hour", default.address, on_request.address),
        ("active finding", default.finding, on_request.finding),
    ] {
        writeln!(text, "| {what} | {one} | {other} |").unwrap();
    }
    text.push_str(
        "\nWith one proxy, and upstreams of five addresses:\n\n\
         | addresses | series | with `--histogram-by address` |\n|---|---|---|\n",
    );
    for addresses in SIZES {
        let host = Host::with(addresses);
        let (one, other) = (default.series(host), on_request.series(host));
        writeln!(text, "| {addresses} | {one} | {other} |").unwrap();
    }
    text.push_str(
        "\nNo more than `--max-addresses` addresses of one owner's proxies have series, 1000 by default, and twice as many in all; \
         sums `~other` come to that, at most 257.\n\n\
         The histogram of an upstream sums its addresses, those included whose series have gone, so that it never falls while the \
         upstream has a series. Of what remains for each address most are causes. They are there although \
         they are 0, because `rate()` and `increase()` do not see the first failure of a series that begins with it; series \
         that do not change cost Prometheus little beyond their names.\n",
    );
    text
}

/// The formula of docs/install/sizing.md.
pub(super) fn formula() -> String {
    let line = |by| {
        let Formula { agent, proxy, upstream, address, finding } = Formula::of(by);
        format!("series = {agent} + {proxy} P + {upstream} U + {address} A + {finding} F")
    };
    let [default, on_request] = [HistogramBy::Upstream, HistogramBy::Address].map(line);
    format!("```text\n{default}\n{on_request}    with --histogram-by address\n```\n")
}

/// What a fleet comes to by that formula: a sentence of docs/install/sizing.md.
pub(super) fn fleet() -> String {
    const HOSTS: usize = 500;
    let host = Host { proxies: 1, upstreams: 20, addresses: 60, findings: 0 };
    let formula = Formula::of(HistogramBy::Upstream);
    let Formula { agent, proxy, upstream, address, .. } = formula;
    format!(
        "{HOSTS} hosts with one nginx, {} upstreams and {} addresses each are {HOSTS} × ({agent} + {proxy} + {} + {}) = {} series.\n",
        host.upstreams,
        host.addresses,
        upstream * host.upstreams,
        address * host.addresses,
        HOSTS * formula.series(host),
    )
}

/// What the first page of docs/install says of it.
pub(super) fn short() -> String {
    let Formula { upstream, address, .. } = Formula::of(HistogramBy::Upstream);
    format!("A host has {address} series for each address and {upstream} for each upstream.\n")
}

/// Rows of a table in docs/install/sizing.md, each with what was measured, by the formula.
pub(super) fn with_series(rows: &str) -> String {
    let [default, on_request] = [HistogramBy::Upstream, HistogramBy::Address].map(Formula::of);
    let row = |line: &str| {
        let cells: Vec<_> = line.split(" | ").collect();
        let [addresses, _, size, compressed, other] = &*cells else { return line.to_owned() + "\n" };
        let (Some(number), Some((_, other))) =
            (addresses.split_whitespace().nth(1), other.split_once(" series, "))
        else {
            return line.to_owned() + "\n";
        };
        let host = Host::with(number.parse().unwrap());
        let (one, two) = (default.series(host), on_request.series(host));
        format!("{addresses} | {one} | {size} | {compressed} | {two} series, {other}\n")
    };
    rows.lines().map(row).collect()
}

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

#[test]
fn pages_of_all_sizes_keep_to_the_formula() {
    for by in [HistogramBy::Upstream, HistogramBy::Address] {
        let formula = Formula::of(by);
        let crowd = Host { proxies: 20, upstreams: 300, addresses: 700, findings: 12 };
        for host in SIZES.map(Host::with).into_iter().chain([crowd]) {
            assert_eq!(host.series(by), formula.series(host), "{} addresses by {by:?}", host.addresses);
        }
    }
}
