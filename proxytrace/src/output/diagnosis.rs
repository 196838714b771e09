//! What `proxytrace doctor` has found, for people.

use super::{Colour, Paint};
use crate::doctor::report::{Check, HookCheck, Report, State, Verdict};

/// Where what belongs to a line goes on below it.
const INDENT: usize = 27;

/// The report: a line for each thing that was looked at, and below it what a gap costs and how to fix it.
#[must_use]
pub fn diagnosis(report: &Report, colour: Colour) -> String {
    let mut lines = vec![verdict(report).to_owned(), String::new(), title(colour, "HOST", "FOUND")];
    for Check { name, state, found, costs, fix } in &report.checks {
        lines.push(line(colour, *state, name, found));
        lines.extend(gap(costs, fix));
    }
    if !report.hooks.is_empty() {
        lines.extend([String::new(), title(colour, "HOOK", &by("BY", "SEEN"))]);
    }
    for HookCheck { name, state, via, seen, refused, costs, fix } in &report.hooks {
        let seen = seen.map_or_else(|| "-".to_owned(), |n| n.to_string());
        lines.push(line(colour, *state, name, &by(via.unwrap_or("none"), &seen)));
        lines.extend(refused.iter().map(|(via, reason)| format!("{:INDENT$}not by {via}: {reason}", "")));
        lines.extend(gap(costs, fix));
    }
    lines.join("\n") + "\n"
}

fn verdict(report: &Report) -> &'static str {
    match report.verdict {
        Verdict::Full => "full: everything is seen, in the best way",
        Verdict::Costly => "everything is seen, at a price",
        Verdict::Degraded => "degraded: not everything is seen",
        Verdict::Cannot => "cannot trace on this host",
    }
}

fn title(colour: Colour, what: &str, found: &str) -> String {
    colour.paint(Paint::Dim, &format!("{:<8}{what:<19}{found}", "STATE"))
}

fn line(colour: Colour, state: State, what: &str, found: &str) -> String {
    let (paint, word) = match state {
        State::Ok => (Paint::Green, "ok"),
        State::Costs => (Paint::Yellow, "costs"),
        State::Lacks => (Paint::Red, "lacks"),
        State::Cannot => (Paint::Red, "cannot"),
    };
    format!("{}{what:<19}{found}", colour.paint(paint, &format!("{word:<8}")))
}

fn by(via: &str, seen: &str) -> String {
    format!("{via:<8}{seen:>4}")
}

fn gap(costs: &str, fix: &str) -> impl Iterator<Item = String> {
    let parts = [("costs", costs), ("fix", fix)].into_iter().filter(|(_, text)| !text.is_empty());
    parts.map(|(word, text)| format!("{:INDENT$}{word}: {text}", "")).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::{Colour, diagnosis};
    use crate::doctor::report::{Check, HookCheck, Report, State};

    #[test]
    fn a_gap_is_told_below_its_line() {
        let hook = HookCheck {
            name: "connect",
            state: State::Costs,
            via: Some("tp_btf"),
            seen: Some(2),
            refused: vec![("fentry", "Operation not permitted".to_owned())],
            costs: "every system call takes longer".to_owned(),
            fix: "it takes another kernel".to_owned(),
        };
        let report = Report::new("6.1.0".to_owned(), vec![Check::ok("kernel", "6.1.0 x86_64")], vec![hook]);
        let expected = "\
everything is seen, at a price

STATE   HOST               FOUND
ok      kernel             6.1.0 x86_64

STATE   HOOK               BY      SEEN
costs   connect            tp_btf     2
                           not by fentry: Operation not permitted
                           costs: every system call takes longer
                           fix: it takes another kernel
";
        assert_eq!(diagnosis(&report, Colour::Off), expected);
    }
}
