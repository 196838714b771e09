//! What a host must let us do, and what to say where it does not.

use std::fmt;

use procfs::process::Process;

/// A Linux capability that proxytrace makes use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name in capabilities(7).
    pub name: &'static str,
    /// Its number: the bit in a set of capabilities.
    pub bit: u32,
    /// Whether nothing works without it.
    pub required: bool,
    /// Whether something is not seen without it.
    pub reveals: bool,
    /// What it is needed for.
    pub why: &'static str,
    /// What is lost without it: a sentence by itself, as `doctor` does not say what it is needed for.
    pub without: &'static str,
}

/// All that proxytrace makes use of. CAP_SYS_ADMIN stands in for those that are required.
pub const CAPABILITIES: &[Capability] = &[
    Capability {
        name: "CAP_BPF",
        bit: 39,
        required: true,
        reveals: true,
        why: "to load programs and maps",
        without: "nothing works",
    },
    Capability {
        name: "CAP_PERFMON",
        bit: 38,
        required: true,
        reveals: true,
        why: "to attach them to tracepoints",
        without: "nothing works",
    },
    SYS_PTRACE,
    Capability {
        name: "CAP_SETUID",
        bit: 7,
        required: false,
        reveals: true,
        why: "to read the files of a proxy as the user of its master, with no other rights",
        without: "upstreams of proxies of other users than that of proxytrace are called unknown",
    },
    Capability {
        name: "CAP_SETGID",
        bit: 6,
        required: false,
        reveals: true,
        why: "to read the files of a proxy with the groups of its master",
        without: "upstreams of proxies with other groups than proxytrace has are called unknown",
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        bit: 2,
        required: false,
        reveals: true,
        why: "to see whether processes of others run set-user-ID programs, and to stand for the rights of a master that may read everybody's files, as root may",
        without: "the upstreams of proxies of other users are called unknown",
    },
    SYS_ADMIN,
    Capability {
        name: "CAP_KILL",
        bit: 5,
        required: false,
        reveals: false,
        why: "to end a process that takes too long to read for a proxy, and runs as that proxy's user",
        without: "a process that takes too long to read for a proxy ends itself some seconds later, unless the user of that proxy stops it",
    },
    SYS_RESOURCE,
];

/// For old kernels; where it is missing, making the maps fails and says so.
pub const SYS_RESOURCE: Capability = Capability {
    name: "CAP_SYS_RESOURCE",
    bit: 24,
    required: false,
    reveals: false,
    why: "to raise the limit of locked memory, which kernels before 5.11 charge maps to",
    without: "nothing from 5.11 on; before, LimitMEMLOCK=infinity in the systemd unit does the same",
};

/// For namespaces of others. Whether a proxy has some in which names are looked up is tried, where one runs.
pub const SYS_ADMIN: Capability = Capability {
    name: "CAP_SYS_ADMIN",
    bit: 21,
    required: false,
    reveals: false,
    why: "to look up host names in the network namespace of a proxy, and to read in its user namespace, where those are not its own",
    without: "of proxies with namespaces of their own, as in containers, upstreams that are configured by host name are not named, and files are read without what capabilities allow there",
};

/// For reading /proc.
pub const SYS_PTRACE: Capability = Capability {
    name: "CAP_SYS_PTRACE",
    bit: 19,
    required: false,
    reveals: true,
    why: "to see processes of others where /proc is mounted with hidepid, and to read their configurations",
    without: "a proxy that /proc hides is not found where it already runs; one that starts later is, but called by the name that was asked for; upstreams of proxies of other users are called unknown",
};

impl Capability {
    /// The capability in a set.
    #[must_use]
    pub const fn mask(self) -> u64 {
        1 << self.bit
    }
}

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
    Ok(missing_in(held()?))
}

/// The capabilities that this process may use now: its effective set, a bit each.
///
/// # Errors
/// /proc/self/status could not be read.
pub fn held() -> Result<u64, procfs::ProcError> {
    Ok(Process::myself()?.status()?.capeff)
}

fn missing_in(effective: u64) -> Option<Missing> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    let is_missing =
        |capability: &&Capability| capability.required && !has(capability.bit) && !has(SYS_ADMIN.bit);
    let missing: Vec<_> = CAPABILITIES.iter().filter(is_missing).copied().collect();
    (!missing.is_empty()).then_some(Missing(missing))
}

#[cfg(test)]
mod tests {
    use super::{CAPABILITIES, missing_in};

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

    /// `doctor` shows it alone.
    #[test]
    fn what_is_lost_names_what_it_is_about() {
        for capability in CAPABILITIES {
            let words: Vec<_> = capability.without.split([' ', ',']).collect();
            assert!(!["such", "there"].contains(&words[0]), "{}: {}", capability.name, capability.without);
            assert!(!words.contains(&"its"), "{}: {}", capability.name, capability.without);
        }
    }

    #[test]
    fn the_two_capabilities_or_sys_admin_are_enough() {
        assert_eq!(missing_in(1 << 38 | 1 << 39), None);
        assert_eq!(missing_in(1 << 21), None);
    }
}
