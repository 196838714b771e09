//! Any input as the output of `nginx -T`: reading it never panics and is quick.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nginx_conf_fuzz::read_dump(input));
