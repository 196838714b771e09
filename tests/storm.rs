//! A storm that nobody can follow: the counts stay exact, and what was missed is known.

use nix::sys::signal::Signal;
use proxytrace_tests::client::{Client, How, Plan, Step};
use proxytrace_tests::metrics::Account;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::proxytrace::{Agent, Record, Trace};
use proxytrace_tests::scale::scaled;

use crate::clients::CONNECTOR;
use crate::scene::counted;

const PROCESSES: u32 = 4;
const REFUSED_EACH: u32 = 12_500;

#[test]
fn with_a_tiny_ring_what_is_received_and_what_is_lost_is_all_there_was() {
    let _ = storm(|_| {});
}

#[test]
fn a_reader_that_stands_still_learns_how_much_it_has_missed() {
    let missed = storm(|trace| trace.signal(Signal::SIGSTOP));
    assert!(missed > 0, "a reader that stood still has missed something");
}

/// Lets a storm pass over an agent and a `trace` with the smallest of rings; gives how many records were lost.
fn storm(before: impl FnOnce(&Trace)) -> u64 {
    let netns = Netns::new();
    let address = "127.0.0.1:8080";
    let refused_each = scaled(REFUSED_EACH);
    let steps = Step::each(&[address], How::Blocking, refused_each);
    let client = Client::start(CONNECTOR, &netns, &Plan { processes: PROCESSES, fork_every: 0, steps });
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name]);
    let trace = Trace::start(&["--process", &name, "--ring-size", "4096", "--all"]);

    before(&trace);
    client.go();
    let truth = client.finish();
    trace.signal(Signal::SIGCONT);

    let failures = u64::from(PROCESSES * refused_each);
    let expected = Account {
        attempts: failures,
        failures: [("refused".to_owned(), failures)].into(),
        ..Account::default()
    };
    assert_eq!(truth.0[address], expected);
    counted(&agent, &name, address, &expected);

    // What each process reports besides: its start and its end. The first fork makes its parent a master, and is not reported.
    let sent = failures + u64::from(PROCESSES - 1) + u64::from(PROCESSES);
    let records = trace.stop().records;
    let is_refused = |record: &&Record| record.kind == "connect" && record.outcome == "refused";
    let is_of_process = |record: &&Record| matches!(&*record.kind, "worker_started" | "worker_exited");
    let received = records.iter().filter(|record| is_refused(record) || is_of_process(record)).count() as u64;
    let lost: u64 = records.iter().filter(|record| record.kind == "lost").map(|record| record.count).sum();
    assert_eq!(received + lost, sent, "{received} received, {lost} lost");
    lost
}
