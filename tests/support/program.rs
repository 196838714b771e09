//! Small eBPF programs, and bpf(2) as it is: what stories do to the sockets of a host.

#![expect(unsafe_code, reason = "nix does not know bpf(2)")]

use std::ffi::{CStr, c_int};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

const MAP_CREATE: c_int = 0;
const MAP_UPDATE: c_int = 2;
const PROG_LOAD: c_int = 5;
const PROG_ATTACH: c_int = 8;
const RAW_TRACEPOINT_OPEN: c_int = 17;
const ENABLE_STATS: c_int = 32;

/// The descriptor that a system call has made.
#[track_caller]
pub(crate) fn made(what: &str, result: libc::c_long) -> OwnedFd {
    let descriptor = Errno::result(result).unwrap_or_else(|error| panic!("{what}: {error}"));
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(RawFd::try_from(descriptor).expect("a descriptor")) }
}

/// An instruction, as `struct bpf_insn`.
pub(crate) fn instruction(code: u8, to: u8, from: u8, offset: i16, value: u32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    u64::from_le_bytes([code, from << 4 | to, low, high, a, b, c, d])
}

/// `union bpf_attr` as far as loading a program needs it.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// Loads a program of this kind (`enum bpf_prog_type`), for a place (`enum bpf_attach_type`).
#[track_caller]
pub(crate) fn load(kind: u32, attach_type: u32, program: &[u64]) -> OwnedFd {
    let mut log = vec![0_u8; 1 << 16];
    let attributes = Load {
        kind,
        count: u32::try_from(program.len()).expect("a short program"),
        instructions: program.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: u32::try_from(log.len()).expect("a short log"),
        log: log.as_mut_ptr() as u64,
        kernel: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        attach_type,
    };
    bpf(PROG_LOAD, &attributes).map_or_else(
        |error| panic!("load a program: {error}\n{}", String::from_utf8_lossy(&log)),
        |descriptor| made("load a program", descriptor),
    )
}

/// Has the kernel count the runs of all programs and their time, as long as what it gives is open.
#[must_use]
#[track_caller]
pub fn statistics() -> OwnedFd {
    const RUN_TIME: u32 = 0;
    bpf(ENABLE_STATS, &[RUN_TIME]).map_or_else(
        |error| panic!("have the kernel time its programs: {error}"),
        |descriptor| made("have the kernel time its programs", descriptor),
    )
}

/// Attaches a program to a control group or a map.
#[track_caller]
pub(crate) fn attach(target: &OwnedFd, program: &OwnedFd, attach_type: u32) {
    let attributes = [number(target), number(program), attach_type, 0];
    bpf(PROG_ATTACH, &attributes).expect("attach a program");
}

/// Attaches a program to a raw tracepoint, as long as what it gives is open.
#[track_caller]
pub(crate) fn open_raw_tracepoint(tracepoint: &CStr, program: &OwnedFd) -> OwnedFd {
    let attributes = [tracepoint.as_ptr() as u64, u64::from(number(program))];
    let opened = bpf(RAW_TRACEPOINT_OPEN, &attributes).expect("attach a program to a tracepoint");
    made("attach a program to a tracepoint", opened)
}

/// A map of this kind (`enum bpf_map_type`) from numbers to numbers.
#[track_caller]
pub(crate) fn map(kind: u32, entries: u32) -> OwnedFd {
    const SIZE: u32 = 4;
    made("make a map", bpf(MAP_CREATE, &[kind, SIZE, SIZE, entries]).expect("make a map"))
}

/// Puts a number into such a map.
#[track_caller]
pub(crate) fn set(map: &OwnedFd, key: u32, value: u32) {
    let attributes = [u64::from(number(map)), &raw const key as u64, &raw const value as u64, 0];
    bpf(MAP_UPDATE, &attributes).expect("set an entry of a map");
}

/// A descriptor as maps and attributes hold it.
pub(crate) fn number(file: &impl AsRawFd) -> u32 {
    file.as_raw_fd().cast_unsigned()
}

fn bpf<T>(command: c_int, attributes: &T) -> Result<libc::c_long, Errno> {
    // Kernels before 5.11 charge maps and programs to it. Where it may not be raised, a later one does not need it and an older
    // one refuses what follows.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    // SAFETY: the kernel reads the attributes, which outlive the call with all that they point to, and no more than their size.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    })
}
