//! The tables in docs/security.md, made from those in the code; this test keeps them fresh.

use std::{fmt::Write as _, path::Path};

use super::seccomp;
use crate::kernel::requirements::CAPABILITIES;

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

/// The page with what stands between the marks of `name` replaced.
fn replaced(page: &str, name: &str, with: &str) -> String {
    let (before, rest) = page.split_once(&format!("<!-- {name} -->\n")).unwrap();
    let (_, after) = rest.split_once("<!-- end -->\n").unwrap();
    format!("{before}<!-- {name} -->\n{with}<!-- end -->\n{after}")
}

#[test]
fn docs_are_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security.md");
    let written = std::fs::read_to_string(&path).unwrap();
    let fresh = replaced(&written, "capabilities", &capabilities());
    let fresh = replaced(&fresh, "system calls", &system_calls(seccomp::TRACE));
    let fresh = replaced(&fresh, "system calls of a reader", &system_calls(seccomp::READER));
    if std::env::var_os("PROXYTRACE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
        return;
    }
    assert_eq!(
        written, fresh,
        "docs/security.md is stale: PROXYTRACE_UPDATE_DOCS=1 cargo test -p proxytrace docs"
    );
}
