//! One upstream, looked at: what `status NAME` says of it, and its last records.

use jiff::tz::TimeZone;

use super::look::Look;
use crate::{
    declared::RoutesView,
    model::{Filter, Minute, Remembered, UpstreamKey},
    output::{self, Colour, Human, Layout, Screen, Width, detail},
    status::{Status, Upstream},
};

/// So many records are shown.
const MAX_RECORDS: usize = 200;

/// What is known of one upstream beside its status.
#[derive(Debug)]
pub struct Details {
    /// Which.
    pub of: UpstreamKey,
    /// Where configurations send requests.
    pub routes: Vec<RoutesView>,
    /// What was counted of it in each minute of the last hour.
    pub minutes: Vec<Minute>,
    /// What happened lately, the newest last.
    pub records: Vec<Remembered>,
}

impl Details {
    /// Of all that was said, what is about that upstream.
    #[must_use]
    pub fn new(
        of: UpstreamKey,
        routes: Vec<RoutesView>,
        mut minutes: Vec<Minute>,
        mut records: Vec<Remembered>,
    ) -> Self {
        minutes.retain(|minute| minute.proxy == of.0 && minute.upstream == of.1);
        let filter = Filter {
            proxies: vec![of.0.to_string()],
            upstreams: vec![of.1.to_string()],
            ..Filter::default()
        };
        records.retain(|remembered| filter.passes(&remembered.record.body));
        records.drain(..records.len().saturating_sub(MAX_RECORDS));
        Self { of, routes, minutes, records }
    }
}

/// The upstream in lines of that width.
pub(super) fn lines(
    status: &Status,
    upstream: &Upstream,
    details: Option<&Details>,
    width: u16,
    look: &Look,
) -> Vec<String> {
    let layout = Layout { colour: Colour::Off, zone: look.zone.clone(), width: width.into(), is_wide: false };
    let none = Vec::new();
    let routes = details.map_or(&none, |details| &details.routes);
    let minutes = details.map(|details| &*details.minutes);
    let mut text = detail(&output::Detail { status, upstream, routes, minutes }, &layout);
    if let Some(Details { records, .. }) = details {
        text += "\nLAST RECORDS, THE NEWEST FIRST\n";
        let screen = Screen { colour: Colour::Off, width: Width::Columns(width) };
        let zone: TimeZone = look.zone.clone();
        let mut human = Human::new(output::Look { screen, zone, date: false });
        let lines: Vec<_> = records.iter().rev().filter_map(|record| human.line(record)).collect();
        if lines.is_empty() {
            text += "nothing happened in the last minutes\n";
        } else {
            text += &format!("{}\n{}\n", human.title(), lines.join("\n"));
        }
    }
    text.lines().map(str::to_owned).collect()
}
