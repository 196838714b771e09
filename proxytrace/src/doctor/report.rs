//! What `proxytrace doctor` has found. Pure.

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, at a price.
    Costs,
    /// Something is not seen.
    Lacks,
    /// Tracing is impossible.
    Cannot,
}

/// What it comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything is seen, in the best way.
    Full,
    /// Everything is seen, at a price.
    Costly,
    /// Something is not seen.
    Degraded,
    /// Tracing is impossible.
    Cannot,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What the gap costs; empty where there is none.
    pub costs: String,
    /// What to do about it; empty where there is nothing to do.
    pub fix: String,
}

impl Check {
    /// All is well.
    #[must_use]
    pub fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), costs: String::new(), fix: String::new() }
    }

    /// It works, at a price.
    #[must_use]
    pub fn costs(
        name: &'static str,
        found: impl Into<String>,
        costs: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { state: State::Costs, ..Self::lacks(name, found, costs, fix) }
    }

    /// Something is not seen.
    #[must_use]
    pub fn lacks(
        name: &'static str,
        found: impl Into<String>,
        costs: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { name, state: State::Lacks, found: found.into(), costs: costs.into(), fix: fix.into() }
    }

    /// Tracing is impossible.
    #[must_use]
    pub fn cannot(name: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        let costs = "proxytrace cannot trace here".to_owned();
        Self { name, state: State::Cannot, found: found.into(), costs, fix: fix.into() }
    }
}

/// How a hook came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HookCheck {
    /// The hook.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// How it is attached.
    pub via: Option<&'static str>,
    /// How often each of its programs has seen the self-test at least; `None` where it has none of its own.
    pub seen: Option<u64>,
    /// The better ways, and why each was refused.
    #[serde(serialize_with = "refusals")]
    pub refused: Vec<(&'static str, String)>,
    /// What the gap costs; empty where there is none.
    pub costs: String,
    /// What to do about it; empty where there is nothing to do.
    pub fix: String,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What it comes to.
    pub verdict: Verdict,
    /// The kernel's release.
    pub kernel: String,
    /// The version of proxytrace.
    pub version: &'static str,
    /// The host.
    pub checks: Vec<Check>,
    /// The hooks; none where tracing is impossible.
    pub hooks: Vec<HookCheck>,
}

impl Report {
    /// The verdict is the worst that was found.
    #[must_use]
    pub fn new(kernel: String, checks: Vec<Check>, hooks: Vec<HookCheck>) -> Self {
        let mut states = checks
            .iter()
            .map(|check| check.state)
            .chain(hooks.iter().map(|hook| hook.state))
            .collect::<Vec<_>>();
        states.sort_by_key(|state| *state as u8);
        let verdict = match states.last() {
            Some(State::Cannot) => Verdict::Cannot,
            Some(State::Lacks) => Verdict::Degraded,
            Some(State::Costs) => Verdict::Costly,
            _ => Verdict::Full,
        };
        Self { verdict, kernel, version: env!("CARGO_PKG_VERSION"), checks, hooks }
    }
}

fn refusals<S: Serializer>(refused: &[(&'static str, String)], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Refusal<'a> {
        via: &'a str,
        reason: &'a str,
    }
    let mut list = serializer.serialize_seq(Some(refused.len()))?;
    for (via, reason) in refused {
        list.serialize_element(&Refusal { via, reason })?;
    }
    list.end()
}

#[cfg(test)]
mod tests {
    use super::{Check, HookCheck, Report, State, Verdict};

    #[test]
    fn the_worst_that_was_found_is_the_verdict() {
        let hook = |state: State| HookCheck {
            name: "connect",
            state,
            via: Some("tp_btf"),
            seen: Some(2),
            refused: vec![("fentry", "no".to_owned())],
            costs: String::new(),
            fix: String::new(),
        };
        let check = |checks: Vec<Check>, hooks: Vec<HookCheck>, verdict: Verdict| {
            let report = Report::new("6.1.0".to_owned(), checks, hooks);
            assert_eq!(report.verdict, verdict, "{report:?}");
        };
        let ok = || Check::ok("kernel", "6.1.0");
        check(vec![ok()], vec![hook(State::Ok)], Verdict::Full);
        check(vec![ok()], vec![hook(State::Costs)], Verdict::Costly);
        check(vec![Check::costs("names", "1", "", "")], vec![], Verdict::Costly);
        check(vec![Check::lacks("cgroup", "none", "", "")], vec![hook(State::Costs)], Verdict::Degraded);
        check(vec![Check::cannot("btf", "none", ""), ok()], vec![], Verdict::Cannot);
    }

    #[test]
    fn programs_get_refusals_as_objects() {
        let refused = vec![("fentry", "no".to_owned())];
        let hook = HookCheck {
            name: "connect",
            state: State::Costs,
            via: Some("kprobe"),
            seen: Some(2),
            refused,
            costs: "c".to_owned(),
            fix: "m".to_owned(),
        };
        assert_eq!(
            serde_json::to_string(&hook).unwrap(),
            r#"{"name":"connect","state":"costs","via":"kprobe","seen":2,"refused":[{"via":"fentry","reason":"no"}],"costs":"c","fix":"m"}"#
        );
    }
}
