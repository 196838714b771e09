//! What this host lets proxytrace do: checked, and proven by a connect that every hook must see.
//!
//! * [`report`]: what is found, pure. * [`host`]: asks the host. * [`confined`]: what confines this process. * [`names`]: asks for the
//!   names of the proxies that run, as a trace does. * [`agent`]: asks the agent. * [`subject`]: the process that the self-test watches.

pub mod report;
pub mod subject;

mod agent;
mod confined;
mod host;
mod names;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use proxytrace_ebpf::{hooks::Place, outcome::Outcome};

use crate::kernel::{AttachedHook, Error, Options, Snapshot, Tracer, hooks::Via, processes::Wanted};
use report::{Check, HookCheck, Report, State};
use subject::Subject;

/// How long the self-test may take; it needs a little more than the second after which a SYN is sent again.
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Examines the host as it would be traced with `options`, and with this configuration instead of those that proxies name, whose host names
/// are looked up where it `resolves`; and asks the agent at that socket. Needs a runtime.
///
/// # Errors
/// Something that has to be read even on a host that allows nothing: the kernel's release, /proc.
pub async fn examine(
    options: &Options,
    config: Option<PathBuf>,
    resolves: bool,
    agent: Option<&Path>,
) -> anyhow::Result<Report> {
    let mut checks = host::checks()?;
    checks.extend(agent::check(agent).await);
    let mut hooks = Vec::new();
    if !checks.iter().any(|check| check.state == State::Cannot) {
        checks.extend(names::checks(&options.wanted, config, resolves).await?);
        let (found_out, found) = self_test(options);
        checks.extend(found_out);
        hooks = found;
    }
    Ok(Report::new(host::kernel()?, checks, hooks))
}

/// Traces a process of our own that connects on loopback.
fn self_test(options: &Options) -> (Vec<Check>, Vec<HookCheck>) {
    const NAME: &str = "self-test";
    let subject = match Subject::start() {
        Ok(subject) => subject,
        Err(error) => return (vec![Check::cannot(NAME, format!("{error:#}"), "report this")], Vec::new()),
    };
    let options = Options {
        wanted: Wanted { names: Vec::new(), pids: vec![subject.pid()] },
        count_seen: true,
        ..options.clone()
    };
    let (tracer, _events) = match Tracer::start(&options) {
        Ok(started) => started,
        Err(error) => {
            let fix = "see what the message names, and the table of hooks in docs/kernel-notes.md";
            return (vec![Check::cannot(NAME, error.to_string(), fix)], Vec::new());
        }
    };
    let done = subject.finish(SELF_TEST_TIMEOUT);
    let seen = tracer.seen();
    let perf = confined::perf_events();
    let hooks = |seen: Option<&[u64; Place::ALL.len()]>| {
        tracer.hooks().iter().map(|hook| hook_check(hook, seen, perf.as_deref())).collect()
    };
    let answers = answers_check(tracer.cannot_look(), tracer.cannot_find_earlier());
    let outcome = done.and_then(|()| Ok((seen?, tracer.snapshot()?)));
    match outcome {
        Ok((seen, snapshot)) => (vec![ledger_check(NAME, &snapshot), answers], hooks(Some(&seen))),
        Err(error) => {
            let costs = "whether every hook works is unknown";
            let fix = "let this process connect to itself on 127.0.0.1, and run it again";
            (vec![Check::lacks(NAME, format!("{error:#}"), costs, fix), answers], hooks(None))
        }
    }
}

/// The subject made one connect that succeeded and one that it gave up: the ledger must say so.
fn ledger_check(name: &'static str, snapshot: &Snapshot) -> Check {
    let sum = |outcome: Outcome| -> u64 {
        snapshot.rows.iter().map(|(_, row)| row.outcomes[outcome as usize]).sum()
    };
    let attempts: u64 = snapshot.rows.iter().map(|(_, row)| row.attempts).sum();
    let established = sum(Outcome::Established);
    // Which of the two depends on whether its SYN was sent again before.
    let given_up = sum(Outcome::GivenUp) + sum(Outcome::Cancelled);
    let found = format!("2 connects on loopback: {established} established, {given_up} given up");
    if (attempts, established, given_up) == (2, 1, 1) {
        return Check::ok(name, found);
    }
    Check::lacks(
        name,
        format!("{found}, of {attempts} counted"),
        "counts are not right on this host",
        "report it with the output of `proxytrace doctor --json`",
    )
}

/// Whether requests that wait for their answers are looked at, and on connections from before too; else why not.
fn answers_check(cannot_look: Option<&Error>, cannot_find_earlier: Option<&Error>) -> Check {
    const NAME: &str = "answers";
    match (cannot_look, cannot_find_earlier) {
        (None, None) => Check::ok(
            NAME,
            "requests that wait are seen once a second, on TCP; not seen are answers over unix sockets, and of gRPC, `Upgrade` and \
             streamed bodies once a byte has come (docs/limits.md)",
        ),
        (None, Some(refusal)) => Check::lacks(
            NAME,
            refusal.to_string(),
            "on connections that stood before tracing began, nothing is seen",
            "let it run before the proxy does; and report it with the output of `proxytrace doctor --json`",
        ),
        (Some(refusal), _) => Check::lacks(
            NAME,
            refusal.to_string(),
            "a request without an answer is seen when its connection ends, and not while it waits",
            "let the hook destroy be attached; else report it with the output of `proxytrace doctor --json`",
        ),
    }
}

/// How a hook came out, by what its programs have `seen`; `perf` says what opening an event takes here beyond the usual.
fn hook_check(
    attached: &AttachedHook,
    seen: Option<&[u64; Place::ALL.len()]>,
    perf: Option<&str>,
) -> HookCheck {
    let AttachedHook { hook, rung, refusals } = attached;
    let least = |seen: &[u64; Place::ALL.len()]| hook.places.iter().map(|&place| seen[place as usize]).min();
    // Where another hook's program sees the same, it is that one which has been counted.
    let seen = match rung {
        Some(rung) if !rung.parts.is_empty() => seen.and_then(least),
        _ => None,
    };
    let mut needs =
        refusals.iter().map(|(via, _)| format!("{via} takes {}", via.needs())).collect::<Vec<_>>();
    let takes_events = |via: Via| matches!(via, Via::Kprobe | Via::Tracepoint);
    let is_forbidden = |(via, reason): &(Via, String)| takes_events(*via) && reason.contains("denied");
    needs.extend(perf.filter(|_| refusals.iter().any(is_forbidden)).map(str::to_owned));
    let better = needs.join("; ");
    let as_asked_for = || "leave --hook-via out".to_owned();
    let (state, costs, fix) = match rung {
        Some(rung) if seen == Some(0) => {
            let fix =
                format!("take another way than {}: --hook-via {}=WAY, and report it", rung.via, hook.name);
            (State::Lacks, format!("attached, but it never fires; without it {}", hook.without), fix)
        }
        Some(rung) if rung.costs.is_empty() => (State::Ok, String::new(), String::new()),
        Some(rung) if refusals.is_empty() => (State::Costs, rung.costs.to_owned(), as_asked_for()),
        Some(rung) => (State::Costs, rung.costs.to_owned(), better),
        None if refusals.is_empty() => (State::Lacks, format!("without it {}", hook.without), as_asked_for()),
        None => (State::Lacks, format!("without it {}", hook.without), better),
    };
    HookCheck {
        name: hook.name,
        state,
        via: rung.map(|rung| rung.via.name()),
        seen,
        refused: refusals.iter().map(|(via, reason)| (via.name(), reason.clone())).collect(),
        costs,
        fix,
    }
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::hooks::Place;

    use super::hook_check;
    use crate::{
        doctor::report::State,
        kernel::{
            AttachedHook,
            hooks::{Via, all},
        },
    };

    /// The hook `connect`, attached by `via` after `refused` were tried, whose programs have seen so much.
    fn check(via: Option<Via>, refused: &[Via], seen: [u64; 2], state: State, costs: &str, fix: &str) {
        let hook = all().find(|hook| hook.name == "connect").unwrap();
        let rung = via.map(|via| hook.rungs.iter().find(|rung| rung.via == via).unwrap());
        let refusals =
            refused.iter().map(|&via| (via, "Permission denied (os error 13)".to_owned())).collect();
        let mut places = [7; Place::ALL.len()];
        [places[Place::ConnectEntered as usize], places[Place::ConnectReturned as usize]] = seen;
        let found = hook_check(&AttachedHook { hook, rung, refusals }, Some(&places), Some("perf 4"));
        assert_eq!((found.state, found.via), (state, via.map(Via::name)), "{found:?}");
        assert!(found.costs.contains(costs) && found.fix.contains(fix), "{found:?}");
    }

    #[test]
    fn a_hook_that_is_attached_and_never_fires_is_found_out() {
        check(Some(Via::Fentry), &[], [2, 2], State::Ok, "", "");
        check(Some(Via::Fentry), &[], [0, 0], State::Lacks, "never fires", "--hook-via connect=WAY");
        check(Some(Via::Fentry), &[], [2, 0], State::Lacks, "never fires", "--hook-via connect=WAY");
    }

    #[test]
    fn a_gap_says_what_it_costs_and_how_to_fix_it() {
        let refused = [Via::Fentry, Via::Kprobe];
        check(Some(Via::TpBtf), &refused, [2, 2], State::Costs, "every system call", "CONFIG_KPROBES");
        check(Some(Via::TpBtf), &refused, [2, 2], State::Costs, "every system call", "; perf 4");
        check(Some(Via::TpBtf), &[], [2, 2], State::Costs, "every system call", "leave --hook-via out");
        check(None, &refused, [0, 0], State::Lacks, "unix sockets", "CONFIG_KPROBES");
        check(None, &[], [0, 0], State::Lacks, "unix sockets", "leave --hook-via out");
    }
}
