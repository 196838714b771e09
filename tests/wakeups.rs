//! The kernel half wakes its reader seldom, and no event waits because of that.

use std::fs;
use std::thread;
use std::time::Duration;

use proxytrace_tests::client::{Client, How, Plan, Step};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::scale::scaled;

use crate::clients::CONNECTOR;
use crate::scene::agrees;

/// Around everything that decides whether a reader is asleep: 5, 10 and 20 ms.
const PAUSES_MS: [u64; 18] = [0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 12, 15, 19, 20, 21, 25, 30, 100];

#[test]
fn a_failure_is_shown_however_long_after_the_one_before_it_comes() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to("127.0.0.1:8081", ""));
    let trace = Trace::start(&["--process", nginx.name()]);
    for pause in PAUSES_MS.into_iter().chain(PAUSES_MS.into_iter().rev()) {
        thread::sleep(Duration::from_millis(pause));
        assert_eq!(nginx.get("/"), 502);
        assert_eq!(trace.next_about_connections().outcome, "refused", "{pause} ms after the one before");
    }
}

#[test]
fn a_storm_of_failures_wakes_the_reader_seldom_and_it_sleeps_afterwards() {
    const PROCESSES: u32 = 4;
    let netns = Netns::new();
    let steps = Step::each(&["127.0.0.1:8080"], How::Blocking, scaled(5000));
    let client = Client::start(CONNECTOR, &netns, &Plan { processes: PROCESSES, fork_every: 0, steps });
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name]);

    let before = times_slept(agent.pid());
    client.go();
    let truth = client.finish();
    agrees(&agent, &name, &truth);
    let during = times_slept(agent.pid()) - before;
    assert!(during < truth.attempts() / 4, "slept {during} times, for {} failures", truth.attempts());

    // It comes round once a second to say that it is alive; whoever looked all the time would do so every 5 ms.
    thread::sleep(Duration::from_millis(500));
    let before = times_slept(agent.pid());
    thread::sleep(Duration::from_secs(3));
    let idle = times_slept(agent.pid()) - before;
    assert!(idle < 60, "slept {idle} times in three seconds without events");
}

/// How often the thread that takes events, which is the first of the process, had nothing to do.
fn times_slept(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("its context switches").trim().parse().expect("a number")
}
