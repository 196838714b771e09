//! Reads a hash map of the kernel bucket by bucket. Walking it key by key begins anew when the key that was read last has
//! been removed meanwhile, so that entries come twice, or without end while keys come and go; a bucket is read once.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use proxytrace_ebpf::abi::Abi;

/// include/uapi/linux/bpf.h: BPF_MAP_LOOKUP_BATCH, of hash maps since 5.6.
const LOOKUP_BATCH: u32 = 24;

/// So many entries are read at once. A bucket that holds more makes it twice as many.
const AT_ONCE: usize = 512;

/// The part of `union bpf_attr` for batches.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    /// Where to go on; null at the beginning.
    in_batch: u64,
    /// Takes where to go on next: the number of a bucket.
    out_batch: u64,
    keys: u64,
    values: u64,
    /// In: how many entries fit. Out: how many were read.
    count: u32,
    map: u32,
    entry_flags: u64,
    flags: u64,
}

/// All entries.
///
/// # Errors
/// What the kernel said.
pub(super) fn entries<K: Abi, V: Abi>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let mut all = Vec::new();
    let (mut keys, mut values) = (Vec::<K>::new(), Vec::<V>::new());
    let mut capacity = AT_ONCE;
    let mut at: Option<u32> = None;
    loop {
        keys.reserve(capacity);
        values.reserve(capacity);
        let mut next = 0_u32;
        let mut attributes = Attributes {
            in_batch: at.as_ref().map_or(0, |at| std::ptr::from_ref(at) as u64),
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity as u32,
            map: map.as_raw_fd().cast_unsigned(),
            ..Attributes::default()
        };
        let ended = match look_up(&mut attributes) {
            Ok(()) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                Some(libc::ENOSPC) => {
                    capacity *= 2;
                    continue;
                }
                _ => return Err(error),
            },
        };
        let count = (attributes.count as usize).min(capacity);
        #[expect(unsafe_code, reason = "the kernel has filled that much")]
        // SAFETY: there is space for `capacity` entries, the kernel has written `count` of them from the start, and `Abi` promises
        // that whatever it wrote is a value.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        all.extend(keys.drain(..).zip(values.drain(..)));
        if ended {
            return Ok(all);
        }
        at = Some(next);
    }
}

fn look_up(attributes: &mut Attributes) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no library offers this call")]
    // SAFETY: the attributes hold pointers to space for as many entries as they say, and to the places of the bucket's number,
    // all alive until the call returns.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, std::ptr::from_mut(attributes), size_of::<Attributes>())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
