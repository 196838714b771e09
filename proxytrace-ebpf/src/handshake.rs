//! An attempt as its socket sees it: the transitions of TCP from SYN_SENT on.

#![expect(
    unsafe_code,
    reason = "entries of maps are pointers, and functions that are not inlined have to be exported"
)]

use proxytrace_ebpf::{
    abi::{Attempt, Call, Connection, Event, Loss, RowKey, Share},
    hooks::Place,
    outcome::{OF_ERROR, Outcome},
};

use crate::{
    answer,
    attempt::{count_retransmits, in_flight, outcome_of, row_key, settle, take},
    connect::{call_of, connect_is_current_tcp},
    counters::{count_loss, seen},
    events::{self, report},
    helpers::{current_thread, now_ns, setting},
    kernel::{self, Access, Sock, tcp},
    ledger,
    maps::CONNECTIONS,
    process, quota, stream,
};

const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;

/// A TCP socket goes from CLOSE to SYN_SENT, always in the context of the process that connects it; or, where only
/// that could be hooked, `tcp_connect()` is entered. Calling it twice for one attempt does no harm.
///
/// Where no other program can have seen this very transition before (see `programs.rs`), an attempt that is still in the
/// table for this socket is one whose end was missed.
#[inline(always)]
pub(crate) fn started<A: Access>(sock: Sock<A>, place: Place) {
    let Some((pid, process)) = process::current() else { return };
    seen(place);
    let first = matches!(place, Place::State);
    let now_ns = now_ns();
    if let Some(missed) = CONNECTIONS.get_ptr(&sock.id()) {
        // SAFETY: a value of the map; the socket's lock is held.
        if unsafe { (*missed).is_in_flight() } {
            if !first {
                return;
            }
            // In place, and then removed: in process nothing is interrupted by this that a removal would have to wait for.
            // SAFETY: as above.
            let missed = unsafe { &(*missed).attempt };
            count_loss(Loss::EndMissed);
            settle(missed, Outcome::Other, 0, Sock::<A>::NONE, now_ns);
            quota::give_back(missed.row.proxy, Share::Attempts);
            let _ = CONNECTIONS.remove(&sock.id());
        } else {
            stream::forget(sock);
        }
    }
    // Where it goes is the last resort: a program at cgroup/connect4 may send it elsewhere than the proxy asked for (Cilium's
    // socket load balancer), and 0.0.0.0 becomes 127.0.0.1. There is no call where its entry was missed.
    let mut row = row_key(&process, sock.remote());
    let thread = current_thread();
    if let Some(call) = call_of(thread)
        && (call.sock == sock.id() || call.state & (Call::MULTIPATH | Call::SENT) == Call::MULTIPATH)
    {
        if call.state & Call::SENT == 0 {
            // Not in memory at the entry, but the kernel has read it since.
            if call.state & Call::ADDRESSED == 0
                && let Ok(address) = kernel::callers_internet_address(call.user_address)
            {
                call.attempt.row = row_key(&process, address);
                call.attempt.pid = pid;
                call.state |= Call::ADDRESSED;
            }
            // Where both are the same it does not matter which call this is.
            if call.state & Call::ADDRESSED != 0
                && (call.attempt.row.address.is(&row.address) || connect_is_current_tcp(thread) != 0)
            {
                row = call.attempt.row;
            }
        } else if !first {
            return; // this call's attempt has begun and, without a port to begin from, ended
        }
        call.sock = sock.id();
        call.state |= Call::SENT;
        call.attempt.started_ns = now_ns;
    }
    let Some(counts) = ledger::row_to_begin(&mut row, now_ns) else { return };
    if !quota::take(row.proxy, Share::Attempts) {
        return count_loss(Loss::AttemptTableFull);
    }
    if enter(sock.id(), &row, now_ns, pid) != 0 {
        counts.attempt(now_ns);
    } else {
        quota::give_back(row.proxy, Share::Attempts);
        count_loss(Loss::AttemptTableFull);
    }
}

/// Puts an attempt into the table; 0 where it has no place. Of its own, because an entry takes more stack than is left beside all else.
#[inline(never)]
fn enter(sock: u64, row: &RowKey, started_ns: u64, pid: u32) -> u32 {
    let attempt = Attempt { row: *row, started_ns, pid, ..Attempt::ZERO };
    CONNECTIONS.insert(&sock, &Connection { attempt, ..Connection::ZERO }, 0).is_ok().into()
}

/// A SYN is sent again: the first sign of a black hole, a second after the attempt began. From 6.17 on the kernel calls
/// this for a SYN too that still waits to be sent (for the neighbour's address); the socket does not count that one.
#[inline(always)]
pub(crate) fn retransmitted<A: Access>(sock: Sock<A>) {
    if sock.state() != tcp::SYN_SENT {
        return stream::retransmitted(sock);
    }
    let Some(known) = in_flight(sock) else { return };
    seen(Place::Retransmit);
    let attempt = &mut known.attempt;
    let before = attempt.syn_retransmits;
    count_retransmits(attempt, sock.retransmits());
    if before == 0 && attempt.syn_retransmits > 0 {
        let event = events::of_attempt(Event::STALLED, attempt, now_ns());
        report(events::with_ends(event, sock));
    }
}

/// A socket is closed whose handshake was not complete.
#[inline(always)]
pub(crate) fn closed<A: Access>(sock: Sock<A>) {
    let Some(attempt) = take(sock) else { return };
    let errno = error(sock, &attempt);
    if errno != 0 {
        return settle(&attempt, outcome_of(&OF_ERROR, errno), errno, sock, now_ns());
    }
    // No error, and connect() has not returned: what it returns is the cause (no local port was left). That it has not
    // is seen from the socket as well, as its return may have been missed.
    if let Some(call) = call_of(current_thread())
        && call.sock == sock.id()
        && call.state & Call::SENT != 0
        && sock.is_unconnected()
    {
        call.attempt = attempt;
        call.state |= Call::HOLDS_ATTEMPT;
        return;
    }
    if sock.is_unconnected() {
        // Inside connect() as well, whose entry no program saw: what it returns will not be known.
        count_loss(Loss::EndMissed);
        return settle(&attempt, Outcome::Other, 0, sock, now_ns());
    }
    if !sock.is_owned() {
        // The kernel itself has given up. Without tcp_done_with_error (6.11, 6.1.192) it wakes the process before it closes the
        // socket, and the process has asked for the error in between, which clears it. The timer has one error only (tcp_write_err).
        // Which one an ICMP message brought is not to be known any more: over IPv6 the kernel keeps nothing of it.
        if sock.has_timer_run_out() {
            return settle(&attempt, Outcome::TimedOut, ETIMEDOUT, sock, now_ns());
        }
        count_loss(Loss::EndMissed);
        return settle(&attempt, Outcome::Other, 0, sock, now_ns());
    }
    let now_ns = now_ns();
    let age_ns = now_ns.saturating_sub(attempt.started_ns);
    let timeout_ns = connect_timeout_ns(&attempt.row);
    let outcome = if age_ns.saturating_add(answer::slack_ns(timeout_ns)) >= timeout_ns {
        Outcome::ProxyTimeout
    } else if attempt.syn_retransmits > 0 {
        Outcome::GivenUp
    } else {
        Outcome::Cancelled
    };
    settle(&attempt, outcome, 0, sock, now_ns);
}

/// The error that ended an attempt, as its socket has it; 0 for none.
#[inline(always)]
fn error<A: Access>(sock: Sock<A>, attempt: &Attempt) -> u32 {
    // The last is for an ICMP error that the kernel had queued but not yet stored when connect() returned: nginx may have
    // asked for it, and so cleared it, before it closes.
    match (sock.error(), sock.soft_error(), attempt.soft_errno()) {
        (0, 0, 0) => sock.queued_error(),
        (0, 0, remembered) => remembered,
        (0, soft, _) => soft,
        (hard, _, _) => hard,
    }
}

/// What ended the handshake of a socket that is gone, where no program saw it and the process has asked for the error, which clears it; 0
/// where that cannot be known. What comes from the other end ends a handshake only where it refuses. Where nothing came, its timer has run
/// out; it has not where the process closed the socket, nor where an ICMP message did, of which IPv6 keeps nothing.
#[inline(always)]
fn unseen_error<A: Access>(sock: Sock<A>) -> u32 {
    let Some(stream) = sock.stream() else { return 0 };
    if stream.segments_received() != 0 {
        return ECONNREFUSED;
    }
    if stream.retransmits() != 0 && stream.has_timer_ended() { ETIMEDOUT } else { 0 }
}

/// How long the proxy waits for a connect there.
#[inline(always)]
fn connect_timeout_ns(row: &RowKey) -> u64 {
    answer::peer_settings(row)
        .map_or_else(|| setting!(connect_timeout_ns), |peer_settings| peer_settings.connect_timeout_ns)
}

/// A socket is gone, and must not be in the table any more: its address will be another's. If its attempt is, the transition that ended it
/// was not seen. The outcome may still show.
#[inline(always)]
pub(crate) fn destroyed<A: Access>(sock: Sock<A>) {
    if setting!(count_seen) != 0 && process::current().is_some() {
        seen(Place::Destroy);
    }
    let Some(known) = CONNECTIONS.get_ptr(&sock.id()) else { return };
    // SAFETY: a value of the map; nobody else has the socket any more.
    if !unsafe { (*known).is_in_flight() } || sock.has_heard() {
        return stream::destroyed(sock);
    }
    let Some(attempt) = take(sock) else { return };
    let errno = match error(sock, &attempt) {
        0 => unseen_error(sock),
        errno => errno,
    };
    if errno == 0 {
        count_loss(Loss::EndMissed);
    }
    settle(&attempt, outcome_of(&OF_ERROR, errno), errno, sock, now_ns());
}
