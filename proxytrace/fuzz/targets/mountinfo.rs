//! Any input as the content of /proc/PID/mountinfo, and of the files that tell a pod's name: reading it never panics and is quick.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxytrace::fuzzing::mountinfo(input));
