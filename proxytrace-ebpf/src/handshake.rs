//! An attempt as its socket sees it: the transitions of TCP from SYN_SENT on.

#![expect(
    unsafe_code,
    reason = "entries of maps are pointers, and functions that are not inlined have to be exported"
)]

use proxytrace_ebpf::{
    abi::{Attempt, Call, Event, Loss, RowKey, Share},
    hooks::Place,
    outcome::{OF_ERROR, Outcome},
};

use crate::{
    answer,
    attempt::{NO_SOCK, count_retransmits, outcome_of, row_key, settle, take},
    connect::{call_of, connect_is_current_tcp},
    counters::{count_loss, seen},
    events::{self, report},
    helpers::{current_thread, now_ns, setting},
    kernel::{self, Access, Sock, tcp},
    ledger,
    maps::ATTEMPTS,
    process, quota, stream,
};

const ETIMEDOUT: u32 = 110;

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
    if let Some(attempt) = ATTEMPTS.get_ptr(&sock.id()) {
        if !first {
            return;
        }
        // SAFETY: copied at once.
        let missed = unsafe { *attempt };
        if ATTEMPTS.remove(&sock.id()).is_ok() {
            quota::give_back(missed.row.proxy, Share::Attempts);
            count_loss(Loss::EndMissed);
            settle(&missed, Outcome::Other, 0, NO_SOCK);
        }
    }
    let now_ns = now_ns();
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
    let attempt = Attempt { row, started_ns: now_ns, pid, ..Attempt::ZERO };
    if !quota::take(row.proxy, Share::Attempts) {
        return count_loss(Loss::AttemptTableFull);
    }
    match ATTEMPTS.insert(&sock.id(), &attempt, 0) {
        Ok(()) => counts.attempt(now_ns),
        Err(_) => {
            quota::give_back(row.proxy, Share::Attempts);
            count_loss(Loss::AttemptTableFull);
        }
    }
}

/// A SYN is sent again: the first sign of a black hole, a second after the attempt began. From 6.17 on the kernel calls
/// this for a SYN too that still waits to be sent (for the neighbour's address); the socket does not count that one.
#[inline(always)]
pub(crate) fn retransmitted<A: Access>(sock: Sock<A>) {
    if sock.state() != tcp::SYN_SENT {
        return stream::retransmitted(sock);
    }
    let Some(attempt) = ATTEMPTS.get_ptr_mut(&sock.id()) else { return };
    seen(Place::Retransmit);
    // SAFETY: a value of the map; the socket's lock is held.
    let attempt = unsafe { &mut *attempt };
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
    // The last is for an ICMP error that the kernel had queued but not yet stored when connect() returned: nginx may have
    // asked for it, and so cleared it, before it closes.
    let errno = match (sock.error(), sock.soft_error(), attempt.soft_errno()) {
        (0, 0, 0) => sock.queued_error(),
        (0, 0, remembered) => remembered,
        (0, soft, _) => soft,
        (hard, _, _) => hard,
    };
    if errno != 0 {
        return settle(&attempt, outcome_of(&OF_ERROR, errno), errno, sock);
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
        return settle(&attempt, Outcome::Other, 0, sock);
    }
    if !sock.is_owned() {
        // The kernel itself has given up. Without tcp_done_with_error (6.11, 6.1.192) it wakes the process before it closes the
        // socket, and the process has asked for the error in between, which clears it. The timer has one error only (tcp_write_err).
        // Which one an ICMP message brought is not to be known any more: over IPv6 the kernel keeps nothing of it.
        if sock.has_timer_run_out() {
            return settle(&attempt, Outcome::TimedOut, ETIMEDOUT, sock);
        }
        count_loss(Loss::EndMissed);
        return settle(&attempt, Outcome::Other, 0, sock);
    }
    let age_ns = now_ns().saturating_sub(attempt.started_ns);
    let timeout_ns = connect_timeout_ns(&attempt.row);
    let outcome = if age_ns.saturating_add(answer::slack_ns(timeout_ns)) >= timeout_ns {
        Outcome::ProxyTimeout
    } else if attempt.syn_retransmits > 0 {
        Outcome::GivenUp
    } else {
        Outcome::Cancelled
    };
    settle(&attempt, outcome, 0, sock);
}

/// How long the proxy waits for a connect there.
#[inline(always)]
fn connect_timeout_ns(row: &RowKey) -> u64 {
    answer::peer_settings(row)
        .map_or_else(|| setting!(connect_timeout_ns), |peer_settings| peer_settings.connect_timeout_ns)
}

/// A socket is gone. If its attempt is in the table still, the transition that ended it was not seen; the address of the
/// socket will be another's, so the attempt must not stay.
#[inline(always)]
pub(crate) fn destroyed<A: Access>(sock: Sock<A>) {
    if setting!(count_seen) != 0 && process::current().is_some() {
        seen(Place::Destroy);
    }
    if let Some(attempt) = take(sock) {
        count_loss(Loss::EndMissed);
        settle(&attempt, Outcome::Other, 0, sock);
    }
}
