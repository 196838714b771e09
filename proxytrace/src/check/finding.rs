//! Something that is not well.

use serde::Serialize;

use super::rules::{Rule, Severity};

/// Something that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind it is.
    #[serde(flatten)]
    pub rule: &'static Rule,
    /// How grave it is: as its kind, or less where that says more than is known.
    pub severity: Severity,
    /// The file, as nginx names it.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// What will happen, in a sentence.
    pub what: String,
    /// How to fix it, in a sentence.
    pub fix: String,
    /// The line itself, where that says more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
}

/// A line with a place in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// At most 200 bytes of the line, from its beginning.
    pub text: String,
    /// In characters, from 1.
    pub column: usize,
}

impl Finding {
    /// Whether nginx refuses the configuration for it, or requests fail.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `place` is `path:line`.
    pub(super) fn new(rule: &'static Rule, place: &str, what: String, fix: impl Into<String>) -> Self {
        let (file, line) = place.rsplit_once(':').unwrap_or((place, ""));
        Self {
            rule,
            severity: rule.severity,
            file: file.to_owned(),
            line: line.parse().unwrap_or(0),
            what,
            fix: fix.into(),
            shown: None,
        }
    }

    /// What findings are sorted by.
    pub(super) fn order(&self) -> impl Ord + '_ {
        (&self.file, self.line, self.severity, self.rule.id, &self.what)
    }

    /// The same as a note.
    pub(super) fn into_note(self) -> Self {
        Self { severity: Severity::Note, ..self }
    }

    /// The same, at most as grave as a warning.
    pub(super) fn into_warning(self) -> Self {
        let severity = self.severity.max(Severity::Warning);
        Self { severity, ..self }
    }
}
