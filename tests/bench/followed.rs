//! What it costs that somebody follows the agent: for each established connect a record (`trace --all`), or what changes (`guard`).

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::proxytrace::Agent;

use crate::Bench;
use crate::attempts::processor_time;
use crate::calls::Caller;
use crate::comparison::{Comparison, NANOSECONDS, SECONDS};

/// Runs of connect() in a round, for a part of a second, and attempts whose processor time is taken.
const RUNS: &str = "200";
const ATTEMPTS: u32 = 50_000;

/// The kernel half is told within a second that established connects are to be reported.
const TOLD: Duration = Duration::from_millis(1500);

/// Who reads what of the agent.
const SIDES: [(&str, Option<&str>); 3] = [
    ("agent", None),
    ("agent, established connects followed", Some("/records?since=now&all=1")),
    ("agent, changes followed", Some("/changes")),
];

pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let netns = Netns::new();
    let names = SIDES.map(|(name, _)| name);
    let what = "connect() established and closed, traced process, and who follows";
    let mut times = Comparison::new(what, NANOSECONDS, ["without"].into_iter().chain(names));
    let what = "the agent's processes, for a million established attempts, and who follows";
    let mut processors = Comparison::new(what, SECONDS, names);
    for _ in 0..bench.rounds {
        let timed = || Caller::start(&netns, "cal", &["--call", "established", "--runs", RUNS]);
        let mut round = vec![timed()?.go()?];
        let mut processor = Vec::new();
        for (_, page) in SIDES {
            round.push(beside(timed()?, page, |_, caller| caller.go())?);
            let options = ["--call", "established", "--calls", &ATTEMPTS.to_string()];
            let caller = Caller::start(&netns, "trc", &options)?;
            processor.push(beside(caller, page, |agent, caller| {
                let before = processor_time(agent.pid())?;
                caller.go()?;
                Ok((processor_time(agent.pid())? - before) * 1e6 / f64::from(ATTEMPTS))
            })?);
        }
        times.add(round);
        processors.add(processor);
    }
    bench.add(times);
    bench.add(processors);
    Ok(())
}

/// Does `work` while an agent traces the caller, and somebody reads that page of it.
fn beside(
    mut caller: Caller,
    page: Option<&str>,
    work: impl FnOnce(&Agent, &mut Caller) -> Result<f64>,
) -> Result<f64> {
    let agent = Agent::start(&["--process", caller.name()]);
    let reader = page.map(|page| read(&agent, page)).transpose()?;
    thread::sleep(TOLD);
    let figure = work(&agent, &mut caller)?;
    agent.stop();
    if let Some(reader) = reader {
        let bytes = reader.join().ok().context("whoever reads the agent")?;
        ensure!(bytes > 1000, "the agent told {bytes} bytes only");
    }
    Ok(figure)
}

/// Reads a page until the agent ends, on a thread of its own, which gives how many bytes that were.
fn read(agent: &Agent, page: &str) -> Result<thread::JoinHandle<u64>> {
    let mut stream = UnixStream::connect(agent.socket()).context("connect to the agent")?;
    write!(stream, "GET {page} HTTP/1.0\r\n\r\n").context("ask the agent")?;
    Ok(thread::spawn(move || {
        let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            bytes += read as u64;
        }
        bytes
    }))
}
