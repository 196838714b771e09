//! The process that the self-test watches: this program once more, under a hidden command. It does one of everything
//! that a hook is there for, on loopback: forks, executes, signals, connects, has a SYN sent again, exits.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, raise},
        socket::{Backlog, listen},
    },
};
use tokio::signal::unix::{SignalKind, signal};

/// The hidden command; see [`run`].
pub const COMMAND: &str = "self-test-subject";

/// A second passes before a SYN is sent again (RFC 6298), here and there a little more.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long a connection may take from its client's side to the listener's.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A subject that waits to be started.
pub(super) struct Subject(Child);

impl Subject {
    pub(super) fn start() -> anyhow::Result<Self> {
        spawn().map(Self)
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Lets it go on, and waits for its end.
    pub(super) fn finish(mut self, timeout: Duration) -> anyhow::Result<()> {
        release(&mut self.0)?;
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                let mut words = String::new();
                if let Some(mut stderr) = self.0.stderr.take() {
                    stderr.read_to_string(&mut words)?;
                }
                ensure!(status.success(), "the self-test ended with {status}: {}", words.trim_end());
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the self-test did not end within {timeout:?}")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Gone already where all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the subject does.
///
/// # Errors
/// What went wrong, for the one that started it.
pub fn run() -> anyhow::Result<()> {
    // The end of the input without a line: the process that started this one is gone.
    if std::io::stdin().read(&mut [0])? == 0 {
        return Ok(());
    }
    take_a_signal()?;
    // It ends at once: it is never started.
    let mut child = spawn()?;
    drop(child.stdin.take());
    let status = child.wait()?;
    ensure!(status.success(), "a child that had nothing to do ended with {status}");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen on 127.0.0.1")?;
    let address = listener.local_addr()?;
    // The backlog holds one connection that nobody accepts: the SYN of the next is dropped.
    listen(&listener, Backlog::new(0)?).context("listen with a backlog of 0")?;
    let _established = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    // The client's side of a handshake is done before the listener's is.
    let mut arrived = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    ensure!(
        poll(&mut arrived, PollTimeout::try_from(ARRIVAL_TIMEOUT)?)? == 1,
        "a connection to {address} did not arrive within {ARRIVAL_TIMEOUT:?}"
    );
    give_up_on(address)
}

/// It must be one that is handled: one that ends the process is reported by the kernel as SIGKILL.
fn take_a_signal() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut signals = signal(SignalKind::hangup()).context("handle a signal")?;
        raise(Signal::SIGHUP).context("raise a signal")?;
        signals.recv().await.context("wait for a signal")
    })
}

fn give_up_on(address: SocketAddr) -> anyhow::Result<()> {
    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
        Ok(_) => bail!("a second connect to {address} succeeded, although its backlog was full"),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Ok(()),
        Err(error) => Err(error).with_context(|| format!("connect to {address}")),
    }
}

/// This program, whatever has become of its file.
fn spawn() -> anyhow::Result<Child> {
    Command::new("/proc/self/exe")
        .arg(COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start the self-test (/proc/self/exe)")
}

fn release(child: &mut Child) -> anyhow::Result<()> {
    let mut stdin = child.stdin.take().context("the self-test has no standard input")?;
    stdin.write_all(b"\n").context("let the self-test begin")
}
