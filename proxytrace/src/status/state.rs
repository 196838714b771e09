//! How an upstream is, and since when: as far as findings, what is recent and what was before say it.

use jiff::Timestamp;

use super::{Standing, State};
use crate::{
    history::{Trouble, Wrong},
    model::Severity,
};

/// What says how an upstream is.
#[derive(Debug, Default)]
pub(super) struct Signs<'a> {
    /// What stands about it.
    pub(super) findings: Vec<&'a Standing>,
    /// What was counted of it lately.
    pub(super) attempts: u64,
    /// Whether connections that stay brought answers lately.
    pub(super) is_in_use: bool,
    pub(super) gone_wrong: u64,
    /// When something failed there, where that was seen.
    pub(super) trouble: Option<Trouble>,
    /// What was wrong with it.
    pub(super) wrong: Wrong,
    /// When it was last connected to, or answered.
    pub(super) last: Option<Timestamp>,
}

impl Signs<'_> {
    /// What it is, and since when, as seen by somebody who `began` then.
    pub(super) fn state(&self, began: Timestamp) -> (State, Option<Timestamp>) {
        let Self { attempts, is_in_use, gone_wrong, trouble, wrong, last, .. } = self;
        if let Some(since) = self.since(Severity::Critical) {
            return (State::Down, Some(since));
        }
        let failed = trouble.filter(|_| *gone_wrong > 0).map(|trouble| trouble.since);
        let warned = self.since(Severity::Warning);
        if *gone_wrong > 0 || warned.is_some() || wrong.late.is_some() {
            // As long as it was down it was worse than that.
            let since = [warned, failed, wrong.late].into_iter().flatten().min();
            return (State::Failing, since.max(wrong.down));
        }
        if *attempts > 0 || *is_in_use {
            let until = trouble.map(|trouble| trouble.until);
            return (State::Ok, [Some(began), until, wrong.ill].into_iter().flatten().max());
        }
        (State::Quiet, *last)
    }

    /// Since when the first of the findings stands that are as severe as that.
    fn since(&self, severity: Severity) -> Option<Timestamp> {
        let of = self.findings.iter().filter(|standing| standing.finding.severity == severity);
        of.map(|standing| standing.severe_since()).min()
    }

    /// Adds what is known of a row that it has with others.
    pub(super) fn add(&mut self, more: &Self) {
        self.attempts += more.attempts;
        self.is_in_use |= more.is_in_use;
        self.gone_wrong += more.gone_wrong;
        self.last = self.last.max(more.last);
        self.add_wrong(&more.wrong);
        self.wrong.late = earliest(self.wrong.late, more.wrong.late);
        self.trouble = match (self.trouble, more.trouble) {
            (Some(own), Some(more)) => Some(own.and(more)),
            (own, more) => own.or(more),
        };
    }

    /// Adds until when something was wrong.
    pub(super) fn add_wrong(&mut self, more: &Wrong) {
        self.wrong.down = self.wrong.down.max(more.down);
        self.wrong.ill = self.wrong.ill.max(more.ill);
    }
}

fn earliest(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}
