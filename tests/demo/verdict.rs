//! Whether proxytrace missed anything: what users got against its records and metrics, and who noticed when.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use jiff::Timestamp;
use proxytrace_tests::metrics::{Account, Metrics};
use proxytrace_tests::proxytrace::Record;

use crate::failures::{RIGHT_PORT, Seen};
use crate::live::Live;
use crate::timeline::{self, Sighting};

/// A trace that speaks later than this has not done its job: the kernel sends a SYN again after one second.
const PROMPT: Duration = Duration::from_secs(2);

/// Everything that proxytrace has said.
pub(crate) struct Evidence {
    pub(crate) records: Vec<Record>,
    pub(crate) metrics: Metrics,
    pub(crate) live: Live,
}

impl Evidence {
    /// Prints a timeline per failure, and gives what is wrong with them.
    pub(crate) fn judge(&self, healthy: &[u16], failures: &[Seen]) -> Result<Vec<String>> {
        let mut missed = Missed::default();
        missed.unless_equal("users that got 200 while all was well", &count(healthy, 200), &healthy.len());
        for seen in failures {
            self.timeline(seen, &mut missed)?;
            self.records_of(seen, &mut missed);
            self.findings_of(seen, &mut missed);
        }
        self.metrics_of(healthy, failures, &mut missed);
        Ok(missed.0)
    }

    fn timeline(&self, seen: &Seen, missed: &mut Missed) -> Result<()> {
        let Seen { failure, address, .. } = seen;
        let begun: Vec<SystemTime> = self.connects(seen).map(begin).collect::<Result<_>>()?;
        let first = begun.into_iter().min();
        let trace = self.live.first_with(address, seen.since);
        let sightings = [
            (format!("nginx begins the first connect that fails ({}), to {address}", failure.outcome), first),
            ("trace says so".to_owned(), trace),
            (
                format!("trace names what is wrong ({})", failure.finding),
                self.live.first_with(&format!("FINDING  {}: ", failure.finding), seen.since),
            ),
            (format!("the metric shows it ({})", failure.metric), seen.metric),
            (format!("nginx's error log says so ({}...)", failure.in_log), seen.log),
        ];
        for (what, at) in &sightings {
            if at.is_none() {
                missed.push(format!("{}: {what}: never", failure.title));
            }
        }
        if let (Some(first), Some(trace)) = (first, trace) {
            let took = trace.duration_since(first).unwrap_or_default();
            if took > PROMPT {
                missed.push(format!("{}: trace spoke only after {took:?}", failure.title));
            }
        }
        let sightings = sightings.map(|(what, at)| Sighting { what, at });
        print!("\n{}", timeline::render(failure.title, sightings.into())?);
        Ok(())
    }

    /// Each finding was raised once, and cleared once all was well again.
    fn findings_of(&self, seen: &Seen, missed: &mut Missed) {
        for state in ["raised", "cleared"] {
            let findings = self.records.iter().filter(|record| record.finding == seen.failure.finding);
            let what = format!("times that {} was {state}", seen.failure.finding);
            missed.unless_equal(&what, &findings.filter(|record| record.state == state).count(), &1);
        }
    }

    fn records_of(&self, seen: &Seen, missed: &mut Missed) {
        let (failure, users) = (seen.failure, seen.failure.users);
        missed.unless_equal(
            &format!("users that got {} from {}", failure.status, failure.title),
            &count(&seen.statuses, failure.status),
            &users,
        );
        missed.unless_equal(
            &format!("records of connects to {} that were {}", seen.address, failure.outcome),
            &self.connects(seen).count(),
            &users,
        );
        if failure.stalls {
            let stalled = self.records.iter().filter(|record| record.kind == "stalled");
            missed.unless_equal(
                &format!("records of stalled connects to {}", seen.address),
                &stalled.filter(|record| record.address == seen.address).count(),
                &users,
            );
        }
    }

    /// The ledger of every address, exactly.
    fn metrics_of(&self, healthy: &[u16], failures: &[Seen], missed: &mut Missed) {
        // The proxy's name depends on where the demo runs: in a systemd unit, in a container, or in a plain shell.
        let proxy = self.records.iter().map(|record| record.proxy.as_str()).find(|proxy| !proxy.is_empty());
        for seen in failures {
            let failed = seen.failure.users as u64;
            let established = if seen.failure.port == RIGHT_PORT { healthy.len() as u64 } else { 0 };
            let should = Account {
                attempts: established + failed,
                established,
                failures: BTreeMap::from([(seen.failure.outcome.to_owned(), failed)]),
                in_flight: 0,
            };
            let is = self.metrics.account(proxy.unwrap_or_default(), &seen.address);
            missed.unless_equal(&format!("the metrics of {}", seen.address), &is, &should);
        }
    }

    fn connects(&self, seen: &Seen) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| {
            record.kind == "connect"
                && record.address == seen.address
                && record.outcome == seen.failure.outcome
        })
    }
}

/// When the attempt began: a record's time is that of its end.
fn begin(record: &Record) -> Result<SystemTime> {
    let time = record.time.as_deref().context("a record without a time")?;
    let end: Timestamp = time.parse().with_context(|| format!("the time of a record: {time}"))?;
    Ok(SystemTime::from(end) - record.duration())
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|&&got| got == status).count()
}

/// What proxytrace missed, in words.
#[derive(Default)]
struct Missed(Vec<String>);

impl Missed {
    fn push(&mut self, what: String) {
        self.0.push(what);
    }

    fn unless_equal<T: std::fmt::Debug + PartialEq>(&mut self, what: &str, is: &T, should: &T) {
        if is != should {
            self.push(format!("{what}: {is:?}, should be {should:?}"));
        }
    }
}
