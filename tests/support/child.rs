//! Child processes that never outlive the test that started them, what they print, and commands that must succeed.

use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// A child that is killed, if it still runs, when this is dropped.
#[derive(Debug)]
pub struct Guarded(Child);

impl Guarded {
    /// Starts `command`.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}")))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The child itself, for its pipes.
    pub fn inner(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Lets it fork, as a shell that does what comes through its standard input, a pipe: a process that starts after the
    /// agent is a proxy from its first fork or connect on.
    #[track_caller]
    pub fn fork_once(&mut self) {
        let stdin = self.0.stdin.as_mut().expect("its standard input is a pipe");
        stdin.write_all(b"(:)\n").expect("speak to a shell");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(as_pid(self.pid()), signal)
            .unwrap_or_else(|error| panic!("send {signal} to {}: {error}", self.pid()));
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("wait for a child")
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let pid = self.pid();
        wait::until(&format!("the end of process {pid}"), within, || self.ended())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// What comes through a pipe (or a terminal), collected in the background.
#[derive(Debug)]
pub struct Captured {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    /// Begins to collect.
    #[must_use]
    pub fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let reader = thread::spawn({
            let text = Arc::clone(&text);
            move || {
                let mut buffer = [0; 4096];
                // A terminal whose other end is closed gives an error rather than an end.
                while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                    let more = String::from_utf8_lossy(&buffer[..read]);
                    text.lock().unwrap_or_else(PoisonError::into_inner).push_str(&more);
                }
            }
        });
        Self { text, reader: Some(reader) }
    }

    /// What has come so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything, when the writer has closed its end.
    #[must_use]
    pub fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}

/// What it has said belongs to the message of a story that fails.
impl Drop for Captured {
    fn drop(&mut self) {
        let text = self.text();
        if thread::panicking() && !text.is_empty() {
            let _ = writeln!(io::stderr(), "--- it said:\n{text}");
        }
    }
}

/// A process id as nix has it.
#[must_use]
pub fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process id"))
}

/// Runs a command that must succeed, and gives what it printed.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}
