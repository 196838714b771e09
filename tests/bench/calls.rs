//! What a process does that is timed: one kind of call, again and again. It prints how many nanoseconds one takes: in the
//! median of short runs, most of which nobody interrupts also on a busy machine.

use std::hint::black_box;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Result, bail};
use nix::unistd::getppid;

use crate::comparison::median;

/// A kind of call.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Call {
    /// A system call that does next to nothing.
    Getppid,
    /// A socket is made, connect() refused at once, and the socket closed. In a network namespace without anybody else.
    Connect,
}

/// Where nobody listens.
const CLOSED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

pub(crate) fn make(call: Call, runs: u32) -> Result<()> {
    let runs: Result<Vec<_>> = (0..runs).map(|_| run(call)).collect();
    println!("{}", median(runs?));
    Ok(())
}

/// The nanoseconds of a call in one run, which takes a millisecond or so.
fn run(call: Call) -> Result<f64> {
    let start = Instant::now();
    let calls = match call {
        Call::Getppid => {
            const CALLS: u32 = 5000;
            (0..CALLS).for_each(|_| {
                black_box(getppid());
            });
            CALLS
        }
        Call::Connect => {
            const CALLS: u32 = 50;
            (0..CALLS).try_for_each(|_| be_refused())?;
            CALLS
        }
    };
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls))
}

fn be_refused() -> Result<()> {
    match TcpStream::connect(CLOSED) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => bail!("connect to {CLOSED}: {error}, where it should be refused"),
        Ok(_) => bail!("somebody listens at {CLOSED}"),
    }
}
