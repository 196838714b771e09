//! An attempt's end: how it is taken out of its table, counted and reported.
//!
//! The truth table is docs/kernel-notes.md. Two things see an attempt: the socket's transitions ([`crate::handshake`]), and the
//! return of connect() ([`crate::connect`]). Whoever takes the attempt out of the table settles it, so that it is counted once.

#![expect(unsafe_code, reason = "entries of maps are pointers")]

use proxytrace_ebpf::{
    abi::{Address, Attempt, Connection, Event, Loss, Process, RowKey, Share},
    outcome::{ERRORS, Outcome},
};

use crate::{
    counters::count_loss,
    events::{self, report},
    helpers::{masked, now_ns},
    kernel::{Access, Probed, Sock},
    ledger,
    maps::{CONNECTIONS, REPORT_ESTABLISHED},
    process, quota,
};

/// An attempt without a socket of TCP, or whose socket is another's by now.
pub(crate) const NO_SOCK: Sock<Probed> = Sock::NONE;

/// The row of an attempt of `process`, which makes sure that its proxy is known.
#[inline(always)]
pub(crate) fn row_key(process: &Process, address: Address) -> RowKey {
    process::acts(process);
    RowKey { proxy: process.proxy, generation: process.generation, address }
}

/// The handshake of a socket is complete.
#[inline(always)]
pub(crate) fn established<A: Access>(sock: Sock<A>) {
    let Some(known) = in_flight(sock) else { return };
    count_retransmits(&mut known.attempt, sock.retransmits());
    let now_ns = now_ns();
    settle(&known.attempt, Outcome::Established, 0, sock, now_ns);
    watch(sock, known, now_ns);
}

/// The handshake of a socket was complete, as what it does next tells, and no program saw that. How long it took is what the kernel measured
/// then; after an answer that is a mean with what it measured later.
#[inline(always)]
pub(crate) fn established_unseen<A: Access>(sock: Sock<A>, known: &mut Connection) {
    count_retransmits(&mut known.attempt, sock.retransmits());
    let ended_ns = match sock.round_trip_ns() {
        0 => now_ns(),
        round_trip_ns => known.attempt.started_ns + round_trip_ns,
    };
    settle(&known.attempt, Outcome::Established, 0, sock, ended_ns);
    watch(sock, known, ended_ns);
}

/// An attempt becomes a connection, in its place in the table.
#[inline(never)]
fn watch<A: Access>(sock: Sock<A>, known: &mut Connection, now_ns: u64) {
    if quota::turn(known.attempt.row.proxy, Share::Attempts, Share::Connections) {
        known.established_ns = now_ns;
        return;
    }
    let _ = CONNECTIONS.remove(&sock.id());
    count_loss(Loss::ConnectionTableFull);
}

/// The attempt in flight of a socket, in the table.
///
/// It becomes a connection in place, without a lock of ours: that only happens with the socket's lock held, or in the thread whose connect()
/// returns, which waits for that lock to learn of it.
#[inline(always)]
pub(crate) fn in_flight<A: Access>(sock: Sock<A>) -> Option<&'static mut Connection> {
    // SAFETY: a value of the map, see above.
    CONNECTIONS
        .get_ptr_mut(&sock.id())
        .map(|known| unsafe { &mut *known })
        .filter(|known| known.is_in_flight())
}

/// Takes the attempt of a socket out of the table, for the one caller that is to settle it.
#[inline(always)]
pub(crate) fn take<A: Access>(sock: Sock<A>) -> Option<Attempt> {
    let mut copy = in_flight(sock)?.attempt;
    CONNECTIONS.remove(&sock.id()).ok()?;
    quota::give_back(copy.row.proxy, Share::Attempts);
    count_retransmits(&mut copy, sock.retransmits());
    Some(copy)
}

/// Counts the SYNs that were sent again since that was last done. The socket's own count is the source, so that none is
/// missed with the hook.
#[inline(always)]
pub(crate) fn count_retransmits(attempt: &mut Attempt, total: u32) {
    let more = total.saturating_sub(attempt.syn_retransmits);
    if more > 0 {
        attempt.syn_retransmits = total;
        if let Some(counts) = ledger::row(&attempt.row) {
            counts.syn_retransmits(more);
        }
    }
}

/// What an error means, by one of the tables of the outcomes.
#[inline(always)]
pub(crate) fn outcome_of(table: &'static [Outcome; ERRORS], errno: u32) -> Outcome {
    if errno as usize >= ERRORS {
        return Outcome::Other;
    }
    // SAFETY: in bounds by the mask.
    unsafe { table.as_ptr().add(masked::<{ ERRORS - 1 }>(errno as usize)).read() }
}

/// Counts the end of an attempt, which is now, and reports it.
#[inline(never)]
pub(crate) fn settle<A: Access>(attempt: &Attempt, outcome: Outcome, errno: u32, sock: Sock<A>, now_ns: u64) {
    if let Some(counts) = ledger::row(&attempt.row) {
        match outcome {
            Outcome::Established => counts.established(now_ns, now_ns.saturating_sub(attempt.started_ns)),
            Outcome::Cancelled => counts.cancelled(now_ns.saturating_sub(attempt.started_ns)),
            failure => counts.outcome(failure),
        }
    }
    if outcome != Outcome::Established || REPORT_ESTABLISHED.get(0).is_some_and(|wanted| *wanted != 0) {
        let event =
            Event { what: outcome as u32, errno, ..events::of_attempt(Event::CONNECT, attempt, now_ns) };
        report(events::with_ends(event, sock));
    }
}
