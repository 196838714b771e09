//! Attaches hooks: walks down each one's ways, keeps why a way was refused, and stops at the first that works.

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, KProbe, Program, ProgramError},
};

use super::{
    Error,
    hooks::{Hook, Rung, Via},
};

/// How a hook came out.
#[derive(Clone, Debug)]
pub struct AttachedHook {
    /// The hook.
    pub hook: &'static Hook,
    /// How it is attached, `None` if no way worked.
    pub via: Option<Via>,
    /// The ways that were tried before, and why each was refused.
    pub refusals: Vec<(Via, String)>,
}

/// Attaches each of `hooks` in the best way that works.
///
/// # Errors
/// A required hook could not be attached.
pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, hooks: &'static [Hook]) -> Result<Vec<AttachedHook>, Error> {
    hooks.iter().map(|hook| attach_one(ebpf, btf, hook)).collect()
}

fn attach_one(ebpf: &mut Ebpf, btf: &Btf, hook: &'static Hook) -> Result<AttachedHook, Error> {
    let mut refusals = Vec::new();
    for rung in hook.rungs {
        let Some(program) = ebpf.program_mut(rung.program) else { continue };
        match attach_rung(program, btf, rung) {
            Ok(()) => return Ok(AttachedHook { hook, via: Some(rung.via), refusals }),
            Err(error) => {
                refusals.push((rung.via, reason(&error)));
                unload(program); // one that was loaded but could not be attached is of no use
            }
        }
    }
    if hook.required {
        let reason: Vec<_> =
            refusals.iter().map(|(via, reason)| format!("{}: {reason}", via.name())).collect();
        return Err(Error::Attach { hook: hook.name, reason: reason.join("; "), without: hook.without });
    }
    Ok(AttachedHook { hook, via: None, refusals })
}

fn attach_rung(program: &mut Program, btf: &Btf, rung: &Rung) -> Result<(), ProgramError> {
    match rung.via {
        Via::TpBtf => {
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(rung.target, btf)?;
            program.attach()?;
        }
        Via::Fentry => {
            let program: &mut FEntry = program.try_into()?;
            program.load(rung.target, btf)?;
            program.attach()?;
        }
        Via::Kprobe => {
            let program: &mut KProbe = program.try_into()?;
            program.load()?;
            program.attach(rung.target, 0)?;
        }
    }
    Ok(())
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
        Program::FEntry(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        other => unreachable!("the object holds no program of the kind {:?}", other.prog_type()),
    };
}

/// An error with what it comes from, on one line: the verifier's log is for `-v`.
fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            if !log.trim().is_empty() {
                tracing::debug!("verifier log:\n{log}");
            }
            format!("the kernel refused to load the program: {io_error}")
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
