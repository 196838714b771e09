//! What one scrape shows.

use std::fmt::Error;

use proxytrace_ebpf::abi::Row;

use super::{ConfigRead, process::ProcessView};
use crate::watch::{ProxyView, View};

/// A hook and how it is attached, as labels.
pub type HookLabels = (&'static str, &'static str);

/// What one scrape shows.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) view: View,
    pub(super) hooks: Vec<HookLabels>,
    pub(super) config: ConfigRead,
    /// `None` where /proc is not readable.
    pub(super) process: Option<ProcessView>,
}

impl Scrape {
    /// Samples of each address of an upstream of a proxy, with the values of these three labels.
    pub(super) fn each_address(
        &self,
        mut sample: impl FnMut(&[&str; 3], &Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.view
            .series
            .iter()
            .try_for_each(|(key, series)| sample(&[&key.proxy, &key.upstream, &key.address], series))
    }

    /// Samples of each proxy, with its name.
    pub(super) fn each_proxy(
        &self,
        mut sample: impl FnMut(&str, &ProxyView) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.view.proxies.iter().try_for_each(|(name, proxy)| sample(name, proxy))
    }

    /// A sample of the agent's own process.
    pub(super) fn of_process(
        &self,
        sample: impl FnOnce(&ProcessView) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.process.as_ref().map_or(Ok(()), sample)
    }

    /// Boot time in nanoseconds as seconds since 1970; 0 for never.
    pub(super) fn time(&self, boot_ns: u64) -> f64 {
        if boot_ns == 0 { 0.0 } else { self.view.clock.at(boot_ns).as_duration().as_secs_f64() }
    }
}
