//! What one scrape shows.

use std::{collections::BTreeMap, fmt::Error};

use proxytrace_ebpf::abi::Row;

use super::{ConfigRead, process::ProcessView};
use crate::{
    model::Waiting,
    watch::{ProxyView, View},
};

/// A hook and how it is attached, as labels.
pub type HookLabels = (&'static str, &'static str);

/// Of what connect times are histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HistogramBy {
    /// Of each upstream of a proxy, over all its addresses.
    #[default]
    Upstream,
    /// Of each address: twice as many series.
    Address,
}

/// What the agent remembers, and who reads that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kept {
    /// What it takes in memory.
    pub bytes: u64,
    /// What it may take.
    pub capacity_bytes: u64,
    /// The time of the oldest record, in seconds since 1970; 0 where there is none.
    pub oldest_seconds: f64,
    /// Lines that its files lack.
    pub unwritten: u64,
    /// Clients that follow its records, and what changes.
    pub readers: [(&'static str, u64); 2],
    /// Records that those missed.
    pub missed: u64,
}

/// What one scrape shows.
#[derive(Debug)]
pub(super) struct Scrape {
    pub(super) view: View,
    pub(super) hooks: Vec<HookLabels>,
    pub(super) histogram_by: HistogramBy,
    pub(super) config: ConfigRead,
    pub(super) kept: Kept,
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

    /// Samples of what waits at each address.
    pub(super) fn each_waiting(
        &self,
        mut sample: impl FnMut(&[&str; 3], &Waiting) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.view.series.keys().try_for_each(|key| {
            let waiting = self.view.waiting.get(key).copied().unwrap_or_default();
            sample(&[&key.proxy, &key.upstream, &key.address], &waiting)
        })
    }

    /// Samples of each histogram, with the values of the labels that distinguish them.
    pub(super) fn each_histogram(
        &self,
        mut sample: impl FnMut(&[&str], &Row) -> Result<(), Error>,
    ) -> Result<(), Error> {
        match self.histogram_by {
            HistogramBy::Address => self.each_address(|labels, series| sample(labels, series)),
            HistogramBy::Upstream => {
                let mut sums: BTreeMap<[&str; 2], Row> = BTreeMap::new();
                let gone =
                    self.view.departed.iter().map(|((proxy, upstream), row)| ([&**proxy, upstream], row));
                let series = self.view.series.iter().map(|(key, row)| ([&*key.proxy, &key.upstream], row));
                for (labels, row) in gone.chain(series) {
                    sums.entry(labels).or_insert(Row::ZERO).add(row);
                }
                sums.iter().try_for_each(|(labels, sum)| sample(labels, sum))
            }
        }
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
