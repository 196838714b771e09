//! What `check` found, for people, for programs, and for a pull request on GitHub.

use std::fmt::Write as _;

use serde::Serialize;

use super::{
    difference::Changes,
    finding::{Finding, Shown},
    probe::Probe,
    rules::Severity,
};
use crate::{escape::printable_lines, width::Width};

/// What stands before a line of a configuration, which is not broken.
const EXCERPT: &str = "      | ";

/// How to write it.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object.
    Json,
    /// Commands to GitHub's workflows, which show findings at their lines.
    Github,
}

/// All that was found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The main file that was checked, where none was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// In the order of files and lines.
    pub findings: Vec<Finding>,
    /// How many findings there were besides, which comments in the configuration allow.
    pub allowed: usize,
    /// What changes for requests; nothing where there is no configuration to compare with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Changes>,
    /// From where addresses were connected to, and as whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probed_from: Option<String>,
    /// Every address that was connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<Vec<Probe>>,
    /// Host names that were not looked up, or got no answer in time.
    pub names_not_checked: Vec<String>,
}

impl Report {
    /// Whether a finding is as grave as that, or graver.
    #[must_use]
    pub fn has(&self, severity: Severity) -> bool {
        self.findings.iter().any(|finding| finding.severity <= severity)
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// The report, with the end of its last line; for people with lines of that width.
    ///
    /// # Errors
    /// None in practice: everything in it can be written as JSON.
    pub fn written(&self, format: Format, width: Width) -> serde_json::Result<String> {
        Ok(match format {
            Format::Text => self.text(width),
            Format::Json => serde_json::to_string(self)? + "\n",
            Format::Github => self.github(),
        })
    }

    fn text(&self, width: Width) -> String {
        let mut text = String::new();
        if let Some(config) = &self.config {
            let _ = writeln!(text, "checked {config}, as no other was named");
        }
        for Finding { rule, severity, file, line, what, fix, shown } in &self.findings {
            let _ = writeln!(text, "{file}:{line}: {} [{}]\n    {what}", severity.name(), rule.id);
            if let Some(Shown { text: shown, column }) = shown {
                let plain = shown.replace(char::is_control, " ");
                // The line is cut, and its place may be beyond that.
                let column = (*column).min(plain.chars().count() + 1);
                let room = width.end().map_or(usize::MAX, |end| end - EXCERPT.len());
                let left_out = column.saturating_sub(room);
                let plain: String = plain.chars().skip(left_out).take(room).collect();
                let column = column - left_out;
                let _ = writeln!(text, "{EXCERPT}{plain}\n{EXCERPT}{:>column$}", "^");
            }
            let _ = writeln!(text, "    to fix it: {fix}");
        }
        if let Some(changes) = &self.changes {
            changed(changes, &mut text);
        }
        if let Some(probes) = &self.probes {
            let well = probes.iter().filter(|probe| probe.finding().is_none()).count();
            let from = self.probed_from.as_deref().map(|from| format!(", from {from}")).unwrap_or_default();
            let _ = writeln!(text, "connected to {well} of {} addresses{from}", probes.len());
        }
        if !self.names_not_checked.is_empty() {
            let _ = writeln!(text, "host names that were not checked: {}", self.names_not_checked.join(", "));
        }
        let allowed = if self.allowed == 0 { String::new() } else { format!(", allowed {}", self.allowed) };
        let _ = writeln!(
            text,
            "errors {}, warnings {}, notes {}{allowed}",
            self.count(Severity::Error),
            self.count(Severity::Warning),
            self.count(Severity::Note)
        );
        // A configuration may hold what would move a terminal's cursor.
        broken(&printable_lines(&text), width)
    }

    fn github(&self) -> String {
        let mut text = String::new();
        for Finding { rule, severity, file, line, what, fix, .. } in &self.findings {
            let command = if *severity == Severity::Note { "notice" } else { severity.name() };
            let (file, message) = (property(file), data(&format!("{what}. To fix it: {fix}.")));
            let _ = writeln!(text, "::{command} file={file},line={line},title={}::{message}", rule.id);
        }
        for (heading, lines) in self.changes.iter().flat_map(Changes::groups) {
            for line in lines {
                let _ = writeln!(text, "::notice title={}::{}", property(heading), data(line));
            }
        }
        text
    }
}

/// Lines that fit: what is broken goes on two blanks behind where it began.
fn broken(text: &str, width: Width) -> String {
    let line = |line: &str| {
        let rest = line.trim_start_matches(' ');
        let indent = line.len() - rest.len();
        let line =
            if line.starts_with(EXCERPT) { line.to_owned() } else { width.wrapped(rest, indent, indent + 2) };
        line + "\n"
    };
    text.lines().map(line).collect()
}

/// What changes, by group. That no address changes is not that nothing does.
fn changed(changes: &Changes, text: &mut String) {
    if changes.is_empty() {
        text.push_str("nothing changes for requests\n");
        return;
    }
    if changes.peers.is_empty() {
        text.push_str("upstreams and their addresses do not change\n");
    }
    for (heading, lines) in changes.groups().into_iter().filter(|(_, lines)| !lines.is_empty()) {
        let _ = writeln!(text, "what changes: {heading}");
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    }
}

/// GitHub ends a message at the end of a line.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// And a property at a comma or a colon.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{Format, Report};
    use crate::{
        check::{Finding, difference::Changes, finding::Shown, probe::Probe, rules},
        model::Address,
        width::Width,
    };

    #[test]
    fn the_schema_has_what_a_report_has() {
        let schema: Value = serde_json::from_str(include_str!("../../../docs/check.schema.json")).unwrap();
        let mut finding = Finding::new(&rules::SYNTAX, "/a:7", "x".to_owned(), "y");
        finding.shown = Some(Shown { text: String::new(), column: 1 });
        let report = Report {
            config: Some(String::new()),
            findings: vec![finding],
            changes: Some(Changes::default()),
            probed_from: Some(String::new()),
            probes: Some(vec![probe()]),
            ..Report::default()
        };
        let report = serde_json::to_value(report).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let check = |of: &Value, schema: &Value| assert_eq!(keys(of), keys(&schema["properties"]), "{of}");
        check(&report, &schema);
        check(&report["findings"][0], &schema["$defs"]["finding"]);
        check(&report["findings"][0]["shown"], &schema["$defs"]["finding"]["properties"]["shown"]);
        check(&report["changes"], &schema["$defs"]["changes"]);
        check(&report["probes"][0], &schema["$defs"]["probe"]);
    }

    fn probe() -> Probe {
        let address = Address::Unix("/a".to_owned());
        Probe {
            upstream: String::new(),
            place: String::new(),
            address,
            outcome: String::new(),
            meaning: String::new(),
            duration_us: 0,
        }
    }

    #[test]
    fn what_a_configuration_holds_cannot_break_a_line() {
        let mut finding =
            Finding::new(&rules::SYNTAX, "/a:b,c%:7", "says \u{1b}[2J\nand more".to_owned(), "do it");
        finding.shown = Some(Shown { text: "\tserver }".to_owned(), column: 9 });
        let report = Report { findings: vec![finding], ..Report::default() };
        let check =
            |format, expected: &str| assert_eq!(report.written(format, Width::Endless).unwrap(), expected);
        check(
            Format::Text,
            "/a:b,c%:7: error [syntax]\n    says \\u{1b}[2J\nand more\n      |  server }\n      |         ^\n    \
             to fix it: do it\nerrors 1, warnings 0, notes 0\n",
        );
        check(
            Format::Github,
            "::error file=/a%3Ab%2Cc%25,line=7,title=syntax::says \u{1b}[2J%0Aand more. To fix it: do it.\n",
        );
        check(
            Format::Json,
            "{\"findings\":[{\"id\":\"syntax\",\"severity\":\"error\",\"file\":\"/a:b,c%\",\"line\":7,\"what\":\"says \
             \\u001b[2J\\nand more\",\"fix\":\"do it\",\"shown\":{\"text\":\"\\tserver }\",\"column\":9}}],\
             \"allowed\":0,\"names_not_checked\":[]}\n",
        );
    }

    #[test]
    fn lines_are_as_wide_as_the_terminal() {
        let mut finding = Finding::new(&rules::SYNTAX, "/a:7", "word ".repeat(40), "do it");
        finding.shown = Some(Shown { text: format!("{}}}", "x".repeat(120)), column: 121 });
        let line = "server a (*:80): /api/ → proxy_set_header: host a instead of host b";
        let changes = Some(Changes { requests: vec![line.to_owned()], ..Changes::default() });
        let report = Report { findings: vec![finding], changes, ..Report::default() };
        let text = report.written(Format::Text, Width::Columns(60)).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        let excerpt = format!("      | {}}}\n      | {}^\n", "x".repeat(51), " ".repeat(51));
        assert!(text.contains(&excerpt), "{text}");
        let broken =
            "\n  server a (*:80): /api/ → proxy_set_header: host a instead\n    of host b\n".to_owned();
        assert!(text.contains(&broken), "{text}");
    }
}
