//! What the two halves of proxytrace share: the records that cross between kernel and userspace, the kernel
//! structure offsets that userspace puts in, and the outcomes of an attempt.
//!
//! The programs themselves are this package's binary (`main.rs`), which is compiled for the bpf target only.

#![no_std]

pub mod abi;
pub mod offsets;
pub mod outcome;
