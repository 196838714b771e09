//! Kept connections that the upstream ends between two requests: of how many it is not known whether a request waited.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxytrace_tests::child;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::Agent;

use crate::Bench;

/// How often wrk asks: over so many connections, with so many milliseconds between an answer and the next request on each.
const PACES: [(u32, u32); 3] = [(8, 8), (16, 1), (16, 0)];

/// The upstream closes a connection after so many requests, and so does the connection that nginx keeps to it end.
const REQUESTS: u32 = 20;

const UPSTREAM: &str = "127.0.0.1:8080";

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    for (connections, delay) in PACES {
        let netns = Netns::new();
        let answers =
            format!("listen {UPSTREAM}; keepalive_requests {REQUESTS}; location / {{ return 200 done; }}");
        let _upstream = Nginx::start(&netns, &server(&answers));
        let nginx = Nginx::start(&netns, &configuration());
        let agent = Agent::start(&["--process", nginx.name()]);
        let rate = ask(&netns, connections, delay, bench.seconds)?;
        // What is still open ends with nginx's keepalive_timeout.
        thread::sleep(Duration::from_secs(2));
        let metrics = agent.metrics();
        let ended = metrics.count("proxytrace_connects_established_total", &[("address", UPSTREAM)]);
        let unknown = metrics.count("proxytrace_untracked_total", &[("why", "answer_order_unknown")]);
        let broken = metrics.count("proxytrace_connections_broken_total", &[]);
        agent.stop();
        ensure!(ended > 10, "only {ended} connections were made");
        let share = 100.0 * unknown as f64 / ended as f64;
        bench.say(&format!(
            "kept connections that the upstream ends, {rate:.0} requests a second: of {ended}, of {unknown} it is not known whether a request waited ({share:.1} %), {broken} count as broken"
        ));
    }
    Ok(())
}

fn configuration() -> String {
    let upstream = format!("upstream api {{ server {UPSTREAM}; keepalive 32; keepalive_timeout 1s; }}\n");
    let location =
        "location / { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ''; }";
    upstream + &server(&format!("listen 127.0.0.1:8090; keepalive_requests 1000000000; {location}"))
}

/// Gives the requests a second.
fn ask(netns: &Netns, connections: u32, delay: u32, seconds: u32) -> Result<f64> {
    let directory = tempfile::tempdir().context("make a directory")?;
    let script = directory.path().join("pace.lua");
    // wrk calls that after each answer; without the function it asks again at once.
    let pace = if delay > 0 { format!("function delay() return {delay} end\n") } else { String::new() };
    fs::write(&script, pace).context("write the pace for wrk")?;
    let mut wrk = Command::new("wrk");
    wrk.args(["--threads", "1", "--connections", &connections.to_string()]);
    wrk.args(["--duration", &format!("{seconds}s"), "--script"]).arg(&script).arg("http://127.0.0.1:8090/");
    let printed = netns.enter(|| child::run(&mut wrk));
    let rate = printed.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    rate.and_then(|rate| rate.trim().parse().ok()).with_context(|| format!("wrk printed {printed}"))
}
