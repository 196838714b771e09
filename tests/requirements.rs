//! Hosts that do not let it trace: it says what is missing and how to get it, and ends with 3.

use std::fs;
use std::process::Command;

use proxytrace_tests::{filter, proxytrace};

/// Runs `trace` behind `unshare ARGUMENTS`, after `prepare` has changed what it will find there, and expects it to
/// refuse in these words.
#[track_caller]
fn refuses(unshare: &[&str], prepare: &str, words: &[&str]) {
    let script = format!("{prepare} && exec \"$0\" trace --duration 1");
    let output = Command::new("unshare")
        .args(unshare)
        .args(["sh", "-c", &script])
        .arg(proxytrace::binary())
        .output()
        .expect("run unshare");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b""[..]), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word} is not in: {stderr}");
    }
}

#[test]
fn a_kernel_without_type_information_is_refused() {
    let words = ["cannot trace", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y"];
    refuses(&["--mount"], "mount -t tmpfs none /sys/kernel/btf", &words);
}

#[test]
fn a_kernel_without_ring_buffer_is_refused_as_too_old() {
    // The type information of a kernel that knows no types at all: magic, version, flags, the header's length, where
    // types and strings are, and the empty string.
    let mut btf = vec![0x9f, 0xeb, 1, 0];
    btf.extend([24_u32, 0, 0, 0, 1].into_iter().flat_map(u32::to_le_bytes));
    btf.push(0);
    let directory = tempfile::tempdir().expect("make a directory");
    let path = directory.path().join("vmlinux");
    fs::write(&path, btf).expect("write the type information");
    let prepare = format!("mount --bind {} /sys/kernel/btf/vmlinux", path.display());
    refuses(&["--mount"], &prepare, &["cannot trace", "too old", "5.10 or newer"]);
}

#[test]
fn a_pid_namespace_that_is_not_the_hosts_is_refused() {
    let words = ["cannot trace", "pid namespace", "hostPID: true", "--pid=host"];
    refuses(&["--pid", "--fork", "--mount-proc"], "true", &words);
}

#[test]
fn capabilities_in_a_user_namespace_of_its_own_are_said_to_count_for_nothing() {
    let words = ["cannot trace", "user namespace", "rootless"];
    refuses(&["--user", "--map-root-user"], "true", &words);
}

#[test]
fn a_filter_that_refuses_bpf_is_blamed_and_not_the_capabilities() {
    let mut command = proxytrace::command();
    filter::refuse(command.args(["trace", "--duration", "1"]), &[libc::SYS_bpf]);
    let output = command.output().expect("run trace");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    for words in ["a seccomp filter refuses bpf()", "although CAP_BPF is granted", "seccomp=unconfined"] {
        assert!(stderr.contains(words), "{words} is not in: {stderr}");
    }
}
