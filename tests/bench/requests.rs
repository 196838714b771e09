//! How many requests go through an nginx that is traced, each over a new connection to its upstream.

use std::io::{Read, Write};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to, server};
use proxytrace_tests::proxytrace::Agent;

use crate::comparison::{Comparison, PER_SECOND};

const ROUNDS: usize = 9;
const CLIENTS: usize = 8;
const REQUESTS: usize = 1500;

/// Where the upstream, another nginx, listens.
const ADDRESS: &str = "127.0.0.1:8080";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";
const STATUS: &[u8] = b"HTTP/1.1 200 ";
const BODY: &str = "done";

pub(crate) fn measure() -> Result<Vec<Comparison>> {
    let netns = Netns::new();
    let answer = format!("return 200 {BODY};");
    let own = format!("server {{ listen {ADDRESS}; {answer} }}\n");
    let _upstream = Nginx::start(&netns, &(own + &server(&answer)));
    // Clients keep their connections, and only the upstream's are new.
    let nginx = Nginx::start(&netns, &proxy_to(ADDRESS, "keepalive_requests 1000000;"));
    let mut comparison = Comparison::new(
        "requests through nginx, a connection to the upstream for each",
        PER_SECOND,
        ["without an agent", "with one"],
    );
    for _ in 0..ROUNDS {
        let without = rate(&nginx)?;
        let agent = Agent::start(&["--process", nginx.name()]);
        let with = rate(&nginx)?;
        agent.stop();
        comparison.add([without, with]);
    }
    Ok(vec![comparison])
}

/// How many requests a second a few clients get answered at once.
fn rate(nginx: &Nginx) -> Result<f64> {
    let start = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| ask(nginx))).collect();
        clients.into_iter().try_for_each(|client| client.join().unwrap_or_else(|_| bail!("a client failed")))
    })
    .with_context(|| format!("nginx's log: {}", nginx.error_log()))?;
    Ok((CLIENTS * REQUESTS) as f64 / start.elapsed().as_secs_f64())
}

/// One client: the next request when the answer to the one before is there.
fn ask(nginx: &Nginx) -> Result<()> {
    let mut stream = nginx.connect();
    let mut buffer = [0; 4096];
    for _ in 0..REQUESTS {
        stream.write_all(REQUEST).context("send a request")?;
        let mut length = 0;
        while !buffer[..length].ends_with(BODY.as_bytes()) {
            let read = stream.read(&mut buffer[length..]).context("read an answer")?;
            ensure!(read > 0, "nginx closed instead of an answer");
            length += read;
        }
        let answer = &buffer[..length];
        ensure!(answer.starts_with(STATUS), "nginx answered {}", String::from_utf8_lossy(answer));
    }
    Ok(())
}
