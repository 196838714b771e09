//! Where servers listen, in one form for all the ways to write it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nginx_conf::Directive;

use super::url::{UNIX_PATH_MAX, ipv4};

/// The port in http where none is written.
const HTTP: u16 = 80;

/// Parameters that are options of the socket: only one `listen` of an address may have any.
const OF_SOCKET: [&str; 12] = [
    "bind",
    "setfib=",
    "fastopen=",
    "backlog=",
    "rcvbuf=",
    "sndbuf=",
    "accept_filter=",
    "deferred",
    "ipv6only=",
    "reuseport",
    "multipath",
    "so_keepalive=",
];

/// A socket on which connections or datagrams are taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Socket {
    pub(crate) host: Host,
    /// 0 for a unix socket.
    pub(crate) port: u16,
    pub(crate) is_udp: bool,
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// As it is written: what it resolves to is not asked.
    Name(String),
    Unix(String),
}

/// A `listen`.
#[derive(Clone, Debug)]
pub(crate) struct Listen {
    /// One for each port of a range.
    pub(crate) sockets: Vec<Socket>,
    pub(crate) is_default: bool,
    pub(crate) options: Options,
}

/// What a `listen` says of its sockets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Anything.
    pub(crate) any: bool,
    pub(crate) reuseport: bool,
    /// An IPv6 socket takes IPv4 too.
    pub(crate) takes_both: bool,
}

impl Listen {
    /// Reads one; `None` where its address is none. `default_port` is that of the context, where it has one.
    pub(crate) fn read(directive: &Directive, default_port: Option<u16>) -> Option<Self> {
        let parameters = || directive.args.iter().skip(1).map(|word| word.text.as_str());
        let is_udp = parameters().any(|one| matches!(one, "udp" | "quic"));
        let (host, first, last) = address(directive.arg(0)?, default_port)?;
        Some(Self {
            sockets: (first..=last).map(|port| Socket { host: host.clone(), port, is_udp }).collect(),
            is_default: parameters().any(|one| matches!(one, "default_server" | "default")),
            options: Options {
                any: parameters().any(|one| {
                    OF_SOCKET.iter().any(|option| {
                        if option.ends_with('=') { one.starts_with(option) } else { one == *option }
                    })
                }),
                reuseport: parameters().any(|one| one == "reuseport"),
                takes_both: parameters().any(|one| one == "ipv6only=off"),
            },
        })
    }

    /// Where a server in http listens that does not say where (as root).
    pub(crate) fn default_of_http() -> Self {
        let host = Host::Ip(Ipv4Addr::UNSPECIFIED.into());
        let sockets = vec![Socket { host, port: HTTP, is_udp: false }];
        Self { sockets, is_default: false, options: Options::default() }
    }
}

/// All that a server listens on, each with its directive, where there is one.
pub(crate) fn of_server(server: &Directive, is_http: bool) -> Vec<(Listen, Option<&Directive>)> {
    let written = server.children().iter().filter(|directive| directive.name.text == "listen");
    let default_port = is_http.then_some(HTTP);
    let mut listens: Vec<_> = written
        .filter_map(|directive| Some((Listen::read(directive, default_port)?, Some(directive))))
        .collect();
    let has_listen = server.children().iter().any(|directive| directive.name.text == "listen");
    if !has_listen && is_http {
        listens.push((Listen::default_of_http(), None));
    }
    listens
}

/// A host, and the first and last port.
fn address(text: &str, default_port: Option<u16>) -> Option<(Host, u16, u16)> {
    if let Some(path) = text.get(..5).filter(|start| start.eq_ignore_ascii_case("unix:")).map(|_| &text[5..])
    {
        return (1..=UNIX_PATH_MAX).contains(&path.len()).then(|| (Host::Unix(path.to_owned()), 0, 0));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        let (first, last) = ports(text)?;
        return Some((Host::Ip(Ipv4Addr::UNSPECIFIED.into()), first, last));
    }
    if text.contains(['/', '?']) {
        return None;
    }
    let split = text.rfind(':').filter(|at| !text[*at..].contains(']'));
    let (host, (first, last)) = match split {
        Some(at) => (&text[..at], ports(&text[at + 1..])?),
        None => default_port.map(|port| (text, (port, port)))?,
    };
    // IPv6 stands in brackets.
    if host.is_empty() || host.contains(':') && !host.starts_with('[') {
        return None;
    }
    let host = if let Some(ip) = host.strip_prefix('[') {
        Host::Ip(IpAddr::V6(ip.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?))
    } else if host == "*" {
        Host::Ip(Ipv4Addr::UNSPECIFIED.into())
    } else if host.eq_ignore_ascii_case("localhost") {
        Host::Ip(Ipv4Addr::LOCALHOST.into())
    } else {
        ipv4(host).map_or_else(|| Host::Name(host.to_ascii_lowercase()), |ip| Host::Ip(ip.into()))
    };
    Some((host, first, last))
}

fn ports(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

impl Socket {
    /// Whether it takes what comes to any address of its family.
    pub(crate) fn is_any(&self) -> bool {
        matches!(self.host, Host::Ip(ip) if ip.is_unspecified())
    }

    /// The one that takes what comes to any address of its family, where it has one.
    pub(crate) fn any_of_family(&self) -> Option<Self> {
        let any = match self.host {
            Host::Ip(IpAddr::V4(_)) => Ipv4Addr::UNSPECIFIED.into(),
            Host::Ip(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
            Host::Name(_) | Host::Unix(_) => return None,
        };
        Some(Self { host: Host::Ip(any), ..*self })
    }

    /// Whether the kernel would not bind both.
    pub(crate) fn excludes(&self, other: &Self) -> bool {
        let is_same_family = match (&self.host, &other.host) {
            (Host::Ip(one), Host::Ip(other)) => one.is_ipv4() == other.is_ipv4(),
            _ => false,
        };
        let overlaps = self.host == other.host || is_same_family && (self.is_any() || other.is_any());
        self.port == other.port && self.is_udp == other.is_udp && overlaps
    }
}

/// Sockets in words: those whose ports follow each other as a range.
pub(crate) fn in_words(sockets: &[&Socket]) -> String {
    let follows = |one: &&Socket, next: &&Socket| {
        one.host == next.host && one.is_udp == next.is_udp && one.port.checked_add(1) == Some(next.port)
    };
    let one = |run: &[&Socket]| match run {
        [] => String::new(),
        [only] => only.to_string(),
        [first, .., last] => format!("{first} to {}", last.port),
    };
    sockets.chunk_by(follows).map(one).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, is_udp } = self;
        match host {
            Host::Ip(IpAddr::V4(ip)) if ip.is_unspecified() => write!(f, "*:{port}"),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}:{port}"),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]:{port}"),
            Host::Name(name) => write!(f, "{name}:{port}"),
            Host::Unix(path) => write!(f, "unix:{path}"),
        }?;
        f.write_str(if *is_udp { " (udp)" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::{in_words, of_server};
    use crate::nginx::tests::config;

    #[test]
    fn all_ways_to_write_an_address_are_one() {
        let check = |listen: &str, expected: &[&str]| {
            let config = config(&format!("server {{ {listen} }}"));
            let sockets =
                of_server(&config.directives[0], true).into_iter().flat_map(|(listen, _)| listen.sockets);
            assert_eq!(sockets.map(|socket| socket.to_string()).collect::<Vec<_>>(), expected, "{listen}");
        };
        check("", &["*:80"]);
        check("listen 80; listen *:80; listen 0.0.0.0:80; listen *; listen 0.0.0.0;", &["*:80"; 5]);
        check("listen [::1]:81; listen [0:0:0:0:0:0:0:1]:81;", &["[::1]:81"; 2]);
        check("listen [::];", &["[::]:80"]);
        check("listen 8080-8082 ssl;", &["*:8080", "*:8081", "*:8082"]);
        check("listen 443 quic; listen 443 ssl;", &["*:443 (udp)", "*:443"]);
        check("listen localhost:8080; listen app;", &["127.0.0.1:8080", "app:80"]);
        check("listen unix:/run/x.sock;", &["unix:/run/x.sock"]);
        check(
            "listen 0; listen 70000; listen a:; listen :80; listen [::g]:1; listen 10.0.0.0/8; listen a/b;",
            &[],
        );
    }

    #[test]
    fn ports_that_follow_each_other_are_shown_as_one_range() {
        let config =
            config("server { listen 8080-8083; listen 8085; listen 127.0.0.1:8086; listen unix:/x; }");
        let listens = of_server(&config.directives[0], true);
        let sockets: Vec<_> = listens.iter().flat_map(|(listen, _)| &listen.sockets).collect();
        assert_eq!(in_words(&sockets), "*:8080 to 8083, *:8085, 127.0.0.1:8086, unix:/x");
    }
}
