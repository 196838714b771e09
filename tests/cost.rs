//! What it costs: the time from the start to the first record, memory, and the programs in the kernel. The figures are printed.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::client::{Client, How, Plan};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::program;
use proxytrace_tests::proxytrace::{Agent, Trace};

use crate::clients::CONNECTOR;

/// The goal is 0.5 s; on a machine where other tests run at the same time only a generous limit is worth a failure.
const START_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn it_is_attached_soon_and_stays_small() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to("127.0.0.1:8081", ""));

    let start = Instant::now();
    let agent = Agent::start(&["--process", nginx.name()]);
    let agent_ready = start.elapsed();

    let start = Instant::now();
    let trace = Trace::start(&["--process", nginx.name()]);
    let attached = start.elapsed();
    assert_eq!(nginx.get("/"), 502);
    assert_eq!(trace.next().kind, "connect");
    let first_record = start.elapsed();

    for _ in 0..100 {
        assert_eq!(nginx.get("/"), 502);
        let _ = agent.metrics();
    }
    let [agent_memory, trace_memory] = [agent.pid(), trace.pid()].map(resident_kib);

    println!(
        "agent ready after {agent_ready:?}; trace attached after {attached:?}, first record after {first_record:?}"
    );
    println!("resident: agent {agent_memory} KiB, trace {trace_memory} KiB");
    println!("kernel tables of the agent: {} KiB", kernel_bytes(agent.pid()) / 1024);
    for (what, took) in [("agent", agent_ready), ("trace", first_record)] {
        assert!(took < START_LIMIT, "{what} took {took:?}");
    }
    for (what, memory) in [("agent", agent_memory), ("trace", trace_memory)] {
        assert!(memory < 30 * 1024, "{what} keeps {memory} KiB in memory");
    }
}

/// How the hooks are attached, in whatever way this kernel allows: figures of one machine, to be compared with each other alone.
#[test]
fn the_programs_run_for_an_attempt_as_often_as_their_hooks_are_reached() {
    const ATTEMPTS: u32 = 400;
    let netns = Netns::new();
    let _listener = Backend::start(&netns, "127.0.0.1:8080", Manner::AnswerAndClose);
    for (what, address) in [("established", "127.0.0.1:8080"), ("refused", "127.0.0.1:8081")] {
        let client = Client::start(CONNECTOR, &netns, &Plan::simple(&[address], How::Blocking, ATTEMPTS));
        let agent = Agent::start(&["--process", client.name()]);
        let statistics = program::statistics();
        let before = programs(agent.pid());
        client.go();
        assert_eq!(client.finish().attempts(), u64::from(ATTEMPTS));
        let after = programs(agent.pid());
        drop(statistics);
        let [runs, ns] =
            [RUNS, NANOSECONDS].map(|field| (sum(&after, field) - sum(&before, field)) / f64::from(ATTEMPTS));
        println!(
            "an attempt that is {what}: {runs:.2} runs of programs, {ns:.0} ns; the verifier looked at {} instructions of {} programs",
            sum(&after, VERIFIED),
            after.len()
        );
        for hook in agent.get("/metrics").body.lines().filter(|line| line.starts_with(HOOK)) {
            println!("{hook}");
        }
        // Those of others run as well where all system calls are seen: at least one at each end of the attempt.
        assert!(runs >= 2.0, "{runs} runs for each attempt");
    }
}

const HOOK: &str = "proxytrace_hook_attached{hook=\"connect\"";
const RUNS: &str = "run_cnt:";
const NANOSECONDS: &str = "run_time_ns:";
/// From 5.16 on.
const VERIFIED: &str = "verified_insns:";

/// What the kernel says of each program of a process, by number.
fn programs(pid: u32) -> BTreeMap<String, String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("read the descriptors").flatten();
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    // A link has the number of its program too, and none of its counts.
    let programs = infos.filter(|info| info.contains(RUNS));
    programs.filter_map(|info| Some((field(&info, "prog_id:")?, info))).collect()
}

/// The sum of a field over programs.
fn sum(programs: &BTreeMap<String, String>, name: &str) -> f64 {
    let values = programs.values().filter_map(|info| field(info, name)?.parse::<f64>().ok());
    values.fold(0.0, |sum, value| sum + value)
}

fn field(info: &str, name: &str) -> Option<String> {
    info.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
}

/// What the kernel holds in memory for the maps and programs of a process, however many descriptors of each it has.
pub(crate) fn kernel_bytes(pid: u32) -> u64 {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("read the descriptors").flatten();
    // One that is closed meanwhile holds nothing.
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let held: BTreeMap<String, u64> = infos
        .filter_map(|info| {
            let field = |name: &str| Some(info.lines().find(|line| line.starts_with(name))?.to_owned());
            let id = field("map_id:").or_else(|| field("prog_id:"))?;
            Some((id, field("memlock:")?.split_whitespace().last()?.parse().ok()?))
        })
        .collect();
    held.values().sum()
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its resident memory");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
