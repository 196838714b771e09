//! A look at connections while they live: whether a request waits, and since when. Nobody runs it but userspace, and that from time to
//! time (BPF_PROG_TEST_RUN), so it costs a request nothing.
//!
//! No lock is held. A socket may be destroyed at any moment, and its memory become another's. But before it is, its entry is taken out
//! of the table: what was read between two look-ups that find the same entry was the connection's own.

#![expect(
    unsafe_code,
    reason = "entries of maps are pointers, and functions that are not inlined have to be exported"
)]

use core::ffi::c_void;

use proxytrace_ebpf::abi::{Asked, Connection, PeerSettings, Seen, capacity};

use crate::{
    answer::{asked, has, is_ordered, is_upstreams_turn, peer_settings, received, waiting_ns},
    helpers::now_ns,
    kernel::{Probed, Sock, tcp},
    maps::{CONNECTIONS, FOUND, LOOKED_AT},
};

/// Looks at the first `count` connections of the list.
#[inline(always)]
pub(crate) fn look(count: u64) {
    for index in 0..capacity::LOOKED_AT {
        if u64::from(index) >= count {
            break;
        }
        let _ = look_at(index);
    }
}

/// Checked once and not at each turn of the loop, as `shares_take`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn look_at(index: u32) -> u32 {
    let (Some(id), Some(found)) = (LOOKED_AT.get_ptr(index), FOUND.get_ptr_mut(index)) else { return 0 };
    // SAFETY: values of the maps, which nobody else uses while this runs.
    let (id, found) = unsafe { (*id, &mut *found) };
    *found = Seen::ZERO;
    if let Some(connection) = CONNECTIONS.get_ptr_mut(&id) {
        // SAFETY: copied at once.
        let known = unsafe { *connection };
        let sock = Sock::<Probed>::new(id as *const c_void);
        if !known.is_in_flight()
            && let Some((seen, asked, written)) = seen(sock, &known)
            && let Some(connection) = CONNECTIONS.get_ptr_mut(&id)
        {
            let established_ns = known.established_ns;
            // SAFETY: values of the map; each is one aligned load or store.
            unsafe {
                if (&raw const (*connection).established_ns).read_volatile() != established_ns {
                    return 0;
                }
                let waits = if seen.waiting_ns > 0 {
                    Connection::waits_of(established_ns, now_ns().saturating_sub(seen.waiting_ns))
                } else {
                    0
                };
                (&raw mut (*connection).waits).write_volatile(waits);
                let looked = Connection::looked_of(established_ns, written, asked);
                (&raw mut (*connection).looked).write_volatile(looked);
            }
            *found = seen;
        }
    }
    0
}

/// What the socket shows, with what its order of bytes alone says and how much was written.
#[inline(always)]
fn seen(sock: Sock<Probed>, connection: &Connection) -> Option<(Seen, Asked, u32)> {
    // The upstream has closed the others.
    if sock.state() != tcp::ESTABLISHED {
        return None;
    }
    let stream = sock.stream()?;
    let written = stream.written();
    let order = asked(stream, connection, false);
    let received = received(stream, false);
    let mut seen = Seen {
        established_ns: connection.established_ns,
        received,
        asked: order as u32,
        turns: stream.turns(),
        ..Seen::ZERO
    };
    if matches!(order, Asked::Waiting) {
        let peer_settings = peer_settings(&connection.attempt.row);
        let is_unanswered = received == 0 && is_upstreams_turn(stream, peer_settings);
        if has(peer_settings, PeerSettings::REQUESTS) && (is_unanswered || is_ordered(peer_settings)) {
            seen.waiting_ns = waiting_ns(stream).max(1);
        } else {
            seen.asked = Asked::Unknown as u32;
        }
        if stream.sent() != stream.acknowledged() {
            seen.unheard = stream.timeouts();
        }
    }
    Some((seen, order, written))
}
