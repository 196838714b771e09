//! The agent's own process.

use procfs::process::{LimitValue, Process};

/// The process at one moment.
#[derive(Debug)]
pub(super) struct ProcessView {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) started_seconds: f64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
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
}
