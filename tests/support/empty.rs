//! A program that does nothing, where the kernel runs it: what is left of its cost is that of running any.

use std::os::fd::OwnedFd;

use crate::program::{self, instruction};

/// Attached until it is dropped.
#[derive(Debug)]
pub struct Empty {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// Attaches it to a raw tracepoint, such as `sys_enter`.
    #[must_use]
    #[track_caller]
    pub fn at(tracepoint: &std::ffi::CStr) -> Self {
        const RAW_TRACEPOINT: u32 = 17;
        let nothing = [instruction(0xb7, 0, 0, 0, 0), instruction(0x95, 0, 0, 0, 0)];
        let program = program::load(RAW_TRACEPOINT, 0, &nothing);
        let link = program::open_raw_tracepoint(tracepoint, &program);
        Self { _program: program, _link: link }
    }
}
