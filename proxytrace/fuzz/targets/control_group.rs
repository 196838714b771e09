//! Any input as the content of /proc/PID/cgroup: reading it never panics and is quick.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxytrace::fuzzing::control_group(input));
