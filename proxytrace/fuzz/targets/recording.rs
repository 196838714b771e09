//! Any input as a recording: reading it never panics and is quick.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxytrace::fuzzing::recording(input));
