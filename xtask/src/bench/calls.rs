//! What a process does that is timed: one kind of call, again and again. It prints how many nanoseconds one takes.

use std::hint::black_box;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Result, bail};
use nix::unistd::getppid;

/// A kind of call.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Call {
    /// A system call that does next to nothing.
    Getppid,
    /// A socket is made, connect() refused at once, and the socket closed. In a network namespace without anybody else.
    Connect,
}

/// Where nobody listens.
const CLOSED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

pub(super) fn make(call: Call, times: u32) -> Result<()> {
    let start = Instant::now();
    match call {
        Call::Getppid => (0..times).for_each(|_| {
            black_box(getppid());
        }),
        Call::Connect => (0..times).try_for_each(|_| be_refused())?,
    }
    println!("{}", start.elapsed().as_secs_f64() * 1e9 / f64::from(times));
    Ok(())
}

fn be_refused() -> Result<()> {
    match TcpStream::connect(CLOSED) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => bail!("connect to {CLOSED}: {error}, where it should be refused"),
        Ok(_) => bail!("somebody listens at {CLOSED}"),
    }
}
