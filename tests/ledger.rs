//! The ledger against the truth: thousands of attempts of all kinds, and every count is equal.

use proxytrace_tests::client::{Client, How, Plan, Step};
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::scale::scaled;

use crate::clients::CONNECTOR;
use crate::host::Host;
use crate::scene::agrees;

#[test]
fn every_count_equals_the_truth() {
    let (host, other_host) = (Host::new(8080), Host::new(9080));
    let client = Client::start(CONNECTOR, &host.netns, &everything(&host));
    // Does the same at the same time, but nobody asked for it.
    let stranger = Client::start(CONNECTOR, &other_host.netns, &everything(&other_host));
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name]);

    stranger.go();
    client.go();
    let (truth, strange) = (client.finish(), stranger.finish());

    let least = u64::from(scaled(10_000));
    assert!(truth.attempts() >= least && strange.attempts() >= least, "{} attempts", truth.attempts());
    let outcomes = truth
        .0
        .values()
        .flat_map(|account| account.failures.keys())
        .collect::<std::collections::BTreeSet<_>>();
    assert!(outcomes.len() >= 8, "of mixed kinds: {outcomes:?}");
    agrees(&agent, &name, &truth);
    let metrics = agent.metrics();
    assert_eq!(metrics.values_of("proxy", "proxytrace_connect_attempts_total", &[]), [name.as_str()]);
    assert_eq!(metrics.count("proxytrace_connections_broken_total", &[]), 0, "nobody has sent anything");
}

/// Four processes at once, and children of theirs that come and go.
fn everything(host: &Host) -> Plan {
    let rounds = scaled(100);
    let steps = [
        Step::each(&host.addresses(), How::Blocking, rounds),
        Step::each(&host.addresses(), How::Polled, rounds),
        Step::each(&host.listening, How::FromTakenPort, rounds),
        Step::each(&host.silent, How::Abandoned, rounds),
        Step::each(&[&host.full], How::Polled, rounds),
    ];
    Plan { processes: 4, fork_every: 20, steps: steps.concat() }
}
