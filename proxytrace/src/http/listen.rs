//! Where the agent listens.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
    str::FromStr,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6, bind, listen, setsockopt, socket, sockopt,
    },
};

/// An address and port, or a port of every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// One address; `0.0.0.0` is every one of IPv4, `[::]` every one of IPv6.
    At(SocketAddr),
    /// Every address of IPv4 and IPv6.
    Everywhere(u16),
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let port = text.strip_prefix(':').and_then(|port| port.parse().ok()).map(Self::Everywhere);
        port.or_else(|| text.parse().ok().map(Self::At))
            .ok_or("not an address and port; write 127.0.0.1:9947, or :9947 for all addresses")
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Everywhere(port) => write!(f, ":{port}"),
        }
    }
}

impl Listen {
    /// Listens there.
    ///
    /// # Errors
    /// The address is taken, or not one of this host.
    pub fn bind(self) -> io::Result<TcpListener> {
        match self {
            Self::At(address) => TcpListener::bind(address),
            Self::Everywhere(port) => match bind_both(port) {
                // This host has no IPv6.
                Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
                }
                bound => Ok(bound?),
            },
        }
    }

    /// Where somebody on this host reaches it.
    #[must_use]
    pub fn on_this_host(self) -> SocketAddr {
        match self {
            Self::At(address) if !address.ip().is_unspecified() => address,
            Self::At(address @ SocketAddr::V6(_)) => (Ipv6Addr::LOCALHOST, address.port()).into(),
            Self::At(SocketAddr::V4(address)) => (Ipv4Addr::LOCALHOST, address.port()).into(),
            Self::Everywhere(port) => (Ipv4Addr::LOCALHOST, port).into(),
        }
    }
}

/// A socket of IPv6 that takes IPv4 as well, whatever `net.ipv6.bindv6only` says.
fn bind_both(port: u16) -> Result<TcpListener, Errno> {
    const BACKLOG: i32 = 128;
    let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    // An agent that is started again finds connections of its predecessor.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    let everywhere: SockaddrIn6 = std::net::SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0).into();
    bind(socket.as_raw_fd(), &everywhere)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::Listen;

    #[test]
    fn addresses_are_read_and_say_where_this_host_reaches_them() {
        let check = |text: &str, from_here: &str| {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), text);
            assert_eq!(listen.on_this_host().to_string(), from_here, "{text}");
        };
        check("127.0.0.1:9947", "127.0.0.1:9947");
        check("[::1]:1", "[::1]:1");
        check("0.0.0.0:1", "127.0.0.1:1");
        check("[::]:1", "[::1]:1");
        check("10.0.0.1:1", "10.0.0.1:1");
        check(":9947", "127.0.0.1:9947");
        for wrong in ["localhost:9947", "9947", ":", "127.0.0.1", ":99999"] {
            assert!(wrong.parse::<Listen>().unwrap_err().contains("write 127.0.0.1:9947"), "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_is_a_port_of_both_families() {
        let port = Listen::Everywhere(0).bind().unwrap().local_addr().unwrap().port();
        let listener = Listen::Everywhere(port).bind().unwrap();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect(("::1", port)).unwrap();
        }
    }
}
