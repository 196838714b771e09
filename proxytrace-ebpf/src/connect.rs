//! An attempt as its call sees it: connect(), or a send that connects, is entered and returns.
//!
//! Most attempts end on their sockets, see [`crate::handshake`]. What is settled here is what no socket shows: unix sockets, and
//! errors that connect() returns at once.

#![expect(
    unsafe_code,
    reason = "entries of maps are pointers, and functions that are not inlined have to be exported"
)]

use core::ffi::c_void;

use proxytrace_ebpf::{
    abi::{Attempt, Call, FAMILY_UNIX, Loss, Owner, RowKey, Share, UnixPath},
    hooks::Place,
    outcome::{OF_ERROR, OF_UNIX_ERROR, Outcome},
};

use crate::{
    attempt::{NO_SOCK, established, in_flight, outcome_of, row_key, settle, take},
    counters::{count_loss, seen},
    helpers::{current_thread, now_ns, setting},
    kernel::{self, Arguments, Direct, Kind, NoAddress, Probed, Registers, Sock, tcp},
    ledger,
    maps::{CALLS, CONNECTIONS, EMPTY_CALL, UNIX_PATHS},
    process, shares,
};

const EINTR: u32 = 4;
/// Restart codes, which only the kernel itself sees (include/linux/errno.h): the call begins again, or the caller
/// gets EINTR.
const ERESTARTSYS: u32 = 512;
const ERESTART_RESTARTBLOCK: u32 = 516;
/// The handshake goes on, or (0) is done: success, EINTR, EALREADY, EINPROGRESS and the restart codes.
const IN_PROGRESS: [u32; 8] = [0, EINTR, 114, 115, ERESTARTSYS, 513, 514, ERESTART_RESTARTBLOCK];
/// connect() never got as far as an address: EBADF, EFAULT, ENOTSOCK, EOPNOTSUPP (a send must not connect), EAFNOSUPPORT,
/// EISCONN.
const NOT_AN_ATTEMPT: [u32; 6] = [9, 14, 88, 95, 97, 106];

/// A traced process enters connect(). `program` is the one there that sees it (see `programs.rs`): [`Call::ENTERED`] and
/// so on.
#[inline(always)]
pub(crate) fn entered(arguments: Arguments, program: u32) {
    let Some((pid, process)) = process::current() else { return };
    seen(Place::ConnectEntered);
    let thread = current_thread();
    let socket = arguments.socket();

    if let Some(previous) = call_of(thread) {
        let is_same = socket.is_some_and(|socket| previous.sock == socket.sock)
            && previous.user_address == arguments.address;
        if is_same && previous.state & (program | Call::INTERRUPTED) != program {
            // This very call: another program has seen it, or a signal had interrupted it and it begins again.
            previous.state |= program;
            return;
        }
        // Also where this one is no attempt: what it returns is not the outcome of the other.
        settle_unreturned(thread, Outcome::Other);
        forget(thread);
    }
    let Some(socket) = socket else { return };
    let Some(call) = make_call(thread, process.owner) else {
        // Once: the other programs there have no room either.
        if program == Call::ENTERED {
            count_loss(Loss::CallTableFull);
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
    if call_of(current_thread()).is_some_and(|call| call.state & Call::SENDS != 0) {
        returned(result);
    }
}

/// A connect() returns, with 0 or a negative errno. Most upstream connects return EINPROGRESS, and their socket shows
/// the rest; what is settled here is what no socket shows.
#[inline(always)]
pub(crate) fn returned(result: i64) {
    let thread = current_thread();
    let Some(call) = call_of(thread) else { return };
    seen(Place::ConnectReturned);
    // What a socket shows is of that socket, whichever call returns.
    if call.state & (Call::SENT | Call::HOLDS_ATTEMPT) != Call::SENT && !is_current(thread) {
        settle_unreturned(thread, Outcome::Other);
        return forget(thread);
    }
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
                0 => _ = connect_established(call.sock, call.attempt.started_ns),
                _ if IN_PROGRESS.contains(&errno) => remember_soft_error(sock, call.attempt.started_ns),
                _ => _ = connect_refused(call.sock, call.attempt.started_ns, errno),
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

/// A thread exits: a call that it was killed in never returns.
#[inline(always)]
pub(crate) fn thread_exited(thread: u64, was_killed: bool) {
    let Some(call) = entry_of(thread) else { return };
    if call.state != Call::NONE {
        settle_unreturned(thread, if was_killed { Outcome::Cancelled } else { Outcome::Other });
    }
    take_out(thread);
}

/// connect() returns how a handshake that it has waited for went. The socket's transition has shown it before, unless no
/// program saw that one. `started_ns` is when the attempt of the call began: another one of the same socket, or of another
/// socket at the same address in memory, is none of its.
///
/// Checked once and not at each call, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn connect_refused(sock: u64, started_ns: u64, errno: u32) -> u32 {
    let sock = Sock::<Probed>::new(sock as *const c_void);
    if began_at(sock, started_ns)
        && let Some(attempt) = take(sock)
    {
        settle(&attempt, outcome_of(&OF_ERROR, errno), errno, sock, now_ns());
    }
    0
}

/// connect() returns that a handshake is complete, see [`connect_refused`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn connect_established(sock: u64, started_ns: u64) -> u32 {
    let sock = Sock::<Probed>::new(sock as *const c_void);
    if began_at(sock, started_ns) {
        established(sock);
    }
    0
}

/// Whether the attempt in flight of a socket began then.
#[inline(always)]
fn began_at(sock: Sock<Probed>, started_ns: u64) -> bool {
    in_flight(sock).is_some_and(|known| known.attempt.started_ns == started_ns)
}

/// Whether the connect() that a thread is in is the one that [`CALLS`] knows of it, or one to the same address. It may be a
/// later one: the kernel can skip our programs at the return of one and at the entry of the next (docs/kernel-notes.md,
/// "Recursion misses").
#[inline(always)]
fn is_current(thread: u64) -> bool {
    connect_is_current(thread) != 0
}

/// The same of a call on a socket of TCP. Of its own, because a path takes more stack than the programs at transitions have.
#[inline(never)]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn connect_is_current_tcp(thread: u64) -> u32 {
    if setting!(has_task_registers) == 0 {
        return 1;
    }
    let Some(call) = call_of(thread) else { return 0 };
    let registers = Registers::<Direct>::of_current();
    let Some(opening) = registers.opening(registers.number()) else { return 1 };
    let Some(arguments) = Arguments::of_syscall(opening, registers) else { return 0 };
    match kernel::callers_internet_address(arguments.address) {
        Ok(address) => u32::from(address.is(&call.attempt.row.address)),
        Err(_) => 0,
    }
}

/// Checked once and not at each call, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn connect_is_current(thread: u64) -> u32 {
    if setting!(has_task_registers) == 0 {
        return 1; // nor can a process be preempted in a program there
    }
    let Some(call) = call_of(thread) else { return 0 };
    let registers = Registers::<Direct>::of_current();
    let Some(opening) = registers.opening(registers.number()) else { return 1 }; // io_uring
    let Some(arguments) = Arguments::of_syscall(opening, registers) else { return 0 };
    if call.state & Call::ADDRESSED == 0 {
        return u32::from(arguments.address == call.user_address);
    }
    // Where its own path is needed it was noted when the attempt began.
    call.path = UnixPath::ZERO;
    match arguments.to(&mut call.path) {
        Ok(address) => u32::from(address.is(&call.attempt.row.address)),
        Err(_) => 0,
    }
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
        && let Some(known) = CONNECTIONS.get_ptr_mut(&sock.id())
    {
        let error = Attempt::soft_error_of(started_ns, errno);
        // SAFETY: a value of the map, one aligned store.
        unsafe { (&raw mut (*known).attempt.soft_error).write_volatile(error) };
    }
}

/// Begins the attempt of a call, which no other table holds, if its row has room.
#[inline(never)]
fn begin(call: &mut Call) {
    let attempt = &mut call.attempt;
    attempt.started_ns = now_ns();
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
        count_loss(Loss::PathTableFull);
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
            Err(NoAddress::Unreadable) => return count_loss(Loss::ReadFailed),
            Err(NoAddress::NotAnUpstream) => return,
        }
    }
    begin(call);
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
    if let (Some(call), Some(outcome)) = (call_of(thread), Outcome::from_index(outcome))
        && call.state & Call::HOLDS_ATTEMPT != 0
    {
        settle(&call.attempt, outcome, errno, NO_SOCK, now_ns());
    }
    0
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
    if let Some(outcome) = Outcome::from_index(outcome) {
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
        count_loss(Loss::EndMissed);
    }
    // That of a unix socket would have begun when the call was entered, if its row had room.
    if call.state & (Call::HOLDS_ATTEMPT | Call::UNIX) == 0 && call.state & Call::ADDRESSED != 0 {
        begin(call);
    }
    settle_held(thread, outcome, 0);
}

/// The call that a thread is in.
#[inline(always)]
pub(crate) fn call_of(thread: u64) -> Option<&'static mut Call> {
    entry_of(thread).filter(|call| call.state != Call::NONE)
}

/// What the table has of a thread, be it a call that is over.
#[inline(always)]
fn entry_of(thread: u64) -> Option<&'static mut Call> {
    // SAFETY: a value of the map, which only its own thread reaches and removes.
    CALLS.get_ptr_mut(&thread).map(|call| unsafe { &mut *call })
}

/// Whether a thread keeps its entry when a call is over, until it exits: an insertion and a removal take longer than the rest of what is done
/// for a call. The first thread of each process of the host's root does, for which the table has places beside the others'.
#[inline(always)]
fn keeps_entry(thread: u64, call: &Call) -> bool {
    thread >> 32 == thread & 0xffff_ffff && call.owner == Owner::ZERO
}

/// Makes the call of a thread of this owner's, if there is room for it.
#[inline(always)]
fn make_call(thread: u64, owner: Owner) -> Option<&'static mut Call> {
    if let Some(call) = entry_of(thread) {
        call.attempt.soft_error = 0;
        call.attempt.syn_retransmits = 0;
        call.path = UnixPath::ZERO;
        return Some(call);
    }
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
    let call = entry_of(thread)?;
    if is_counted {
        call.owner = owner;
    }
    Some(call)
}

/// The call of a thread is over.
#[inline(always)]
fn forget(thread: u64) {
    match entry_of(thread) {
        Some(call) if keeps_entry(thread, call) => call.state = Call::NONE,
        _ => take_out(thread),
    }
}

/// Takes the entry of a thread out.
#[inline(always)]
fn take_out(thread: u64) {
    let owner = entry_of(thread).map_or(Owner::ZERO, |call| call.owner);
    if CALLS.remove(&thread).is_ok() && owner != Owner::ZERO {
        shares::give_back(owner, Share::Calls);
    }
}
