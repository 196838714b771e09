//! Which process of a proxy is the first of those that run. That by which the kernel half knows a proxy may have ended: whoever
//! starts nginx as a daemon has, and an old master after an upgrade. An agent that is started later would know the proxy by the one
//! that runs.

use std::collections::HashMap;

use proxytrace_ebpf::abi::{self, Process};

/// Of each proxy: the one by which it is known, where that runs, else the first that was forked by none that runs.
pub(super) fn firsts(processes: &[(u32, Process)]) -> HashMap<u64, u32> {
    let proxy_of: HashMap<u32, u64> = processes.iter().map(|(pid, process)| (*pid, process.proxy)).collect();
    let mut firsts: HashMap<u64, (bool, u32)> = HashMap::new();
    for (pid, process) in processes {
        let is_root = *pid == abi::root_pid(process.proxy);
        if is_root || proxy_of.get(&process.parent) != Some(&process.proxy) {
            let own = (!is_root, *pid);
            firsts.entry(process.proxy).and_modify(|first| *first = own.min(*first)).or_insert(own);
        }
    }
    firsts.into_iter().map(|(proxy, (_, pid))| (proxy, pid)).collect()
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::abi::Process;

    use super::firsts;

    #[test]
    fn it_is_the_master_also_where_whoever_started_it_has_ended() {
        // Of one proxy, with pid and parent each; the lower half of its number is the pid of its root.
        let proxy = 7 << 32 | 100;
        type Case = (&'static str, &'static [(u32, u32)], u32);
        let rows: [Case; 5] = [
            ("in the foreground", &[(100, 0), (101, 100), (102, 100)], 100),
            ("a daemon", &[(102, 101), (101, 100), (103, 101)], 101),
            ("an upgrade", &[(100, 0), (101, 100), (200, 100), (201, 200)], 100),
            ("after an upgrade", &[(201, 200), (202, 200), (200, 100)], 200),
            ("workers without a master", &[(103, 100), (102, 100)], 102),
        ];
        for (name, processes, expected) in rows {
            let process =
                |(pid, parent): &(u32, u32)| (*pid, Process { proxy, parent: *parent, ..Process::ZERO });
            let processes: Vec<_> = processes.iter().map(process).collect();
            assert_eq!(firsts(&processes).get(&proxy), Some(&expected), "{name}");
        }
    }
}
