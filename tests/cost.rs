//! What it costs: the time from the start to the first record, and memory. The figures are printed.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to};
use proxytrace_tests::proxytrace::{Agent, Trace};

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
