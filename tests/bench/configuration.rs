//! How long it takes to read a large configuration, beside nginx itself.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use proxytrace_tests::nginx::{Nginx, Options};
use proxytrace_tests::proxytrace;

use crate::Bench;
use crate::comparison::{Comparison, MILLISECONDS};
use crate::many::{self, ADDRESSES};

const UPSTREAMS: u32 = 2000;

/// In milliseconds. A reload of such a configuration must have its names within a second.
const LIMIT: f64 = 1000.0;

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let nginx = Nginx::prepare(Options::default(), &many::routes(UPSTREAMS));
    let what = format!("reading {UPSTREAMS} upstreams of {ADDRESSES} addresses and {UPSTREAMS} locations");
    let sides = ["nginx -t", "proxytrace check"];
    let mut comparison = Comparison::new(what, MILLISECONDS, sides).at_most(LIMIT);
    for _ in 0..bench.rounds {
        let (mut test, mut check) = (nginx.command(), proxytrace::command());
        comparison
            .add([milliseconds(test.arg("-t"))?, milliseconds(check.arg("check").arg(nginx.config()))?]);
    }
    bench.add(comparison);
    Ok(())
}

/// How long a command takes, which must succeed.
fn milliseconds(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("run {command:?}"))?;
    let took = start.elapsed().as_secs_f64() * 1000.0;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(took)
}
