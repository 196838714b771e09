//! Which transition of a socket the first of the programs at `inet_sock_set_state` has handled last, on each CPU: the others leave it alone.

#![expect(unsafe_code, reason = "entries of maps are pointers")]

use proxytrace_ebpf::abi::Transition;

use crate::maps::HANDLED;

/// The first program begins. Whatever interrupts it from now on, and skips it, finds nothing handled.
#[inline(always)]
pub(crate) fn begin() {
    if let Some(handled) = HANDLED.get_ptr_mut(0) {
        // SAFETY: a value of the map, of this CPU; what interrupts this is over before it goes on.
        unsafe { (&raw mut (*handled).sock).write_volatile(0) };
    }
}

/// The first program has handled this.
#[inline(always)]
pub(crate) fn end(transition: Transition) {
    if let Some(handled) = HANDLED.get_ptr_mut(0) {
        // SAFETY: as above. The socket last: it is what counts.
        unsafe {
            (&raw mut (*handled).from).write_volatile(transition.from);
            (&raw mut (*handled).to).write_volatile(transition.to);
            (&raw mut (*handled).sock).write_volatile(transition.sock);
        }
    }
}

/// Whether the first program has handled this, and nothing since. The last of the others empties the slot: the socket may come here again, and
/// the first program be skipped in the moment before it has begun.
#[inline(always)]
pub(crate) fn is(transition: Transition, is_last: bool) -> bool {
    let Some(handled) = HANDLED.get_ptr_mut(0) else { return false };
    // SAFETY: as above.
    unsafe {
        let is = (&raw const (*handled).sock).read_volatile() == transition.sock
            && (&raw const (*handled).from).read_volatile() == transition.from
            && (&raw const (*handled).to).read_volatile() == transition.to;
        if is && is_last {
            (&raw mut (*handled).sock).write_volatile(0);
        }
        is
    }
}
