//! A finding as pages show it.

use serde::Serialize;

use crate::model::Finding;

/// A finding as `/findings` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct FindingView<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    /// What its `Display` says.
    sentence: String,
}

impl<'a> FindingView<'a> {
    /// With its sentence.
    #[must_use]
    pub fn new(finding: &'a Finding) -> Self {
        Self { finding, sentence: finding.to_string() }
    }
}
