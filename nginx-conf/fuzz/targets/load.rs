//! Several files of one input: reading any of them never panics and is quick.

#![no_main]

#[path = "../reading.rs"]
#[allow(dead_code, reason = "the other target uses the rest")]
mod reading;

libfuzzer_sys::fuzz_target!(|input: &[u8]| reading::read_files(input));
