//! Which of the processes that already run are traced. Pure but for what reads /proc: [`running`] and [`expected_connections`].

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use proxytrace_ebpf::abi::{Owner, Process, proxy_id};

/// A process, as /proc shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its pid.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its name: at most 15 bytes, what the kernel calls comm.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
}

/// All processes that run now.
///
/// # Errors
/// /proc could not be read.
pub fn running() -> Result<Vec<Running>, procfs::ProcError> {
    let processes = procfs::process::all_processes()?;
    // A process that ends while it is read is none, nor is one that only waits for its parent to ask.
    Ok(processes
        .filter_map(|process| {
            let process = process.ok()?;
            let stat = process.stat().ok().filter(|stat| stat.state != 'Z')?;
            Some(Running {
                pid: stat.pid.cast_unsigned(),
                parent: stat.ppid.cast_unsigned(),
                name: stat.comm,
                owner: owner(&process)?,
            })
        })
        .collect())
}

/// Whether a process is gone or will be at once: the kernel half may have seen it exit. It stays in /proc until its parent takes note
/// of its end. The flag is set before the tracepoint `sched_process_exit` (`do_exit()`); a thread that ends alone leaves others behind.
pub fn is_ending(pid: u32) -> bool {
    const PF_EXITING: u32 = 4; // include/linux/sched.h
    let stat = procfs::process::Process::new(pid.cast_signed()).and_then(|process| process.stat());
    stat.is_ok_and(|stat| stat.flags & PF_EXITING != 0 && stat.num_threads <= 1)
        || !Path::new(&format!("/proc/{pid}")).exists()
}

/// Whose a process is, as the kernel half finds it out as well (`Task::owner`).
fn owner(process: &procfs::process::Process) -> Option<Owner> {
    Some(match process.status().ok()?.ruid {
        0 => Owner::new(0, pid_namespace(process)?),
        uid => Owner::new(uid, 0),
    })
}

/// The inode number of the pid namespace that a process is in. By its path: to list the directory of another user's
/// namespaces takes CAP_DAC_READ_SEARCH, which an agent may lack, and root's proxies would be left out.
fn pid_namespace(process: &procfs::process::Process) -> Option<u32> {
    Some(process.open_relative("ns/pid").ok()?.metadata().ok()?.ino() as u32)
}

/// How many upstream connections the proxies among the processes that run may have at a time, as far as that shows from outside.
pub fn expected_connections(wanted: &Wanted) -> u64 {
    let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let given: HashSet<String> = wanted.pids.iter().filter_map(comm).collect();
    let is_wanted =
        |name: &str| given.contains(name) || wanted.names.iter().any(|wanted| wanted == name.trim_end());
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let connections = |pid: u32| {
        let process = procfs::process::Process::new(pid.cast_signed()).ok()?;
        let limit = match process.limits().ok()?.max_open_files.soft_limit {
            procfs::process::LimitValue::Value(limit) => limit,
            procfs::process::LimitValue::Unlimited => u64::MAX,
        };
        Some(connections_of(limit, process.status().ok()?.fdsize.into()))
    };
    pids.filter(|pid| comm(pid).is_some_and(|name| is_wanted(&name))).filter_map(connections).sum()
}

/// Of a process that may have so many descriptors at a time, and whose table of them has grown to so many. A proxy has one
/// for its client for each that it has for an upstream.
///
/// Who has set a limit has thought of how many connections there will be. One of a million is what container engines set for
/// everybody; then the table, which grows with what is used and never shrinks, says more.
fn connections_of(limit: u64, table: u64) -> u64 {
    const FOR_EVERYBODY: u64 = 500_000;
    (if limit < FOR_EVERYBODY { limit } else { table }) / 2
}

/// The kernel keeps 15 bytes of a process's name.
#[must_use]
pub fn cut_to_comm(name: &str) -> &str {
    let mut end = name.len().min(15);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// What to trace.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names, cut to what the kernel keeps of them.
    pub names: Vec<String>,
    /// Processes, each with its descendants.
    pub pids: Vec<u32>,
}

impl Wanted {
    /// The processes among `running` that are wanted, parents before their children. The topmost process of a tree
    /// is the root of a proxy.
    #[must_use]
    pub fn select(&self, running: &[Running], boot_ns: u64) -> Vec<(u32, Process)> {
        let children = children(running);
        let names: HashMap<u32, &str> =
            running.iter().map(|process| (process.pid, process.name.as_str())).collect();
        let is_named =
            |pid: u32| names.get(&pid).is_some_and(|name| self.names.iter().any(|wanted| wanted == name));
        let is_wanted = |pid: u32| self.pids.contains(&pid) || is_named(pid);
        let roots = running.iter().filter(|process| is_wanted(process.pid) && !is_wanted(process.parent));

        let mut selected = Vec::new();
        let mut seen = HashSet::new();
        // By pid first: below such a process every descendant is wanted, whatever its name.
        let (by_pid, by_name): (Vec<_>, Vec<_>) = roots.partition(|process| self.pids.contains(&process.pid));
        for root in by_pid.into_iter().chain(by_name) {
            let kept = if self.pids.contains(&root.pid) { Process::KEPT } else { 0 };
            let (proxy, owner) = (proxy_id(root.pid, boot_ns), root.owner);
            let process = Process { proxy, owner, flags: kept, ..Process::ZERO };
            let mut open = vec![(root.pid, process)];
            while let Some((pid, process)) = open.pop() {
                let kept =
                    process.flags & Process::KEPT | if self.pids.contains(&pid) { Process::KEPT } else { 0 };
                if (kept == 0 && !is_named(pid)) || !seen.insert(pid) {
                    continue;
                }
                let flags = kept | if is_named(pid) { Process::NAMED } else { 0 };
                selected.push((pid, Process { flags, ..process }));
                let below = children.get(&pid).map_or(&[][..], Vec::as_slice);
                open.extend(
                    below.iter().map(|&child| (child, Process { parent: pid, flags: kept, ..process })),
                );
            }
        }
        give_roles(&mut selected);
        selected
    }
}

fn children(running: &[Running]) -> HashMap<u32, Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in running {
        children.entry(process.parent).or_default().push(process.pid);
    }
    children
}

/// Who has children is a master, and who has none, below one, a worker.
fn give_roles(selected: &mut [(u32, Process)]) {
    let parents: HashSet<u32> = selected.iter().map(|(_, process)| process.parent).collect();
    for (pid, process) in selected {
        process.flags |= match (parents.contains(pid), process.parent) {
            (true, _) => Process::PARENT,
            (false, 0) => 0,
            (false, _) => Process::WORKER | Process::STARTED,
        };
    }
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::abi::{Owner, Process, proxy_id};

    use super::{Running, Wanted, connections_of, cut_to_comm, is_ending};

    #[test]
    fn a_name_is_cut_as_the_kernel_cuts_it() {
        assert_eq!(cut_to_comm("a-rather-long-name"), "a-rather-long-n");
        assert_eq!(cut_to_comm("fourteen-plus-\u{e4}"), "fourteen-plus-");
    }

    #[test]
    fn a_process_that_its_parent_has_not_waited_for_is_ending_and_one_that_runs_is_not() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(!is_ending(child.id()) && !is_ending(std::process::id()));
        drop(child.stdin.take());
        let start = std::time::Instant::now();
        while !is_ending(child.id()) {
            assert!(start.elapsed().as_secs() < 10, "it ends when its input does");
        }
        assert!(std::path::Path::new(&format!("/proc/{}", child.id())).exists(), "nobody has waited for it");
        child.wait().unwrap();
        assert!(is_ending(child.id()));
    }

    #[test]
    fn a_process_may_have_half_as_many_connections_as_descriptors() {
        let check = |limit: u64, table: u64, expected: u64| {
            assert_eq!(connections_of(limit, table), expected, "limit {limit}, table {table}");
        };
        check(1_024, 64, 512);
        check(65_536, 256, 32_768);
        check(1_048_576, 256, 128);
        check(u64::MAX, 32_768, 16_384);
    }

    /// Processes as `pid parent name`, what is wanted, and what must come out as `pid proxy's root flags`.
    fn check(running: &[(u32, u32, &str)], names: &[&str], pids: &[u32], expected: &[(u32, u32, u32)]) {
        let running: Vec<_> = running
            .iter()
            .map(|&(pid, parent, name)| Running {
                pid,
                parent,
                name: name.to_owned(),
                owner: Owner::HOST_ROOT,
            })
            .collect();
        let wanted =
            Wanted { names: names.iter().map(|&name| name.to_owned()).collect(), pids: pids.to_vec() };
        let mut selected: Vec<_> = wanted
            .select(&running, 7 << 20)
            .into_iter()
            .map(|(pid, process)| (pid, process.proxy, process.flags))
            .collect();
        selected.sort_unstable();
        let expected: Vec<_> =
            expected.iter().map(|&(pid, root, flags)| (pid, proxy_id(root, 7 << 20), flags)).collect();
        assert_eq!(selected, expected);
    }

    const NGINX: &[(u32, u32, &str)] = &[
        (1, 0, "systemd"),
        (10, 1, "nginx"),
        (11, 10, "nginx"),
        (12, 10, "nginx"),
        (13, 10, "logger"),
        (20, 1, "bash"),
        (21, 20, "nginx"),
        (22, 21, "nginx"),
        (30, 20, "curl"),
    ];

    const WORKER: u32 = Process::WORKER | Process::STARTED;

    #[test]
    fn each_tree_of_the_name_is_a_proxy() {
        let (master, worker) = (Process::NAMED | Process::PARENT, Process::NAMED | WORKER);
        let expected =
            [(10, 10, master), (11, 10, worker), (12, 10, worker), (21, 21, master), (22, 21, worker)];
        check(NGINX, &["nginx"], &[], &expected);
    }

    #[test]
    fn a_pid_brings_all_its_descendants() {
        let (master, worker) = (Process::KEPT | Process::PARENT, Process::KEPT | WORKER);
        check(NGINX, &[], &[20], &[(20, 20, master), (21, 20, master), (22, 20, worker), (30, 20, worker)]);
    }

    #[test]
    fn a_tree_that_is_wanted_by_pid_and_by_name_is_one_proxy() {
        let both = Process::KEPT | Process::NAMED;
        let named = Process::NAMED;
        let expected = [
            (10, 10, named | Process::PARENT),
            (11, 10, named | WORKER),
            (12, 10, named | WORKER),
            (21, 21, both | Process::PARENT),
            (22, 21, both | WORKER),
        ];
        check(NGINX, &["nginx"], &[21], &expected);
        check(NGINX, &[], &[], &[]);
    }

    #[test]
    fn root_owns_by_its_pid_namespace_and_others_by_their_uid_alone() {
        let own = procfs::process::Process::myself().unwrap();
        let inode = std::fs::read_link("/proc/self/ns/pid").unwrap();
        let inode: String = inode.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let uid = nix::unistd::getuid().as_raw();
        assert_eq!(super::owner(&own), Some(Owner::new(uid, inode.parse().unwrap())));
        assert_eq!(Owner::new(65534, 7), Owner { uid: 65534, pid_namespace: 0 });
        assert_ne!(Owner::new(0, 7), Owner::HOST_ROOT);
    }
}
