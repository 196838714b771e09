//! docs/findings.md is written by hand; this test sees to it that no kind is missing, and that none is there that does not exist.

use std::collections::BTreeSet;

use crate::model::Kind;

const PAGE: &str = include_str!("../../../docs/findings.md");

#[test]
fn each_kind_has_its_section_and_its_line_in_the_table() {
    let sections: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let kinds = Kind::ALL.map(Kind::name);
    assert_eq!(sections, kinds);
    let table: BTreeSet<_> =
        kinds.into_iter().filter(|kind| PAGE.contains(&format!("[`{kind}`](#{kind})"))).collect();
    assert_eq!(table, kinds.into_iter().collect(), "the table at the beginning");
    for section in PAGE.split("\n## ").skip(1) {
        let steps = section.split("**First steps**").nth(1).unwrap_or_default();
        assert!(section.contains("**Evidence:**") && steps.contains("\n1. "), "{section}");
    }
}
