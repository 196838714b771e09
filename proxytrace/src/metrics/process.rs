//! The agent's own process, by the names that Prometheus clients give.

use procfs::process::{LimitValue, Process};

use super::table::{self, Metric};

/// The process at one moment.
#[derive(Debug)]
pub(super) struct ProcessView {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    started_seconds: f64,
    open_fds: u64,
    max_fds: u64,
}

impl ProcessView {
    /// What /proc says of it; `None` where /proc is not readable.
    pub(super) fn now() -> Option<Self> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        let ticks = procfs::ticks_per_second() as f64;
        let max_fds = match process.limits().ok()?.max_open_files.soft_limit {
            LimitValue::Unlimited => u64::MAX,
            LimitValue::Value(limit) => limit,
        };
        Some(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss * procfs::page_size(),
            virtual_bytes: stat.vsize,
            started_seconds: procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks,
            open_fds: process.fd_count().ok()? as u64,
            max_fds,
        })
    }

    pub(super) fn samples(&self) -> [(&'static Metric, f64); 6] {
        [
            (&table::PROCESS_CPU, self.cpu_seconds),
            (&table::PROCESS_RESIDENT, self.resident_bytes as f64),
            (&table::PROCESS_VIRTUAL, self.virtual_bytes as f64),
            (&table::PROCESS_START, self.started_seconds),
            (&table::PROCESS_OPEN_FDS, self.open_fds as f64),
            (&table::PROCESS_MAX_FDS, self.max_fds as f64),
        ]
    }
}
