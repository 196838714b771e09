//! HAProxy in master-worker mode: its master executes itself anew for each reload, and once more to wait.

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::haproxy::Haproxy;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::skip;
use proxytrace_tests::wait::{self, SOON};

use crate::scene::Watch;

const BEFORE: &str = "127.0.0.1:8080";
/// Where nobody listens.
const AFTER: &str = "127.0.0.1:8081";

#[test]
fn a_reload_of_haproxy_is_one_generation_or_rejected() {
    if !skip::unless_installed("haproxy") {
        return;
    }
    let netns = Netns::new();
    let _backend = Backend::start(&netns, BEFORE, Manner::AnswerAndClose);
    let mut haproxy = Haproxy::prepare(BEFORE);
    let watch = Watch::begin(&["--process", haproxy.name()], haproxy.name());
    let next = || {
        let record = watch.trace.next_among(&["reload", "worker_started", "connect"]);
        (record.kind, record.generation, record.pid, record.result + &record.outcome)
    };
    let connects = |generation, pid, outcome: &str| {
        assert_eq!(next(), ("connect".to_owned(), generation, pid, outcome.to_owned()));
    };
    haproxy.launch(&netns);
    // Its start is not reported: it could be the way into the background of a program that has no workers.
    assert_eq!(haproxy.get(), 200);
    let (kind, generation, first, outcome) = next();
    assert_eq!((&*kind, generation, &*outcome), ("connect", 0, "established"));
    let half = haproxy.begin_half();

    // Both signals ask for it.
    for (n, signal) in [(1, Signal::SIGUSR2), (2, Signal::SIGHUP)] {
        haproxy.configure(AFTER, "");
        haproxy.signal(signal);
        let (kind, generation, master, result) = next();
        assert_eq!((&*kind, generation, &*result), ("reload", n, "accepted"), "{}", haproxy.said());
        let (kind, generation, worker, _) = next();
        assert_eq!((&*kind, generation), ("worker_started", n));
        wait::until_true("the old worker to accept no more", SOON, || {
            haproxy.said().matches("Proxy clients stopped").count() as u32 == n
        });
        assert_eq!(haproxy.get(), 503);
        connects(n, worker, "refused");

        haproxy.configure(AFTER, "no_such_keyword");
        haproxy.signal(signal);
        let rejected = ("reload".to_owned(), n, master, "rejected".to_owned());
        assert_eq!(next(), rejected, "{}", haproxy.said());
    }
    assert_eq!(half.finish().status, 200);
    connects(0, first, "established");

    let metrics = watch.agent.metrics();
    let count = |name: &str, labels: &[(&str, &str)]| {
        metrics.count(name, &[&[("proxy", haproxy.name())], labels].concat())
    };
    assert_eq!(count("proxytrace_config_generation", &[]), 2);
    for result in ["accepted", "rejected"] {
        assert_eq!(count("proxytrace_reloads_total", &[("result", result)]), 2, "{result}");
    }
}
