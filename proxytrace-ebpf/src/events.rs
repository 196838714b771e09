//! Events, and the ring buffer that carries them.

use proxytrace_ebpf::abi::{Attempt, Event, Loss, RowKey};

use crate::{
    counters,
    kernel::{Access, Sock},
    maps,
};

/// Reports to userspace; counted as lost where the ring has no room.
#[inline(always)]
pub(crate) fn report(event: Event) {
    match maps::EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => counters::count_loss(Loss::RingFull),
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
