//! The alerts: what promtool says of the rules and of their tests, and that each leads to a page that is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proxytrace_tests::child::{Captured, Guarded};
use proxytrace_tests::{skip, wait};

/// Where annotations say that docs/ is.
const DOCS: &str = "https://github.com/proxytrace/proxytrace/blob/main/docs/";

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    if !skip::unless_installed("promtool") {
        return;
    }
    for (what, directory) in [("check", "rules"), ("test", "tests")] {
        let mut command = Command::new("promtool");
        command.args([what, "rules"]).args(files(&format!("deploy/prometheus/{directory}")));
        let mut promtool = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stdout = Captured::from(promtool.inner().stdout.take().expect("a pipe"));
        let mut stderr = Captured::from(promtool.inner().stderr.take().expect("a pipe"));
        let status = promtool.wait(wait::SOON);
        assert!(status.success(), "promtool {what}: {status}: {}{}", stdout.whole(), stderr.whole());
    }
}

#[test]
fn each_alert_is_tested_both_ways_and_leads_to_its_page() {
    let tests: String = files("deploy/prometheus/tests").iter().map(|path| text(path)).collect();
    for alert in alerts() {
        let name = alert.lines().next().expect("a name");
        let of_alert: Vec<_> = tests
            .split("- eval_time:")
            .filter(|test| test.contains(&format!("alertname: {name}\n")))
            .collect();
        let quiet = of_alert.iter().filter(|test| test.contains("exp_alerts: []")).count();
        assert!(quiet > 0 && quiet < of_alert.len(), "{name}: quiet in {quiet} of {} tests", of_alert.len());

        let severity = field(&alert, "severity: ");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        let page = field(&alert, "runbook_url: ").strip_prefix(DOCS);
        let (page, anchor) =
            page.and_then(|page| page.split_once('#')).expect("a section of a page of docs/");
        let sections = sections(&format!("docs/{page}"));
        let anchors = match anchor {
            "{{ $labels.kind }}" => kinds(&alert),
            anchor => vec![anchor.to_owned()],
        };
        for anchor in anchors {
            assert!(sections.contains(&anchor), "{name}: docs/{page} has no section {anchor}");
        }
        assert!(sections_of_alerts().contains(&name.to_lowercase()), "docs/alerts.md has no section {name}");
    }
    let names: Vec<_> =
        alerts().iter().filter_map(|alert| alert.lines().next().map(str::to_lowercase)).collect();
    for section in sections_of_alerts() {
        assert!(
            names.contains(&section),
            "docs/alerts.md has a section {section}, but no alert has that name"
        );
    }
}

#[test]
fn each_finding_alerts_by_its_severity_and_whether_it_pages_is_said() {
    for severity in ["critical", "warning"] {
        let expected = format!("proxytrace_finding_active{{severity=\"{severity}\"");
        let alert = alerts().into_iter().find(|alert| alert.contains(&expected));
        let alert = alert.unwrap_or_else(|| panic!("no alert on findings of severity {severity}"));
        assert_eq!(field(&alert, "          severity: "), severity);
        // What an alert leaves out has one of its own.
        let left_out = alert.split("kind!=\"").nth(1).and_then(|rest| rest.split('"').next());
        let of_its_own = |kind: &str| alerts().iter().any(|alert| kinds(alert).iter().any(|of| of == kind));
        assert!(left_out.is_none_or(of_its_own), "nothing alerts on {left_out:?}");
    }
    let page = text(&root().join("docs/alerts.md"));
    let table = page.split("## What pages").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = table.expect("a table of what pages").lines().filter(|line| line.starts_with("| `"));
    let kinds = rows.filter_map(|row| row.split('|').nth(1)).flat_map(|cell| cell.split(','));
    let kinds: BTreeSet<_> = kinds.map(|kind| kind.trim().trim_matches('`').to_owned()).collect();
    assert_eq!(kinds, sections("docs/findings.md"));
}

#[test]
fn the_rules_stand_on_metrics_that_there_are() {
    let metrics = text(&root().join("docs/metrics.md"));
    let rules: String = files("deploy/prometheus/rules").iter().map(|path| text(path)).collect();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words: BTreeSet<_> = rules
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(|c| !is_part(c)))
        .collect();
    let named: Vec<_> = words
        .into_iter()
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .filter(|word| word.starts_with("proxytrace_") && !metrics.contains(&format!("| `{word}` |")))
        .collect();
    assert!(named.is_empty(), "the agent has no {named:?}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut links = 0;
    let mut pages = files("docs");
    pages.extend(files("docs/runbooks"));
    pages.extend(["prometheus", "grafana"].map(|part| root().join(format!("deploy/{part}/README.md"))));
    for page in pages {
        for link in text(&page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            assert!(target.exists(), "{}: {link}", page.display());
            let is_there = || headings(&text(&target)).contains(anchor);
            assert!(anchor.is_empty() || is_there(), "{}: {link}", page.display());
            links += 1;
        }
    }
    assert!(links > 50, "only {links} links");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a directory, in the order of their names.
fn files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).expect(directory);
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect(directory).path()).filter(|path| path.is_file()).collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} is empty");
    files
}

/// The text of each alert, from its name on.
fn alerts() -> Vec<String> {
    let rules: String = files("deploy/prometheus/rules").iter().map(|path| text(path)).collect();
    let alerts: Vec<_> = rules.split("- alert: ").skip(1).map(str::to_owned).collect();
    assert!(alerts.len() > 10, "{rules}");
    alerts
}

fn field<'a>(alert: &'a str, name: &str) -> &'a str {
    let value = alert.split(name).nth(1).and_then(|rest| rest.lines().next());
    value.unwrap_or_else(|| panic!("no {name}in {alert}"))
}

/// The kinds of findings that an alert is on.
fn kinds(alert: &str) -> Vec<String> {
    let quoted = alert.split("{kind").nth(1).and_then(|rest| rest.split('"').nth(1)).unwrap_or_default();
    quoted.split('|').filter(|kind| !kind.is_empty()).map(str::to_owned).collect()
}

/// The sections that are about one alert each: their names begin as those of alerts do.
fn sections_of_alerts() -> BTreeSet<String> {
    sections("docs/alerts.md").into_iter().filter(|section| section.starts_with("proxytrace")).collect()
}

/// The anchors of a page's sections.
fn sections(page: &str) -> BTreeSet<String> {
    let page = text(&root().join(page));
    page.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect()
}

/// The anchors of all headings of a page.
fn headings(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// What a heading is linked to by.
fn anchor(heading: &str) -> String {
    let heading = heading.to_lowercase().replace(' ', "-");
    heading.chars().filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c)).collect()
}
