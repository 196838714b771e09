//! Where an attempt goes to: an address with its port, or the path of a unix socket.

use super::record::abi;

/// The family in an [`Address`] of TCP, over IPv4 (v4-mapped) and IPv6 alike: AF_INET6.
pub const FAMILY_INET: u16 = 10;
/// The family in an [`Address`] of a unix socket: AF_UNIX.
pub const FAMILY_UNIX: u16 = 1;

/// How many bytes `struct sockaddr_un` has for the path.
pub const UNIX_PATH_MAX: usize = 108;

abi! {
    /// A destination.
    pub struct Address {
        /// The IPv6 or v4-mapped address in network order, or the digest of a unix path.
        pub bytes: [u8; 16],
        /// The port in host order; 0 for a unix socket.
        pub port: u16,
        /// [`FAMILY_INET`] or [`FAMILY_UNIX`].
        pub family: u16,
    }

    /// The path behind the digest of a unix [`Address`].
    pub struct UnixPath {
        /// As in `sockaddr_un`, zero-filled; an abstract name starts with a zero byte.
        pub bytes: [u8; UNIX_PATH_MAX],
        /// How many of the bytes count.
        pub length: u32,
    }
}

impl Address {
    /// Whether it is the same: in whole words, where `==` compares bytes in a loop.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        u128::from_ne_bytes(self.bytes) == u128::from_ne_bytes(other.bytes)
            && self.port == other.port
            && self.family == other.family
    }
}

/// Where the C library asks for users, groups and hosts: how the paths begin. nginx does so when it starts, at each reload and
/// for `nginx -t`, and mostly nobody answers: no upstream, and no failure.
const NAME_SERVICES: [Beginning; 4] = [
    Beginning::new(b"/var/run/nscd/"),
    Beginning::new(b"/run/systemd/userdb/"),
    Beginning::new(b"/run/systemd/resolve/"),
    Beginning::new(b"/var/lib/sss/pipes/"),
];

/// Whether a unix socket's path, zero-filled, is the C library's doing and not the proxy's.
#[inline(always)]
#[must_use]
pub const fn is_name_service(path: &[u8; UNIX_PATH_MAX]) -> bool {
    NAME_SERVICES[0].is_of(path)
        || NAME_SERVICES[1].is_of(path)
        || NAME_SERVICES[2].is_of(path)
        || NAME_SERVICES[3].is_of(path)
}

/// How a path begins: words of four bytes, and which of their bits count. Compared without a loop that ends early, which costs
/// the verifier more than the program.
#[derive(Clone, Copy)]
struct Beginning {
    words: [u32; Self::WORDS],
    masks: [u32; Self::WORDS],
}

impl Beginning {
    const WORDS: usize = 6;

    const fn new(text: &[u8]) -> Self {
        let mut beginning = Self { words: [0; Self::WORDS], masks: [0; Self::WORDS] };
        let mut at = 0;
        while at < text.len() {
            let shift = 8 * (at as u32 % 4);
            beginning.words[at / 4] |= (text[at] as u32) << shift;
            beginning.masks[at / 4] |= 0xff << shift;
            at += 1;
        }
        beginning
    }

    #[inline(always)]
    const fn is_of(self, path: &[u8; UNIX_PATH_MAX]) -> bool {
        let mut differences = 0;
        let mut index = 0;
        while index < Self::WORDS {
            let at = 4 * index;
            let word = u32::from_le_bytes([path[at], path[at + 1], path[at + 2], path[at + 3]]);
            differences |= (word & self.masks[index]) ^ self.words[index];
            index += 1;
        }
        differences == 0
    }
}
