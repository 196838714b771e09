//! An nginx that has as much to do as it can, under everything that may watch it: wrk asks, each request goes to an upstream.

use std::fmt::Write as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use proxytrace_tests::child;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, server};

use crate::Bench;
use crate::comparison::{Comparison, MILLISECONDS, PER_SECOND};
use crate::plots::Point;
use crate::subjects::{SUBJECTS, Subject};

/// A kind of upstream, and how it is reached.
struct Load {
    what: &'static str,
    /// Of the upstream, as the proxy sees it.
    address: &'static str,
    upstream: Upstream,
    /// Whether connections to the upstream are kept.
    is_kept: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Upstream {
    /// Another nginx, in the network namespace of the proxy.
    Here,
    /// Another nginx, in a network namespace of its own.
    Elsewhere,
    /// Nobody listens.
    Nowhere,
}

const LOADS: &[Load] = &[
    Load {
        what: "a connection to the upstream for each request",
        address: "127.0.0.1:8080",
        upstream: Upstream::Here,
        is_kept: false,
    },
    Load {
        what: "connections to the upstream are kept",
        address: "127.0.0.1:8080",
        upstream: Upstream::Here,
        is_kept: true,
    },
    Load {
        what: "the upstream refuses",
        address: "127.0.0.1:8089",
        upstream: Upstream::Nowhere,
        is_kept: false,
    },
    Load {
        what: "a connection for each request to an upstream in another network namespace",
        address: "10.77.0.2:8080",
        upstream: Upstream::Elsewhere,
        is_kept: false,
    },
];

/// Where wrk asks.
const PROXY: &str = "http://127.0.0.1:8090/";
const CLIENTS: &str = "8";

/// What wrk says of a run, in the order of the comparisons.
const FIGURES: [&str; 3] = ["requests", "the median request", "the slowest in a hundred"];

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    for load in LOADS {
        let scene = load.scene(1);
        let subjects = available(&scene, bench)?;
        let sides = || subjects.iter().map(|subject| subject.name);
        let mut comparisons = FIGURES.map(|figure| {
            let unit = if figure == FIGURES[0] { PER_SECOND } else { MILLISECONDS };
            Comparison::new(format!("nginx, {figure}, {}", load.what), unit, sides())
        });
        for _ in 0..bench.rounds {
            let mut figures: [Vec<f64>; FIGURES.len()] = Default::default();
            for subject in &subjects {
                let run = subject.during(&scene.nginx, || scene.ask(bench.seconds))?;
                let run = run.map_err(|why| anyhow!("{}: {why}", subject.name))?;
                figures.iter_mut().zip(run).for_each(|(all, figure)| all.push(figure));
            }
            comparisons.iter_mut().zip(figures).for_each(|(comparison, round)| comparison.add(round));
        }
        comparisons.into_iter().for_each(|comparison| bench.add(comparison));
    }
    Ok(())
}

/// How the rate grows with the workers, without and with an agent.
pub(crate) fn workers(bench: &mut Bench) -> Result<()> {
    let processors = thread::available_parallelism().context("count the processors")?.get();
    for workers in 1..=processors {
        let scene = LOADS[0].scene(workers);
        let sides = &SUBJECTS[..2];
        let what = format!("nginx, requests, {workers} workers, {}", LOADS[0].what);
        let mut comparison = Comparison::new(what, PER_SECOND, sides.iter().map(|side| side.name));
        for _ in 0..bench.rounds {
            let rates = sides.iter().map(|side| {
                let run = side.during(&scene.nginx, || scene.ask(bench.seconds))?;
                Ok(run.map_err(|why| anyhow!("{}: {why}", side.name))?[0])
            });
            comparison.add(rates.collect::<Result<Vec<_>>>()?);
        }
        let rates: Vec<_> = comparison.figures().map(|(side, rate)| (side.to_owned(), rate)).collect();
        for (line, y) in rates {
            bench.point(Point { plot: "workers", line, x: workers as f64, y });
        }
        bench.add(comparison);
    }
    Ok(())
}

/// The subjects that can watch here; why the others cannot is said.
fn available(scene: &Scene, bench: &mut Bench) -> Result<Vec<&'static Subject>> {
    let mut found = Vec::new();
    for subject in SUBJECTS {
        match subject.during(&scene.nginx, || scene.ask(1))? {
            Ok(_) => found.push(subject),
            Err(why) => bench.note(format!("{}: not measured: {why}", subject.name)),
        }
    }
    Ok(found)
}

/// An nginx that asks its upstream.
struct Scene {
    netns: Netns,
    nginx: Nginx,
    is_refused: bool,
    _upstream: Option<(Netns, Nginx)>,
}

impl Load {
    fn scene(&self, workers: usize) -> Scene {
        let netns = Netns::new();
        let upstream = match self.upstream {
            Upstream::Nowhere => None,
            Upstream::Here => Some((Netns::new(), Nginx::start(&netns, &answering(self.address)))),
            Upstream::Elsewhere => {
                let other = Netns::new();
                netns.cable(&["10.77.0.1/24"], &other, &["10.77.0.2/24"]);
                // As over loopback by default: a port can be used again a second after its connection has ended. Otherwise the ports of one
                // half are used up after 14 000 requests, and from then on the kernel searches all of them at each connect.
                netns.sysctl("net.ipv4.tcp_tw_reuse", "1");
                let nginx = Nginx::start(&other, &answering(self.address));
                Some((other, nginx))
            }
        };
        let nginx = Nginx::with(Options { workers, ..Options::default() }, &netns, &self.configuration());
        Scene { netns, nginx, is_refused: self.upstream == Upstream::Nowhere, _upstream: upstream }
    }

    /// Of the proxy. What it logs of each failure would be most of what it does.
    fn configuration(&self) -> String {
        let mut text = "error_log {dir}/error.log crit;\n".to_owned();
        let keepalive = if self.is_kept { "keepalive 32;" } else { "" };
        let _ = writeln!(text, "upstream api {{ server {}; {keepalive} }}", self.address);
        let location =
            "location / { proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ''; }";
        text + &server(&format!("listen 127.0.0.1:8090; keepalive_requests 1000000000; {location}"))
    }
}

/// An upstream; what it returns is short. It keeps connections if it is asked to.
fn answering(address: &str) -> String {
    server(&format!("listen {address}; keepalive_requests 1000000000; return 200 done;"))
}

impl Scene {
    /// What wrk says of so many seconds.
    fn ask(&self, seconds: u32) -> Result<[f64; FIGURES.len()]> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--connections", CLIENTS, "--latency", "--duration"]);
        wrk.arg(format!("{seconds}s")).arg(PROXY);
        let printed = self.netns.enter(|| child::run(&mut wrk));
        // Ports of connections that are over come back one by one.
        thread::sleep(Duration::from_millis(200));
        let read = parse(&printed).with_context(|| format!("wrk printed {printed}"))?;
        ensure!(read.are_failures == self.is_refused, "not the answers that were expected: {printed}");
        Ok(read.figures)
    }
}

/// What wrk printed.
struct Printed {
    figures: [f64; FIGURES.len()],
    are_failures: bool,
}

fn parse(text: &str) -> Result<Printed> {
    let after = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim).with_context(|| format!("there is no {label}"))
    };
    let figures =
        [after("Requests/sec:")?.parse()?, milliseconds(after("50%")?)?, milliseconds(after("99%")?)?];
    let failed = after("Non-2xx or 3xx responses:").unwrap_or("0").parse::<u64>()?;
    Ok(Printed { figures, are_failures: failed > 0 })
}

/// A duration as wrk writes it, such as 612.00us.
fn milliseconds(text: &str) -> Result<f64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        unit => bail!("{unit:?} is no unit of time"),
    };
    Ok(digits.parse::<f64>()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "Running 1s test @ http://127.0.0.1:8090/
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   812.11us  201.18us   4.12ms   90.11%
    Req/Sec     9.86k   512.21    10.61k    80.00%
  Latency Distribution
     50%  790.00us
     75%    0.86ms
     90%    0.97ms
     99%    1.61ms
  9811 requests in 1.00s, 1.61MB read
  Non-2xx or 3xx responses: 9811
Requests/sec:   9808.41
Transfer/sec:      1.61MB
";
        let Printed { figures, are_failures } = parse(text).unwrap();
        assert_eq!(figures.map(|figure| (figure * 100.0).round() as u64), [980_841, 79, 161]);
        assert!(are_failures);
        assert!(!parse(&text.replace("  Non-2xx or 3xx responses: 9811\n", "")).unwrap().are_failures);
        assert!(parse("unable to connect").is_err());
    }
}
