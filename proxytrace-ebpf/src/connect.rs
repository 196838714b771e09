//! An attempt's life: where it begins, and the one place where each of its possible ends is seen.
//!
//! The truth table is docs/architecture.md. Two things see an attempt: the socket's transitions, and the return of
//! connect(). Whoever takes the attempt out of the table settles it, so that it is counted once.

#![expect(
    unsafe_code,
    reason = "entries of maps are pointers, and functions that are not inlined have to be exported"
)]

use core::{ffi::c_void, mem};

use proxytrace_ebpf::{
    abi::{Address, Attempt, Call, Event, FAMILY_UNIX, Loss, Owner, Place, Process, RowKey, Share},
    outcome::{ERRORS, OF_ERROR, OF_UNIX_ERROR, Outcome},
};

use crate::{
    events,
    kernel::{self, Access, Arguments, Kind, NoAddress, Probed, Sock, setting, tcp},
    ledger,
    maps::{ATTEMPTS, CALLS, EMPTY_CALL, TIMEOUTS, UNIX_PATHS},
    process, quota, shares, stream,
};

const EINTR: u32 = 4;
const ETIMEDOUT: u32 = 110;
/// Restart codes, which only the kernel itself sees (include/linux/errno.h): the call begins again, or the caller
/// gets EINTR.
const ERESTARTSYS: u32 = 512;
const ERESTART_RESTARTBLOCK: u32 = 516;
/// The handshake goes on, or (0) is done: success, EINTR, EALREADY, EINPROGRESS and the restart codes.
const IN_PROGRESS: [u32; 8] = [0, EINTR, 114, 115, ERESTARTSYS, 513, 514, ERESTART_RESTARTBLOCK];
/// connect() never got as far as an address: EBADF, EFAULT, ENOTSOCK, EOPNOTSUPP (a send must not connect), EAFNOSUPPORT,
/// EISCONN.
const NOT_AN_ATTEMPT: [u32; 6] = [9, 14, 88, 95, 97, 106];

/// How far before its connect timeout a proxy may be seen closing: it counts from a clock that it reads once per turn
/// of its event loop (nginx: ngx_cached_time), so its timer starts up to a turn early. On a busy host a turn can take half a
/// second; an eighth of the timeout allows for that, and tells few clients that leave so late for a timeout.
const TIMEOUT_SLACK_NS: u64 = 100_000_000;
const TIMEOUT_SLACK_SHIFT: u32 = 3;

/// An attempt without a socket of TCP, or whose socket is another's by now.
const NO_SOCK: Sock<Probed> = Sock::NONE;

/// A traced process enters connect(). `program` tells which of the programs there sees it (see `hooks.rs`),
/// [`Call::ENTERED`] and so on.
#[inline(always)]
pub(crate) fn entered(arguments: Arguments, program: u32) {
    let Some((pid, process)) = process::current() else { return };
    events::seen(Place::ConnectEntered);
    let thread = kernel::current_thread();
    let Some(socket) = arguments.socket() else { return };

    if let Some(previous) = call_of(thread) {
        let is_same = previous.sock == socket.sock && previous.user_address == arguments.address;
        if is_same && previous.state & (program | Call::INTERRUPTED) != program {
            // This very call: another program has seen it, or a signal had interrupted it and it begins again.
            previous.state |= program;
            return;
        }
        settle_unreturned(thread, Outcome::Other);
        forget(thread);
    }
    let Some(call) = make_call(thread, process.owner) else {
        // Once: the other programs there have no room either.
        if program == Call::ENTERED {
            events::lose(Loss::CallTableFull);
        }
        return;
    };
    call.sock = socket.sock;
    call.user_address = arguments.address;
    call.user_length = arguments.length;
    call.state = if arguments.sends { program | Call::SENDS } else { program };
    match arguments.to(&mut call.path) {
        Ok(address) => {
            call.attempt.row = row_key(&process, address);
            call.attempt.pid = pid;
            call.state |= Call::ADDRESSED;
        }
        Err(NoAddress::Unreadable) => {} // not in memory yet: it is when the call returns
        Err(NoAddress::NotAnUpstream) => return forget(thread),
    }
    match socket.kind {
        Kind::Tcp => {}
        Kind::MultipathTcp => call.state |= Call::MULTIPATH,
        Kind::Unix => {
            call.state |= Call::UNIX;
            // The attempt begins here, so that one that waits for room in the backlog shows as in flight.
            if call.state & Call::ADDRESSED != 0 {
                begin(call);
            }
        }
    }
}

/// The function behind both connect() and sends that connect returns.
#[inline(always)]
pub(crate) fn send_returned(result: i64) {
    if call_of(kernel::current_thread()).is_some_and(|call| call.state & Call::SENDS != 0) {
        returned(result);
    }
}

/// A connect() returns, with 0 or a negative errno. Most upstream connects return EINPROGRESS, and their socket tells
/// the rest; what is settled here is what no socket tells.
#[inline(always)]
pub(crate) fn returned(result: i64) {
    let thread = kernel::current_thread();
    let Some(call) = call_of(thread) else { return };
    events::seen(Place::ConnectReturned);
    let errno = result.min(0).unsigned_abs() as u32; // a send returns how many bytes it took
    let is_unix = call.state & Call::UNIX != 0;
    if is_unix && (ERESTARTSYS..=ERESTART_RESTARTBLOCK).contains(&errno) {
        // Settled when the call begins again, or the thread calls connect() for another socket or exits.
        call.state |= Call::INTERRUPTED;
        return;
    }
    if call.state & Call::HOLDS_ATTEMPT == 0 {
        if call.state & Call::SENT != 0 {
            let sock = Sock::<Probed>::new(call.sock as *const c_void);
            match errno {
                0 if sock.state() == tcp::SYN_SENT => {} // TCP_FASTOPEN_CONNECT: the first send brings the SYN
                0 => _ = connect_established(call.sock),
                _ if IN_PROGRESS.contains(&errno) => remember_soft_error(sock, call.attempt.started_ns),
                _ => _ = connect_refused(call.sock, errno),
            }
        } else if is_unix || !IN_PROGRESS.contains(&errno) {
            // No transition: no route, or not permitted. The socket never got the address.
            begin_late(call, errno);
        }
    }
    let outcome = match errno {
        0 if is_unix => Outcome::Established,
        _ if is_unix => outcome_of(&OF_UNIX_ERROR, errno),
        _ => outcome_of(&OF_ERROR, errno),
    };
    settle_held(thread, outcome, errno);
    forget(thread);
}

/// A TCP socket goes from CLOSE to SYN_SENT, always in the context of the process that connects it; or, where only
/// that could be hooked, `tcp_connect()` is entered. Calling it twice for one attempt does no harm.
///
/// Where no other program can have seen this very transition before (see `hooks.rs`), an attempt that is still in the
/// table for this socket is one whose end was missed.
#[inline(always)]
pub(crate) fn started<A: Access>(sock: Sock<A>, place: Place) {
    let Some((pid, process)) = process::current() else { return };
    events::seen(place);
    let first = matches!(place, Place::State);
    if let Some(attempt) = ATTEMPTS.get_ptr(&sock.id()) {
        if !first {
            return;
        }
        // SAFETY: copied at once.
        let missed = unsafe { *attempt };
        if ATTEMPTS.remove(&sock.id()).is_ok() {
            quota::give_back(missed.row.proxy, Share::Attempts);
            events::lose(Loss::EndMissed);
            settle(&missed, Outcome::Other, 0, NO_SOCK);
        }
    }
    let now_ns = kernel::now_ns();
    // Where it goes is the last resort: a program at cgroup/connect4 may send it elsewhere than the proxy asked for (Cilium's
    // socket load balancer), and 0.0.0.0 becomes 127.0.0.1. There is no call where its entry was missed.
    let mut row = row_key(&process, sock.remote());
    if let Some(call) = call_of(kernel::current_thread())
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
            if call.state & Call::ADDRESSED != 0 {
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
        return events::lose(Loss::AttemptTableFull);
    }
    match ATTEMPTS.insert(&sock.id(), &attempt, 0) {
        Ok(()) => counts.attempt(now_ns),
        Err(_) => {
            quota::give_back(row.proxy, Share::Attempts);
            events::lose(Loss::AttemptTableFull);
        }
    }
}

/// A SYN is sent again: the first sign of a black hole, a second after the attempt began. From 6.17 on the kernel calls
/// this for a SYN too that still waits to be sent (for the neighbour's address); the socket does not count that one.
#[inline(always)]
pub(crate) fn retransmitted<A: Access>(sock: Sock<A>) {
    if sock.state() != tcp::SYN_SENT {
        return;
    }
    let Some(attempt) = ATTEMPTS.get_ptr_mut(&sock.id()) else { return };
    events::seen(Place::Retransmit);
    // SAFETY: a value of the map; the socket's lock is held.
    let attempt = unsafe { &mut *attempt };
    let before = attempt.syn_retransmits;
    count_retransmits(attempt, sock.retransmits());
    if before == 0 && attempt.syn_retransmits > 0 {
        let event = events::of_attempt(Event::STALLED, attempt, kernel::now_ns());
        events::tell(events::with_ends(event, sock));
    }
}

/// The handshake of a socket is complete.
#[inline(always)]
pub(crate) fn established<A: Access>(sock: Sock<A>) {
    if let Some(attempt) = take(sock) {
        settle(&attempt, Outcome::Established, 0, sock);
        stream::watch(sock, &attempt);
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
    if let Some(call) = call_of(kernel::current_thread())
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
        events::lose(Loss::EndMissed);
        return settle(&attempt, Outcome::Other, 0, sock);
    }
    if !sock.is_owned() {
        // The kernel itself has given up. Without tcp_done_with_error (6.11, 6.1.192) it wakes the process before it closes the
        // socket, and the process has asked for the error in between, which clears it. The timer has one error only (tcp_write_err).
        // Which one an ICMP message brought is not to be known any more: over IPv6 the kernel keeps nothing of it.
        if sock.has_timer_run_out() {
            return settle(&attempt, Outcome::TimedOut, ETIMEDOUT, sock);
        }
        events::lose(Loss::EndMissed);
        return settle(&attempt, Outcome::Other, 0, sock);
    }
    let age_ns = kernel::now_ns().saturating_sub(attempt.started_ns);
    let timeout_ns = connect_timeout_ns(&attempt.row);
    let slack_ns = TIMEOUT_SLACK_NS.max(timeout_ns >> TIMEOUT_SLACK_SHIFT);
    let gave_up = age_ns.saturating_add(slack_ns) >= timeout_ns;
    settle(&attempt, if gave_up { Outcome::ProxyTimeout } else { Outcome::Cancelled }, 0, sock);
}

/// How long the proxy waits for a connect there.
#[inline(always)]
fn connect_timeout_ns(row: &RowKey) -> u64 {
    match TIMEOUTS.get_ptr(row.first()) {
        // SAFETY: a value of the map, copied at once.
        Some(known) => unsafe { *known },
        None => setting!(connect_timeout_ns),
    }
}

/// A socket is gone. If its attempt is in the table still, the transition that ended it was not seen; the address of the
/// socket will be another's, so the attempt must not stay.
#[inline(always)]
pub(crate) fn destroyed<A: Access>(sock: Sock<A>) {
    if setting!(count_seen) != 0 && process::current().is_some() {
        events::seen(Place::Destroy);
    }
    if let Some(attempt) = take(sock) {
        events::lose(Loss::EndMissed);
        settle(&attempt, Outcome::Other, 0, sock);
    }
}

/// A thread exits: a call that it was killed in never returns.
#[inline(always)]
pub(crate) fn thread_exited(thread: u64, was_killed: bool) {
    if call_of(thread).is_some() {
        settle_unreturned(thread, if was_killed { Outcome::Cancelled } else { Outcome::Other });
        forget(thread);
    }
}

/// connect() returns how a handshake that it has waited for went. The socket's transition has told it before, unless no
/// program saw that one.
///
/// Checked once and not at each call, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn connect_refused(sock: u64, errno: u32) -> u32 {
    let sock = Sock::<Probed>::new(sock as *const c_void);
    if let Some(attempt) = take(sock) {
        settle(&attempt, outcome_of(&OF_ERROR, errno), errno, sock);
    }
    0
}

/// connect() returns that a handshake is complete, see [`connect_refused`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn connect_established(sock: u64) -> u32 {
    established(Sock::<Probed>::new(sock as *const c_void));
    0
}

/// An ICMP error that arrives while connect() holds the socket is kept as a soft error. It has to be remembered when
/// the call returns: asking for it (SO_ERROR) clears it, and nginx asks before it closes. The tracepoint
/// `inet_sk_error_report` does not help, as the kernel reports before it stores (6.18, tcp_v4_err).
///
/// No lock is held here: the attempt may end on another CPU between the look-up and the store, and its entry be another's
/// by then. So the error is stored with the time at which its attempt began.
#[inline(always)]
fn remember_soft_error(sock: Sock<Probed>, started_ns: u64) {
    let errno = sock.soft_error();
    if errno != 0
        && let Some(attempt) = ATTEMPTS.get_ptr_mut(&sock.id())
    {
        let error = Attempt::soft_error_of(started_ns, errno);
        // SAFETY: a value of the map, one aligned store.
        unsafe { (&raw mut (*attempt).soft_error).write_volatile(error) };
    }
}

#[inline(always)]
fn row_key(process: &Process, address: Address) -> RowKey {
    process::acts(process);
    RowKey { proxy: process.proxy, generation: process.generation, address }
}

/// Begins the attempt of a call, which no other table holds, if its row has room.
#[inline(never)]
fn begin(call: &mut Call) {
    let attempt = &mut call.attempt;
    attempt.started_ns = kernel::now_ns();
    let Some(counts) = ledger::row_to_begin(&mut attempt.row, attempt.started_ns) else { return };
    counts.attempt(attempt.started_ns);
    call.state |= Call::HOLDS_ATTEMPT;
    // Only of a row, so that whoever may have no more of them fills this table neither. Looked up first: an insertion locks a
    // bucket, and the path is nearly always known.
    let RowKey { address, .. } = attempt.row;
    if address.family == FAMILY_UNIX
        && !attempt.row.is_in_other()
        && UNIX_PATHS.get_ptr(&address).is_none()
        && UNIX_PATHS.insert(&address, &call.path, 0).is_err()
    {
        events::lose(Loss::PathTableFull);
    }
}

/// Begins the attempt of a call that has returned, which only now is known to be one.
#[inline(never)]
fn begin_late(call: &mut Call, errno: u32) {
    if NOT_AN_ATTEMPT.contains(&errno) {
        return;
    }
    if call.state & Call::ADDRESSED == 0 {
        let Some((pid, process)) = process::current() else { return };
        match kernel::callers_address(call.user_address, call.user_length, &mut call.path) {
            Ok(address) => {
                call.attempt.row = row_key(&process, address);
                call.attempt.pid = pid;
            }
            Err(NoAddress::Unreadable) => return events::lose(Loss::ReadFailed),
            Err(NoAddress::NotAnUpstream) => return,
        }
    }
    begin(call);
}

#[inline(always)]
fn outcome_of(table: &'static [Outcome; ERRORS], errno: u32) -> Outcome {
    if errno as usize >= ERRORS {
        return Outcome::Other;
    }
    // SAFETY: in bounds by the mask.
    unsafe { table.as_ptr().add(kernel::masked::<{ ERRORS - 1 }>(errno as usize)).read() }
}

/// Takes the attempt of a socket out of the table, for the one caller that is to settle it.
#[inline(always)]
fn take<A: Access>(sock: Sock<A>) -> Option<Attempt> {
    let attempt = ATTEMPTS.get_ptr_mut(&sock.id())?;
    // SAFETY: a value of the map; the socket's lock is held.
    let mut copy = unsafe { *attempt };
    ATTEMPTS.remove(&sock.id()).ok()?;
    quota::give_back(copy.row.proxy, Share::Attempts);
    count_retransmits(&mut copy, sock.retransmits());
    Some(copy)
}

/// Counts the SYNs that were sent again since the last look. The socket's own count is the source, so that none is
/// missed with the hook.
#[inline(always)]
fn count_retransmits(attempt: &mut Attempt, total: u32) {
    let more = total.saturating_sub(attempt.syn_retransmits);
    if more > 0 {
        attempt.syn_retransmits = total;
        if let Some(counts) = ledger::row(&attempt.row) {
            counts.syn_retransmits(more);
        }
    }
}

#[inline(never)]
fn settle<A: Access>(attempt: &Attempt, outcome: Outcome, errno: u32, sock: Sock<A>) {
    let now_ns = kernel::now_ns();
    if let Some(counts) = ledger::row(&attempt.row) {
        match outcome {
            Outcome::Established => counts.established(now_ns, now_ns.saturating_sub(attempt.started_ns)),
            failure => counts.outcome(failure),
        }
    }
    if outcome != Outcome::Established || setting!(tell_established) != 0 {
        let event =
            Event { what: outcome as u32, errno, ..events::of_attempt(Event::CONNECT, attempt, now_ns) };
        events::tell(events::with_ends(event, sock));
    }
}

/// Settles the attempt that a call holds, if it does.
#[inline(always)]
fn settle_held(thread: u64, outcome: Outcome, errno: u32) {
    let _ = connect_settle_held(thread, outcome as u32, errno);
}

/// Checked once and not at each call, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn connect_settle_held(thread: u64, outcome: u32, errno: u32) -> u32 {
    if let (Some(call), Some(outcome)) = (call_of(thread), outcome_at(outcome))
        && call.state & Call::HOLDS_ATTEMPT != 0
    {
        settle(&call.attempt, outcome, errno, NO_SOCK);
    }
    0
}

#[inline(always)]
fn outcome_at(index: u32) -> Option<Outcome> {
    // SAFETY: the discriminants are the numbers from 0 on, as many as there are outcomes.
    ((index as usize) < Outcome::ALL.len()).then(|| unsafe { mem::transmute::<u32, Outcome>(index) })
}

/// Settles a call whose return was not seen, and will not be. A signal has interrupted it for good; or its thread was
/// killed in it (`Cancelled`); or the return was missed, as a kretprobe does when many calls wait at once. One that has
/// sent a SYN has an attempt that its socket will settle.
#[inline(always)]
fn settle_unreturned(thread: u64, outcome: Outcome) {
    let _ = connect_settle_unreturned(thread, outcome as u32);
}

/// Checked once and not at each call, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn connect_settle_unreturned(thread: u64, outcome: u32) -> u32 {
    if let Some(outcome) = outcome_at(outcome) {
        settle_without_return(thread, outcome);
    }
    0
}

#[inline(always)]
fn settle_without_return(thread: u64, outcome: Outcome) {
    let Some(call) = call_of(thread) else { return };
    if call.state & Call::INTERRUPTED != 0 {
        return settle_held(thread, outcome, EINTR);
    }
    if call.state & Call::SENT != 0 && call.state & Call::HOLDS_ATTEMPT == 0 {
        return;
    }
    if matches!(outcome, Outcome::Other) {
        events::lose(Loss::EndMissed);
    }
    if call.state & Call::HOLDS_ATTEMPT == 0 && call.state & Call::ADDRESSED != 0 {
        begin(call);
    }
    settle_held(thread, outcome, 0);
}

#[inline(always)]
fn call_of(thread: u64) -> Option<&'static mut Call> {
    // SAFETY: a value of the map, which only its own thread reaches and removes.
    CALLS.get_ptr_mut(&thread).map(|call| unsafe { &mut *call })
}

/// Makes the call of a thread of this owner's, if there is room for it.
#[inline(always)]
fn make_call(thread: u64, owner: Owner) -> Option<&'static mut Call> {
    let is_counted = owner != Owner::HOST_ROOT;
    if is_counted && !shares::take(owner, Share::Calls) {
        return None;
    }
    // Filled in place: it is larger than what a program has stack for.
    if CALLS.insert(&thread, &EMPTY_CALL, 0).is_err() {
        if is_counted {
            shares::give_back(owner, Share::Calls);
        }
        return None;
    }
    let call = call_of(thread)?;
    if is_counted {
        call.owner = owner;
    }
    Some(call)
}

/// Takes the call of a thread out.
#[inline(always)]
fn forget(thread: u64) {
    let owner = call_of(thread).map_or(Owner::ZERO, |call| call.owner);
    if CALLS.remove(&thread).is_ok() && owner != Owner::ZERO {
        shares::give_back(owner, Share::Calls);
    }
}
