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
    use super::table;
    use crate::{
        findings::evidence,
        generated::{self, replaced},
        model::Kind,
    };

    #[test]
    fn docs_are_fresh_and_each_kind_has_its_section() {
        let page = generated::check("findings.md", |page| {
            replaced(&replaced(page, "kinds", &table()), "runs", &evidence::docs::table())
        });
        let sections: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, Kind::ALL.map(Kind::name));
        for section in page.split("\n## ").skip(1) {
            let steps = section.split("**First steps**").nth(1).unwrap_or_default();
            assert!(section.contains("**Evidence:**") && steps.contains("\n1. "), "{section}");
        }
    }
}
