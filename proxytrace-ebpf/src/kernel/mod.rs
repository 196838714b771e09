//! The unsafe boundary: every read of kernel or user memory is here, behind small handles, so that the modules that decide are plain
//! code.

#![expect(unsafe_code, reason = "it is where memory of the kernel and of processes is read")]

mod address;
mod arguments;
mod file;
mod memory;
mod numbers;
mod sock;
mod task;

pub(crate) use address::{NoAddress, callers_address, callers_internet_address};
pub(crate) use arguments::{Arguments, Registers, result_of_call};
pub(crate) use file::{Kind, tcp_socket};
pub(crate) use memory::{Access, Direct, Probed};
pub(crate) use sock::{Sock, Stream, tcp};
pub(crate) use task::Task;
