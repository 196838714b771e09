//! Established connections, watched for breaking.

#![expect(unsafe_code, reason = "entries of maps are pointers")]

use proxytrace_ebpf::{
    abi::{Attempt, Connection, Event, Loss, Share},
    outcome::Broken,
};

use crate::{
    counters::count_loss,
    events,
    helpers::now_ns,
    kernel::{Access, Sock},
    ledger,
    maps::CONNECTIONS,
    quota,
};

const ECONNRESET: u32 = 104;

/// A connection that is closed earlier than this was not closed for being idle: the proxy made it to send a request, and
/// saw the end before it had (nginx reads before it writes).
const IDLE_NS: u64 = 1_000_000_000;

/// An attempt has become a connection.
#[inline(never)]
pub(crate) fn watch<A: Access>(sock: Sock<A>, attempt: &Attempt) {
    let connection =
        Connection { row: attempt.row, established_ns: now_ns(), pid: attempt.pid, ..Connection::ZERO };
    if !quota::take(attempt.row.proxy, Share::Connections) {
        return count_loss(Loss::ConnectionTableFull);
    }
    if CONNECTIONS.insert(&sock.id(), &connection, 0).is_err() {
        quota::give_back(attempt.row.proxy, Share::Connections);
        count_loss(Loss::ConnectionTableFull);
    }
}

/// The upstream has closed its side of a connection. Once a response has begun this is in order, and where nothing was
/// asked: a pool of idle connections that shrinks.
#[inline(always)]
pub(crate) fn closed_by_upstream<A: Access>(sock: Sock<A>) {
    let Some(connection) = CONNECTIONS.get_ptr(&sock.id()) else { return };
    // SAFETY: a value of the map; the socket's lock is held.
    let age_ns = now_ns().saturating_sub(unsafe { (*connection).established_ns });
    let is_silent = sock.bytes_received() <= 1; // the FIN counts as a byte
    if is_silent && sock.bytes_sent() == 0 && age_ns >= IDLE_NS {
        return; // a request that crosses the FIN may still be sent: `ended_in_silence` will know
    }
    if let Some(connection) = take(sock)
        && is_silent
    {
        if sock.is_bypassed() {
            return count_loss(Loss::Bypassed);
        }
        broke(sock, &connection, Broken::ClosedBeforeResponse, 0);
    }
}

/// A connection that the upstream had closed in silence ends. Only now is it known whether it was to serve a request.
#[inline(always)]
pub(crate) fn ended_in_silence<A: Access>(sock: Sock<A>) {
    if let Some(connection) = take(sock)
        && sock.bytes_sent() > 0
    {
        broke(sock, &connection, Broken::ClosedBeforeResponse, 0);
    }
}

/// A connection leaves ESTABLISHED in another way: reset, or closed by the proxy itself.
#[inline(always)]
pub(crate) fn ended<A: Access>(sock: Sock<A>) {
    let Some(connection) = take(sock) else { return };
    if sock.error() == ECONNRESET {
        let is_silent = sock.bytes_received() == 0 && !sock.is_bypassed();
        let broken = if is_silent { Broken::ResetBeforeResponse } else { Broken::Reset };
        broke(sock, &connection, broken, ECONNRESET);
    }
}

/// A socket is gone, and must not be watched any more under its address, whatever was seen of its end.
#[inline(always)]
pub(crate) fn destroyed<A: Access>(sock: Sock<A>) {
    let _ = take(sock);
}

#[inline(always)]
fn take<A: Access>(sock: Sock<A>) -> Option<Connection> {
    let connection = CONNECTIONS.get_ptr(&sock.id())?;
    // SAFETY: copied at once; the socket's lock is held.
    let copy = unsafe { *connection };
    CONNECTIONS.remove(&sock.id()).ok()?;
    quota::give_back(copy.row.proxy, Share::Connections);
    Some(copy)
}

#[inline(never)]
fn broke<A: Access>(sock: Sock<A>, connection: &Connection, broken: Broken, errno: u32) {
    if let Some(counts) = ledger::row(&connection.row) {
        counts.broken(broken);
    }
    let event =
        events::about(Event::BROKEN, &connection.row, connection.pid, now_ns(), connection.established_ns);
    events::report(Event { what: broken as u32, errno, ..events::with_ends(event, sock) });
}
