//! What the agent exposes, parsed: samples that are found by name and labels.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The text as it came.
    pub text: String,
    samples: Vec<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// What became of the attempts of one proxy to one address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// All attempts.
    pub attempts: u64,
    /// Those that led to a connection.
    pub established: u64,
    /// Those that did not, by cause; causes that never happened are left out.
    pub failures: BTreeMap<String, u64>,
    /// Those that have not ended.
    pub in_flight: u64,
}

impl Account {
    /// Whether every attempt is accounted for exactly once.
    #[must_use]
    pub fn balances(&self) -> bool {
        self.attempts == self.established + self.failures.values().sum::<u64>() + self.in_flight
    }
}

impl Metrics {
    /// Parses the text format (either of the two: they agree on samples).
    #[must_use]
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples =
            lines.map(|line| parse_sample(line).unwrap_or_else(|| panic!("no sample: {line:?}"))).collect();
        Self { text: text.to_owned(), samples }
    }

    /// The sum of all the samples of that name that have these labels (and maybe more).
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The same as a whole number, which it must be.
    #[must_use]
    #[track_caller]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        whole(self.sum(name, labels))
    }

    /// Whether there is such a sample at all.
    #[must_use]
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// The values that `label` takes in the samples of that name that have these labels.
    #[must_use]
    pub fn values_of(&self, label: &str, name: &str, labels: &[(&str, &str)]) -> Vec<String> {
        let mut values: Vec<_> =
            self.matching(name, labels).filter_map(|sample| sample.labels.get(label).cloned()).collect();
        values.sort();
        values.dedup();
        values
    }

    /// What there is: each name with the names of its labels.
    #[must_use]
    pub fn shapes(&self) -> BTreeSet<(String, Vec<String>)> {
        let shape = |sample: &Sample| (sample.name.clone(), sample.labels.keys().cloned().collect());
        self.samples.iter().map(shape).collect()
    }

    /// The account of `proxy` with `address`.
    #[must_use]
    #[track_caller]
    pub fn account(&self, proxy: &str, address: &str) -> Account {
        let labels = [("proxy", proxy), ("address", address)];
        let failures = self.matching("proxytrace_connect_failures_total", &labels);
        let mut account = Account {
            attempts: self.count("proxytrace_connect_attempts_total", &labels),
            established: self.count("proxytrace_connects_established_total", &labels),
            failures: BTreeMap::new(),
            in_flight: self.count("proxytrace_connects_in_flight", &labels),
        };
        for sample in failures.filter(|sample| sample.value > 0.0) {
            let cause = sample.labels.get("cause").cloned().unwrap_or_default();
            *account.failures.entry(cause).or_default() += whole(sample.value);
        }
        account
    }

    /// The addresses that `proxy` made attempts to.
    #[must_use]
    pub fn addresses(&self, proxy: &str) -> Vec<String> {
        let labels = [("proxy", proxy)];
        let attempts = self.matching("proxytrace_connect_attempts_total", &labels);
        // What is only declared has a series as well.
        let addresses =
            attempts.filter(|sample| sample.value > 0.0).map(|sample| sample.labels["address"].clone());
        let unique: BTreeSet<_> = addresses.collect();
        unique.into_iter().collect()
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let has =
                |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|have| have == value);
            sample.name == name && labels.iter().all(has)
        })
    }
}

/// `name{label="value",...} 1.5`
fn parse_sample(line: &str) -> Option<Sample> {
    let end_of_name = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end_of_name);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = parse_quoted(after)?;
            labels.insert(label.trim_start_matches(',').to_owned(), value);
            rest = after;
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, and what follows it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            _ => value.push(character),
        }
    }
    None
}

#[track_caller]
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be a small whole number"
)]
fn whole(value: f64) -> u64 {
    assert!(value >= 0.0 && value.fract() == 0.0 && value < 1e15, "{value} is not a count");
    value as u64
}
