//! Memory that is not used any more, and that the C library would keep.

/// Allocations of this size and more are given back as soon as they are freed: a page of 1000 addresses has 5 MB. By default glibc
/// raises this to the largest that was freed so far (mallopt(3)), and then keeps holes that large among what stays.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 256 << 10;

/// Keeps no large allocation that was freed. To be called at the start.
pub fn keep_nothing_large() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a plain call into the C library")]
    // SAFETY: it takes no pointer, and no other thread allocates yet. Where it is refused nothing changes.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives back what is free, and has what is read once at the start read again if it is used: `object`, a part of this program's file, and
/// the program's code, most of which is run only to get there.
pub fn give_back_what_the_start_took(object: &'static [u8]) {
    #[expect(unsafe_code, reason = "the linker's names for the two ends of the code")]
    // SAFETY: the linker defines both, and only their addresses are taken.
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let start = object.as_ptr().addr();
    unmap_until_used(start, start + object.len());
    unmap_until_used((&raw const __executable_start).addr(), (&raw const etext).addr());
    give_back();
}

/// Has whole pages of a part of this program's file read again when they are used.
fn unmap_until_used(start: usize, end: usize) {
    const PAGE: usize = 4096;
    // The first and the last one may hold something else.
    let start = start.next_multiple_of(PAGE);
    let length = end.saturating_sub(start) / PAGE * PAGE;
    #[expect(unsafe_code, reason = "a plain call into the kernel")]
    // SAFETY: a read-only mapping of a file, whose pages are read again when they are used. Where pages are larger than
    // assumed, or that is refused, nothing changes.
    unsafe {
        libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
    }
}

/// Gives back what is free.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a plain call into the C library")]
    // SAFETY: it takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
