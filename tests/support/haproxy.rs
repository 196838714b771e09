//! The real HAProxy in master-worker mode, with a name and a client socket of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::child::{Captured, Guarded};
use crate::http::{self, Half};
use crate::netns::Netns;
use crate::wait::{self, SOON};
use crate::{process, scratch};

/// A running HAProxy; master and workers are ended when it is dropped.
#[derive(Debug)]
pub struct Haproxy {
    name: String,
    directory: TempDir,
    master: Option<Guarded>,
    said: Option<Captured>,
}

impl Haproxy {
    /// Lays everything out for a proxy that passes everything to `address` (`HOST:PORT`), but starts nothing yet.
    #[must_use]
    pub fn prepare(address: &str) -> Self {
        let (name, directory) = (scratch::unique_name("hap"), scratch::directory());
        scratch::alias(Path::new("/usr/sbin/haproxy"), directory.path(), &name);
        let haproxy = Self { name, directory, master: None, said: None };
        haproxy.configure(address, "");
        haproxy
    }

    /// Writes another configuration, with `more` at its end, without signalling HAProxy.
    pub fn configure(&self, address: &str, more: &str) {
        let clients = self.path("clients");
        let conf = format!(
            "defaults\n mode http\n retries 0\n timeout connect 3s\n timeout client 60s\n timeout server 60s\n\
             frontend clients\n bind unix@{clients} mode 666\n default_backend api\n\
             backend api\n server one {address}\n{more}\n"
        );
        fs::write(self.path("haproxy.cfg"), conf).expect("write haproxy.cfg");
    }

    /// Starts it, and waits until it serves.
    pub fn launch(&mut self, netns: &Netns) {
        let mut command = Command::new(self.path(&self.name));
        command.args(["-W", "-f", &self.path("haproxy.cfg")]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut master = netns.spawn(command.stderr(Stdio::piped()));
        self.said = master.inner().stderr.take().map(Captured::from);
        self.master = Some(master);
        wait::until_true("HAProxy to serve", SOON, || UnixStream::connect(self.path("clients")).is_ok());
    }

    /// The name that its processes have, which is also its `proxy` label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.as_ref().map(Captured::text).unwrap_or_default()
    }

    /// The process id of the master.
    #[must_use]
    pub fn master_pid(&self) -> u32 {
        self.master.as_ref().expect("a running HAProxy").pid()
    }

    /// Sends a signal to the master, when it can take it: while it executes itself, it would not act on it.
    pub fn signal(&self, signal: Signal) {
        let master = self.master.as_ref().expect("a running HAProxy");
        wait::until_true("the master to wait", SOON, || {
            let status = fs::read_to_string(format!("/proc/{}/status", master.pid())).expect("a master");
            let sets = |name: &str, bit: i32| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a set of signals");
                u64::from_str_radix(line.trim(), 16).expect("a set of signals") >> (bit - 1) & 1 == 1
            };
            sets("SigCgt:", signal as i32)
                && !sets("SigBlk:", signal as i32)
                && status.contains("\nState:\tS")
        });
        master.signal(signal);
    }

    /// Asks for `/` and gives the status of the answer.
    #[track_caller]
    #[must_use]
    pub fn get(&self) -> u16 {
        let mut stream = self.connect();
        http::ask(&mut stream, "/", &[]);
        http::answer(&mut stream).status
    }

    /// Asks for `/` by half.
    #[track_caller]
    #[must_use]
    pub fn begin_half(&self) -> Half {
        Half::begin(self.connect(), "/")
    }

    #[track_caller]
    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path("clients")).expect("connect to HAProxy")
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.directory.path().display())
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        process::end(&self.name);
    }
}
