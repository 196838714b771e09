//! Enters what is to be traced into the tables: program names, and the processes that run already.

use std::collections::HashSet;

use proxytrace_ebpf::abi::{Loss, NAME_ENTERS, Owner, Process, Proxy, Share};

use super::{
    Error, Tracer,
    clock::boot_ns,
    maps::Inserted,
    processes::{self, Wanted},
};
use crate::programs;

impl Tracer {
    pub(super) fn set_names(&mut self, wanted: &[String]) -> Result<(), Error> {
        // With processes given by pid, executing nginx anew is a reload still.
        self.names.insert(&comm(programs::NGINX), &0)?;
        wanted.iter().try_for_each(|name| self.names.insert(&comm(name), &NAME_ENTERS))
    }

    /// Enters the processes that already run. Repeated until nothing new is found: a child forked before its parent
    /// was entered is in /proc by the next turn, one forked after that is entered by the kernel half.
    pub(super) fn enter_running(&mut self, wanted: &Wanted) -> Result<(), Error> {
        let boot_ns = boot_ns();
        let mut seen = HashSet::new();
        loop {
            let mut is_complete = true;
            for (pid, process) in wanted.select(&processes::running()?, boot_ns) {
                if self.processes.get(&pid).is_some() || !seen.insert(pid) {
                    continue;
                }
                is_complete = false;
                // What the kernel half knows of its parent by now is newer.
                let process = match self.processes.get(&process.parent) {
                    Some(Process { proxy, owner, generation, .. }) => {
                        Process { proxy, owner, generation, ..process }
                    }
                    None => process,
                };
                self.enter(pid, process)?;
                if processes::is_ending(pid) && self.processes.remove(&pid)? {
                    // Perhaps its exit was over before it was entered, and went unseen. Else whoever removes it counts.
                    self.owners.count(process.owner, Share::Processes, -1)?;
                }
            }
            if is_complete {
                return Ok(());
            }
        }
    }

    /// Enters a process and its proxy, where there is capacity for them; otherwise that is counted.
    fn enter(&mut self, pid: u32, process: Process) -> Result<(), Error> {
        let Process { proxy, owner, .. } = process;
        let standing = if self.proxies.get(&proxy).is_some() || self.enter_proxy(proxy, owner)? {
            Process::STANDS
        } else {
            Process::REFUSED
        };
        if !self.owners.may_take(owner, Share::Processes) {
            self.refused[Loss::ProcessTableFull as usize] += 1;
            return Ok(());
        }
        match self.processes.insert_new(&pid, &Process { standing, ..process })? {
            Inserted::New => self.owners.count(owner, Share::Processes, 1)?,
            Inserted::There => {} // by the kernel half, in between
            Inserted::Full => self.refused[Loss::ProcessTableFull as usize] += 1,
        }
        Ok(())
    }

    /// Enters a proxy that runs already; whether it did nothing but wait so far is not known.
    fn enter_proxy(&mut self, proxy: u64, owner: Owner) -> Result<bool, Error> {
        if self.owners.may_take(owner, Share::Proxies)
            && self.proxies.insert_new(&proxy, &Proxy { owner, ..Proxy::ZERO })? == Inserted::New
        {
            self.owners.count(owner, Share::Proxies, 1)?;
            return Ok(true);
        }
        self.refused[Loss::ProxyTableFull as usize] += 1;
        Ok(false)
    }
}

/// A program name as the kernel keeps it: 15 bytes, zero-filled.
fn comm(name: &str) -> [u8; 16] {
    let mut comm = [0; 16];
    let length = name.len().min(15);
    comm[..length].copy_from_slice(&name.as_bytes()[..length]);
    comm
}
