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

/// Gives back what is free.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a plain call into the C library")]
    // SAFETY: it takes no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
