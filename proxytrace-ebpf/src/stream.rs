//! Established connections, watched for breaking.

#![expect(unsafe_code, reason = "entries of maps are pointers")]

use proxytrace_ebpf::{
    abi::{Asked, Connection, Event, Loss, PeerSettings, Share},
    outcome::Broken,
};

use crate::{
    answer::{self, asked, has, is_ordered, peer_settings, received},
    attempt,
    counters::count_loss,
    events,
    helpers::now_ns,
    kernel::{Access, Sock, Stream, tcp},
    ledger,
    maps::CONNECTIONS,
    quota,
};

const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;

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

/// The connection of a socket, in the table. An attempt that is still there is one by now: its handshake was complete.
#[inline(always)]
fn established<A: Access>(sock: Sock<A>) -> Option<&'static mut Connection> {
    let known = in_table(sock)?;
    if !known.is_in_flight() {
        return Some(known);
    }
    attempt::established_unseen(sock, known);
    in_table(sock).filter(|known| !known.is_in_flight())
}

#[inline(always)]
fn in_table<A: Access>(sock: Sock<A>) -> Option<&'static mut Connection> {
    // SAFETY: a value of the map; the socket's lock is held.
    CONNECTIONS.get_ptr_mut(&sock.id()).map(|known| unsafe { &mut *known })
}

/// A connection leaves a state in which the upstream's answers come. Its entry is used in place and then removed: the socket's lock is held,
/// and a copy takes more stack than is left.
#[inline(always)]
pub(crate) fn left<A: Access>(sock: Sock<A>, from: i32, to: i32) {
    let (Some(connection), Some(stream)) = (established(sock), sock.stream()) else { return };
    if to == tcp::CLOSE_WAIT {
        if closed_by_upstream(sock, connection, stream) {
            return; // the rest shows when it ends
        }
    } else {
        resent(connection, stream);
        if from == tcp::CLOSE_WAIT {
            ended_after_upstream(sock, connection, stream);
        } else {
            // Reset, or closed by the proxy itself.
            ended(sock, connection, stream, sock.error());
        }
    }
    remove(sock, connection);
}

/// The upstream has closed its side of a connection. Where a request waits, that is no answer. Where none does, this is in order: a
/// pool of idle connections that shrinks, or the end of an answer. Gives whether only the connection's end will tell.
#[inline(always)]
fn closed_by_upstream<A: Access>(sock: Sock<A>, connection: &mut Connection, stream: Stream<A>) -> bool {
    let received = received(stream, true);
    let is_refusal = received == ALERT;
    match asked(stream, connection, true) {
        Asked::Answered if is_refusal && has(peer_settings(&connection.attempt.row), PeerSettings::TLS) => {
            broke(sock, connection, Broken::TlsRefused, 0, NEW);
        }
        // The proxy made it to send a request, and saw the end before it had.
        Asked::Answered if received == 0 && age_ns(connection) < IDLE_NS => unanswered(sock, connection),
        // A request that crosses the FIN may still be sent. What is sent of a request whose answer has come is none.
        Asked::Answered if stream.acknowledged() == stream.written() => {
            connection.written = stream.written();
            connection.state |= Connection::CLOSING;
            return true;
        }
        Asked::Answered => answered(connection, stream),
        // What TLS says at the end is no request, and the FIN may cross it. When the connection ends it shows.
        Asked::Waiting if received > 0 && has(peer_settings(&connection.attempt.row), PeerSettings::TLS) => {
            connection.state |= Connection::WAITING;
            return true;
        }
        Asked::Waiting if received == 0 => unanswered(sock, connection),
        Asked::Waiting => before_response(sock, connection, Broken::ClosedBeforeResponse, 0),
        // The same, and what the proxy reads: one that waits reads the FIN.
        Asked::Unknown if is_ordered(peer_settings(&connection.attempt.row)) => {
            connection.written = stream.written();
            connection.state |= Connection::CLOSING | Connection::UNKNOWN;
            return true;
        }
        Asked::Unknown => {}
    }
    false
}

/// The upstream has closed a connection on which nothing has come.
#[inline(always)]
fn unanswered<A: Access>(sock: Sock<A>, connection: &Connection) {
    if sock.is_bypassed() {
        return count_loss(Loss::Bypassed);
    }
    broke(sock, connection, Broken::ClosedBeforeResponse, 0, NEW);
}

/// A connection that the upstream had closed while nothing was asked ends. Only now is it known whether it was to serve a request.
#[inline(always)]
fn ended_after_upstream<A: Access>(sock: Sock<A>, connection: &Connection, stream: Stream<A>) {
    if connection.state & Connection::WAITING != 0 {
        return ended_waiting(sock, connection, stream);
    }
    if connection.state & (Connection::CLOSING | Connection::UNKNOWN) == 0 {
        return ended_after_unseen_close(sock, connection, stream);
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
            answered(connection, stream);
        }
        return;
    }
    if more == 0 {
        if received > 0 {
            answered(connection, stream);
        }
        return;
    }
    if received == 0 {
        return broke(sock, connection, Broken::ClosedBeforeResponse, 0, NEW);
    }
    if is_ordered(peer_settings) && !is_end {
        broke(sock, connection, Broken::ClosedBeforeResponse, 0, kept(peer_settings));
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
    } else {
        unknown(connection); // reset before it had come to either
    }
}

/// The same where no program saw the upstream close. What the proxy has done since says whether it still waited.
#[inline(always)]
fn ended_after_unseen_close<A: Access>(sock: Sock<A>, connection: &Connection, stream: Stream<A>) {
    let received = received(stream, true);
    if received == ALERT && has(peer_settings(&connection.attempt.row), PeerSettings::TLS) {
        return broke(sock, connection, Broken::TlsRefused, 0, NEW);
    }
    if received == 0 {
        if stream.bytes_sent() != 0 || age_ns(connection) < IDLE_NS {
            unanswered(sock, connection);
        }
        return;
    }
    match asked(stream, connection, true) {
        Asked::Answered => answered(connection, stream),
        // What TLS says at the end may have been sent last.
        Asked::Waiting if !has(peer_settings(&connection.attempt.row), PeerSettings::TLS) => {
            ended_waiting(sock, connection, stream);
        }
        Asked::Waiting | Asked::Unknown => unknown(connection),
    }
}

/// `error` ended a connection; 0 where the proxy closed it.
#[inline(always)]
fn ended<A: Access>(sock: Sock<A>, connection: &Connection, stream: Stream<A>, error: u32) {
    let received = received(stream, false);
    if received == ALERT && has(peer_settings(&connection.attempt.row), PeerSettings::TLS) {
        return broke(sock, connection, Broken::TlsRefused, error, NEW);
    }
    let broken = match error {
        0 => closed_by_proxy(connection, stream, received),
        ECONNRESET => reset_by_upstream(sock, connection, stream, received),
        _ => WHOLE,
    };
    if let Some(way) = Broken::from_index(broken & WAY) {
        broke(sock, connection, way, error, broken >> KEPT_SHIFT);
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
    if connection.state & Connection::EARLIER != 0 && answer::quiet_ns(stream) >= age_ns(connection) {
        return; // it came before tracing began
    }
    if let Some(counts) = ledger::row(&connection.attempt.row) {
        counts.answered(stream.turns());
    }
}

/// Something is sent again on an established connection. Not where both ends begin at once: that handshake goes on in SYN_RECV.
#[inline(always)]
pub(crate) fn retransmitted<A: Access>(sock: Sock<A>) {
    let Some(connection) = in_table(sock).filter(|known| !known.is_in_flight()) else { return };
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

/// A socket is gone, and must not be watched any more under its address: that will be another's. If it still is, the transition that ended
/// its connection was not seen.
///
/// Where the process closes it only now, the kernel had ended it before: for an RST, or because nobody answered. The process has read the
/// error, which clears it. Where the process had closed it before, nothing tells how it ended.
#[inline(always)]
pub(crate) fn destroyed<A: Access>(sock: Sock<A>) {
    let (Some(connection), Some(stream)) = (established(sock), sock.stream()) else { return };
    resent(connection, stream);
    if sock.is_owned() {
        let error = match sock.error() {
            0 if stream.timeouts() != 0 && stream.has_timer_ended() => ETIMEDOUT,
            0 => ECONNRESET,
            error => error,
        };
        ended(sock, connection, stream, error);
    } else {
        unknown(connection);
    }
    remove(sock, connection);
}

/// An address in memory is another socket's by now: nothing tells how the connection ended that is still watched under it.
#[inline(always)]
pub(crate) fn forget<A: Access>(sock: Sock<A>) {
    if let Some(connection) = in_table(sock) {
        unknown(connection);
        remove(sock, connection);
    }
}

/// A connection has ended, and whether a request waited on it is not known.
#[inline(always)]
fn unknown(connection: &Connection) {
    if is_ordered(peer_settings(&connection.attempt.row)) {
        count_loss(Loss::AnswerOrderUnknown);
    }
}

#[inline(always)]
fn remove<A: Access>(sock: Sock<A>, connection: &Connection) {
    let proxy = connection.attempt.row.proxy;
    if CONNECTIONS.remove(&sock.id()).is_ok() {
        quota::give_back(proxy, Share::Connections);
    }
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
