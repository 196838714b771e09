//! Which objects a process keeps in the kernel, and whether they are still there.

#![expect(unsafe_code, reason = "nix does not know bpf(2)")]

use std::fs;

use nix::errno::Errno;

/// The eBPF objects that a process has descriptors of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objects(Vec<(Kind, u32)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Program,
    Map,
    Link,
}

impl Kind {
    /// Its name in fdinfo, and the number of `BPF_*_GET_FD_BY_ID`.
    const ALL: [(Self, &'static str, libc::c_int); 3] =
        [(Self::Program, "prog_id:", 13), (Self::Map, "map_id:", 14), (Self::Link, "link_id:", 30)];
}

impl Objects {
    /// Those of a running process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut objects = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("read the descriptors").flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            for (kind, field, _) in Kind::ALL {
                let id = text.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok());
                objects.extend(id.map(|id| (kind, id)));
            }
        }
        Self(objects)
    }

    /// Whether there are programs and maps among them.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        [Kind::Program, Kind::Map].iter().all(|wanted| self.0.iter().any(|(kind, _)| kind == wanted))
    }

    /// Those that the kernel still has.
    #[must_use]
    pub fn alive(&self) -> Self {
        Self(self.0.iter().copied().filter(|&(kind, id)| exists(kind, id)).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Asks the kernel for a descriptor; that there is no such object is an answer, everything else a mistake.
fn exists(kind: Kind, id: u32) -> bool {
    let command = Kind::ALL.into_iter().find(|(known, _, _)| *known == kind).expect("a kind").2;
    // union bpf_attr as far as this command reads it: the id, the id after it, flags.
    let attributes = [id, 0, 0];
    // SAFETY: the kernel reads the attributes, which outlive the call, and no more than their size.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(&attributes)) };
    match Errno::result(result) {
        Ok(descriptor) => {
            let _ = nix::unistd::close(i32::try_from(descriptor).expect("a descriptor"));
            true
        }
        Err(Errno::ENOENT) => false,
        Err(error) => panic!("ask for {kind:?} {id}: {error}"),
    }
}
