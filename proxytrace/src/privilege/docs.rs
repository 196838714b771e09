//! The tables in docs/security.md, made from those in the code; this test keeps them fresh.

use std::fmt::Write as _;

use super::seccomp;
use crate::{
    generated::{self, replaced},
    kernel::requirements::CAPABILITIES,
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

#[test]
fn docs_are_fresh() {
    generated::check("security.md", |page| {
        let page = replaced(page, "capabilities", &capabilities());
        let page = replaced(&page, "system calls", &system_calls(seccomp::TRACE));
        replaced(&page, "system calls of a reader", &system_calls(seccomp::READER))
    });
}
