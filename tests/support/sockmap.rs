//! Data that goes from socket to socket past TCP, as programs that speed up proxies and their neighbours do it.

use std::os::fd::{AsRawFd, OwnedFd};

use crate::program::{self, instruction, number};

const SOCKMAP: u32 = 15;
const SK_MSG: u32 = 16;
const SK_MSG_VERDICT: u32 = 7;

/// A sockmap that brings what any of its sockets sends straight to the first. It ends when it is dropped.
#[derive(Debug)]
pub struct Sockmap {
    _map: OwnedFd,
    _program: OwnedFd,
}

impl Sockmap {
    /// Puts both ends of an established connection into it; `receiver` is the one that what is sent goes to.
    #[must_use]
    #[track_caller]
    pub fn of(receiver: &impl AsRawFd, sender: &impl AsRawFd) -> Self {
        const REDIRECT: u32 = 60; // bpf_msg_redirect_map(message, map, key, flags)
        const INTO_RECEIVE_QUEUE: u32 = 1; // BPF_F_INGRESS
        const MAP_DESCRIPTOR: u8 = 1;
        let map = program::map(SOCKMAP, 2);
        let program = program::load(
            SK_MSG,
            SK_MSG_VERDICT,
            &[
                instruction(0x18, 2, MAP_DESCRIPTOR, 0, number(&map)),
                0, // the second half of the one before
                instruction(0xb7, 3, 0, 0, 0),
                instruction(0xb7, 4, 0, 0, INTO_RECEIVE_QUEUE),
                instruction(0x85, 0, 0, 0, REDIRECT),
                instruction(0x95, 0, 0, 0, 0),
            ],
        );
        program::attach(&map, &program, SK_MSG_VERDICT);
        program::set(&map, 0, number(receiver));
        program::set(&map, 1, number(sender));
        Self { _map: map, _program: program }
    }
}
