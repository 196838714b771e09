//! What nginx makes of the address in a directive: a host, a port, a unix socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{declared::Endpoint, model::Address};

/// The longest path of a unix socket, in bytes.
pub(super) const UNIX_PATH_MAX: usize = 107;

/// An address as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// What stands for it as an upstream's name: the host, or `unix:` and the path.
    pub(crate) name: String,
    host: Host,
    /// Where one is written.
    pub(crate) port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Unix(String),
    Name,
}

/// Why nginx refuses an address. The words are nginx's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("no host")]
    NoHost,
    #[error("invalid host")]
    InvalidHost,
    #[error("invalid port")]
    InvalidPort,
    #[error("invalid IPv6 address")]
    InvalidIpv6,
    #[error("no path in the unix domain socket")]
    NoPath,
    #[error("too long path in the unix domain socket")]
    LongPath,
    #[error("invalid URL prefix")]
    InvalidPrefix,
    #[error("no port")]
    NoPort,
    #[error("a service takes a name and a host name without a port")]
    Service,
}

impl Url {
    /// `has_uri`: a path may follow, as in `http://unix:/run/app.sock:/path` without its scheme.
    pub(crate) fn parse(text: &str, has_uri: bool) -> Result<Self, Error> {
        match text.get(..5) {
            Some(scheme) if scheme.eq_ignore_ascii_case("unix:") => Self::unix(&text[5..], has_uri),
            _ => Self::internet(text, has_uri),
        }
    }

    fn unix(rest: &str, has_uri: bool) -> Result<Self, Error> {
        let path = if has_uri { rest.split(':').next().unwrap_or_default() } else { rest };
        match path.len() {
            0 => Err(Error::NoPath),
            1..=UNIX_PATH_MAX => {
                Ok(Self { name: format!("unix:{path}"), host: Host::Unix(path.to_owned()), port: None })
            }
            _ => Err(Error::LongPath),
        }
    }

    fn internet(text: &str, has_uri: bool) -> Result<Self, Error> {
        let end = text.find(['/', '?']).unwrap_or(text.len());
        if end < text.len() && !has_uri {
            return Err(Error::InvalidHost);
        }
        let authority = &text[..end];
        let (name, port) = if authority.starts_with('[') {
            let close = authority.find(']').ok_or(Error::InvalidHost)?;
            let (name, port) = authority.split_at(close + 1);
            match port.strip_prefix(':') {
                None if !port.is_empty() => return Err(Error::InvalidHost),
                port => (name, port),
            }
        } else {
            authority.split_once(':').map_or((authority, None), |(name, port)| (name, Some(port)))
        };
        if name.is_empty() {
            return Err(Error::NoHost);
        }
        let port = port.map(parse_port).transpose()?;
        let host = if let Some(ip) = name.strip_prefix('[') {
            let ip: Ipv6Addr = ip.trim_end_matches(']').parse().map_err(|_| Error::InvalidIpv6)?;
            Host::Ip(IpAddr::V6(ip).to_canonical())
        } else {
            ipv4(name).map_or(Host::Name, |ip| Host::Ip(ip.into()))
        };
        Ok(Self { name: name.to_owned(), host, port })
    }

    /// Where to connect; `default` is the port where none is written.
    pub(crate) fn endpoint(&self, default: Option<u16>) -> Result<Endpoint, Error> {
        let port = self.port.or(default).ok_or(Error::NoPort);
        Ok(match &self.host {
            Host::Unix(path) => Endpoint::Address(Address::Unix(path.clone())),
            Host::Ip(ip) => Endpoint::Address(Address::Internet(SocketAddr::new(*ip, port?))),
            Host::Name => Endpoint::Host { name: self.name.to_ascii_lowercase(), port: port? },
        })
    }

    /// Where to connect by the SRV records of a service of this host. One without a dot is a service over TCP, as nginx has it.
    pub(crate) fn endpoint_of_service(&self, service: &str) -> Result<Endpoint, Error> {
        if self.host != Host::Name || self.port.is_some() || service.is_empty() {
            return Err(Error::Service);
        }
        let service = if service.contains('.') { service.to_owned() } else { format!("_{service}._tcp") };
        Ok(Endpoint::Service { name: format!("{service}.{}", self.name).to_ascii_lowercase() })
    }

    pub(crate) const fn is_ip(&self) -> bool {
        matches!(self.host, Host::Ip(_))
    }

    pub(crate) const fn is_unix(&self) -> bool {
        matches!(self.host, Host::Unix(_))
    }
}

/// An address of IPv4 as nginx reads it: four decimal numbers, whatever zeros they begin with. The last address of all is none to it.
pub(crate) fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let octet = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let digits = text.trim_start_matches('0');
        if digits.is_empty() && is_number { Some(0) } else { digits.parse::<u8>().ok().filter(|_| is_number) }
    };
    let octets: Vec<_> = text.split('.').map(octet).collect::<Option<_>>()?;
    let octets: [u8; 4] = octets.try_into().ok()?;
    Some(Ipv4Addr::from(octets)).filter(|ip| !ip.is_broadcast())
}

/// Schemes that stand for a port.
const PORTS: [(&str, u16); 4] = [("http", 80), ("https", 443), ("redis", 6_379), ("rtmp", 1_935)];

/// The address in a word whose meaning is not known: `10.0.0.5:8080`, `redis://app:6379/1`, `server=unix:/run/a.sock`. A word without
/// a scheme is one only where it has an IP address and a port, or is a socket.
pub(crate) fn anywhere(word: &str) -> Option<Endpoint> {
    let word = word.split_once('=').map_or(word, |(_, value)| value);
    let (scheme, rest) = word.split_once("://").map_or((None, word), |(scheme, rest)| (Some(scheme), rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let default = PORTS.iter().find(|(name, _)| Some(*name) == scheme).map(|(_, port)| *port);
    let url = Url::parse(rest, true).ok()?;
    let endpoint = url.endpoint(default).ok()?;
    let is_one = match &endpoint {
        Endpoint::Address(Address::Unix(path)) => path.starts_with('/'),
        Endpoint::Address(Address::Internet(_)) => {
            scheme.is_some() || rest == format!("{}:{}", url.name, endpoint.port())
        }
        Endpoint::Host { name, .. } => scheme.is_some() && is_host_name(name),
        Endpoint::Service { .. } => false,
    };
    is_one.then_some(endpoint)
}

/// Whether a name can be one of a host: labels of letters, digits, `-` and `_`, with dots between them (RFC 1035, section
/// 2.3.4, has their lengths).
pub(crate) fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(is_label)
}

fn parse_port(text: &str) -> Result<u16, Error> {
    match text.parse() {
        Ok(port) if port != 0 && !text.starts_with('+') => Ok(port),
        _ => Err(Error::InvalidPort),
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Url, anywhere, ipv4, is_host_name};
    use crate::declared::Endpoint;

    fn shown(text: &str, has_uri: bool) -> Result<String, Error> {
        let url = Url::parse(text, has_uri)?;
        Ok(match url.endpoint(Some(80))? {
            Endpoint::Address(address) => format!("{} at {address}", url.name),
            Endpoint::Host { name, port } => format!("{} at {name}, {port}", url.name),
            Endpoint::Service { name } => panic!("{name} is no host"),
        })
    }

    #[test]
    fn addresses_are_read_as_nginx_reads_them() {
        let check = |text: &str, has_uri: bool, expected: Result<&str, Error>| {
            assert_eq!(shown(text, has_uri).as_deref().map_err(|error| *error), expected, "{text}");
        };
        check("10.0.0.5:8080", false, Ok("10.0.0.5 at 10.0.0.5:8080"));
        check("10.0.0.5", false, Ok("10.0.0.5 at 10.0.0.5:80"));
        check("[2001:db8::5]:8080", false, Ok("[2001:db8::5] at [2001:db8::5]:8080"));
        check("[::ffff:10.0.0.5]", false, Ok("[::ffff:10.0.0.5] at 10.0.0.5:80"));
        check("App.internal:8080/a:b?c", true, Ok("App.internal at app.internal, 8080"));
        check("app.internal?c", true, Ok("app.internal at app.internal, 80"));
        check("unix:/run/app.sock:/uri", true, Ok("unix:/run/app.sock at unix:/run/app.sock"));
        check("unix:/run/a:b.sock", false, Ok("unix:/run/a:b.sock at unix:/run/a:b.sock"));
        check("app/x", false, Err(Error::InvalidHost));
        check(":80", false, Err(Error::NoHost));
        check("", false, Err(Error::NoHost));
        check("app:0", false, Err(Error::InvalidPort));
        check("app:65536", false, Err(Error::InvalidPort));
        check("app:", false, Err(Error::InvalidPort));
        check("app:+80", false, Err(Error::InvalidPort));
        check("[::1", false, Err(Error::InvalidHost));
        check("[::1]8080", false, Err(Error::InvalidHost));
        check("[::g]", false, Err(Error::InvalidIpv6));
        check("unix:", false, Err(Error::NoPath));
        check(&format!("unix:/{}", "a".repeat(107)), false, Err(Error::LongPath));
    }

    #[test]
    fn numbers_of_an_address_are_decimal() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(ipv4(text).map(|ip| ip.to_string()).as_deref(), expected, "{text}");
        };
        check("10.0.0.5", Some("10.0.0.5"));
        check("010.000.00.0005", Some("10.0.0.5"));
        check("1..2.3", Some("1.0.2.3"));
        for none in ["256.0.0.1", "1.2.3", "1.2.3.4.5", "1.2.3.+4", "a.b.c.d", "", "255.255.255.255"] {
            check(none, None);
        }
    }

    #[test]
    fn addresses_are_found_in_words_of_other_modules() {
        let check = |word: &str, expected: Option<&str>| {
            let found = anywhere(word).map(|endpoint| match endpoint {
                Endpoint::Address(address) => address.to_string(),
                Endpoint::Host { name, port } => format!("{name}:{port}"),
                Endpoint::Service { name } => name,
            });
            assert_eq!(found.as_deref(), expected, "{word}");
        };
        check("10.0.0.5:8080", Some("10.0.0.5:8080"));
        check("[::1]:8080", Some("[::1]:8080"));
        check("redis://10.5.3.3:8080", Some("10.5.3.3:8080"));
        check("rtmp://10.5.2.2/live", Some("10.5.2.2:1935"));
        check("http://me:secret@app.internal/x", Some("app.internal:80"));
        check("endpoint=unix:/run/otel.sock", Some("unix:/run/otel.sock"));
        for word in
            ["10.0.0.0/8", "10.0.0.5", "app:8080", "1:2", "x-header:1", "unix:", "$host:80", "text/html"]
        {
            check(word, None);
        }
    }

    #[test]
    fn not_every_word_is_a_host_name() {
        for name in ["app", "app.internal", "app.internal.", "a_b-c.1", "xn--bcher-kva.example"] {
            assert!(is_host_name(name), "{name}");
        }
        for name in ["", ".", "a..b", "svc@app", "token=x", "two words", "$6$salt$hash", &"a".repeat(64)] {
            assert!(!is_host_name(name), "{name}");
        }
    }
}
