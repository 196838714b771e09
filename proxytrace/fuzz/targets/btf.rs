//! Any input as the kernel's type information: reading it never panics and is quick.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxytrace::fuzzing::btf(input));
