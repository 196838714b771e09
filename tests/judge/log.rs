//! What an nginx logged: its connects, what broke, its reloads and its workers, in the words of [`words`](super::mixture::words).

use std::collections::{HashMap, HashSet};

use proxytrace_tests::nginx::Nginx;

use super::Account;
use super::mixture::{BLACK_HOLE, Mixture};

/// What nginx logged.
pub(super) struct Logged {
    proxy: String,
    attempts: Vec<Attempt>,
    broken: Vec<(u32, Request, String, &'static str)>,
    /// By the number of the client's connection, which its workers share.
    hosts: HashMap<Request, String>,
    /// The generations of workers.
    workers: HashMap<u32, u32>,
    lifecycle: Vec<String>,
    /// Why reloads were rejected.
    pub(super) reasons: HashSet<String>,
    sockets: String,
}

/// The number of a client's connection.
type Request = u64;

/// A connect.
struct Attempt {
    pid: u32,
    request: Request,
    address: String,
    /// `None` while it is not known.
    outcome: Option<(&'static str, i32)>,
}

/// What connect() may give, and what that is called.
const CAUSES: &[(i32, &str)] = &[
    (2, "no_such_socket"),
    (11, "backlog_full"),
    (13, "permission_denied"),
    (101, "network_unreachable"),
    (104, "reset"),
    (110, "timed_out"),
    (111, "refused"),
    (113, "host_unreachable"),
];

impl Logged {
    pub(super) fn read(nginx: &Nginx, mixture: &Mixture) -> Self {
        let mut logged = Self {
            proxy: nginx.name().to_owned(),
            attempts: Vec::new(),
            broken: Vec::new(),
            hosts: HashMap::new(),
            workers: HashMap::new(),
            lifecycle: Vec::new(),
            reasons: HashSet::new(),
            sockets: mixture.sockets.clone(),
        };
        for line in nginx.file("access.log").lines() {
            if let Some((request, host)) = line.split_once(' ') {
                logged.hosts.insert(request.parse().expect("a number"), host.to_owned());
            }
        }
        logged.lifecycle(&nginx.error_log());
        logged.requests(&nginx.file("debug.log"));
        logged
    }

    /// Reloads and workers, by the master's words.
    fn lifecycle(&mut self, log: &str) {
        let proxy = self.proxy.clone();
        let (mut generation, mut is_reloading) = (0, false);
        for line in log.lines() {
            let Some((pid, words)) = said(line) else { continue };
            if words.ends_with(", reconfiguring") && words.contains("(SIGHUP)") {
                is_reloading = true;
            } else if let Some(worker) = words.strip_prefix("start worker process ") {
                if is_reloading {
                    generation += 1;
                    is_reloading = false;
                    self.lifecycle.push(format!("{proxy} {pid} {generation} reload accepted"));
                }
                let worker = worker.parse().expect("a pid");
                self.workers.insert(worker, generation);
                // The first are there when the trace begins.
                if generation > 0 {
                    self.lifecycle.push(format!("{proxy} {worker} {generation} worker_started"));
                }
            } else if line.contains("[emerg]") && is_reloading {
                is_reloading = false;
                self.lifecycle.push(format!("{proxy} {pid} {generation} reload rejected"));
                self.reasons.insert(words.to_owned());
            } else if let Some((worker, code)) =
                words.strip_prefix("worker process ").and_then(|rest| rest.split_once(" exited with code "))
            {
                let worker: u32 = worker.parse().expect("a pid");
                let generation = self.workers.get(&worker).copied().unwrap_or(0);
                self.lifecycle.push(format!("{proxy} {worker} {generation} worker_exited 0 {code}"));
            }
        }
    }

    /// Connects and what broke, by the workers' words.
    fn requests(&mut self, log: &str) {
        let mut current: HashMap<Request, usize> = HashMap::new();
        for line in log.lines() {
            let Some((pid, words)) = said(line) else { continue };
            let Some((request, words)) = of_request(words) else { continue };
            if let Some(rest) = words.strip_prefix("connect to ") {
                let address = rest.split(", fd:").next().unwrap_or_default().to_owned();
                current.insert(request, self.attempts.len());
                self.attempts.push(Attempt { pid, request, address, outcome: None });
                continue;
            }
            let attempt = current.get(&request).copied();
            let settle = |this: &mut Self, outcome: (&'static str, i32)| {
                let attempt = attempt.and_then(|at| this.attempts.get_mut(at));
                attempt.filter(|attempt| attempt.outcome.is_none()).into_iter().for_each(|attempt| {
                    attempt.outcome = Some(outcome);
                });
            };
            if words.starts_with("connect() ") {
                let errno = errno(words).expect("an errno");
                let cause = CAUSES.iter().find(|(number, _)| *number == errno);
                settle(self, (cause.map_or("other", |(_, cause)| cause), errno));
            } else if words.contains("while connecting to upstream") {
                if words.starts_with("upstream timed out") {
                    settle(self, ("proxy_timeout", 0));
                } else if words.contains("client prematurely closed connection") {
                    // Where somebody listens, the handshake is done before a busy nginx looks at it.
                    let hole = format!(":{BLACK_HOLE}");
                    let is_hole = attempt.is_some_and(|at| self.attempts[at].address.ends_with(&hole));
                    settle(self, (if is_hole { "cancelled" } else { "established" }, 0));
                }
            } else if words == "http upstream send request body" {
                settle(self, ("established", 0));
            }
            if let Some(cause) = broken(words) {
                let address = upstream_of(words, &self.sockets).expect("an upstream");
                self.broken.push((pid, request, address, cause));
            }
        }
    }

    /// Writes all of it down.
    pub(super) fn add_to(self, account: &mut Account) {
        let mut add = |words: String| *account.entry(words).or_default() += 1;
        let name = |request: Request, address: &str| self.name(request, address);
        for Attempt { pid, request, address, outcome } in &self.attempts {
            let generation = self.workers[pid];
            let name = name(*request, address);
            let (outcome, errno) = outcome.unwrap_or(("nothing", 0));
            add(format!("{} {pid} {generation} connect {name} {address} {outcome} {errno}", self.proxy));
        }
        for (pid, request, address, cause) in &self.broken {
            let (generation, name) = (self.workers[pid], name(*request, address));
            add(format!("{} {pid} {generation} broken {name} {address} {cause}", self.proxy));
        }
        self.lifecycle.iter().cloned().for_each(add);
    }

    /// What the upstream of a request is called.
    fn name(&self, request: Request, address: &str) -> String {
        let host = self.hosts.get(&request).map_or("?", String::as_str);
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        match name.strip_prefix("first") {
            // Two upstreams have that address.
            Some(number) if address == "127.0.0.6:9001" => format!("first{number},second{number}"),
            _ => name.to_owned(),
        }
    }
}

/// Who said it, and what.
fn said(line: &str) -> Option<(u32, &str)> {
    let (_, rest) = line.split_once("] ")?;
    let (who, words) = rest.split_once(": ")?;
    Some((who.split_once('#')?.0.parse().ok()?, words))
}

/// What is said about a request: `*12 connect to ...`.
fn of_request(words: &str) -> Option<(Request, &str)> {
    let (number, words) = words.strip_prefix('*')?.split_once(' ')?;
    Some((number.parse().ok()?, words))
}

/// `... failed (111: Connection refused) ...`
fn errno(words: &str) -> Option<i32> {
    words.split_once(" failed (")?.1.split_once(':')?.0.parse().ok()
}

/// What ended a connection before its answer was there.
fn broken(words: &str) -> Option<&'static str> {
    let is_header = words.contains(" while reading response header from upstream");
    let is_sending = words.contains(" while sending request to upstream");
    let is_io = ["recv() failed", "readv() failed", "writev() failed", "send() failed", "sendfile() failed"];
    if words.starts_with("upstream prematurely closed connection") && (is_header || is_sending) {
        Some("closed_before_response")
    } else if is_io.iter().any(|what| words.starts_with(what)) && (is_header || is_sending) {
        Some("reset_before_response")
    } else if words.starts_with("upstream timed out") && is_header {
        Some("response_timeout")
    } else if is_io.iter().any(|what| words.starts_with(what)) && words.contains(" while reading upstream") {
        Some("reset")
    } else {
        None
    }
}

/// The address in `upstream: "http://127.0.0.1:9001/path"`.
fn upstream_of(words: &str, sockets: &str) -> Option<String> {
    let url = words.split_once("upstream: \"http://")?.1.split('"').next()?;
    if url.starts_with("unix:") {
        let end = sockets.len() + "unix:".len();
        let name = url.get(end..)?.split(':').next()?;
        return Some(format!("unix:{sockets}{name}"));
    }
    Some(url.split('/').next()?.to_owned())
}
