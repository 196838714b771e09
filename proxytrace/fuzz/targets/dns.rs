//! Any input as the answer of a name server: reading it never panics and is quick.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxytrace::fuzzing::dns(input));
