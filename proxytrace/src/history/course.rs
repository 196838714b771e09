//! How upstreams came to be as they are, as far as counts do not say it: until when something was wrong that is over, and when what
//! stands became as severe as it is.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::model::{Finding, Severity, Subject, UpstreamKey};

/// Of so many upstreams it is known; of more, of those where something was wrong last.
const MAX: usize = 4096;

/// What was wrong with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrong {
    /// When its users were last seen to get errors, by a critical finding.
    pub down: Option<Timestamp>,
    /// When anything was last seen to be wrong.
    pub ill: Option<Timestamp>,
    /// Since when requests have waited there for far longer than is usual; `None` where none does.
    pub late: Option<Timestamp>,
}

/// What was wrong with each upstream.
pub type Wrongs = BTreeMap<UpstreamKey, Wrong>;

/// What was seen of each upstream and of each finding.
#[derive(Debug, Default)]
pub struct Course {
    wrongs: Wrongs,
    /// Of what stands: how severe it is, and since when.
    severities: BTreeMap<Subject, (Severity, Timestamp)>,
}

impl Course {
    /// Takes what stands now, and where requests wait for too long. To be called as often as that is looked at.
    pub fn note<'a>(
        &mut self,
        now: Timestamp,
        findings: impl Iterator<Item = &'a Finding>,
        late: impl Iterator<Item = UpstreamKey>,
    ) {
        let mut before = std::mem::take(&mut self.severities);
        for finding in findings {
            self.stands(now, finding);
            let since = match before.remove(&finding.subject) {
                None => finding.since,
                Some((severity, since)) if severity == finding.severity => since,
                Some(_) => now,
            };
            self.severities.insert(finding.subject.clone(), (finding.severity, since));
        }
        let mut waited: BTreeMap<_, _> = self
            .wrongs
            .iter_mut()
            .filter_map(|(key, wrong)| Some((key.clone(), wrong.late.take()?)))
            .collect();
        for key in late {
            let since = waited.remove(&key);
            let wrong = self.wrongs.entry(key).or_default();
            wrong.late = wrong.late.or(since).or(Some(now));
            wrong.ill = Some(now);
        }
        self.forget();
    }

    /// Takes a finding that stands, whoever has seen it.
    pub fn stands(&mut self, now: Timestamp, finding: &Finding) {
        let (subject, several) = (&finding.subject, &finding.evidence.upstreams);
        if finding.severity == Severity::Info {
            return;
        }
        for upstream in subject.upstream.iter().chain(several) {
            let wrong = self.wrongs.entry((subject.proxy.clone(), upstream.clone())).or_default();
            wrong.ill = Some(now);
            if finding.severity == Severity::Critical {
                wrong.down = Some(now);
            }
        }
    }

    /// Since when a finding that stands has been as severe as it is.
    pub fn severe_since(&self, subject: &Subject) -> Option<Timestamp> {
        self.severities.get(subject).map(|(_, since)| *since)
    }

    /// What was wrong with each upstream.
    pub const fn wrongs(&self) -> &Wrongs {
        &self.wrongs
    }

    fn forget(&mut self) {
        if self.wrongs.len() > MAX {
            let mut times: Vec<_> = self.wrongs.values().map(|wrong| wrong.ill).collect();
            times.sort_unstable();
            let middle = times[MAX / 2];
            self.wrongs.retain(|_, wrong| wrong.ill > middle);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Course, Wrong};
    use crate::model::{Finding, Severity, UpstreamKey};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn finding(severity: Severity) -> Finding {
        Finding { severity, since: at(0), ..Finding::sample() }
    }

    fn key() -> UpstreamKey {
        let subject = Finding::sample().subject;
        (subject.proxy, subject.upstream.unwrap())
    }

    #[test]
    fn what_becomes_worse_is_so_since_then_and_what_went_was_there_until_then() {
        let mut course = Course::default();
        let rows = [
            (10, Some(Severity::Warning), Some(0), (None, Some(10))),
            (20, Some(Severity::Warning), Some(0), (None, Some(20))),
            (30, Some(Severity::Critical), Some(30), (Some(30), Some(30))),
            (40, Some(Severity::Critical), Some(30), (Some(40), Some(40))),
            (50, Some(Severity::Warning), Some(50), (Some(40), Some(50))),
            (60, None, None, (Some(40), Some(50))),
            (70, Some(Severity::Critical), Some(0), (Some(70), Some(70))),
        ];
        for (second, severity, since, (down, ill)) in rows {
            let findings: Vec<_> = severity.map(finding).into_iter().collect();
            course.note(at(second), findings.iter(), std::iter::empty());
            assert_eq!(course.severe_since(&Finding::sample().subject), since.map(at), "{second}");
            let expected = Wrong { down: down.map(at), ill: ill.map(at), late: None };
            assert_eq!(course.wrongs()[&key()], expected, "{second}");
        }
    }

    #[test]
    fn requests_wait_since_one_was_first_seen_to() {
        let mut course = Course::default();
        for (second, is_late, late, ill) in [
            (10, true, Some(10), 10),
            (20, true, Some(10), 20),
            (30, false, None, 20),
            (40, true, Some(40), 40),
        ] {
            course.note(at(second), std::iter::empty(), is_late.then(key).into_iter());
            let expected = Wrong { down: None, ill: Some(at(ill)), late: late.map(at) };
            assert_eq!(course.wrongs()[&key()], expected, "{second}");
        }
    }
}
