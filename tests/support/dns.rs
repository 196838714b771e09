//! A name server of our own in a namespace, at 127.0.0.1: dnsmasq.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::child::Guarded;
use crate::netns::Netns;
use crate::scratch;
use crate::wait::{self, SOON};

/// A running name server; it is ended when it is dropped.
#[derive(Debug)]
pub struct NameServer {
    process: Guarded,
    directory: TempDir,
}

impl NameServer {
    /// Starts it; `hosts` are lines as in `/etc/hosts`, `options` more options of dnsmasq.
    #[must_use]
    pub fn start(netns: &Netns, hosts: &str, options: &[&str]) -> Self {
        let directory = scratch::directory();
        fs::write(hosts_in(&directory), hosts).expect("write the hosts");
        let mut command = Command::new("dnsmasq");
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts"])
            .args(["--user=root", "--pid-file=", "--local-ttl=1", "--listen-address=127.0.0.1"])
            .args(["--bind-interfaces", &format!("--addn-hosts={}", hosts_in(&directory).display())])
            .args(options);
        let process = netns.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        wait::until_true("the name server to listen", SOON, || {
            netns.enter(|| TcpStream::connect(("127.0.0.1", 53))).is_ok()
        });
        Self { process, directory }
    }

    /// From now on it knows these hosts and no others.
    pub fn change(&self, hosts: &str) {
        fs::write(hosts_in(&self.directory), hosts).expect("write the hosts");
        self.process.signal(Signal::SIGHUP);
    }
}

fn hosts_in(directory: &TempDir) -> PathBuf {
    directory.path().join("hosts")
}
