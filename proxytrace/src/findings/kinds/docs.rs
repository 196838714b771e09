//! The table in docs/findings.md, made from that of the kinds. The sections below it are written by hand: a test sees to it that no kind
//! is missing, and that none is there that does not exist.

use super::{TABLE, definition::Documentation};

fn table() -> String {
    let lines = TABLE.iter().map(|definition| {
        let (name, Documentation { raised_when, goes_when }) =
            (definition.kind.name(), &definition.documentation);
        format!("| [`{name}`](#{name}) | {raised_when} | {goes_when} |\n")
    });
    format!("| finding | is raised when | goes when |\n|---|---|---|\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::table;
    use crate::model::Kind;

    fn page() -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/findings.md");
        let written = fs::read_to_string(&path).unwrap();
        let (before, rest) = written.split_once("<!-- kinds -->\n").unwrap();
        let (_, after) = rest.split_once("<!-- end -->\n").unwrap();
        let fresh = format!("{before}<!-- kinds -->\n{}<!-- end -->\n{after}", table());
        if std::env::var_os("PROXYTRACE_UPDATE_DOCS").is_some() {
            fs::write(&path, &fresh).unwrap();
            return fresh;
        }
        assert_eq!(
            written, fresh,
            "docs/findings.md is stale: PROXYTRACE_UPDATE_DOCS=1 cargo test -p proxytrace docs"
        );
        written
    }

    #[test]
    fn docs_are_fresh_and_each_kind_has_its_section() {
        let page = page();
        let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, Kind::ALL.map(Kind::name));
        for section in page.split("\n## ").skip(1) {
            let steps = section.split("**First steps**").nth(1).unwrap_or_default();
            assert!(section.contains("**Evidence:**") && steps.contains("\n1. "), "{section}");
        }
    }
}
