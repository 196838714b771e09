//! Addresses, as the ledger is keyed by them, out of a `struct sockaddr`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated;
use proxytrace_ebpf::abi::{Address, FAMILY_INET, FAMILY_UNIX, UNIX_PATH_MAX, UnixPath, is_name_service};

use super::{
    memory::{Memory, Unreadable, read_in},
    numbers::{AF_INET, AF_INET6, AF_UNIX},
};

/// Why there is no address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// The page is not in memory, or not the caller's.
    Unreadable,
    /// None of the families that upstreams have (AF_UNSPEC disconnects), or the socket of a name service.
    NotAnUpstream,
}

impl From<Unreadable> for NoAddress {
    #[inline(always)]
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// The address that the caller of a connect() gave which is about to return: by then the page that it is in is in
/// memory, as the kernel has just read it.
#[inline(always)]
pub(crate) fn callers_address(pointer: u64, length: u32, path: &mut UnixPath) -> Result<Address, NoAddress> {
    address_in(Memory::Caller, pointer, length, path)
}

/// The same of a connect() that is under way, on a socket of TCP.
#[inline(always)]
pub(crate) fn callers_internet_address(pointer: u64) -> Result<Address, NoAddress> {
    internet_address(Memory::Caller, pointer, read_in(Memory::Caller, pointer)?)
}

/// What is in a `struct sockaddr`.
#[inline(always)]
pub(super) fn address_in(
    memory: Memory,
    pointer: u64,
    length: u32,
    path: &mut UnixPath,
) -> Result<Address, NoAddress> {
    // That of a unix socket may be shorter than what is read at once of the others.
    if length < size_of::<Head>() as u32 {
        return match read_in::<u16>(memory, pointer)? {
            AF_UNIX => unix_address(memory, pointer + 2, length.saturating_sub(2), path),
            _ => Err(NoAddress::NotAnUpstream),
        };
    }
    let head: Head = read_in(memory, pointer)?;
    match head.family {
        AF_UNIX => unix_address(memory, pointer + 2, length.saturating_sub(2), path),
        _ => internet_address(memory, pointer, head),
    }
}

/// What `struct sockaddr_in` begins with, and but for the last member `struct sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Head {
    family: u16,
    port: u16,
    v4: u32,
}

/// What is in a `struct sockaddr_in` or `sockaddr_in6`.
#[inline(always)]
fn internet_address(memory: Memory, pointer: u64, head: Head) -> Result<Address, NoAddress> {
    let halves = match head.family {
        AF_INET => mapped(head.v4),
        AF_INET6 => read_in(memory, pointer + 8)?,
        _ => return Err(NoAddress::NotAnUpstream),
    };
    Ok(internet(halves, u16::from_be(head.port)))
}

#[inline(never)]
fn unix_address(
    memory: Memory,
    pointer: u64,
    length: u32,
    path: &mut UnixPath,
) -> Result<Address, NoAddress> {
    let from = pointer as *const c_void;
    let into = path.bytes.as_mut_ptr().cast::<c_void>();
    if read_in::<u8>(memory, pointer)? == 0 {
        // An abstract name: as many bytes as the caller said, zero bytes among them.
        path.length = length.min(UNIX_PATH_MAX as u32);
        // SAFETY: at most as many bytes as the buffer has.
        let failed = unsafe {
            match memory {
                Memory::Caller => generated::bpf_probe_read_user(into, path.length, from),
                Memory::Kernel => generated::bpf_probe_read_kernel(into, path.length, from),
            }
        };
        if failed != 0 {
            return Err(NoAddress::Unreadable);
        }
    } else {
        // No further than the caller said: the kernel puts the zero at the end only later, and what is behind it in its
        // copy is anything (seen on 5.10, which does not clear its stack).
        let size = length.min(UNIX_PATH_MAX as u32 - 1) + 1;
        // SAFETY: at most as many bytes as the buffer has.
        let read = unsafe {
            match memory {
                Memory::Caller => generated::bpf_probe_read_user_str(into, size, from),
                Memory::Kernel => generated::bpf_probe_read_kernel_str(into, size, from),
            }
        };
        if read < 0 {
            return Err(NoAddress::Unreadable);
        }
        path.length = (read as u32).saturating_sub(1); // the zero at the end
        if is_name_service(&path.bytes) {
            return Err(NoAddress::NotAnUpstream);
        }
    }
    Ok(Address { bytes: digest(path), port: 0, family: FAMILY_UNIX })
}

/// An IPv4 address as the two halves of its v4-mapped form, all in network order.
#[inline(always)]
pub(super) fn mapped(v4: u32) -> [u64; 2] {
    [0, (u64::from(v4) << 32) | 0xffff_0000]
}

#[inline(always)]
pub(super) fn internet(halves: [u64; 2], port: u16) -> Address {
    // SAFETY: the same 16 bytes.
    let bytes = unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(halves) };
    Address { bytes, port, family: FAMILY_INET }
}

/// A 128-bit digest of a path: two multiplicative hashes over its words. A proxy has a handful of unix upstreams and
/// nobody gains by making two of them collide, so speed and little code matter more than strength.
///
/// The length goes in first: abstract names may end in zero bytes, which nothing else distinguishes from those behind them.
#[inline(always)]
fn digest(path: &UnixPath) -> [u8; 16] {
    let mut high: u64 = 0xcbf2_9ce4_8422_2325 ^ u64::from(path.length);
    let mut low: u64 = 0x9e37_79b9_7f4a_7c15;
    for index in 0..UNIX_PATH_MAX / 4 {
        // SAFETY: 27 words of 4 bytes are the 108 bytes.
        let word = u64::from(unsafe { path.bytes.as_ptr().cast::<u32>().add(index).read() });
        high = (high ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        low = (low ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    }
    // SAFETY: the same 16 bytes.
    unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>([high, low]) }
}
