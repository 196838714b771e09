//! What a metric is, and how its samples are written.

use std::{borrow::Cow, fmt::Error};

use prometheus_client::{
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::scrape::Scrape;
use crate::escape;

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only ever rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution.
    Histogram,
    /// Always 1: the labels hold the information.
    Info,
}

impl Kind {
    /// The type as the metrics library knows it.
    const fn of_library(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    /// Its name in the text format, `_total` and `_info` included.
    pub(super) name: &'static str,
    /// What kind of number it is.
    pub(super) kind: Kind,
    /// Its labels.
    pub(super) labels: &'static [&'static str],
    /// What it counts: a sentence without its full stop, which the encoder adds.
    pub(super) help: &'static str,
    /// Writes its samples.
    pub(super) sample: fn(&Scrape, &mut Family<'_>) -> Result<(), Error>,
}

impl Metric {
    /// The name of its family in OpenMetrics, where `_total` and `_info` belong to the sample.
    pub(super) fn family(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }

    /// Writes what a scrape shows of it.
    pub(super) fn encode(&self, scrape: &Scrape, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = encoder.encode_descriptor(self.family(), self.help, None, self.kind.of_library())?;
        (self.sample)(scrape, &mut Family { encoder, metric: self })
    }
}

/// The samples of a metric, while they are written.
pub(super) struct Family<'a> {
    encoder: MetricEncoder<'a>,
    metric: &'a Metric,
}

impl Family<'_> {
    pub(super) fn count(&mut self, values: &[&str], n: u64) -> Result<(), Error> {
        let is_counter = self.metric.kind == Kind::Counter;
        self.sample(values, |encoder| {
            if is_counter {
                encoder.encode_counter::<NoLabelSet, _, u64>(&n, None)
            } else {
                encoder.encode_gauge(&(n as f64))
            }
        })
    }

    pub(super) fn number(&mut self, values: &[&str], x: f64) -> Result<(), Error> {
        let is_counter = self.metric.kind == Kind::Counter;
        self.sample(values, |encoder| {
            if is_counter {
                encoder.encode_counter::<NoLabelSet, _, u64>(&x, None)
            } else {
                encoder.encode_gauge(&x)
            }
        })
    }

    pub(super) fn histogram(
        &mut self,
        values: &[&str],
        sum: f64,
        count: u64,
        buckets: &[(f64, u64)],
    ) -> Result<(), Error> {
        self.sample(values, |encoder| encoder.encode_histogram::<NoLabelSet>(sum, count, buckets, None))
    }

    pub(super) fn info(&mut self, values: &[&str]) -> Result<(), Error> {
        self.encoder.encode_info(&self.labels(values).as_slice())
    }

    fn sample(
        &mut self,
        values: &[&str],
        write: impl FnOnce(&mut MetricEncoder) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let labels = self.labels(values);
        if labels.is_empty() {
            return write(&mut self.encoder);
        }
        write(&mut self.encoder.encode_family(&labels.as_slice())?)
    }

    /// The labels with their values, which may be of others' making. A histogram may lack the last one.
    fn labels<'v>(&self, values: &[&'v str]) -> Vec<(&'static str, Cow<'v, str>)> {
        let lacking = self.metric.labels.len().checked_sub(values.len());
        debug_assert!(
            lacking == Some(0) || (lacking == Some(1) && self.metric.kind == Kind::Histogram),
            "a value for each label of {}",
            self.metric.name
        );
        self.metric.labels.iter().copied().zip(values.iter().copied().map(escape::label)).collect()
    }
}
