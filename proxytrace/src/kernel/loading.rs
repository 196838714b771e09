//! Loads the programs of hooks before they are attached, on all processors at once: to verify them takes most of the time until a trace is
//! ready.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    sync::Mutex,
    thread,
};

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};
use proxytrace_ebpf::hooks::{Part, Rung};

use super::{
    earlier,
    hooks::{Forced, Hook, Via, plan},
    look,
};

/// There where the kernel has kprobes: each is an event of this kind.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// What decides how hooks are attached.
pub(super) struct Ways<'a> {
    /// The kernel's type information.
    pub(super) btf: &'a Btf,
    /// What was asked for.
    pub(super) forced: &'a [Forced],
    /// Whether the programs are wanted that see what others miss while a process is preempted in them.
    pub(super) has_preemptible_tracepoints: bool,
}

/// Whether a way is worth that its programs are verified: whatever else refuses one shows when it is tried.
///
/// # Errors
/// What is missing, or what would be missed.
pub(super) fn check(via: Via, ways: &Ways<'_>) -> io::Result<()> {
    match via {
        // Both kinds share a guard, so a duplicate would be skipped with the first. Not seen of 1320 connects on a busy 7.3: 49 by
        // tracepoints, 30 by kprobes.
        Via::Kprobe | Via::Tracepoint if ways.has_preemptible_tracepoints => Err(io::Error::other(
            "this kernel preempts such programs, and runs no other on that CPU meanwhile",
        )),
        Via::Kprobe => fs::metadata(KPROBES)
            .map(drop)
            .map_err(|error| io::Error::new(error.kind(), format!("{KPROBES}: {error}"))),
        _ => Ok(()),
    }
}

/// Those of a way's programs that are wanted on this kernel.
pub(super) fn wanted<'a>(rung: &'a Rung, ways: &Ways<'_>) -> impl Iterator<Item = &'a Part> {
    let all = ways.has_preemptible_tracepoints;
    rung.parts.iter().filter(move |part| all || !part.if_preemptible)
}

/// Loads the programs of the best way of each hook that the kernel takes them of. What it refuses is tried once more when it is attached, and
/// the refusal reported then.
pub(super) fn load<'a>(ebpf: &mut Ebpf, hooks: impl Iterator<Item = &'static Hook>, ways: &Ways<'a>) {
    let mut programs: HashMap<String, &mut Program> =
        ebpf.programs_mut().map(|(name, program)| (name.to_owned(), program)).collect();
    let mut tasks: Vec<Task<'_>> = hooks
        .map(|hook| {
            let (rungs, _) = plan(hook, ways.forced);
            let names: HashSet<&str> =
                rungs.iter().flat_map(|rung| rung.parts).map(|part| part.program).collect();
            let own = names.into_iter().filter_map(|name| Some((name, programs.remove(name)?))).collect();
            Task { rungs, programs: own }
        })
        .collect();
    let (look, earlier) = (programs.remove(look::PROGRAM), programs.remove(earlier::PROGRAM));
    // What takes longest is last, and so taken first.
    tasks.sort_by_key(|task| task.rungs.first().map_or(0, |rung| rung.parts.len()));
    let tasks = Mutex::new(tasks);
    thread::scope(|scope| {
        let work = || {
            loop {
                let next = tasks.lock().ok().and_then(|mut tasks| tasks.pop());
                let Some(task) = next else { return };
                task.load(ways);
            }
        };
        let others = thread::available_parallelism().map_or(1, usize::from).min(4) - 1;
        for _ in 0..others {
            scope.spawn(work);
        }
        if let Some(Program::RawTracePoint(program)) = look {
            let _ = program.load();
        }
        if let Some(Program::Iter(program)) = earlier {
            let _ = earlier::load(program, ways.btf);
        }
        work();
    });
}

/// A hook, and the programs of all its ways.
struct Task<'p> {
    rungs: Vec<&'static Rung>,
    programs: HashMap<&'static str, &'p mut Program>,
}

impl Task<'_> {
    fn load(mut self, ways: &Ways<'_>) {
        for rung in self.rungs.iter().filter(|rung| check(rung.via, ways).is_ok()) {
            let mut load = |part: &Part| {
                self.programs
                    .get_mut(part.program)
                    .is_some_and(|program| load_one(program, ways.btf, part).is_ok())
            };
            if wanted(rung, ways).all(&mut load) {
                return;
            }
        }
    }
}

/// Loads a program, unless it is.
pub(super) fn load_one(program: &mut Program, btf: &Btf, part: &Part) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) if program.fd().is_err() => program.load(part.target, btf),
        Program::RawTracePoint(program) if program.fd().is_err() => program.load(),
        Program::FEntry(program) if program.fd().is_err() => program.load(part.target, btf),
        Program::FExit(program) if program.fd().is_err() => program.load(part.target, btf),
        Program::KProbe(program) if program.fd().is_err() => program.load(),
        Program::TracePoint(program) if program.fd().is_err() => program.load(),
        _ => Ok(()),
    }
}
