//! What each outcome means, in words: for records on a terminal and for the findings of `proxytrace check`.

use proxytrace_ebpf::outcome::Outcome;

/// What an outcome means.
#[must_use]
pub const fn outcome_in_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Established => "connected",
        Outcome::Refused => "nobody listens there, or a firewall rejects it",
        Outcome::TimedOut => "no answer, the kernel gave up",
        Outcome::ProxyTimeout => "no answer within the proxy's connect timeout",
        Outcome::Cancelled => "the proxy gave up early: its client left, or the worker exits",
        Outcome::HostUnreachable => "the host cannot be reached",
        Outcome::NetworkUnreachable => "no route to that network",
        Outcome::Reset => "reset in mid-handshake",
        Outcome::PermissionDenied => "not permitted: firewall, security policy or socket file mode",
        Outcome::NoLocalPort => "no local port is left, or a bad proxy_bind",
        Outcome::NoSuchSocket => "the socket file is not there",
        Outcome::BacklogFull => "the listener's backlog is full",
        Outcome::Other => "connect failed",
    }
}
