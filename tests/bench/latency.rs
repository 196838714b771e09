//! How soon one learns of something: the first record after the start, a failure as a record and as a count, and an upstream that is down.

use std::thread;
use std::time::{Duration, Instant};

use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::wait;

use crate::Bench;
use crate::comparison::{Comparison, MILLISECONDS};

/// What is waited for, who tells, and how long that took once, in milliseconds.
type Wait = (&'static str, &'static str, fn() -> f64);

const WAITS: &[Wait] = &[
    ("from the start to the first record", "trace", first_record),
    ("from a failure to its record", "trace", record),
    ("from a failure to its count", "agent", count),
    ("from the first failure of an upstream that is down to the finding", "trace", finding),
];

/// Between two requests of an upstream that is down.
const PAUSE: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

/// Whoever waits in vain panics.
#[expect(clippy::unnecessary_wraps, reason = "as the other measurements")]
pub(crate) fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    for (what, who, wait) in WAITS {
        let mut comparison = Comparison::new(*what, MILLISECONDS, [*who]);
        for _ in 0..bench.rounds {
            comparison.add([wait()]);
        }
        bench.add(comparison);
    }
    Ok(())
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// An nginx whose upstream refuses.
fn scene() -> (Netns, Nginx) {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to("127.0.0.1:8081", ""));
    (netns, nginx)
}

fn first_record() -> f64 {
    let (_netns, nginx) = scene();
    let start = Instant::now();
    let trace = Trace::start(&["--process", nginx.name()]);
    nginx.get("/");
    let _ = trace.next_of("connect");
    milliseconds(start)
}

fn record() -> f64 {
    let (_netns, nginx) = scene();
    let trace = Trace::start(&["--process", nginx.name()]);
    // The first waits for the proxy's name.
    nginx.get("/");
    let _ = trace.next_of("connect");
    thread::sleep(PAUSE);
    let start = Instant::now();
    nginx.get("/");
    let _ = trace.next_of("connect");
    milliseconds(start)
}

fn count() -> f64 {
    let (_netns, nginx) = scene();
    let agent = Agent::start(&["--process", nginx.name()]);
    let refused = || agent.metrics().sum("proxytrace_connect_failures_total", &[("cause", "refused")]);
    nginx.get("/");
    wait::until_true("the first failure to be counted", Duration::from_secs(5), || refused() >= 1.0);
    thread::sleep(PAUSE);
    let start = Instant::now();
    nginx.get("/");
    while refused() < 2.0 {
        thread::sleep(Duration::from_micros(200));
    }
    milliseconds(start)
}

/// From the first request that an upstream refuses.
fn finding() -> f64 {
    let (_netns, nginx) = scene();
    let trace = Trace::start(&["--process", nginx.name()]);
    let start = Instant::now();
    loop {
        nginx.get("/");
        if trace.within(PAUSE).is_some_and(|record| record.kind == "finding") {
            return milliseconds(start);
        }
        assert!(start.elapsed() < LONG, "no finding within {} s of an outage", LONG.as_secs());
    }
}
