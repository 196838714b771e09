//! Two hosts joined by a cable: the proxy's, and the one where its upstreams live.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;

use crate::netns::Netns;
use crate::wait::{self, SOON};

/// Which of the two protocols a story runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Picks what belongs to this family.
    pub fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    /// `HOST:PORT` as nginx and proxytrace write it.
    #[must_use]
    pub fn address(self, host: &str, port: u16) -> String {
        self.pick(format!("{host}:{port}"), format!("[{host}]:{port}"))
    }
}

/// The proxy's host and the upstream's, with the family that the story uses. The cable carries both.
#[derive(Debug)]
pub struct Stage {
    /// Where nginx runs.
    pub proxy: Netns,
    /// Where the upstreams run.
    pub upstream: Netns,
    /// What the addresses below are made of.
    pub family: Family,
}

impl Stage {
    /// Sets it up.
    #[must_use]
    pub fn new(family: Family) -> Self {
        let (proxy, upstream) = (Netns::new(), Netns::new());
        proxy.cable(&["10.0.0.1/24", "2001:db8::1/64"], &upstream, &["10.0.0.5/24", "2001:db8::5/64"]);
        let stage = Self { proxy, upstream, family };
        stage.wait_until_connected();
        stage
    }

    /// A cable carries nothing for a moment after it was laid, and the neighbours have yet to find each other: what is
    /// lost then is sent again a second later, which no story is about.
    fn wait_until_connected(&self) {
        for family in [Family::V4, Family::V6] {
            let closed = Self::address_of_upstream(family, 9);
            wait::until_true("the cable to carry something", SOON, || {
                let answer = self.proxy.enter(|| TcpStream::connect(&closed));
                answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
        }
    }

    /// How many segments the proxy's host has sent again, by the kernel's own count.
    #[must_use]
    pub fn retransmits(&self) -> u32 {
        let text =
            self.proxy.enter(|| fs::read_to_string("/proc/thread-self/net/snmp").expect("read the counters"));
        let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
        let (names, values) = (rows.next().expect("names"), rows.next().expect("values"));
        let value = names.zip(values).find(|(name, _)| *name == "RetransSegs").expect("the counter").1;
        value.parse().expect("a number")
    }

    /// An address of the upstream's host.
    #[must_use]
    pub fn upstream_address(&self, port: u16) -> String {
        Self::address_of_upstream(self.family, port)
    }

    fn address_of_upstream(family: Family, port: u16) -> String {
        family.address(family.pick("10.0.0.5", "2001:db8::5"), port)
    }

    /// An address of the proxy's host.
    #[must_use]
    pub fn proxy_address(&self, port: u16) -> String {
        self.family.address(self.family.pick("10.0.0.1", "2001:db8::1"), port)
    }

    /// An address on the cable that nobody has.
    #[must_use]
    pub fn nobodys_address(&self, port: u16) -> String {
        self.family.address(self.family.pick("10.0.0.99", "2001:db8::99"), port)
    }

    /// An address beyond the cable, and the prefix that it lies in.
    #[must_use]
    pub fn far_address(&self, port: u16) -> (String, &'static str) {
        let (host, prefix) =
            self.family.pick(("198.51.100.7", "198.51.100.0/24"), ("2001:db8:7::7", "2001:db8:7::/48"));
        (self.family.address(host, port), prefix)
    }
}
