//! A client that is not nginx: `connector`, a program of this package, which connects as its plan says and counts what
//! came of it. Its counts are the truth that the ledger is compared with.

#![expect(unsafe_code, reason = "a descriptor that comes in a message is a number")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::cmsg_space;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::child::Guarded;
use crate::metrics::Account;
use crate::netns::Netns;
use crate::scratch;
use crate::wait::SOON;

/// What a connector does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// How many processes follow the plan at once; with one it is the connector itself.
    pub processes: u32,
    /// After so many rounds a process forks a child that makes a round too, and exits; 0 for never.
    pub fork_every: u32,
    /// What each of them does, in turn: a round is one time of each step.
    pub steps: Vec<Step>,
}

/// Attempts of one kind to one address.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// `HOST:PORT` or `unix:PATH`
    pub address: String,
    /// In which way.
    pub how: How,
    /// How many times.
    pub times: u32,
}

/// A way to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// connect() waits for the outcome.
    Blocking,
    /// connect() does not wait; poll() does, and `SO_ERROR` has the result.
    Polled,
    /// As above, but a second connect() fetches the outcome.
    AskedTwice,
    /// connect() waits, but not as long as it takes (`SO_SNDTIMEO`), and the socket is closed.
    Impatient,
    /// connect() does not wait, and the socket is closed at once.
    Abandoned,
    /// connect() does not wait, and the socket is kept until the process ends.
    Held,
    /// As above, but the socket is handed over to the test, and the process ends.
    HandedOver,
    /// From a local port that a connection to the same address has already.
    FromTakenPort,
    /// connect() waits, on a socket of multipath TCP.
    Multipath,
    /// connect() returns before there is a SYN (`TCP_FASTOPEN_CONNECT`); the first send brings it, and the outcome.
    FastOpen,
    /// As above, but the socket is closed before anything is sent.
    FastOpenAbandoned,
    /// No connect() at all: a send connects (`MSG_FASTOPEN`), and waits for the outcome.
    FastOpenSend,
    /// To a listener of the client itself, which answers past TCP, by a sockmap, and closes.
    Bypassed,
    /// By each of [`KILLED_TOGETHER`] threads of a child, which is killed when all of them wait in connect().
    KilledTogether,
    /// Calls of connect() that are no attempts: datagram sockets, no socket at all, `AF_UNSPEC`, once more when connected.
    NotAnAttempt,
}

/// How many threads a child has that is killed: they end at the same time on all processors.
pub const KILLED_TOGETHER: usize = 4;

/// How often each outcome happened, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth(pub BTreeMap<String, Account>);

/// A line of what a connector prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Count {
    /// As in the metrics.
    pub address: String,
    /// As in the contract.
    pub outcome: String,
    /// How often.
    pub count: u64,
}

/// A connector under a name of its own; it waits for [`Client::go`].
#[derive(Debug)]
pub struct Client {
    name: String,
    process: Guarded,
    /// The connector's stdin: a line starts it, the end of it ends what is held.
    control: UnixStream,
    /// The link that it was started through.
    _directory: TempDir,
}

impl Plan {
    /// One process, so many times each way to each address.
    #[must_use]
    pub fn simple(addresses: &[impl AsRef<str>], how: How, times: u32) -> Self {
        Self { processes: 1, fork_every: 0, steps: Step::each(addresses, how, times) }
    }
}

impl Step {
    /// A step for each address.
    #[must_use]
    pub fn each(addresses: &[impl AsRef<str>], how: How, times: u32) -> Vec<Self> {
        addresses.iter().map(|address| Self { address: address.as_ref().to_owned(), how, times }).collect()
    }
}

impl Client {
    /// Starts `connector` (only the test knows where cargo put it) in `netns`.
    #[must_use]
    pub fn start(connector: &str, netns: &Netns, plan: &Plan) -> Self {
        let (name, directory) = (scratch::unique_name("con"), scratch::directory());
        let program = scratch::alias(Path::new(connector), directory.path(), &name);
        Self::spawn(Command::new(program), name, directory, netns, plan)
    }

    /// The same as another user, who cannot look into where cargo put it.
    #[must_use]
    pub fn start_as(user: u32, connector: &str, netns: &Netns, plan: &Plan) -> Self {
        let (name, directory) = (scratch::unique_name("con"), scratch::directory());
        let program = directory.path().join(&name);
        fs::copy(connector, &program).expect("copy the connector");
        let mut command = Command::new(program);
        command.uid(user).gid(user);
        Self::spawn(command, name, directory, netns, plan)
    }

    fn spawn(mut command: Command, name: String, directory: TempDir, netns: &Netns, plan: &Plan) -> Self {
        let (control, stdin) = UnixStream::pair().expect("make a pair of sockets");
        let plan = serde_json::to_string(plan).expect("write a plan");
        let process =
            netns.spawn(command.arg(plan).stdin(Stdio::from(OwnedFd::from(stdin))).stdout(Stdio::piped()));
        Self { name, process, control, _directory: directory }
    }

    /// The name that its processes have.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Lets it begin.
    pub fn go(&self) {
        (&self.control).write_all(b"go\n").expect("have the connector begin");
    }

    /// Takes over the socket of a [`How::HandedOver`] step, and waits until the process that made it is gone.
    #[must_use]
    pub fn take_over(&mut self) -> OwnedFd {
        let (mut byte, mut space) = ([0], cmsg_space!(RawFd));
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let control = self.control.as_raw_fd();
        let message = recvmsg::<()>(control, &mut buffers, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC);
        let message = message.expect("a message from the connector");
        let descriptor = match message.cmsgs().expect("control messages").next() {
            Some(ControlMessageOwned::ScmRights(descriptors)) => descriptors[0],
            other => panic!("a descriptor was expected, not {other:?}"),
        };
        self.process.wait(SOON);
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        unsafe { OwnedFd::from_raw_fd(descriptor) }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(SOON);
    }

    /// Lets it end, and gives what it counted.
    #[must_use]
    #[track_caller]
    pub fn finish(mut self) -> Truth {
        self.control.shutdown(std::net::Shutdown::Write).expect("have the connector end");
        let mut text = String::new();
        self.process
            .inner()
            .stdout
            .take()
            .expect("a pipe")
            .read_to_string(&mut text)
            .expect("read the counts");
        let status = self.process.wait(SOON);
        assert!(status.success(), "the connector ended with {status}");
        Truth::parse(&text)
    }
}

impl Truth {
    /// Adds attempts with the same outcome.
    pub fn add(&mut self, address: &str, outcome: &str, count: u64) {
        let account = self.0.entry(address.to_owned()).or_default();
        account.attempts += count;
        match outcome {
            "established" => account.established += count,
            cause => *account.failures.entry(cause.to_owned()).or_default() += count,
        }
    }

    /// Whether any attempt to that address ended so.
    #[must_use]
    pub fn has(&self, address: &str, outcome: &str) -> bool {
        self.0.get(address).is_some_and(|account| match outcome {
            "established" => account.established > 0,
            cause => account.failures.contains_key(cause),
        })
    }

    /// All the attempts in it.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.0.values().map(|account| account.attempts).sum()
    }

    fn parse(text: &str) -> Self {
        let mut truth = Self::default();
        for line in text.lines() {
            let Count { address, outcome, count } = serde_json::from_str(line).expect("a line of counts");
            truth.add(&address, &outcome, count);
        }
        truth
    }
}
