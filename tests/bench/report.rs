//! What came out, for people, for programs and as pictures: docs/performance.md, docs/performance.json and docs/images/performance-*.svg.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Bench;
use crate::comparison::Comparison;
use crate::plots::{self, Point};
use crate::programs::Cost;

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a str,
    date: &'a str,
    comparisons: &'a [Comparison],
    costs: &'a [Cost],
    points: &'a [Point],
    notes: &'a [String],
}

/// Between these lines of the page stands what was printed.
const BEGIN: &str = "<!-- figures: cargo xtask bench --docs -->\n";
const END: &str = "<!-- end of figures -->\n";

/// Writes it all below docs/.
pub(crate) fn write(bench: &Bench, machine: &str, date: &str) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let Bench { comparisons, costs, points, notes, .. } = bench;
    let report = Report { machine, date, comparisons, costs, points, notes };
    write_file(&docs.join("performance.json"), &(serde_json::to_string_pretty(&report)? + "\n"))?;
    plots::draw(points, &docs.join("images"))?;
    let page = docs.join("performance.md");
    let text = fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))?;
    let figures = format!("```console\n$ cargo xtask bench\n{}```\n", bench.printed);
    let text =
        put(&text, &figures).with_context(|| format!("{} has no place for figures", page.display()))?;
    write_file(&page, &text)
}

/// The page with other figures.
fn put(page: &str, figures: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{figures}{END}{after}"))
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    println!("bench: wrote {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_lines_changes() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        assert_eq!(put(&page, "new\n").unwrap(), format!("before\n{BEGIN}new\n{END}after\n"));
        assert_eq!(put("no place", "new\n"), None);
    }

    #[test]
    fn the_page_has_a_place_for_figures() {
        let page = include_str!("../../docs/performance.md");
        assert!(put(page, "new\n").is_some());
    }
}
