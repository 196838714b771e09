//! What a host must let us do, and what to say where it does not.

use std::fmt;

use procfs::process::Process;

/// A Linux capability that tracing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    name: &'static str,
    bit: u32,
    why: &'static str,
}

/// CAP_SYS_ADMIN, which includes those below.
const SYS_ADMIN: u32 = 21;

const NEEDED: [Capability; 2] = [
    Capability { name: "CAP_BPF", bit: 39, why: "to load programs and maps" },
    Capability { name: "CAP_PERFMON", bit: 38, why: "to attach them to tracepoints" },
];

/// The capabilities that this process lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(Vec<Capability>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Capability { name, why, .. }) in self.0.iter().enumerate() {
            write!(f, "{}{name} ({why})", if index == 0 { "" } else { " and " })?;
        }
        let names: Vec<_> = self.0.iter().map(|capability| capability.name).collect();
        let plain: Vec<_> = names.iter().map(|name| name.trim_start_matches("CAP_")).collect();
        write!(
            f,
            ": run it as root (sudo proxytrace …), or grant it: AmbientCapabilities={} in a systemd unit, \
             securityContext.capabilities.add: [{}] in Kubernetes, --cap-add {} with a container engine",
            names.join(" "),
            plain.join(", "),
            plain.join(" --cap-add ")
        )
    }
}

/// The capabilities that tracing needs and this process lacks, if any.
///
/// # Errors
/// /proc/self/status could not be read.
pub fn missing_capabilities() -> Result<Option<Missing>, procfs::ProcError> {
    Ok(missing_in(Process::myself()?.status()?.capeff))
}

fn missing_in(effective: u64) -> Option<Missing> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    let missing: Vec<_> =
        NEEDED.into_iter().filter(|capability| !has(capability.bit) && !has(SYS_ADMIN)).collect();
    (!missing.is_empty()).then_some(Missing(missing))
}

/// Whether this process sees the host's pids, as the kernel programs do.
#[must_use]
pub fn in_host_pid_namespace() -> bool {
    /// include/linux/proc_ns.h, PROC_PID_INIT_INO.
    const INITIAL: &str = "pid:[4026531836]";
    // Where it cannot be read there is no /proc, and everything else will say so.
    std::fs::read_link("/proc/self/ns/pid").map_or(true, |link| link.as_os_str() == INITIAL)
}

#[cfg(test)]
mod tests {
    use super::missing_in;

    #[test]
    fn the_message_names_what_is_missing_and_how_to_grant_it() {
        let message = missing_in(1 << 39).unwrap().to_string();
        assert!(
            message.starts_with("CAP_PERFMON (to attach them to tracepoints): run it as root"),
            "{message}"
        );
        assert!(message.contains("AmbientCapabilities=CAP_PERFMON "), "{message}");
        let message = missing_in(0).unwrap().to_string();
        assert!(message.contains("CAP_BPF (to load programs and maps) and CAP_PERFMON"), "{message}");
        assert!(message.contains("[BPF, PERFMON]"), "{message}");
    }

    #[test]
    fn the_two_capabilities_or_sys_admin_are_enough() {
        assert_eq!(missing_in(1 << 38 | 1 << 39), None);
        assert_eq!(missing_in(1 << 21), None);
    }
}
