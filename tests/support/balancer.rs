//! A load balancer in the kernel as Cilium's: programs at connect() send those who ask for a service to a backend.

#![expect(unsafe_code, reason = "nix does not know the system calls that mount in this way")]

use std::ffi::{CString, c_int};
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::program::{self, instruction, made};
use crate::scratch;
use crate::wait::{self, SOON};

/// A control group of our own; whoever is in it and asks for the service goes to the backend. It is removed when this is
/// dropped, which must be after the processes in it have ended.
#[derive(Debug)]
pub struct Balancer {
    /// The root of the hierarchy, mounted nowhere.
    hierarchy: OwnedFd,
    name: String,
    group: OwnedFd,
    _program: OwnedFd,
}

impl Balancer {
    /// Sends connects to `service` (`HOST:PORT`) to `backend`, of the same family.
    #[must_use]
    #[track_caller]
    pub fn start(service: &str, backend: &str) -> Self {
        let address = |text: &str| text.parse::<SocketAddr>().expect("HOST:PORT");
        let (service, backend) = (address(service), address(backend));
        let (hierarchy, name) = (hierarchy(), scratch::unique_name(scratch::PREFIX));
        mkdirat(&hierarchy, name.as_str(), Mode::from_bits_truncate(0o755)).expect("make a control group");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let group = openat(&hierarchy, name.as_str(), flags, Mode::empty()).expect("open the control group");
        let attach_type = if service.is_ipv4() { CONNECT4 } else { CONNECT6 };
        let program = program::load(CGROUP_SOCK_ADDR, attach_type, &translation(service, backend));
        program::attach(&group, &program, attach_type);
        Self { hierarchy, name, group, _program: program }
    }

    /// Takes processes into its group; it is for the sockets that they make from now on.
    pub fn takes(&self, pids: impl IntoIterator<Item = u32>) {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        for pid in pids {
            let members =
                openat(&self.group, "cgroup.procs", flags, Mode::empty()).expect("open the group's members");
            File::from(members).write_all(pid.to_string().as_bytes()).expect("move a process into the group");
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // A process that has just ended may be in it for a moment.
        let is_gone = || unlinkat(&self.hierarchy, self.name.as_str(), UnlinkatFlags::RemoveDir).is_ok();
        let _ = wait::within(SOON, || is_gone().then_some(()));
    }
}

const CGROUP_SOCK_ADDR: u32 = 18;
const CONNECT4: u32 = 10;
const CONNECT6: u32 = 11;

/// The hierarchy of control groups, wherever a host has mounted it.
fn hierarchy() -> OwnedFd {
    let (kind, nothing) = (CString::from(c"cgroup2"), std::ptr::null::<libc::c_char>());
    // SAFETY: a string that outlives the call.
    let context = made("open cgroup2", unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), 0) });
    let create: c_int = 6; // FSCONFIG_CMD_CREATE
    // SAFETY: this command takes neither a key nor a value.
    let done = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), create, nothing, nothing, 0) };
    Errno::result(done).expect("set cgroup2 up");
    // SAFETY: numbers only.
    made("mount cgroup2", unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 0, 0) })
}

/// A program on a `struct bpf_sock_addr`: where the address and port are those of the service, they become the backend's.
fn translation(service: SocketAddr, backend: SocketAddr) -> Vec<u64> {
    const CONTEXT: u8 = 6;
    const SEEN: u8 = 2;
    const WANTED: u8 = 3;
    let (asked, given) = (words(service), words(backend));
    let mut program = vec![instruction(0xbf, CONTEXT, 1, 0, 0)];
    for (index, (at, word)) in asked.iter().enumerate() {
        // Over the rest of the comparisons, three instructions each, and the stores, two each.
        let rest = 3 * (asked.len() - index - 1) + 2 * given.len();
        program.extend([
            instruction(0x61, SEEN, CONTEXT, *at, 0),
            instruction(0xb4, WANTED, 0, 0, *word),
            instruction(0x5d, SEEN, WANTED, i16::try_from(rest).expect("a short program"), 0),
        ]);
    }
    for (at, word) in given {
        program.extend([instruction(0xb4, WANTED, 0, 0, word), instruction(0x63, CONTEXT, WANTED, at, 0)]);
    }
    program.extend([instruction(0xb7, 0, 0, 0, 1), instruction(0x95, 0, 0, 0, 0)]);
    program
}

/// The members of `struct bpf_sock_addr` that make up an address, by offset, and what they hold.
fn words(address: SocketAddr) -> Vec<(i16, u32)> {
    const V4: i16 = 4;
    const V6: i16 = 8;
    const PORT: i16 = 24;
    let mut words: Vec<(i16, u32)> = match address.ip() {
        IpAddr::V4(ip) => vec![(V4, u32::from_ne_bytes(ip.octets()))],
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let quarters = octets.as_chunks::<4>().0.iter().copied().map(u32::from_ne_bytes);
            (V6..).step_by(4).zip(quarters).collect()
        }
    };
    words.push((PORT, u32::from(address.port().to_be())));
    words
}
