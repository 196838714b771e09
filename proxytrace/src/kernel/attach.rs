//! Attaches hooks: walks down each one's ways, keeps why a way was refused, and stops at the first that works.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};

use proxytrace_ebpf::hooks::Part;

use super::{
    Error,
    hooks::{Hook, Rung, Via, plan},
    loading::{self, Ways},
    tracepoints::Events,
};

/// How a hook came out.
#[derive(Clone, Debug)]
pub struct AttachedHook {
    /// The hook.
    pub hook: &'static Hook,
    /// How it is attached, `None` if no way worked.
    pub rung: Option<&'static Rung>,
    /// The ways that were tried before, and why each was refused.
    pub refusals: Vec<(Via, String)>,
}

/// Events that programs are attached to, until they are dropped.
pub(super) type Held = Vec<OwnedFd>;

impl AttachedHook {
    /// How it is attached.
    #[must_use]
    pub fn via(&self) -> Option<Via> {
        self.rung.map(|rung| rung.via)
    }
}

/// Attaches each of `hooks` in the best way that works, or in the one that is forced. What must be kept for that is added to `held`.
///
/// # Errors
/// A required hook could not be attached, or one not in the way that was asked for.
pub(super) fn attach(
    ebpf: &mut Ebpf,
    hooks: &'static [Hook],
    ways: &Ways<'_>,
    held: &mut Held,
) -> Result<Vec<AttachedHook>, Error> {
    hooks.iter().map(|hook| attach_one(ebpf, hook, ways, held)).collect()
}

fn attach_one(
    ebpf: &mut Ebpf,
    hook: &'static Hook,
    ways: &Ways<'_>,
    held: &mut Held,
) -> Result<AttachedHook, Error> {
    let mut refusals = Vec::new();
    let (rungs, is_forced) = plan(hook, ways.forced);
    for rung in rungs {
        match attach_rung(ebpf, rung, ways) {
            Ok(events) => {
                held.extend(events);
                return Ok(AttachedHook { hook, rung: Some(rung), refusals });
            }
            Err(error) => refusals.push((rung.via, reason(&error))),
        }
    }
    if hook.required || is_forced {
        let reason: Vec<_> = refusals.iter().map(|(via, reason)| format!("{via}: {reason}")).collect();
        let (hook, reason, without) = (hook.name, reason.join("; "), hook.without);
        return Err(if is_forced {
            Error::Forced { hook, reason }
        } else {
            Error::Attach { hook, reason, without }
        });
    }
    Ok(AttachedHook { hook, rung: None, refusals })
}

/// Attaches all programs of a way, or none. Gives the events that are to be held.
fn attach_rung(ebpf: &mut Ebpf, rung: &Rung, ways: &Ways<'_>) -> Result<Held, ProgramError> {
    loading::check(rung.via, ways)?;
    let tracefs = if rung.via == Via::Tracepoint { Some(Events::open()?) } else { None };
    let mut held = Held::new();
    for part in loading::wanted(rung, ways) {
        let attached = ebpf
            .program_mut(part.program)
            .ok_or(ProgramError::NotLoaded)
            .and_then(|program| attach_part(program, ways.btf, tracefs.as_ref(), part));
        match attached {
            Ok(event) => held.extend(event),
            Err(error) => {
                for part in rung.parts {
                    ebpf.program_mut(part.program).map(unload);
                }
                return Err(error);
            }
        }
    }
    Ok(held)
}

/// Gives the event that is to be held for it, where it takes one.
fn attach_part(
    program: &mut Program,
    btf: &Btf,
    tracefs: Option<&Events>,
    part: &Part,
) -> Result<Option<OwnedFd>, ProgramError> {
    loading::load_one(program, btf, part)?;
    match (program, tracefs) {
        (Program::TracePoint(program), Some(tracefs)) => {
            return Ok(Some(tracefs.attach(part.target, program.fd()?.as_fd())?));
        }
        (Program::BtfTracePoint(program), _) => program.attach().map(|_| ())?,
        (Program::RawTracePoint(program), _) => program.attach(part.target).map(|_| ())?,
        (Program::FEntry(program), _) => program.attach().map(|_| ())?,
        (Program::FExit(program), _) => program.attach().map(|_| ())?,
        (Program::KProbe(program), _) => program.attach(part.target, 0).map(|_| ())?,
        (other, _) => unreachable!("the object holds no program of the kind {:?}", other.prog_type()),
    }
    Ok(None)
}

/// Detaches and unloads every program.
pub(super) fn detach(ebpf: &mut Ebpf) {
    for (_, program) in ebpf.programs_mut() {
        unload(program);
    }
}

/// Detaches and unloads a program. One that is not loaded says so, which is as good.
fn unload(program: &mut Program) {
    let _ = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::Iter(program) => program.unload(),
        other => unreachable!("the object holds no program of the kind {:?}", other.prog_type()),
    };
}

/// The line of a verifier's log that says what it objects to: the last one before the statistics.
fn verdict(log: &str) -> Option<&str> {
    const STATISTICS: [&str; 4] =
        ["processed ", "verification time ", "stack depth ", "max_states_per_insn "];
    let says_why = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
    log.lines().map(str::trim).rfind(says_why)
}

/// An error with what it comes from, on one line: the verifier's whole log is for `-v`.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            if !log.trim().is_empty() {
                tracing::debug!("verifier log:\n{log}");
            }
            let why = verdict(&log).map(|line| format!(": {line}")).unwrap_or_default();
            format!("the kernel refused to load the program: {io_error}{why}")
        }
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        }
    }
}
