//! Tracepoints as events of perf: found in tracefs, opened by perf_event_open(), and given a program.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen},
};

/// Where tracefs is mounted, if it is.
const MOUNTED: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// The directory of events in it.
const EVENTS: &str = "events";

/// include/uapi/linux/perf_event.h.
const TYPE_TRACEPOINT: u32 = 2;
const CLOSE_ON_EXEC: libc::c_ulong = 8;
const SET_BPF: libc::c_ulong = 0x4004_2408;
const ENABLE: libc::c_ulong = 0x2400;

/// The first part of `struct perf_event_attr`, which kernels take by itself (PERF_ATTR_SIZE_VER0).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    breakpoint_type: u32,
    config1: u64,
}

/// The directory of events of tracefs. It belongs to root alone.
pub(super) struct Events(OwnedFd);

impl Events {
    /// Opens it where it is mounted; else in a tracefs that is mounted nowhere, and is gone with this (kernel 5.2, CAP_SYS_ADMIN).
    ///
    /// # Errors
    /// What the kernel said, and of what.
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let mut refusal = None;
        for mounted in MOUNTED {
            match openat(CWD, Path::new(mounted).join(EVENTS), flags, Mode::empty()) {
                Ok(events) => return Ok(Self(events)),
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => refusal = refusal.or(Some((mounted, error))),
            }
        }
        unmounted().and_then(|tracefs| openat(tracefs, EVENTS, flags, Mode::empty())).map(Self).map_err(
            |error| match refusal {
                Some((mounted, error)) => named(&format!("open {mounted}/{EVENTS}"), &error.into()),
                None => {
                    named("tracefs is not mounted at /sys/kernel/tracing, and cannot be here", &error.into())
                }
            },
        )
    }

    /// Attaches a program to the tracepoint `group:name`, until what is given back is dropped.
    ///
    /// # Errors
    /// What the kernel said, and of what.
    pub(super) fn attach(&self, tracepoint: &str, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let id =
            self.id(tracepoint).map_err(|error| named(&format!("find {tracepoint} in tracefs"), &error))?;
        let event = opened(id).map_err(|error| named(&format!("perf_event_open of {tracepoint}"), &error))?;
        let attached =
            control(&event, SET_BPF, program.as_raw_fd()).and_then(|()| control(&event, ENABLE, 0));
        attached.map_err(|error| named(&format!("attach to {tracepoint}"), &error))?;
        Ok(event)
    }

    fn id(&self, tracepoint: &str) -> io::Result<u64> {
        let path = format!("{}/id", tracepoint.replace(':', "/"));
        let mut text = String::new();
        File::from(openat(self.0.as_fd(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
            .read_to_string(&mut text)?;
        text.trim().parse().map_err(io::Error::other)
    }
}

fn unmounted() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tracefs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// The event of a tracepoint. Its program runs on every processor, whichever the event itself is for.
fn opened(id: u64) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id,
        ..Attributes::default()
    };
    #[expect(unsafe_code, reason = "no library offers this call")]
    // SAFETY: the attributes live until the call returns, which gives a descriptor that is nobody else's.
    unsafe {
        let everybody: libc::pid_t = -1;
        let (processor, group): (libc::c_int, libc::c_int) = (0, -1);
        let event = libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(&attributes),
            everybody,
            processor,
            group,
            CLOSE_ON_EXEC,
        );
        if event < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(event as i32)) }
    }
}

fn control(event: &OwnedFd, request: libc::c_ulong, argument: i32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "no library offers this call")]
    // SAFETY: both requests take a number, no memory.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), request as _, argument) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
