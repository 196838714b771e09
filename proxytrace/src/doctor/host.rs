//! Asks the host, a question a function.

use std::{fs, path::Path};

use super::{confined, report::Check};
use crate::kernel::{
    self, btf,
    requirements::{self, CAPABILITIES, Capability, SYS_PTRACE, SYS_RESOURCE},
};

/// The kernel's release.
pub(super) fn kernel() -> anyhow::Result<String> {
    Ok(nix::sys::utsname::uname()?.release().to_string_lossy().into_owned())
}

/// Everything but names and hooks, in the order in which one thing makes the next possible.
pub(super) fn checks() -> anyhow::Result<Vec<Check>> {
    let mut checks = vec![Check::ok("kernel", format!("{} {}", kernel()?, std::env::consts::ARCH))];
    checks.push(type_information());
    checks.push(lockdown());
    checks.push(capabilities()?);
    checks.extend(confined::checks());
    checks.push(proc()?);
    checks.push(control_groups());
    Ok(checks)
}

fn type_information() -> Check {
    const NAME: &str = "type information";
    match kernel::check_type_information() {
        Ok(bytes) => Check::ok(NAME, format!("{}, {:.1} MB", btf::PATH, bytes as f64 / 1e6)),
        Err(error) => Check::cannot(NAME, error.to_string(), "use a kernel of 5.10 or newer with BTF"),
    }
}

/// Under `integrity` hooks may be refused, which they themselves show.
fn lockdown() -> Check {
    const NAME: &str = "lockdown";
    // `none [integrity] confidentiality`
    let Ok(text) = fs::read_to_string("/sys/kernel/security/lockdown") else {
        return Check::ok(
            NAME,
            "unknown: /sys/kernel/security is not mounted, or the kernel has no lockdown",
        );
    };
    let mode = text.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    if mode != "confidentiality" {
        return Check::ok(NAME, mode);
    }
    let costs = "programs may not read the kernel's memory through a helper: connect() cannot be hooked";
    Check::lacks(NAME, mode, costs, "boot with lockdown=integrity, or without it")
}

fn capabilities() -> anyhow::Result<Check> {
    const NAME: &str = "capabilities";
    if let Some(missing) = requirements::missing_capabilities()? {
        return Ok(Check::cannot(NAME, format!("missing {missing}"), "grant what is missing"));
    }
    Ok(optional_capabilities(NAME, requirements::held()?))
}

/// What is lost without the capabilities that tracing itself does not need.
fn optional_capabilities(name: &'static str, held: u64) -> Check {
    let names = |wanted: &[&Capability]| wanted.iter().map(|one| one.name).collect::<Vec<_>>().join(", ");
    let (has, lacks): (Vec<_>, Vec<_>) =
        CAPABILITIES.iter().partition(|capability| held & capability.mask() != 0);
    // A required one is there, or CAP_SYS_ADMIN in its place.
    let is_missed = |capability: &&Capability| !capability.required && **capability != SYS_RESOURCE;
    let lacks: Vec<_> = lacks.into_iter().filter(is_missed).collect();
    if lacks.is_empty() {
        return Check::ok(name, names(&has));
    }
    let costs = lacks.iter().map(|one| format!("without {}: {}", one.name, one.without));
    let costs = costs.collect::<Vec<_>>().join("; ");
    let fix = format!("grant {}", names(&lacks));
    let check = if lacks.iter().any(|one| one.reveals) { Check::lacks } else { Check::costs };
    check(name, names(&has), costs, fix)
}

/// Mounted with `hidepid`, /proc shows processes of others only to whom it may.
fn proc() -> anyhow::Result<Check> {
    const NAME: &str = "/proc";
    let mounts = procfs::process::Process::myself()?.mountinfo()?;
    let proc = mounts.iter().rev().find(|mount| mount.mount_point == Path::new("/proc"));
    let hides = proc.and_then(|mount| mount.super_options.get("hidepid")?.clone());
    Ok(match hides.as_deref() {
        None | Some("0" | "off") => Check::ok(NAME, "shows every process"),
        Some(_) if requirements::held()? & SYS_PTRACE.mask() != 0 => {
            Check::ok(NAME, "hides processes of others, but not from CAP_SYS_PTRACE")
        }
        Some(value) => {
            let fix = "grant CAP_SYS_PTRACE";
            Check::lacks(
                NAME,
                format!("hides processes of others (hidepid={value})"),
                SYS_PTRACE.without,
                fix,
            )
        }
    })
}

/// Proxies get their names from the control group of their unit or container.
fn control_groups() -> Check {
    const NAME: &str = "control groups";
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match (text.lines().any(|line| line.starts_with("0::")), text.lines().count()) {
        (_, 0) => {
            let costs = "proxies are called by their process's name, not by their unit or container";
            Check::lacks(NAME, "none", costs, "a kernel with CONFIG_CGROUPS")
        }
        (true, 1) => Check::ok(NAME, "version 2"),
        (true, _) => Check::ok(NAME, "versions 1 and 2"),
        (false, _) => Check::ok(NAME, "version 1"),
    }
}

#[cfg(test)]
mod tests {
    use super::{checks, optional_capabilities};
    use crate::{doctor::report::State, kernel::requirements::CAPABILITIES};

    #[test]
    fn every_question_has_an_answer() {
        let checks = checks().unwrap();
        assert!(checks.iter().all(|check| !check.found.is_empty()), "{checks:?}");
        let names: Vec<_> = checks.iter().map(|check| check.name).collect();
        assert!(names.starts_with(&["kernel", "type information", "lockdown"]), "{names:?}");
    }

    #[test]
    fn a_capability_that_is_missing_is_named_with_what_is_lost() {
        let all = CAPABILITIES.iter().fold(0, |held, capability| held | capability.mask());
        assert_eq!(optional_capabilities("capabilities", all).state, State::Ok);
        for capability in CAPABILITIES {
            let check = optional_capabilities("capabilities", all & !capability.mask());
            assert!(!check.found.contains(capability.name), "{check:?}");
            let is_missed = !capability.required && capability.name != "CAP_SYS_RESOURCE";
            let expected = match (is_missed, capability.reveals) {
                (false, _) => State::Ok,
                (true, false) => State::Costs,
                (true, true) => State::Lacks,
            };
            assert_eq!(check.state, expected, "{check:?}");
            if is_missed {
                let costs = format!("without {}: {}", capability.name, capability.without);
                assert_eq!((check.costs, check.fix), (costs, format!("grant {}", capability.name)));
            }
        }
    }
}
