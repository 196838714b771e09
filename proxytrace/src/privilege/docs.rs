//! The tables in docs/security.md, made from those in the code; this test keeps them fresh.

use std::{fmt::Write as _, fs, path::Path};

use super::seccomp;
use crate::{
    generated::{self, replaced},
    kernel::requirements::{CAPABILITIES, SYS_RESOURCE},
};

fn capabilities() -> String {
    let mut table = String::from("| capability | needed | without it |\n|---|---|---|\n");
    for capability in CAPABILITIES {
        writeln!(table, "| `{}` | {} | {} |", capability.name, capability.why, capability.without).unwrap();
    }
    table
}

fn system_calls(list: &'static [seccomp::Group]) -> String {
    seccomp::reasons(list).fold(String::new(), |list, why| list + "- " + why + "\n")
}

/// Where people take the list from, with what goes before it and after it.
const GRANTED: &[(&str, &str, &str)] = &[
    ("deploy/kubernetes/chart/templates/daemonset.yaml", "add: [", "{{"),
    ("deploy/kubernetes/base/proxytrace.yaml", "add: [", "]"),
    ("docs/security.md", "add: [", "]"),
    ("docs/install/container.md", "--cap-add=", " "),
];

#[test]
fn containers_get_the_capabilities_of_the_table() {
    // Old kernels need one more, which an engine may not be able to hand on.
    let expected = CAPABILITIES.iter().filter(|capability| **capability != SYS_RESOURCE);
    let expected: Vec<_> = expected.map(|capability| capability.name.trim_start_matches("CAP_")).collect();
    for (file, before, after) in GRANTED {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let text = fs::read_to_string(path).unwrap();
        let list = text.split_once(before).unwrap().1.split_once(after).unwrap().0;
        let granted: Vec<_> = list.split(',').map(str::trim).collect();
        assert_eq!(granted, expected, "{file}");
    }
}

#[test]
fn docs_are_fresh() {
    generated::check("security.md", |page| {
        let page = replaced(page, "capabilities", &capabilities());
        let page = replaced(&page, "system calls", &system_calls(seccomp::TRACE));
        replaced(&page, "system calls of a reader", &system_calls(seccomp::READER))
    });
}
