//! Pages of docs/ that are made from the code, in whole or between marks: tests compare them with what is there, or write them anew.

use std::{fs, path::Path};

/// Whether the pages are to be written.
const UPDATE: &str = "PROXYTRACE_UPDATE_DOCS";

/// Compares the page of that name with what `fresh` makes of it; gives the page.
#[track_caller]
pub(crate) fn check(name: &str, fresh: impl FnOnce(&str) -> String) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    let written = fs::read_to_string(&path).unwrap_or_default();
    let fresh = fresh(&written);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &fresh).unwrap();
    } else {
        assert_eq!(written, fresh, "docs/{name} is stale: {UPDATE}=1 cargo test -p proxytrace docs");
    }
    fresh
}

/// The page with what stands between the marks of `name` replaced.
pub(crate) fn replaced(page: &str, name: &str, with: &str) -> String {
    let (before, rest) = page.split_once(&format!("<!-- {name} -->\n")).unwrap();
    let (_, after) = rest.split_once("<!-- end -->\n").unwrap();
    format!("{before}<!-- {name} -->\n{with}<!-- end -->\n{after}")
}
