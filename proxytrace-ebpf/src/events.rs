//! Events, and the ring buffer that carries them.

#![expect(unsafe_code, reason = "when the reader was woken last is a value of a map that all CPUs share")]

use proxytrace_ebpf::abi::{Attempt, Event, Loss, RowKey, WAKE_INTERVAL_NS};

use crate::{
    counters,
    helpers::now_ns,
    kernel::{Access, Sock},
    maps,
};

/// How a record is submitted: linux/bpf.h. With neither, the kernel wakes the reader only where it has read everything before
/// this record: one that was left without a wake-up would keep every later one from waking it.
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// Reports to userspace; counted as lost where the ring has no room.
///
/// To wake the reader takes ten times as long as everything else that a failed attempt costs, so it is woken once, and looks for
/// what comes after by itself. The time is read while the record is reserved: the reader does not sleep before it has taken a
/// record that is being written, so what is not woken for is not left behind, however long this is interrupted for.
#[inline(always)]
pub(crate) fn report(event: Event) {
    match maps::EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(if is_reader_asleep() { FORCE_WAKEUP } else { NO_WAKEUP });
        }
        None => counters::count_loss(Loss::RingFull),
    }
}

/// Whether the reader may sleep, as it was last woken so long ago; then it was woken now.
#[inline(always)]
fn is_reader_asleep() -> bool {
    let Some(woken_ns) = maps::WOKEN_NS.get_ptr_mut(0) else { return true };
    let now_ns = now_ns();
    // SAFETY: a value of the map. Where two CPUs find the same time, both wake the reader, which does no harm.
    unsafe {
        let is_asleep = now_ns.saturating_sub(woken_ns.read_volatile()) >= WAKE_INTERVAL_NS;
        if is_asleep {
            woken_ns.write_volatile(now_ns);
        }
        is_asleep
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
