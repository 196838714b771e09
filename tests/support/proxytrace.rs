//! proxytrace as its users run it: `trace` with its records, `agent` with its metrics.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde::Deserialize;
use tempfile::TempDir;

use crate::child::{Captured, Guarded};
use crate::http::{self, Response};
use crate::metrics::Metrics;
use crate::wait::{self, SOON, patient};
use crate::{process, scratch};

/// The program under test: `PROXYTRACE_BIN`, or what `cargo build --release` made in this repository.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("PROXYTRACE_BIN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/proxytrace"),
        PathBuf::from,
    )
}

/// The program where also somebody who may not look into the repository can run it.
#[must_use]
pub fn copy_for_everybody() -> (TempDir, PathBuf) {
    let directory = scratch::directory();
    let program = directory.path().join("proxytrace");
    fs::copy(binary(), &program).expect("copy proxytrace");
    (directory, program)
}

/// The program with nothing of the caller's environment that would change what it does.
#[must_use]
pub fn command() -> Command {
    command_of(binary())
}

/// The same for a program that becomes it, such as setpriv.
#[must_use]
pub fn command_of(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PROXYTRACE_"))
    {
        command.env_remove(name);
    }
    // `check` says less of what is not here where it takes this host for another than nginx's: in a pipeline (docs/check.md).
    command.env_remove("CI");
    // The one thing that a whole run of the stories may want to change: the ways to attach.
    if let Some(ways) = std::env::var_os(HOOK_VIA) {
        command.env("PROXYTRACE_HOOK_VIA", ways);
    }
    // Nobody asks an agent of the host, or takes its place.
    command.env(SOCKET, "none").env("PROXYTRACE_STATE", "none");
    command.stdin(Stdio::null());
    command
}

/// Where an agent is asked, for the agent and for those that ask.
const SOCKET: &str = "PROXYTRACE_SOCKET";

/// What the program gets as `PROXYTRACE_HOOK_VIA`.
const HOOK_VIA: &str = "PROXYTRACE_TEST_HOOK_VIA";

/// One line of `trace --json`. What a kind of record does not have is empty here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are the contract's")]
pub struct Record {
    pub kind: String,
    pub time: Option<String>,
    pub proxy: String,
    pub pid: u32,
    pub generation: u32,
    pub upstream: String,
    pub address: String,
    pub local: Option<String>,
    pub backend: Option<String>,
    pub outcome: String,
    pub errno: Option<i32>,
    pub duration_us: Option<u64>,
    pub syn_retransmits: Option<u32>,
    /// Of a `broken` record, and of a `connect` that failed.
    pub cause: String,
    /// Of a connection that broke: whether earlier requests on it had been answered.
    #[serde(default)]
    pub kept: bool,
    /// Of a `finding` record: what kind, whether it is raised or cleared, where in the configuration, and the proof.
    pub finding: String,
    pub state: String,
    pub place: Option<String>,
    pub severity: String,
    pub sentence: String,
    pub evidence: serde_json::Value,
    pub because: String,
    /// Of a `lost` record.
    pub count: u64,
    /// Of a `reload` record.
    pub result: String,
    pub reason: String,
    /// Of a `worker_exited` record.
    pub signal: Option<i32>,
    pub code: Option<i32>,
}

impl Record {
    /// Whether it is about an attempt or a connection, or of records like that which are missing.
    #[must_use]
    pub fn is_about_connections(&self) -> bool {
        matches!(&*self.kind, "connect" | "stalled" | "broken" | "lost")
    }

    /// How long the attempt took.
    #[must_use]
    #[track_caller]
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.duration_us.expect("a record with a duration"))
    }
}

/// A running `proxytrace trace --json`.
#[derive(Debug)]
pub struct Trace {
    child: Guarded,
    /// Lines that are no records are kept as they are, for the message.
    records: Receiver<Result<Record, String>>,
    stderr: Captured,
}

/// What is left when a `trace` has ended.
#[derive(Debug)]
pub struct Ended {
    /// The records that nobody had asked for yet.
    pub records: Vec<Record>,
    /// What went to stderr.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Trace {
    /// Starts it with `arguments`, and returns when it is attached: nothing from now on is missed.
    #[must_use]
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        Self::by(command(), arguments)
    }

    /// The same by another command, to which `trace` and the arguments are added.
    #[must_use]
    #[track_caller]
    pub fn by(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = Guarded::spawn(
            command.args(["trace", "--json"]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()),
        );
        let stderr = Captured::from(child.inner().stderr.take().expect("a pipe"));
        let stdout = BufReader::new(child.inner().stdout.take().expect("a pipe"));
        let (sender, records) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let record = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"));
                let _ = sender.send(record);
            }
        });
        let trace = Self { child, records, stderr };
        let header = trace.next();
        assert_eq!(header.kind, "header", "the first line is the header");
        trace
    }

    /// The next record, whatever it is.
    #[track_caller]
    #[allow(clippy::should_implement_trait, reason = "it panics rather than ends")]
    #[must_use]
    pub fn next(&self) -> Record {
        match self.within(SOON) {
            Some(record) => record,
            None => panic!(
                "no record came; stderr: {}; it waits in\n{}",
                self.stderr.text(),
                process::waits_in(self.pid())
            ),
        }
    }

    /// The next record of one of these kinds; others are skipped.
    #[track_caller]
    #[must_use]
    pub fn next_among(&self, kinds: &[&str]) -> Record {
        let deadline = Instant::now() + patient(SOON * 3);
        while let Some(record) = self.before(deadline) {
            if kinds.contains(&&*record.kind) {
                return record;
            }
        }
        panic!("no record of {kinds:?} came; stderr: {}", self.stderr.text())
    }

    /// The next record about a connection, or about lost ones; those about processes and the like are skipped.
    #[track_caller]
    #[must_use]
    pub fn next_about_connections(&self) -> Record {
        let deadline = Instant::now() + patient(SOON * 3);
        while let Some(record) = self.before(deadline) {
            if record.is_about_connections() {
                return record;
            }
        }
        panic!("no record about a connection came; stderr: {}", self.stderr.text())
    }

    /// The same, and it is of that kind. Any handshake can stall first where the processor is emulated: when it has stood
    /// still, the kernel's timers make up for that, and the SYN is sent again at once.
    #[track_caller]
    #[must_use]
    pub fn next_of(&self, kind: &str) -> Record {
        let mut record = self.next_about_connections();
        while wait::is_slow() && kind == "connect" && record.kind == "stalled" {
            record = self.next_about_connections();
        }
        assert_eq!(record.kind, kind, "{record:?}");
        record
    }

    /// The next record, if one comes in that time.
    #[track_caller]
    #[must_use]
    pub fn within(&self, time: Duration) -> Option<Record> {
        self.before(Instant::now() + patient(time))
    }

    #[track_caller]
    fn before(&self, deadline: Instant) -> Option<Record> {
        match self.records.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(record)) => Some(record),
            Ok(Err(line)) => panic!("a line that is not a record: {line}"),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// What it has said on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Ends it as Ctrl-C does.
    #[track_caller]
    #[must_use]
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGINT);
        self.end()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    #[must_use]
    pub fn end(mut self) -> Ended {
        let status = self.child.wait(SOON * 3);
        let records = std::iter::from_fn(|| self.within(SOON)).collect();
        Ended { records, stderr: self.stderr.whole(), status }
    }
}

/// What the socket of an agent is called.
const SOCKET_NAME: &str = "agent.sock";

/// A running `proxytrace agent`.
#[derive(Debug)]
pub struct Agent {
    child: Guarded,
    port: u16,
    stderr: Captured,
    /// Where its socket is.
    directory: TempDir,
}

impl Agent {
    /// Starts it with `arguments` on a free port, and returns when it says that it is ready.
    #[must_use]
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        Self::by(command(), arguments)
    }

    /// The same by another command, to which `agent` and the arguments are added.
    #[must_use]
    #[track_caller]
    pub fn by(mut command: Command, arguments: &[&str]) -> Self {
        let port = scratch::free_port();
        let agent = Self::spawn(&mut command, &format!("127.0.0.1:{port}"), port, arguments);
        agent.once(|agent| {
            TcpStream::connect(("127.0.0.1", port)).is_ok() && agent.get("/readyz").status == 200
        })
    }

    /// The same for one that does not answer everybody, on a free port: its own probe says that it is ready.
    #[must_use]
    #[track_caller]
    pub fn secured(arguments: &[&str]) -> Self {
        let port = scratch::free_port();
        Self::secured_at(&format!("127.0.0.1:{port}"), port, arguments)
    }

    /// The same at an address with that port.
    #[must_use]
    #[track_caller]
    pub fn secured_at(listen: &str, port: u16, arguments: &[&str]) -> Self {
        let agent = Self::spawn(&mut command(), listen, port, arguments);
        agent.once(|_| {
            let mut probe = command();
            probe.args(["agent", "--probe", "readyz", "--listen", listen]).args(arguments);
            probe.output().expect("run a probe").status.success()
        })
    }

    #[track_caller]
    fn spawn(command: &mut Command, listen: &str, port: u16, arguments: &[&str]) -> Self {
        // Whoever it runs as is to make a socket there.
        let directory = scratch::directory();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("open a directory");
        let mut child = Guarded::spawn(
            command
                .env(SOCKET, directory.path().join(SOCKET_NAME))
                .args(["agent", "--listen", listen])
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        );
        let stderr = Captured::from(child.inner().stderr.take().expect("a pipe"));
        Self { child, port, stderr, directory }
    }

    /// Its socket, unless it was given another one.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET_NAME)
    }

    /// A command of proxytrace that asks this agent.
    #[must_use]
    pub fn asked_by(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.env(SOCKET, self.socket()).args(arguments);
        command
    }

    /// GET `path` at its socket.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, path: &str) -> Response {
        http::get_at(&self.socket(), path)
    }

    /// It, when it is ready.
    #[track_caller]
    fn once(mut self, is_ready: impl Fn(&Self) -> bool) -> Self {
        wait::until_true("the agent to be ready", SOON, || {
            if let Some(status) = self.child.ended() {
                panic!("the agent ended with {status}: {}", self.stderr.whole());
            }
            is_ready(&self)
        });
        self
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// How often the kernel has skipped (recursion) those of its programs that have such a type (`enum bpf_prog_type`).
    #[must_use]
    pub fn recursion_misses(&self, is_of_type: impl Fn(u64) -> bool) -> u64 {
        process::recursion_misses(self.pid(), is_of_type)
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has said on stderr so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// GET `path`.
    #[track_caller]
    #[must_use]
    pub fn get(&self, path: &str) -> Response {
        self.get_with(path, &[])
    }

    /// GET `path` with header fields.
    #[track_caller]
    #[must_use]
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))
            .unwrap_or_else(|error| panic!("connect to the agent: {error}; it says: {}", self.stderr.text()));
        stream.set_read_timeout(Some(patient(SOON))).expect("limit the wait for the agent");
        http::ask(&mut stream, path, headers);
        http::try_answer(&mut stream).unwrap_or_else(|what| {
            let (says, waits) = (self.stderr.text(), process::waits_in(self.pid()));
            panic!("the agent answers {path} with {what}; it says: {says}; it waits in:\n{waits}")
        })
    }

    /// A scrape.
    #[track_caller]
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{}", response.body);
        Metrics::parse(&response.body)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait(SOON)
    }

    /// Ends it as systemd does; gives how long that took.
    #[track_caller]
    pub fn stop(mut self) -> Duration {
        let start = Instant::now();
        self.child.signal(Signal::SIGTERM);
        let status = self.child.wait(SOON);
        assert!(status.success(), "the agent ended with {status}: {}", self.stderr.text());
        start.elapsed()
    }
}
