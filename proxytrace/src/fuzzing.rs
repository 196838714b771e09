//! What is read of others, for the fuzz targets in `proxytrace/fuzz` and the properties below: any bytes, and what must hold of what was
//! made of them. Not of the program: built for fuzzing and for tests only.

use crate::{
    identity::{cgroup, pod},
    kernel::btf::Btf,
    model::Remembered,
    reader,
    recording::RecordingReader,
};

/// The longest id or UID that any control group may give.
const MAX_ID: usize = 64;

/// The kernel's type information.
pub fn btf(data: &[u8]) {
    if let Ok(btf) = Btf::parse(data) {
        // Paths that are looked for, in structures that refer to each other in any way.
        for path in ["sock.sk_state", "a.b.c", "task_struct.signal.flags", "a.a.a.a"] {
            let _ = btf.offset(path);
        }
        let _ = (btf.has_enum_value("a"), btf.has_preemptible_tracepoints());
    }
}

/// A recording: what is read can be written, and read again.
pub fn recording(data: &[u8]) {
    let mut reader = RecordingReader::new(data);
    while let Ok(Some(record)) = reader.next_record() {
        let Ok(line) = serde_json::to_string(&record) else {
            panic!("a record that cannot be written: {record:?}")
        };
        let again: Result<Remembered, _> = serde_json::from_str(&line);
        assert!(again.is_ok(), "a record that cannot be read again: {line}");
    }
}

/// An answer of a name server.
pub fn dns(data: &[u8]) {
    reader::read_dns_answer(data);
}

/// The content of /proc/PID/cgroup.
pub fn control_group(data: &[u8]) {
    let place = cgroup::place(&String::from_utf8_lossy(data));
    assert!(
        place
            .container
            .as_ref()
            .is_none_or(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
    );
    assert!(place.unit.as_ref().is_none_or(|unit| unit.ends_with(".service") && !unit.contains('/')));
    assert!(place.pod_uid.as_ref().is_none_or(|uid| uid.len() <= MAX_ID && place.container.is_some()));
    assert!(place.unit.is_none() || place.container.is_none());
}

/// The content of /proc/PID/mountinfo, and of the files that tell a pod's name.
pub fn mountinfo(data: &[u8]) {
    const UID: &str = "b45a2975-8186-11e7-a555-02c7d673a0c1";
    let text = String::from_utf8_lossy(data);
    let names = [
        pod::container(&text, UID),
        pod::checked(&text),
        pod::host_of_hosts(&text),
        pod::namespace_of_resolver(&text),
    ];
    let of_logs = pod::of_logs(&text, UID).into_iter().flat_map(|(namespace, name)| [namespace, name]);
    for name in names.into_iter().flatten().chain(of_logs) {
        assert!(
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)),
            "{name:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};

    use super::{btf, control_group, dns, mountinfo, recording};

    /// Pieces of what is read, in any order and with anything between.
    fn pieces(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = (0..words.len()).prop_map(|at| words[at].as_bytes().to_vec());
        let piece =
            prop_oneof![4 => word, 1 => prop::collection::vec(any::<u8>(), 0..6), 1 => Just(vec![b'\n'])];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    const GROUPS: &[&str] = &[
        "0::/",
        "1:name=systemd:/",
        "/",
        "..",
        "system.slice",
        "user.slice",
        "a.service",
        "containerd.service",
        "b.scope",
        "pod",
        "-pod",
        ".slice",
        ":cri-containerd:",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "b45a2975_8186_11e7_a555_02c7d673a0c1",
        "b45a2975-8186-11e7-a555-02c7d673a0c1",
    ];
    const MOUNTS: &[&str] = &[
        "840 829 0:26 ",
        "/pods/",
        "b45a2975-8186-11e7-a555-02c7d673a0c1",
        "/containers/",
        "edge",
        "/0",
        " /dev/x rw - ext4 a rw",
        "search ",
        "shop.svc.cluster.local ",
        "# Kubernetes-managed hosts file.\n",
        "10.0.0.1\tedge",
        "_",
        " ",
    ];
    const RECORDS: &[&str] = &[
        r#"{"time":"2026-11-22T06:39:51Z","kind":"header","format":2,"host":"h","kernel":"6.1","version":"0.1.0"}"#,
        r#"{"time":"2026-11-22T06:39:51Z","kind":"#,
        r#""declared","proxy":"n","pid":7,"generation":2,"declared":{"upstreams":{}}"#,
        r#","part":1"#,
        r#","more":true"#,
        r#""lost","count":"#,
        "1",
        "}",
        "\n",
    ];

    proptest! {
        #[test]
        fn whatever_is_read_of_others_is_read_without_a_panic(
            group in pieces(GROUPS), mounts in pieces(MOUNTS), records in pieces(RECORDS),
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            control_group(&group);
            mountinfo(&mounts);
            recording(&records);
            dns(&bytes);
            btf(&bytes);
        }
    }
}
