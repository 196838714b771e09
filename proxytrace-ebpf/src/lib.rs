//! What the two halves of proxytrace share: the records that cross between kernel and userspace, the kernel structure offsets that
//! userspace puts in, the outcomes of an attempt, and where in the kernel the programs are attached.
//!
//! The programs themselves are this package's binary (`main.rs`), which is compiled for the bpf target only.

#![no_std]

mod indexed;

pub mod abi;
pub mod hooks;
pub mod offsets;
pub mod outcome;
