//! Several files of one input: reading any of them never panics and is quick.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nginx_conf_fuzz::read_files(input));
