//! The outcomes of an attempt, and the ways an established connection breaks: all that is known of each, declared once.

use crate::indexed::indexed;

/// What an outcome says of where it comes from, which is what findings ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The handshake was completed.
    Established,
    /// The other end said no: somebody is there.
    Answer,
    /// There is no way to the other end, or no such place. Another attempt will hardly find one.
    Unreachable,
    /// This host forbids it, and will forbid it again.
    Denied,
    /// This host is out of something that attempts need. Another attempt may find it.
    Exhausted,
    /// Nothing answered.
    Silence,
    /// The proxy ended it for reasons of its own: a client left, or a worker exits.
    Proxy,
    /// The cause is not known, or none of these.
    Other,
}

/// What is known of an outcome.
struct About {
    name: &'static str,
    words: &'static str,
    class: Class,
    /// The errors of a connect() that mean it. The numbers are those of x86-64 and arm64, which agree.
    errors: &'static [u32],
    /// The errors that mean it for unix sockets only.
    unix_errors: &'static [u32],
}

indexed! {
    /// How one connect() of a proxy ended. The discriminant is the index in [`crate::abi::Row::outcomes`].
    pub enum Outcome: About {
        /// The handshake was completed (a unix socket: connect() succeeded).
        Established {
            name: "established",
            words: "connected",
            class: Class::Established,
            errors: &[],
            unix_errors: &[],
        }
        /// Reset by the host, nobody listens.
        Refused {
            name: "refused",
            words: "nobody listens there, or a firewall rejects it",
            class: Class::Answer,
            errors: &[111], // ECONNREFUSED
            unix_errors: &[],
        }
        /// The kernel gave up.
        TimedOut {
            name: "timed_out",
            words: "no answer, the kernel gave up",
            class: Class::Silence,
            errors: &[110], // ETIMEDOUT
            unix_errors: &[],
        }
        /// The proxy closed the socket during the handshake, after its own connect timeout.
        ProxyTimeout {
            name: "proxy_timeout",
            words: "no answer within the proxy's connect timeout",
            class: Class::Silence,
            errors: &[],
            unix_errors: &[],
        }
        /// The proxy closed the socket during the handshake, earlier than that, after a SYN had been sent again.
        GivenUp {
            name: "given_up",
            words: "no answer, and then the proxy gave up",
            class: Class::Silence,
            errors: &[],
            unix_errors: &[],
        }
        /// The proxy closed the socket during the handshake, earlier than that, and before a SYN was sent again.
        Cancelled {
            name: "cancelled",
            words: "the proxy gave up early: its client left, or the worker exits",
            class: Class::Proxy,
            errors: &[],
            unix_errors: &[],
        }
        /// From the route, ARP/ND or ICMP.
        HostUnreachable {
            name: "host_unreachable",
            words: "the host cannot be reached",
            class: Class::Unreachable,
            errors: &[64, 112, 113], // ENONET, EHOSTDOWN, EHOSTUNREACH
            unix_errors: &[],
        }
        /// From the route, ARP/ND or ICMP.
        NetworkUnreachable {
            name: "network_unreachable",
            words: "no route to that network",
            class: Class::Unreachable,
            errors: &[100, 101], // ENETDOWN, ENETUNREACH
            unix_errors: &[],
        }
        /// Reset in the handshake other than by refusal.
        Reset {
            name: "reset",
            words: "reset in mid-handshake",
            class: Class::Answer,
            errors: &[104], // ECONNRESET
            unix_errors: &[],
        }
        /// A firewall, cgroup, security module or file mode said no.
        PermissionDenied {
            name: "permission_denied",
            words: "not permitted: firewall, security policy or socket file mode",
            class: Class::Denied,
            errors: &[1, 13], // EPERM, EACCES
            unix_errors: &[],
        }
        /// Ephemeral ports used up, or a bad `proxy_bind`.
        NoLocalPort {
            name: "no_local_port",
            words: "no local port is left, or a bad proxy_bind",
            class: Class::Exhausted,
            errors: &[98, 99], // EADDRINUSE, EADDRNOTAVAIL
            unix_errors: &[],
        }
        /// The unix socket's file is missing.
        NoSuchSocket {
            name: "no_such_socket",
            words: "the socket file is not there",
            class: Class::Unreachable,
            errors: &[],
            unix_errors: &[2], // ENOENT
        }
        /// The unix socket's listener does not accept fast enough.
        BacklogFull {
            name: "backlog_full",
            words: "the listener's backlog is full",
            class: Class::Exhausted,
            errors: &[],
            unix_errors: &[11], // EAGAIN
        }
        /// Anything else: see the errno.
        Other {
            name: "other",
            words: "connect failed",
            class: Class::Other,
            errors: &[],
            unix_errors: &[],
        }
    }
}

/// More than the largest errno that has an outcome of its own; a power of two, so that a mask keeps an index in bounds.
pub const ERRORS: usize = 128;

/// The outcome of each error below [`ERRORS`]: a program looks there, as the verifier would follow each branch of a comparison to
/// the program's end.
pub static OF_ERROR: [Outcome; ERRORS] = of_errors(false);

/// The same for unix sockets.
pub static OF_UNIX_ERROR: [Outcome; ERRORS] = of_errors(true);

const fn of_errors(is_unix: bool) -> [Outcome; ERRORS] {
    let (mut outcomes, mut index) = ([Outcome::Other; ERRORS], 0);
    while index < Outcome::ALL.len() {
        let outcome = Outcome::ALL[index];
        set(&mut outcomes, outcome.about().errors, outcome);
        if is_unix {
            set(&mut outcomes, outcome.about().unix_errors, outcome);
        }
        index += 1;
    }
    outcomes
}

const fn set(outcomes: &mut [Outcome; ERRORS], errors: &[u32], outcome: Outcome) {
    let mut index = 0;
    while index < errors.len() {
        let entry = &mut outcomes[errors[index] as usize];
        assert!(matches!(*entry, Outcome::Other), "an error means one outcome");
        *entry = outcome;
        index += 1;
    }
}

impl Outcome {
    /// The outcome that a hard error of a connect() means.
    #[must_use]
    pub fn of_error(errno: u32) -> Self {
        OF_ERROR.get(errno as usize).copied().unwrap_or(Self::Other)
    }

    /// The outcome of a unix connect() that returned this error: some more errors have a meaning there.
    #[must_use]
    pub fn of_unix_error(errno: u32) -> Self {
        OF_UNIX_ERROR.get(errno as usize).copied().unwrap_or(Self::Other)
    }

    /// The name in records and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// What it means, for somebody who reads it at 3 a.m.
    #[must_use]
    pub const fn words(self) -> &'static str {
        self.about().words
    }

    /// What it says of where it comes from.
    #[must_use]
    pub const fn class(self) -> Class {
        self.about().class
    }

    /// The outcomes of these classes, class after class. As a `const`, a list of another length does not compile: whoever adds an
    /// outcome is led to every list that it joins.
    #[must_use]
    pub const fn of_class<const N: usize>(classes: &[Class]) -> [Self; N] {
        let (mut found, mut count, mut class) = ([Self::Other; N], 0, 0);
        while class < classes.len() {
            let mut index = 0;
            while index < Self::ALL.len() {
                if Self::ALL[index].class() as u32 == classes[class] as u32 {
                    assert!(count < N, "there are more outcomes of these classes");
                    found[count] = Self::ALL[index];
                    count += 1;
                }
                index += 1;
            }
            class += 1;
        }
        assert!(count == N, "there are fewer outcomes of these classes");
        found
    }
}

/// What is known of a way to break.
struct AboutBroken {
    name: &'static str,
    words: &'static str,
    /// The same of a connection on which earlier requests had been answered.
    words_if_kept: &'static str,
    is_unanswered: bool,
}

indexed! {
    /// How an established connection broke. The discriminant is the index in [`crate::abi::Row::broken`].
    pub enum Broken: AboutBroken {
        /// Reset before any byte of a response.
        ResetBeforeResponse {
            name: "reset_before_response",
            words: "connected, then reset before any answer",
            words_if_kept: "reset as the next request came: the backend's keepalive timeout is shorter than the proxy's, \
                            or it crashed; nginx tries idempotent requests again, others get 502",
            is_unanswered: true,
        }
        /// Closed by the upstream although a request had been sent and no byte had come back.
        ClosedBeforeResponse {
            name: "closed_before_response",
            words: "connected, then closed without an answer: wrong service, or it crashed",
            words_if_kept: "closed as the next request came: the backend's keepalive timeout is shorter than the proxy's, \
                            or it was restarted; nginx tries idempotent requests again, others get 502",
            is_unanswered: true,
        }
        /// Reset later.
        Reset {
            name: "reset",
            words: "reset in the middle of an answer, or of TLS or HTTP/2 before one",
            words_if_kept: "reset in the middle of an answer, or of TLS or HTTP/2 before one",
            is_unanswered: false,
        }
        /// Closed by the proxy: it had sent a request, and no byte came within its read timeout.
        ResponseTimeout {
            name: "response_timeout",
            words: "no byte of an answer within the proxy's read timeout",
            words_if_kept: "no byte of an answer within the proxy's read timeout",
            is_unanswered: true,
        }
        /// The upstream answered the beginning of TLS with an alert, and that was all.
        TlsRefused {
            name: "tls_refused",
            words: "the upstream refused the TLS handshake with an alert: protocol version, name (SNI) or certificate",
            words_if_kept: "the upstream refused the TLS handshake with an alert: protocol version, name (SNI) or certificate",
            is_unanswered: true,
        }
    }
}

impl Broken {
    /// The name in records and metric labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.about().name
    }

    /// What it means, for somebody who reads it at 3 a.m.; `is_kept` where earlier requests on the connection had been answered.
    #[must_use]
    pub const fn words(self, is_kept: bool) -> &'static str {
        if is_kept { self.about().words_if_kept } else { self.about().words }
    }

    /// Whether a request got no byte of an answer.
    #[must_use]
    pub const fn is_unanswered(self) -> bool {
        self.about().is_unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::{Broken, Class, Outcome};

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
        check(0, Outcome::Other, Outcome::Other);
        check(1, Outcome::PermissionDenied, Outcome::PermissionDenied);
        check(111, Outcome::Refused, Outcome::Refused);
        check(13, Outcome::PermissionDenied, Outcome::PermissionDenied);
        check(2, Outcome::Other, Outcome::NoSuchSocket);
        check(11, Outcome::Other, Outcome::BacklogFull);
        check(22, Outcome::Other, Outcome::Other);
        check(64, Outcome::HostUnreachable, Outcome::HostUnreachable);
        check(98, Outcome::NoLocalPort, Outcome::NoLocalPort);
        check(99, Outcome::NoLocalPort, Outcome::NoLocalPort);
        check(100, Outcome::NetworkUnreachable, Outcome::NetworkUnreachable);
        check(101, Outcome::NetworkUnreachable, Outcome::NetworkUnreachable);
        check(104, Outcome::Reset, Outcome::Reset);
        check(110, Outcome::TimedOut, Outcome::TimedOut);
        check(112, Outcome::HostUnreachable, Outcome::HostUnreachable);
        check(113, Outcome::HostUnreachable, Outcome::HostUnreachable);
        check(512, Outcome::Other, Outcome::Other);
    }

    #[test]
    fn lists_follow_from_classes() {
        use Outcome::{
            BacklogFull, Established, GivenUp, HostUnreachable, NetworkUnreachable, NoLocalPort,
            NoSuchSocket, PermissionDenied, ProxyTimeout, Refused, Reset, TimedOut,
        };
        assert_eq!(
            Outcome::of_class(&[Class::Exhausted, Class::Denied]),
            [NoLocalPort, BacklogFull, PermissionDenied],
            "what keeps a proxy from connecting is this host"
        );
        assert_eq!(
            Outcome::of_class(&[Class::Established, Class::Answer]),
            [Established, Refused, Reset],
            "somebody is there"
        );
        assert_eq!(Outcome::of_class(&[Class::Silence]), [TimedOut, ProxyTimeout, GivenUp], "nobody answers");
        assert_eq!(
            Outcome::of_class(&[Class::Answer, Class::Unreachable, Class::Denied]),
            [Refused, Reset, HostUnreachable, NetworkUnreachable, NoSuchSocket, PermissionDenied],
            "another attempt will hardly end otherwise"
        );
    }
}
