//! A network namespace of our own, in which routes, firewalls and dead hosts harm nobody.

use std::fs::{self, File};
use std::process::Command;
use std::sync::Once;
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};

use crate::child::{Guarded, as_pid, run};
use crate::scratch;

/// A named network namespace with loopback up; removed when it is dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes one. The first call also removes what crashed runs left behind.
    #[must_use]
    pub fn new() -> Self {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);

        let name = scratch::unique_name(scratch::PREFIX);
        run(Command::new("ip").args(["netns", "add", &name]));
        let netns = Self { name };
        // An address that is checked for duplicates can't be used for a second or two.
        netns.sysctl("net.ipv6.conf.default.accept_dad", "0");
        netns.ip("link set lo up");
        netns
    }

    /// Its name under `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Does `work` inside: sockets made there, and processes started there, belong to this namespace for good.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            let handle = File::open(format!("/run/netns/{}", self.name)).expect("open a network namespace");
            setns(handle, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
            work()
        };
        // A thread of its own, because a thread that has moved is of no use to anybody else; under the same name,
        // because panics are reported with it.
        let thread = thread::Builder::new().name(thread::current().name().unwrap_or_default().to_owned());
        thread::scope(|scope| match thread.spawn_scoped(scope, inside).expect("start a thread").join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a process inside.
    pub fn spawn(&self, command: &mut Command) -> Guarded {
        self.enter(|| Guarded::spawn(command))
    }

    /// `ip ARGUMENTS` inside, such as `route add prohibit 198.51.100.0/24`.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()));
    }

    /// `tc ARGUMENTS` inside, such as `qdisc add dev lo root tbf ...`.
    #[track_caller]
    pub fn tc(&self, arguments: &str) {
        run(Command::new("tc").args(["-n", &self.name]).args(arguments.split_whitespace()));
    }

    /// Replaces the firewall by `rules`, the body of a chain that sees what comes in.
    #[track_caller]
    pub fn firewall(&self, rules: &str) {
        let chain = format!("chain input {{\ntype filter hook input priority 0\n{rules}\n}}");
        let ruleset = format!("flush ruleset\ntable inet proxytrace {{\n{chain}\n}}\n");
        self.enter(|| run(Command::new("nft").arg(ruleset)));
    }

    /// Translates destinations of what is sent from inside by `rules`, the body of a chain, one a line.
    #[track_caller]
    pub fn translate(&self, rules: &str) {
        let chain = format!("chain output {{\ntype nat hook output priority -100\n{rules}\n}}");
        let ruleset = format!("table inet proxytrace-nat {{\n{chain}\n}}\n");
        self.enter(|| run(Command::new("nft").arg(ruleset)));
    }

    /// Sets a `net.*` kernel parameter of this namespace.
    #[track_caller]
    pub fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(|| {
            fs::write(&path, value).unwrap_or_else(|error| panic!("set {key} to {value}: {error}"));
        });
    }

    /// Lays a cable to another namespace. Each end has its addresses, with prefix length.
    pub fn cable(&self, own: &[&str], peer: &Self, theirs: &[&str]) {
        run(Command::new("ip")
            .args(["link", "add", "eth0", "netns", &self.name, "type", "veth"])
            .args(["peer", "name", "eth0", "netns", &peer.name]));
        for (netns, addresses) in [(self, own), (peer, theirs)] {
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                netns.ip(&format!("addr add {address} dev eth0 {nodad}"));
            }
            netns.ip("link set eth0 up");
        }
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Ends the processes in namespaces whose maker is gone, and removes those namespaces and directories.
fn sweep() {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    for name in names.filter(|name| scratch::is_stale(name)) {
        // Another run may be sweeping as well: what is gone already is no mistake.
        if let Ok(pids) = Command::new("ip").args(["netns", "pids", &name]).output() {
            for pid in
                String::from_utf8_lossy(&pids.stdout).lines().filter_map(|line| line.trim().parse().ok())
            {
                let _ = kill(as_pid(pid), Signal::SIGKILL);
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &name]).output();
    }
    scratch::sweep();
}
