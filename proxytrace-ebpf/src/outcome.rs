//! The outcomes of an attempt, the ways an established connection breaks, and which error means which.

/// How one connect() of a proxy ended. The discriminant is the index in [`crate::abi::Row::outcomes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Outcome {
    /// The handshake was completed (a unix socket: connect() succeeded).
    Established = 0,
    /// Reset by the host, nobody listens.
    Refused,
    /// The kernel gave up.
    TimedOut,
    /// The proxy closed the socket during the handshake, after its own connect timeout.
    ProxyTimeout,
    /// The proxy closed the socket during the handshake, earlier than that.
    Cancelled,
    /// From the route, ARP/ND or ICMP.
    HostUnreachable,
    /// From the route, ARP/ND or ICMP.
    NetworkUnreachable,
    /// Reset in the handshake other than by refusal.
    Reset,
    /// A firewall, cgroup, security module or file mode said no.
    PermissionDenied,
    /// Ephemeral ports used up, or a bad `proxy_bind`.
    NoLocalPort,
    /// The unix socket's file is missing.
    NoSuchSocket,
    /// The unix socket's listener does not accept fast enough.
    BacklogFull,
    /// Anything else: the errno tells.
    Other,
}

/// More than the largest errno that has an outcome of its own; a power of two, so that a mask keeps an index in bounds.
pub const ERRORS: usize = 128;

/// [`Outcome::of_error`] of each error below [`ERRORS`]: a program looks there, as the verifier would follow each branch of a
/// comparison to the program's end.
pub static OF_ERROR: [Outcome; ERRORS] = of_errors(false);

/// The same of [`Outcome::of_unix_error`].
pub static OF_UNIX_ERROR: [Outcome; ERRORS] = of_errors(true);

const fn of_errors(is_unix: bool) -> [Outcome; ERRORS] {
    let (mut outcomes, mut errno) = ([Outcome::Other; ERRORS], 0);
    while errno < ERRORS {
        let number = errno as u32;
        outcomes[errno] = if is_unix { Outcome::of_unix_error(number) } else { Outcome::of_error(number) };
        errno += 1;
    }
    outcomes
}

impl Outcome {
    /// Every outcome, in the order of their indices.
    pub const ALL: [Self; 13] = [
        Self::Established,
        Self::Refused,
        Self::TimedOut,
        Self::ProxyTimeout,
        Self::Cancelled,
        Self::HostUnreachable,
        Self::NetworkUnreachable,
        Self::Reset,
        Self::PermissionDenied,
        Self::NoLocalPort,
        Self::NoSuchSocket,
        Self::BacklogFull,
        Self::Other,
    ];

    /// The outcome that a hard error of a connect() means. The numbers are those of x86-64 and arm64, which agree.
    #[inline(always)]
    #[must_use]
    pub const fn of_error(errno: u32) -> Self {
        match errno {
            111 => Self::Refused,                    // ECONNREFUSED
            110 => Self::TimedOut,                   // ETIMEDOUT
            64 | 112 | 113 => Self::HostUnreachable, // ENONET, EHOSTDOWN, EHOSTUNREACH
            100 | 101 => Self::NetworkUnreachable,   // ENETDOWN, ENETUNREACH
            104 => Self::Reset,                      // ECONNRESET
            1 | 13 => Self::PermissionDenied,        // EPERM, EACCES
            98 | 99 => Self::NoLocalPort,            // EADDRINUSE, EADDRNOTAVAIL
            _ => Self::Other,
        }
    }

    /// The outcome of a unix connect() that returned this error: two more errors have a meaning there.
    #[inline(always)]
    #[must_use]
    pub const fn of_unix_error(errno: u32) -> Self {
        match errno {
            2 => Self::NoSuchSocket, // ENOENT
            11 => Self::BacklogFull, // EAGAIN
            other => Self::of_error(other),
        }
    }

    /// The outcome with this index, if there is one.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(index as usize).copied()
    }

    /// The name in records and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::ProxyTimeout => "proxy_timeout",
            Self::Cancelled => "cancelled",
            Self::HostUnreachable => "host_unreachable",
            Self::NetworkUnreachable => "network_unreachable",
            Self::Reset => "reset",
            Self::PermissionDenied => "permission_denied",
            Self::NoLocalPort => "no_local_port",
            Self::NoSuchSocket => "no_such_socket",
            Self::BacklogFull => "backlog_full",
            Self::Other => "other",
        }
    }
}

/// How an established connection broke. The discriminant is the index in [`crate::abi::Row::broken`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Broken {
    /// Reset before any byte of a response.
    ResetBeforeResponse = 0,
    /// Closed by the upstream although a request had been sent and no byte had come back.
    ClosedBeforeResponse,
    /// Reset later.
    Reset,
}

impl Broken {
    /// Every way, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::ResetBeforeResponse, Self::ClosedBeforeResponse, Self::Reset];

    /// The way with this index, if there is one.
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        Self::ALL.get(index as usize).copied()
    }

    /// The name in records and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ResetBeforeResponse => "reset_before_response",
            Self::ClosedBeforeResponse => "closed_before_response",
            Self::Reset => "reset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Broken, Outcome};

    #[test]
    fn indices_follow_the_order_of_the_lists() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{}", outcome.name());
            assert_eq!(Outcome::from_index(index as u32), Some(outcome));
        }
        for (index, broken) in Broken::ALL.into_iter().enumerate() {
            assert_eq!(broken as usize, index, "{}", broken.name());
            assert_eq!(Broken::from_index(index as u32), Some(broken));
        }
        assert_eq!(Outcome::from_index(Outcome::ALL.len() as u32), None);
    }

    #[test]
    fn errors_mean_what_the_contract_says() {
        let check = |errno: u32, tcp: Outcome, unix: Outcome| {
            assert_eq!(Outcome::of_error(errno), tcp, "errno {errno} of tcp");
            assert_eq!(Outcome::of_unix_error(errno), unix, "errno {errno} of a unix socket");
        };
        check(111, Outcome::Refused, Outcome::Refused);
        check(13, Outcome::PermissionDenied, Outcome::PermissionDenied);
        check(2, Outcome::Other, Outcome::NoSuchSocket);
        check(11, Outcome::Other, Outcome::BacklogFull);
        check(22, Outcome::Other, Outcome::Other);
        check(99, Outcome::NoLocalPort, Outcome::NoLocalPort);
        check(113, Outcome::HostUnreachable, Outcome::HostUnreachable);
    }
}
