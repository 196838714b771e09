//! The ring buffer, and the counts of what was lost and of what the hooks have seen.

#![expect(unsafe_code, reason = "a setting is read as a global that userspace has filled")]

use proxytrace_ebpf::abi::{Attempt, Event, Loss, Place, RowKey};

use crate::{
    kernel::{self, Access, Sock, setting},
    maps,
};

/// Tells userspace; counted as lost where the ring has no room.
#[inline(always)]
pub(crate) fn tell(event: Event) {
    match maps::EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => lose(Loss::RingFull),
    }
}

/// Counts something that could not be followed.
#[inline(always)]
pub(crate) fn lose(place: Loss) {
    if let Some(counter) = maps::LOSSES.get_ptr_mut(place as u32) {
        kernel::add(counter, 1);
    }
}

/// Counts that a hook has seen a traced process at work. Where nobody asks for it, it is no instruction at all: the
/// verifier takes out what a frozen setting rules out.
#[inline(always)]
pub(crate) fn seen(place: Place) {
    if setting!(count_seen) != 0
        && let Some(counter) = maps::SEEN.get_ptr_mut(place as u32)
    {
        kernel::add(counter, 1);
    }
}

/// An event about the destination of `row`.
#[inline(always)]
pub(crate) fn about(kind: u32, row: &RowKey, pid: u32, now_ns: u64, since_ns: u64) -> Event {
    Event {
        time_ns: now_ns,
        proxy: row.proxy,
        duration_ns: now_ns.saturating_sub(since_ns),
        remote: row.address,
        generation: row.first().generation,
        pid,
        kind,
        ..Event::ZERO
    }
}

/// An event about an attempt.
#[inline(always)]
pub(crate) fn of_attempt(kind: u32, attempt: &Attempt, now_ns: u64) -> Event {
    Event {
        syn_retransmits: attempt.syn_retransmits,
        ..about(kind, &attempt.row, attempt.pid, now_ns, attempt.started_ns)
    }
}

/// The event, with both ends of its socket where there is one.
#[inline(always)]
pub(crate) fn with_ends<A: Access>(event: Event, sock: Sock<A>) -> Event {
    if sock.is_none() {
        return event;
    }
    Event { local: sock.local(), backend: sock.remote(), ..event }
}
