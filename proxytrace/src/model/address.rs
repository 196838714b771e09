//! The address of an upstream, as people write it.

use std::{
    fmt,
    net::{AddrParseError, IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use proxytrace_ebpf::abi::{self, UnixPath};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Where an attempt goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// `10.0.0.5:8080` or `[2001:db8::5]:8080`.
    Internet(SocketAddr),
    /// A unix socket's path, or `@` and an abstract name.
    Unix(String),
}

impl Address {
    /// The address that the kernel half gave. `path` is the one behind the digest of a unix socket, if it is known.
    #[must_use]
    pub fn of_abi(address: &abi::Address, path: Option<&UnixPath>) -> Self {
        if address.family == abi::FAMILY_UNIX {
            return Self::Unix(path.map_or_else(|| digest(&address.bytes), unix_path));
        }
        let ip = Ipv6Addr::from(address.bytes).to_canonical();
        Self::Internet(SocketAddr::new(ip, address.port))
    }

    /// As the kernel half has it; `None` for a unix socket, whose digest only the kernel half makes.
    #[must_use]
    pub fn to_abi(&self) -> Option<abi::Address> {
        match self {
            Self::Internet(address) => {
                let bytes = match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                Some(abi::Address { bytes, port: address.port(), family: abi::FAMILY_INET })
            }
            Self::Unix(_) => None,
        }
    }

    /// Whether this is a unix socket whose path is not known, as there was no room for it: a digest stands for it.
    #[must_use]
    pub fn is_digest(&self) -> bool {
        let is_hex = |digits: &str| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        matches!(self, Self::Unix(path) if path.strip_prefix('#').is_some_and(is_hex))
    }

    /// The port; 0 for a unix socket.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Internet(address) => address.port(),
            Self::Unix(_) => 0,
        }
    }
}

impl Address {
    /// Whether this is the C library's doing and not the proxy's.
    #[must_use]
    pub fn is_name_service(&self) -> bool {
        let Self::Unix(path) = self else { return false };
        let mut bytes = [0; abi::UNIX_PATH_MAX];
        bytes.iter_mut().zip(path.bytes()).for_each(|(to, from)| *to = from);
        abi::is_name_service(&bytes)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Internet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = AddrParseError;

    /// What [`fmt::Display`] wrote.
    fn from_str(text: &str) -> Result<Self, AddrParseError> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.to_owned())),
            None => text.parse().map(Self::Internet),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

fn unix_path(path: &UnixPath) -> String {
    let bytes = path.bytes.get(..path.length as usize).unwrap_or(&path.bytes);
    match bytes {
        [0, name @ ..] => format!("@{}", printable(name)),
        path => printable(path),
    }
}

/// Control characters would break a terminal line, and bytes that are no text a label.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn digest(bytes: &[u8]) -> String {
    bytes.iter().fold("#".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::abi::{self, UNIX_PATH_MAX, UnixPath};

    use super::Address;

    fn internet(ip: &str, port: u16) -> String {
        let address = Address::Internet((ip.parse::<std::net::IpAddr>().unwrap(), port).into());
        Address::of_abi(&address.to_abi().unwrap(), None).to_string()
    }

    fn unix(path: Option<&[u8]>) -> String {
        let address = abi::Address { bytes: [0xab; 16], port: 0, family: abi::FAMILY_UNIX };
        let path = path.map(|path| {
            let mut bytes = [0; UNIX_PATH_MAX];
            bytes[..path.len()].copy_from_slice(path);
            UnixPath { bytes, length: path.len() as u32 }
        });
        Address::of_abi(&address, path.as_ref()).to_string()
    }

    #[test]
    fn name_services_are_no_upstreams() {
        let check = |path: &str, expected: bool| {
            assert_eq!(Address::Unix(path.to_owned()).is_name_service(), expected, "{path}");
        };
        check("/var/run/nscd/socket", true);
        check("/run/systemd/userdb/io.systemd.DynamicUser", true);
        check("/run/php/php-fpm.sock", false);
        assert!(!Address::Internet("127.0.0.1:53".parse().unwrap()).is_name_service());
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        assert_eq!(internet("10.0.0.5", 8080), "10.0.0.5:8080");
        assert_eq!(internet("2001:db8::5", 8080), "[2001:db8::5]:8080");
        assert_eq!(unix(Some(b"/run/php-fpm.sock")), "unix:/run/php-fpm.sock");
        assert_eq!(unix(Some(b"\0bus")), "unix:@bus");
        assert_eq!(unix(Some(b"/run/\x1b[31m")), "unix:/run/\u{fffd}[31m");
        assert_eq!(unix(None), "unix:#abababababababababababababababab");
        let is_digest = |text: &str| text.parse::<Address>().unwrap().is_digest();
        assert!(is_digest(&unix(None)) && !is_digest("unix:/run/app.sock") && !is_digest("unix:#ab"));
    }
}
