//! What came of a change: for people in 80 columns, for programs as one object. Pure.

use std::{fmt::Write as _, sync::Arc};

use serde::Serialize;

use super::{
    probed::Probed,
    seen::{Sides, Upstream, UpstreamKey},
    verdict::{Fared, Verdict, causes},
};
use crate::{
    escape::{self, printable_lines},
    model::{Address, Counts, Finding},
};

/// People read that many columns.
const WIDTH: usize = 80;

/// What came of a change.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// `None` where there was nothing to judge.
    pub(super) verdict: Option<Verdict>,
    /// Why it is not passed: sentences.
    pub(super) reasons: Vec<String>,
    /// What else is worth knowing.
    pub(super) notes: Vec<String>,
    /// What changes in routing, where both configurations are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) changes: Option<Vec<String>>,
    /// What runs the change.
    pub(super) generations: Vec<Generation>,
    /// Everything that was connected to.
    pub(super) upstreams: Vec<Row>,
    /// What was found since the change began.
    pub(super) findings: Vec<Finding>,
    /// What probes have shown.
    pub(super) probes: Vec<Probed>,
    /// When what happened.
    pub(super) times: Times,
    /// How the change was taken back, where that was asked for and needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rollback: Option<Rollback>,
}

/// A generation of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Generation {
    pub(super) proxy: Arc<str>,
    pub(super) generation: u32,
}

/// In milliseconds since COMMAND was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Times {
    /// Until the new generation ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) loaded_ms: Option<u64>,
    /// Until the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) judged_ms: Option<u64>,
    /// Until the generation ran with which it was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) back_ms: Option<u64>,
}

/// How an address fared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    proxy: Arc<str>,
    upstream: Arc<str>,
    /// None of what an agent had counted before, of all addresses together.
    address: Option<Address>,
    before: Side,
    old_workers: Side,
    new_workers: Side,
}

/// How connects fared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Side {
    /// Those that ended and were not cancelled, and those that wait for the answer to a SYN that was sent again.
    connects: u64,
    /// Those of them that failed or brought no answer.
    failed: u64,
    /// Why: `refused 7`.
    #[serde(skip_serializing_if = "String::is_empty")]
    causes: String,
}

/// How a change was taken back.
#[derive(Debug, Default, Serialize)]
pub(super) struct Rollback {
    /// Whether the proxy works again, or was never changed.
    pub(super) worked: bool,
    /// What went wrong.
    pub(super) reasons: Vec<String>,
    /// Files that are as they were.
    pub(super) put_back: Vec<String>,
    /// Files that the change had added.
    pub(super) removed: Vec<String>,
    /// Files that somebody else has changed meanwhile.
    pub(super) left: Vec<String>,
    /// Files that the proxy writes to, such as logs: they are left as they are.
    pub(super) written: Vec<String>,
    /// Where a copy is of what was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept_in: Option<String>,
    /// What else is worth knowing.
    pub(super) notes: Vec<String>,
    /// What made the proxy take it; nothing where that was not needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reloaded_by: Option<String>,
    /// How the proxy fares since then.
    pub(super) upstreams: Vec<Row>,
}

impl Side {
    fn of(counts: &Counts) -> Self {
        let Fared { good, bad, stuck, .. } = Fared::of(counts);
        let failed = bad + stuck;
        Self { connects: good + failed, failed, causes: causes([counts]) }
    }

    fn in_words(&self) -> String {
        if self.connects == 0 { "-".to_owned() } else { format!("{} of {}", self.failed, self.connects) }
    }
}

/// What was counted, a row for each address that was connected to, and one for what an agent had counted before.
pub(super) fn rows<'a>(upstreams: impl IntoIterator<Item = (&'a UpstreamKey, &'a Upstream)>) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((proxy, upstream), Upstream { addresses, earlier }) in upstreams {
        let mut row = |address: Option<&Address>, sides: [Side; 3]| {
            if sides.iter().all(|side| side.connects == 0) {
                return; // only connections from before were used
            }
            let [before, old_workers, new_workers] = sides;
            let (proxy, upstream, address) = (Arc::clone(proxy), Arc::clone(upstream), address.cloned());
            rows.push(Row { proxy, upstream, address, before, old_workers, new_workers });
        };
        row(None, [Side::of(earlier), Side::default(), Side::default()]);
        for (address, Sides { before, old, new }) in addresses {
            row(Some(address), [before, old, new].map(Side::of));
        }
    }
    rows
}

impl Report {
    /// The object, and the end of its line.
    ///
    /// # Errors
    /// None in practice: everything in it can be written as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        let line = serde_json::to_string(self)?;
        Ok(escape::json(&line).into_owned() + "\n")
    }

    /// Whether all is well.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let is_judged_well = matches!(self.verdict, Some(Verdict::Passed) | None);
        is_judged_well && self.rollback.as_ref().is_none_or(|rollback| rollback.worked)
    }

    /// Whether the change could not be taken back.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.rollback.as_ref().is_some_and(|rollback| !rollback.worked)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.headline();
        listed(&mut text, "", &self.reasons);
        listed(&mut text, "note: ", &self.notes);
        if let Some(changes) = &self.changes {
            let is_same = changes.is_empty();
            text += if is_same { "\nrouting does not change\n" } else { "\nwhat changes in routing:\n" };
            listed(&mut text, "", changes);
        }
        table(&mut text, "failed connects:", &self.upstreams);
        if let Some(rollback) = &self.rollback {
            rollback.write(&mut text);
        }
        let Times { loaded_ms, judged_ms, back_ms } = self.times;
        let times = [("loaded after", loaded_ms), ("certain after", judged_ms), ("back after", back_ms)];
        let times: Vec<_> =
            times.iter().filter_map(|(what, ms)| Some(format!("{what} {} ms", (*ms)?))).collect();
        if !times.is_empty() {
            let _ = writeln!(text, "\n{}", times.join(", "));
        }
        // A configuration may hold what would move a terminal's cursor.
        printable_lines(&text).into_owned()
    }

    fn headline(&self) -> String {
        let verdict = match self.verdict {
            Some(Verdict::Passed) => "passed: the new generation works",
            Some(Verdict::Failed) => "failed: the change does not work",
            Some(Verdict::Unproven) => "failed: nobody knows whether the change works",
            None => "no change is under way",
        };
        let rollback = match &self.rollback {
            Some(Rollback { worked: true, .. }) if self.verdict.is_none() => {
                return "taken back: the change that was not ended\n".to_owned();
            }
            Some(_) if self.verdict.is_none() => {
                return "failed: the change that was not ended COULD NOT BE TAKEN BACK\n".to_owned();
            }
            Some(Rollback { worked: true, .. }) => "; it was taken back",
            Some(Rollback { worked: false, .. }) => "; TAKING IT BACK FAILED AS WELL",
            None => "",
        };
        format!("{verdict}{rollback}\n")
    }
}

impl Rollback {
    fn write(&self, text: &mut String) {
        let Self {
            worked,
            reasons,
            put_back,
            removed,
            left,
            written,
            notes,
            reloaded_by,
            upstreams,
            kept_in,
        } = self;
        let _ = writeln!(text, "\nrollback: {}", if *worked { "done" } else { "FAILED" });
        listed(text, "", reasons);
        for (what, files) in [
            ("put back: ", put_back),
            ("removed: ", removed),
            ("left, as somebody else changed it meanwhile: ", left),
            ("left, as the proxy writes to it: ", written),
            ("note: ", notes),
        ] {
            listed(text, what, files);
        }
        for (what, said) in [("reloaded by: ", reloaded_by), ("what was taken back is kept in: ", kept_in)] {
            listed(text, what, said.as_slice());
        }
        table(text, "failed connects since then:", upstreams);
    }
}

/// A line for each, with what goes on below it.
fn listed(text: &mut String, before: &str, items: &[String]) {
    for item in items {
        wrapped(text, &format!("{before}{item}"));
    }
}

/// Breaks a line that is too long, at blanks where there are any.
fn wrapped(text: &mut String, line: &str) {
    let mut column = 0;
    // Names of files may have several blanks in a row.
    for word in line.split([' ', '\n', '\t']) {
        let width = word.chars().count();
        if column > 0 && column + 1 + width <= WIDTH {
            text.push(' ');
            column += 1 + width;
        } else {
            let indent = if column == 0 { "  " } else { "\n    " };
            text.push_str(indent);
            column = indent.trim_start_matches('\n').len() + width;
        }
        text.push_str(word);
    }
    text.push('\n');
}

/// What failed of what, before and after.
fn table(text: &mut String, title: &str, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title:<34}{:>14}{:>16}{:>16}", "BEFORE", "OLD WORKERS", "NEW WORKERS");
    let mut last = None;
    for row in rows {
        let of = (&row.proxy, &row.upstream);
        if last.replace(of) != Some(of) {
            wrapped(text, &format!("{} ({})", row.upstream, row.proxy));
        }
        let sides = [&row.before, &row.old_workers, &row.new_workers].map(Side::in_words);
        let address =
            row.address.as_ref().map_or_else(|| "(counted by the agent)".to_owned(), Address::to_string);
        let address = match address.chars().count() {
            0..30 => address,
            _ => {
                let _ = writeln!(text, "    {address}");
                String::new()
            }
        };
        let _ = writeln!(text, "    {address:<30}{:>14}{:>16}{:>16}", sides[0], sides[1], sides[2]);
        if !row.new_workers.causes.is_empty() {
            let _ = writeln!(text, "{:>80}", row.new_workers.causes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proxytrace_ebpf::outcome::Outcome;

    use super::{Report, Rollback, Times, Verdict, WIDTH, rows};
    use crate::{
        guard::seen::{Sides, Upstream},
        model::Counts,
    };

    fn counts(established: u64, refused: u64) -> Counts {
        let mut counts = Counts { attempts: established + refused, ..Counts::default() };
        counts.outcomes[Outcome::Established as usize] = established;
        counts.outcomes[Outcome::Refused as usize] = refused;
        counts
    }

    fn report() -> Report {
        let well = Sides { before: counts(1012, 0), old: counts(12, 0), new: counts(0, 0) };
        let failing = Sides { before: counts(0, 0), old: counts(0, 0), new: counts(0, 7) };
        let api = BTreeMap::from([
            ("10.0.0.5:8080".parse().unwrap(), well),
            ("10.0.0.5:8081".parse().unwrap(), failing),
        ]);
        let api = Upstream { addresses: api, earlier: counts(20, 0) };
        let upstreams = BTreeMap::from([(("nginx.service".into(), "api".into()), api)]);
        Report {
            verdict: Some(Verdict::Failed),
            reasons: vec![
                "upstream \"api\": 7 of 7 connects failed (refused 7), and this goes on for longer than a line has columns".to_owned(),
            ],
            notes: vec!["a note".to_owned()],
            changes: Some(vec!["server _ (80): / → api: 10.0.0.5:8080 became 10.0.0.5:8081".to_owned()]),
            upstreams: rows(&upstreams),
            times: Times { loaded_ms: Some(21), judged_ms: Some(88), back_ms: Some(190) },
            rollback: Some(Rollback {
                worked: true,
                put_back: vec!["conf.d/api.conf".to_owned()],
                reloaded_by: Some("nginx -s reload".to_owned()),
                ..Rollback::default()
            }),
            ..Report::default()
        }
    }

    #[test]
    fn people_read_what_happened_in_80_columns() {
        let expected = "\
failed: the change does not work; it was taken back
  upstream \"api\": 7 of 7 connects failed (refused 7), and this goes on for
    longer than a line has columns
  note: a note

what changes in routing:
  server _ (80): / → api: 10.0.0.5:8080 became 10.0.0.5:8081

failed connects:                          BEFORE     OLD WORKERS     NEW WORKERS
  api (nginx.service)
    (counted by the agent)               0 of 20               -               -
    10.0.0.5:8080                      0 of 1012         0 of 12               -
    10.0.0.5:8081                              -               -          7 of 7
                                                                       refused 7

rollback: done
  put back: conf.d/api.conf
  reloaded by: nginx -s reload

loaded after 21 ms, certain after 88 ms, back after 190 ms
";
        let text = report().text();
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
    }

    #[test]
    fn blanks_in_names_stay() {
        let rollback = Rollback { put_back: vec!["a  b.conf".to_owned()], ..Rollback::default() };
        let text = Report { rollback: Some(rollback), ..Report::default() }.text();
        assert!(text.contains("\n  put back: a  b.conf\n"), "{text}");
    }

    #[test]
    fn programs_read_one_object() {
        let report = report();
        assert!(!report.is_well() && !report.is_stuck());
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["verdict"], "failed");
        assert_eq!(json["upstreams"][0]["address"], serde_json::Value::Null);
        assert_eq!(json["upstreams"][0]["before"]["connects"], 20);
        assert_eq!(json["upstreams"][1]["before"], serde_json::json!({"connects": 1012, "failed": 0}));
        assert_eq!(json["upstreams"][2]["new_workers"]["failed"], 7);
        assert_eq!(json["rollback"]["worked"], true);
        assert_eq!(json["times"]["back_ms"], 190);
        let stuck = Report { rollback: Some(Rollback::default()), ..report };
        assert!(stuck.is_stuck() && stuck.text().contains("TAKING IT BACK FAILED"));
        let left = Report { rollback: Some(Rollback::default()), ..Report::default() };
        assert!(
            left.text().starts_with("failed: the change that was not ended COULD NOT"),
            "{}",
            left.text()
        );
        assert!(Report { verdict: Some(Verdict::Passed), ..Report::default() }.is_well());
    }
}
