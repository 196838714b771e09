//! Established connections, watched for breaking.

#![expect(unsafe_code, reason = "entries of maps are pointers")]

use proxytrace_ebpf::{
    abi::{Asked, Connection, Event, Loss, PeerSettings, Share},
    outcome::Broken,
};

use crate::{
    answer::{self, asked, has, is_ordered, peer_settings, received},
    counters::count_loss,
    events,
    helpers::now_ns,
    kernel::{Access, Sock, Stream},
    ledger,
    maps::CONNECTIONS,
    quota,
};

const ECONNRESET: u32 = 104;

/// A connection that is closed earlier than this was not closed for being idle: the proxy made it to send a request, and
/// saw the end before it had (nginx reads before it writes).
const IDLE_NS: u64 = 1_000_000_000;

/// How long an alert of TLS is that is not encrypted, in bytes.
const ALERT: u64 = 7;

/// Whether earlier requests on a connection had been answered.
const NEW: u32 = 0;
const KEPT: u32 = 1;
const PERHAPS_KEPT: u32 = 2;

/// See [`way`].
const WAY: u32 = 0xff;
const KEPT_SHIFT: u32 = 8;
/// It did not break.
const WHOLE: u32 = WAY;

/// An attempt becomes a connection, in its place in the table.
#[inline(never)]
pub(crate) fn watch<A: Access>(sock: Sock<A>, known: &mut Connection, now_ns: u64) {
    if quota::turn(known.attempt.row.proxy, Share::Attempts, Share::Connections) {
        known.established_ns = now_ns;
        return;
    }
    let _ = CONNECTIONS.remove(&sock.id());
    count_loss(Loss::ConnectionTableFull);
}

/// The connection of a socket, in the table.
#[inline(always)]
fn established<A: Access>(sock: Sock<A>) -> Option<&'static mut Connection> {
    // SAFETY: a value of the map; the socket's lock is held.
    CONNECTIONS
        .get_ptr_mut(&sock.id())
        .map(|known| unsafe { &mut *known })
        .filter(|known| !known.is_in_flight())
}

/// The upstream has closed its side of a connection. Where a request waits, that is no answer. Where none does, this is in order: a
/// pool of idle connections that shrinks, or the end of an answer.
#[inline(always)]
pub(crate) fn closed_by_upstream<A: Access>(sock: Sock<A>) {
    let Some(connection) = established(sock) else { return };
    let Some(stream) = sock.stream() else { return };
    let received = received(stream, true);
    let is_refusal = received == ALERT;
    match asked(stream, connection, true) {
        Asked::Answered if is_refusal && has(peer_settings(&connection.attempt.row), PeerSettings::TLS) => {
            if let Some(connection) = take(sock) {
                broke(sock, &connection, Broken::TlsRefused, 0, NEW);
            }
        }
        // The proxy made it to send a request, and saw the end before it had.
        Asked::Answered if received == 0 && age_ns(connection) < IDLE_NS => end_unanswered(sock, received),
        // A request that crosses the FIN may still be sent: `ended_after_upstream` will know. What is sent of a request whose answer
        // has come is none.
        Asked::Answered if stream.acknowledged() == stream.written() => {
            connection.written = stream.written();
            connection.state |= Connection::CLOSING;
        }
        Asked::Answered => {
            if let Some(connection) = take(sock) {
                answered(&connection, stream);
            }
        }
        // What TLS says at the end is no request, and the FIN may cross it. When the connection ends it shows.
        Asked::Waiting if received > 0 && has(peer_settings(&connection.attempt.row), PeerSettings::TLS) => {
            connection.state |= Connection::WAITING;
        }
        Asked::Waiting => end_unanswered(sock, received),
        // The same, and what the proxy reads: one that waits reads the FIN.
        Asked::Unknown if is_ordered(peer_settings(&connection.attempt.row)) => {
            connection.written = stream.written();
            connection.state |= Connection::CLOSING | Connection::UNKNOWN;
        }
        Asked::Unknown => {
            let _ = take(sock);
        }
    }
}

/// A request waits on a connection that the upstream has closed.
#[inline(always)]
fn end_unanswered<A: Access>(sock: Sock<A>, received: u64) {
    let Some(connection) = take(sock) else { return };
    if received == 0 {
        if sock.is_bypassed() {
            return count_loss(Loss::Bypassed);
        }
        return broke(sock, &connection, Broken::ClosedBeforeResponse, 0, NEW);
    }
    before_response(sock, &connection, Broken::ClosedBeforeResponse, 0);
}

/// A connection that the upstream had closed while nothing was asked ends. Only now is it known whether it was to serve a request.
#[inline(always)]
pub(crate) fn ended_after_upstream<A: Access>(sock: Sock<A>) {
    let (Some(connection), Some(stream)) = (take(sock), sock.stream()) else { return };
    resent(&connection, stream);
    if connection.state & Connection::WAITING != 0 {
        return ended_waiting(sock, &connection, stream);
    }
    let more = stream.written().wrapping_sub(connection.written);
    let received = received(stream, true);
    let peer_settings = peer_settings(&connection.attempt.row);
    let is_end = more == 0 || (has(peer_settings, PeerSettings::TLS) && answer::is_close_notify(more));
    if connection.state & Connection::UNKNOWN != 0 && is_end {
        // A proxy that has had its answer may read the FIN with it: that says nothing. One that waits has read it.
        if stream.read_up_to() == stream.expected() || sock.error() != 0 {
            count_loss(Loss::AnswerOrderUnknown);
        } else {
            answered(&connection, stream);
        }
        return;
    }
    if connection.state & Connection::CLOSING == 0 || more == 0 {
        if received > 0 {
            answered(&connection, stream);
        }
        return;
    }
    if received == 0 {
        return broke(sock, &connection, Broken::ClosedBeforeResponse, 0, NEW);
    }
    if is_ordered(peer_settings) && !is_end {
        broke(sock, &connection, Broken::ClosedBeforeResponse, 0, kept(peer_settings));
    }
}

/// Where the upstream had closed while a request seemed to wait: a proxy that waits for an answer reads the FIN, and one that has had it
/// closes without.
#[inline(always)]
fn ended_waiting<A: Access>(sock: Sock<A>, connection: &Connection, stream: Stream<A>) {
    if stream.read_up_to() == stream.expected() {
        before_response(sock, connection, Broken::ClosedBeforeResponse, 0);
    } else if sock.error() == 0 {
        answered(connection, stream);
    } else if is_ordered(peer_settings(&connection.attempt.row)) {
        // Reset before it had come to either.
        count_loss(Loss::AnswerOrderUnknown);
    }
}

/// A connection leaves ESTABLISHED in another way: reset, or closed by the proxy itself.
#[inline(always)]
pub(crate) fn ended<A: Access>(sock: Sock<A>) {
    let (Some(connection), Some(stream)) = (take(sock), sock.stream()) else { return };
    resent(&connection, stream);
    let received = received(stream, false);
    if received == ALERT && has(peer_settings(&connection.attempt.row), PeerSettings::TLS) {
        return broke(sock, &connection, Broken::TlsRefused, sock.error(), NEW);
    }
    let error = sock.error();
    let broken = match error {
        0 => closed_by_proxy(&connection, stream, received),
        ECONNRESET => reset_by_upstream(sock, &connection, stream, received),
        _ => WHOLE,
    };
    if let Some(way) = Broken::from_index(broken & WAY) {
        broke(sock, &connection, way, error, broken >> KEPT_SHIFT);
    }
}

/// How a connection broke, as one number: a function that is not inlined has no room to report it on top of its own stack.
const fn way(broken: Broken, kept: u32) -> u32 {
    broken as u32 | kept << KEPT_SHIFT
}

#[inline(never)]
fn reset_by_upstream<A: Access>(
    sock: Sock<A>,
    connection: &Connection,
    stream: Stream<A>,
    received: u64,
) -> u32 {
    if received == 0 {
        return way(if sock.is_bypassed() { Broken::Reset } else { Broken::ResetBeforeResponse }, NEW);
    }
    let peer_settings = peer_settings(&connection.attempt.row);
    match asked(stream, connection, false) {
        Asked::Waiting if is_ordered(peer_settings) => {
            if answer::may_be_early(stream) {
                count_loss(Loss::AnswerOrderUnknown);
                return WHOLE;
            }
            return way(Broken::ResetBeforeResponse, kept(peer_settings));
        }
        Asked::Unknown if is_ordered(peer_settings) => count_loss(Loss::AnswerOrderUnknown),
        // Nothing is idle where connections are not kept.
        _ if has(peer_settings, PeerSettings::ENDS) => return way(Broken::Reset, NEW),
        // An idle connection of a pool hurts nobody. Whether the answer was complete is not known, but after a while it was.
        _ if answer::quiet_ns(stream) >= IDLE_NS => answered(connection, stream),
        // Of a proxy whose configuration nobody knows it is not known whether it keeps connections: most do not.
        _ if peer_settings.is_none() => return way(Broken::Reset, NEW),
        _ => count_loss(Loss::AnswerOrderUnknown),
    }
    WHOLE
}

#[inline(never)]
fn closed_by_proxy<A: Access>(connection: &Connection, stream: Stream<A>, received: u64) -> u32 {
    let asked = asked(stream, connection, false);
    if matches!(asked, Asked::Answered) {
        if received > 0 {
            answered(connection, stream);
        }
        return WHOLE;
    }
    let Some(peer_settings) = peer_settings(&connection.attempt.row) else { return WHOLE };
    let known = Some(peer_settings);
    if !has(known, PeerSettings::REQUESTS) || (received > 0 && !is_ordered(known)) {
        return WHOLE;
    }
    let mut waited_ns = answer::waiting_ns(stream);
    if has(known, PeerSettings::TLS) {
        // What TLS says at the end has been sent just now.
        let since_ns = answer::waiting_since_ns(stream, connection);
        if since_ns > 0 {
            let since_ns = now_ns().saturating_sub(since_ns);
            if received > 0 && answer::has_come_within(stream, since_ns) {
                answered(connection, stream);
                return WHOLE;
            }
            waited_ns = waited_ns.max(since_ns);
        }
    }
    let has_timed_out = answer::has_timed_out(peer_settings, waited_ns)
        || (received == 0
            && has(known, PeerSettings::TLS)
            && answer::has_connect_timed_out(peer_settings, waited_ns));
    let is_unknown =
        matches!(asked, Asked::Unknown) || (received == 0 && !answer::is_upstreams_turn(stream, known));
    match asked {
        _ if is_unknown && has_timed_out => count_loss(Loss::AnswerOrderUnknown),
        Asked::Unknown => {}
        _ if has_timed_out => {
            return way(Broken::ResponseTimeout, if received > 0 { kept(known) } else { NEW });
        }
        _ => {
            if let Some(counts) = ledger::row(&connection.attempt.row) {
                counts.abandoned();
            }
        }
    }
    WHOLE
}

/// A connection on which something had come before ends while a request waits.
#[inline(always)]
fn before_response<A: Access>(sock: Sock<A>, connection: &Connection, broken: Broken, errno: u32) {
    let peer_settings = peer_settings(&connection.attempt.row);
    if !is_ordered(peer_settings) {
        return;
    }
    if sock.stream().is_some_and(answer::may_be_early) {
        return count_loss(Loss::AnswerOrderUnknown);
    }
    broke(sock, connection, broken, errno, kept(peer_settings));
}

/// Whether an earlier request on a connection had got its answer on which something has come: with TLS that may be the handshake.
#[inline(always)]
fn kept(peer_settings: Option<&PeerSettings>) -> u32 {
    if has(peer_settings, PeerSettings::TLS) { PERHAPS_KEPT } else { KEPT }
}

/// Nothing waited when a connection ended on which something had come.
#[inline(always)]
fn answered<A: Access>(connection: &Connection, stream: Stream<A>) {
    if let Some(counts) = ledger::row(&connection.attempt.row) {
        counts.answered(stream.turns());
    }
}

/// Something is sent again on an established connection.
#[inline(always)]
pub(crate) fn retransmitted<A: Access>(sock: Sock<A>) {
    let Some(connection) = established(sock) else { return };
    let Some(stream) = sock.stream() else { return };
    resent(connection, stream);
    connection.attempt.syn_retransmits = stream.retransmits();
}

/// Counts the segments that were sent again since that was last done.
#[inline(always)]
fn resent<A: Access>(connection: &Connection, stream: Stream<A>) {
    let more = stream.retransmits().saturating_sub(connection.attempt.syn_retransmits);
    if more > 0
        && let Some(counts) = ledger::row(&connection.attempt.row)
    {
        counts.data_retransmits(more);
    }
}

/// How long it is since the connection was established.
#[inline(always)]
fn age_ns(connection: &Connection) -> u64 {
    now_ns().saturating_sub(connection.established_ns)
}

/// A socket is gone, and must not be watched any more under its address, whatever was seen of its end.
#[inline(always)]
pub(crate) fn destroyed<A: Access>(sock: Sock<A>) {
    let _ = take(sock);
}

#[inline(always)]
fn take<A: Access>(sock: Sock<A>) -> Option<Connection> {
    let copy = *established(sock)?;
    CONNECTIONS.remove(&sock.id()).ok()?;
    quota::give_back(copy.attempt.row.proxy, Share::Connections);
    Some(copy)
}

#[inline(never)]
fn broke<A: Access>(sock: Sock<A>, connection: &Connection, broken: Broken, errno: u32, kept: u32) {
    if let Some(counts) = ledger::row(&connection.attempt.row) {
        counts.broken(broken);
        if kept != NEW && !matches!(broken, Broken::ResponseTimeout) {
            counts.broken_kept();
        }
    }
    let event = events::about(
        Event::BROKEN,
        &connection.attempt.row,
        connection.attempt.pid,
        now_ns(),
        connection.established_ns,
    );
    let kept = u32::from(kept == KEPT);
    events::report(Event { what: broken as u32, errno, kept, ..events::with_ends(event, sock) });
}
