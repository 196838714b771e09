//! Whether a request waits on a connection, and for how long: told from what its socket knows, since no program runs when something is
//! sent or received. docs/kernel-notes.md ("After the handshake") has the reasons.

#![expect(unsafe_code, reason = "entries of maps are pointers")]

use proxytrace_ebpf::abi::{Address, Asked, Connection, PeerSettings, RowKey};

use crate::{
    helpers::{now_ticks, setting},
    kernel::{Access, Stream},
    maps::PEER_SETTINGS,
};

/// A request is acknowledged that soon at the latest, on a way that is not too long (Linux as the other end: 40 to 200 ms). What was
/// acknowledged later may be a keepalive probe.
const ACKNOWLEDGED_NS: u64 = 250_000_000;

/// How far before its timeout a proxy may be seen closing: it counts from a clock that it reads once per turn
/// of its event loop (nginx: ngx_cached_time), so its timer starts up to a turn early. On a busy host a turn can take half a
/// second; an eighth of the timeout allows for that, and takes few clients that leave so late for a timeout.
const TIMEOUT_SLACK_NS: u64 = 100_000_000;
const TIMEOUT_SLACK_SHIFT: u32 = 3;

/// More than what a time is off that is measured in ticks, or kept in a word with others.
const INEXACT_NS: u64 = 50_000_000;

/// What TLS sends before a connection is closed is no longer than that, in bytes (an alert, encrypted).
const CLOSE_NOTIFY: u32 = 96;

/// How many bytes came. A FIN, which TCP counts, is none.
#[inline(always)]
pub(crate) fn received<A: Access>(stream: Stream<A>, has_fin: bool) -> u64 {
    stream.bytes_received().saturating_sub(u64::from(has_fin))
}

/// Whether a request waits. Where nothing was sent yet, none does.
///
/// Whatever answers a request comes after it. The kernel notes when it sent and received data last, in ticks of some milliseconds.
/// Within the same tick it shows in what the other end has confirmed: an answer comes with the acknowledgement of what was asked, or
/// after it.
#[inline(always)]
pub(crate) fn asked<A: Access>(stream: Stream<A>, connection: &Connection, has_fin: bool) -> Asked {
    if received(stream, has_fin) == 0 {
        return if stream.bytes_sent() == 0 { Asked::Answered } else { Asked::Waiting };
    }
    let sent_at = stream.sent_at();
    let later = sent_at.wrapping_sub(stream.received_at()).cast_signed();
    if later != 0 {
        return if later > 0 { Asked::Waiting } else { Asked::Answered };
    }
    let written = stream.written();
    if stream.acknowledged() != written {
        return Asked::Waiting;
    }
    if has_fin {
        // The FIN was heard last. But data that had not been confirmed when it came had come after all that was sent; and a proxy that
        // has not read all asks nothing.
        let data_end = stream.expected().wrapping_sub(1);
        if data_end != stream.confirmed() || data_end != stream.read_up_to() {
            return Asked::Answered;
        }
        // Where a connection has one request, or had one so far, what came is its answer.
        let peer_settings = peer_settings(&connection.attempt.row);
        let is_only = has(peer_settings, PeerSettings::ENDS) || stream.data_segments() == 1;
        if is_only && !has(peer_settings, PeerSettings::TLS) {
            return Asked::Answered;
        }
    } else if stream.heard_from() != stream.expected() {
        return Asked::Answered; // what was heard last had data
    } else if ns(stream.heard_at().wrapping_sub(sent_at)) <= ACKNOWLEDGED_NS {
        return Asked::Waiting; // it was an acknowledgement, of the request as it came so soon
    }
    connection.asked(written)
}

/// How long a request has waited that does, in nanoseconds.
///
/// Since data was sent last. Each retransmission is a send; so what is not acknowledged has waited since there is something to be
/// acknowledged, or since something was last heard, where that was later.
#[inline(always)]
pub(crate) fn waiting_ns<A: Access>(stream: Stream<A>) -> u64 {
    let now = now_ticks();
    let since_sent = now.wrapping_sub(stream.sent_at());
    if stream.acknowledged() == stream.written() {
        return ns(since_sent);
    }
    let unheard = now.wrapping_sub(stream.busy_since()).min(now.wrapping_sub(stream.heard_at()));
    ns(since_sent.max(unheard))
}

/// Whether it is the upstream that has to do something next, where nothing has come yet. A body that is passed on as it comes may be what
/// the proxy waits for itself; but not while something is not confirmed.
#[inline(always)]
pub(crate) fn is_upstreams_turn<A: Access>(stream: Stream<A>, peer_settings: Option<&PeerSettings>) -> bool {
    !has(peer_settings, PeerSettings::STREAMED) || stream.acknowledged() != stream.written()
}

/// Whether the answer may have begun before all was asked: more is on its way than a request without a body has, and a server may refuse
/// it before it has read it (413).
#[inline(always)]
pub(crate) fn may_be_early<A: Access>(stream: Stream<A>) -> bool {
    stream.written().wrapping_sub(stream.acknowledged()) > stream.segment()
}

/// How long nothing has come, in nanoseconds.
#[inline(always)]
pub(crate) fn quiet_ns<A: Access>(stream: Stream<A>) -> u64 {
    ns(now_ticks().wrapping_sub(stream.received_at()))
}

/// Whether something has come within that time, but for its very beginning: what is measured in ticks is not exact.
#[inline(always)]
pub(crate) fn has_come_within<A: Access>(stream: Stream<A>, time_ns: u64) -> bool {
    quiet_ns(stream).saturating_add(INEXACT_NS) < time_ns
}

/// Whether that is all that TLS says at the end.
#[inline(always)]
pub(crate) fn is_close_notify(written: u32) -> bool {
    written <= CLOSE_NOTIFY
}

/// Since when a look has found a request waiting that has waited since, but for what TLS says at the end; 0 for none.
#[inline(always)]
pub(crate) fn waiting_since_ns<A: Access>(stream: Stream<A>, connection: &Connection) -> u64 {
    let written = (connection.looked >> 32) as u32;
    if is_close_notify(stream.written().wrapping_sub(written))
        && matches!(connection.asked(written), Asked::Waiting)
    {
        connection.waiting_since_ns()
    } else {
        0
    }
}

/// What is known of the address.
#[inline(always)]
pub(crate) fn peer_settings(row: &RowKey) -> Option<&'static PeerSettings> {
    let own = row.first();
    let of_generation = RowKey { address: Address::ZERO, ..own };
    // SAFETY: values of the map; where userspace replaces one at the same moment, it may be another's.
    PEER_SETTINGS
        .get_ptr(&own)
        .or_else(|| PEER_SETTINGS.get_ptr(&of_generation))
        .map(|peer_settings| unsafe { &*peer_settings })
}

/// Whether the order of bytes tells whether a request waits.
#[inline(always)]
pub(crate) fn is_ordered(peer_settings: Option<&PeerSettings>) -> bool {
    has(peer_settings, PeerSettings::REQUESTS) && !has(peer_settings, PeerSettings::UNORDERED)
}

#[inline(always)]
pub(crate) fn has(peer_settings: Option<&PeerSettings>, flag: u32) -> bool {
    peer_settings.is_some_and(|peer_settings| peer_settings.flags & flag != 0)
}

/// Whether a proxy that closes after so long has waited for as long as it waits for an answer on one of the routes.
#[inline(always)]
pub(crate) fn has_timed_out(peer_settings: &PeerSettings, waited_ns: u64) -> bool {
    let (mut has, mut longest_ns) = (false, 0);
    let mut index = 0;
    while index < PeerSettings::READ_TIMEOUTS {
        let timeout_ns = u64::from(peer_settings.read_timeouts_ms[index]) * 1_000_000;
        let slack_ns = slack_ns(timeout_ns);
        has |= timeout_ns > 0 && waited_ns.abs_diff(timeout_ns) <= slack_ns;
        longest_ns = longest_ns.max(timeout_ns);
        index += 1;
    }
    has || (longest_ns > 0 && waited_ns.saturating_add(slack_ns(longest_ns)) >= longest_ns)
}

/// The same of the TLS handshake, for which nginx takes its connect timeout.
#[inline(always)]
pub(crate) fn has_connect_timed_out(peer_settings: &PeerSettings, waited_ns: u64) -> bool {
    waited_ns.saturating_add(slack_ns(peer_settings.connect_timeout_ns)) >= peer_settings.connect_timeout_ns
}

/// How far before a timeout a proxy may be seen closing for it.
#[inline(always)]
pub(crate) fn slack_ns(timeout_ns: u64) -> u64 {
    TIMEOUT_SLACK_NS.max(timeout_ns >> TIMEOUT_SLACK_SHIFT)
}

#[inline(always)]
fn ns(ticks: u32) -> u64 {
    u64::from(ticks) * u64::from(setting!(jiffy_ns))
}
