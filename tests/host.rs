//! A host on which something of each kind can be connected to, for clients that try everything.

use std::any::Any;

use proxytrace_tests::backend::{Backend, Manner, full_backlog, unlistened};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::scratch;
use tempfile::TempDir;

/// A network namespace with addresses that behave in different ways.
pub(crate) struct Host {
    pub(crate) netns: Netns,
    /// Somebody accepts. The last is the first once more, as an IPv6 socket writes it.
    pub(crate) listening: Vec<String>,
    /// The SYN is dropped.
    pub(crate) silent: Vec<String>,
    /// A unix socket with a full backlog: a blocking connect() would wait for ever.
    pub(crate) full: String,
    /// The rest: unix sockets, and what fails at once.
    others: Vec<String>,
    _directory: TempDir,
    _kept: Vec<Box<dyn Any>>,
}

impl Host {
    /// The three ports from `port` on are used.
    pub(crate) fn new(port: u16) -> Self {
        let (netns, directory) = (Netns::new(), scratch::directory());
        let (closed, silent) = (port + 1, port + 2);
        netns.firewall(&format!("tcp dport {silent} drop"));
        netns.ip("route add prohibit 198.51.100.0/24");
        netns.ip("route add unreachable 2001:db8:7::/48");

        let unix = |name: &str| directory.path().join(name);
        let listening = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        let mut kept: Vec<Box<dyn Any>> = vec![
            Box::new(Backend::unix(&unix("listening"), Manner::Answer)),
            Box::new(unlistened(&unix("unlistened"))),
            Box::new(full_backlog(&unix("full"))),
        ];
        for address in &listening {
            kept.push(Box::new(Backend::start(&netns, address, Manner::Answer)));
        }

        let mut others: Vec<_> = ["listening", "unlistened", "missing"]
            .map(|name| format!("unix:{}", unix(name).display()))
            .into();
        others.extend([
            format!("127.0.0.1:{closed}"),
            format!("[::1]:{closed}"),
            format!("198.51.100.7:{port}"),
            format!("[2001:db8:7::7]:{port}"),
            format!("203.0.113.7:{port}"),
            format!("[2001:db8:8::8]:{port}"),
        ]);
        Self {
            listening: [listening.as_slice(), &[format!("[::ffff:127.0.0.1]:{port}")]].concat(),
            silent: vec![format!("127.0.0.1:{silent}"), format!("[::1]:{silent}")],
            full: format!("unix:{}", unix("full").display()),
            others,
            netns,
            _directory: directory,
            _kept: kept,
        }
    }

    /// Those of TCP that have an outcome at once.
    pub(crate) fn tcp_addresses(&self) -> Vec<String> {
        self.addresses().into_iter().filter(|address| !address.starts_with("unix:")).collect()
    }

    /// Those of TCP that a SYN is sent to.
    pub(crate) fn reached(&self) -> Vec<String> {
        let is_this_host = |address: &String| address.starts_with("127.") || address.starts_with("[::");
        self.tcp_addresses().into_iter().filter(is_this_host).collect()
    }

    /// All that have an outcome at once.
    pub(crate) fn addresses(&self) -> Vec<String> {
        [self.listening.clone(), self.others.clone()].concat()
    }
}
