//! One upstream in detail: its addresses, the routes that lead there, the last hour, and what is wrong with it.

use jiff::{SignedDuration, Timestamp};

use super::{
    Paint,
    columns::{Column, Grid, display_width},
    human::duration,
    overview::{Layout, causes, clock, finding, rate, sides},
};
use crate::{
    declared::{RouteView, RoutesView},
    escape::printable,
    model::{Counts, Minute},
    status::{Status, Upstream, quantile_us},
    width::{Width, wrapped},
};

/// So many routes are listed.
const MAX_ROUTES: usize = 20;

/// What is known of an upstream.
#[derive(Debug)]
pub struct Detail<'a> {
    /// How things are.
    pub status: &'a Status,
    /// The upstream.
    pub upstream: &'a Upstream,
    /// Where configurations send requests.
    pub routes: &'a [RoutesView],
    /// What was counted in each minute of the last hour, of all upstreams; `None` where nobody remembers.
    pub minutes: Option<&'a [Minute]>,
}

/// An upstream in detail.
#[must_use]
pub fn detail(of: &Detail<'_>, layout: &Layout) -> String {
    let Detail { status, upstream, .. } = of;
    let since = upstream
        .state_since
        .map_or_else(String::new, |time| format!(" since {}", clock(time, status.time, layout)));
    let name = printable(&upstream.upstream);
    let head = format!("{name} of {}: {}{since}", printable(&upstream.proxy), upstream.state.name());
    let mut text = wrapped(&head, layout.width, 2) + "\n";
    let own = status.findings.iter();
    for standing in own.filter(|one| upstream.is_meant(&one.finding)) {
        text += &finding(standing, layout);
    }
    if !upstream.shares.is_empty() && !upstream.is_shared_row() {
        let rows: Vec<_> = upstream.shares.iter().map(|row| printable(row)).collect();
        let words = format!(
            "it shares addresses with others: what is counted there stands under {}",
            rows.join(" and ")
        );
        text += &format!("{}\n", wrapped(&words, layout.width, 2));
    }
    if let Some(reload) = &upstream.reload {
        text += &format!("{}\n", wrapped(&sides(reload), layout.width, 2));
    }
    text + "\n" + &addresses(upstream, layout) + "\n" + &routes(of, layout) + "\n" + &hour(of, layout)
}

fn title(layout: &Layout, lines: &str) -> String {
    lines.lines().map(|line| layout.colour.paint(Paint::Dim, line) + "\n").collect()
}

/// A table with words behind its numbers.
fn grid<'a>(columns: &'a [Column], layout: &Layout) -> Grid<'a> {
    let width = u16::try_from(layout.width).unwrap_or(u16::MAX);
    let width = if layout.is_wide { Width::Endless } else { Width::Columns(width) };
    Grid { columns, indent: 0, gap: 1, width }
}

const fn column(width: usize, is_number: bool) -> Column {
    Column { width, widest: width, is_number }
}

fn addresses(upstream: &Upstream, layout: &Layout) -> String {
    let names: Vec<_> = upstream.addresses.iter().map(|to| printable(&to.address).into_owned()).collect();
    let numbers = [column(9, true), column(9, true), column(7, true)];
    let needed: usize = numbers.iter().map(|number| number.width + 1).sum();
    let longest = names.iter().map(|name| display_width(name)).max().unwrap_or(0);
    let width = longest.clamp(21, 40).min(layout.width.saturating_sub(needed));
    let columns = [&[column(width, false)][..], &numbers].concat();
    let grid = grid(&columns, layout);
    let mut text = title(layout, &grid.row(&["ADDRESS", "CONNECTS", "SUCCEEDED", "FAILED"], "CAUSES"));
    for (to, name) in upstream.addresses.iter().zip(names) {
        let counts = &to.counts;
        let mut words = causes(counts);
        if !to.declared {
            words = ["no line of the configuration names it", &words].join("; ");
        }
        let numbers = [counts.attempts, counts.established(), counts.gone_wrong()].map(|n| n.to_string());
        let [attempts, established, wrong] = &numbers;
        text += &grid.row(&[&name, attempts, established, wrong], words.trim_end_matches("; "));
        text += "\n";
    }
    text
}

fn routes(of: &Detail<'_>, layout: &Layout) -> String {
    let mut lines = Vec::new();
    for view in of.routes.iter().filter(|view| view.proxy == of.upstream.proxy) {
        let leads = |route: &&RouteView| {
            route.upstreams.iter().any(|index| {
                // An address that several upstreams have goes by all of their names.
                let name = view.upstreams.get(*index).map(|upstream| &*upstream.name);
                name.is_some_and(|name| of.upstream.is_called(name))
            })
        };
        for route in view.routes.iter().filter(leads) {
            let server = [&route.server_names[..], &route.listen[..]].concat();
            let server = if server.is_empty() { "-".to_owned() } else { server.join(" ") };
            let location = route.location.join(" ");
            let words = format!("{server} {location}  {} {}  {}", route.directive, route.target, route.place);
            lines.push(wrapped(&printable(&words), layout.width, 4) + "\n");
        }
    }
    let mut text = title(layout, "ROUTES THAT LEAD THERE");
    if lines.is_empty() {
        return text + "none that is known\n";
    }
    let more = lines.len().saturating_sub(MAX_ROUTES);
    text.extend(lines.into_iter().take(MAX_ROUTES));
    if more > 0 {
        text += &format!("and {more} more: /routes has them\n");
    }
    text
}

/// Minutes that are shown as one: in a row, and alike in that something failed or nothing did.
struct Span {
    from: Timestamp,
    minutes: i64,
    counts: Counts,
}

fn hour(of: &Detail<'_>, layout: &Layout) -> String {
    let Some(minutes) = of.minutes else {
        return title(layout, "LAST HOUR") + "not known: no agent was asked\n";
    };
    let own = |minute: &&Minute| minute.proxy == of.upstream.proxy && minute.upstream == of.upstream.upstream;
    let mut spans: Vec<Span> = Vec::new();
    for minute in minutes.iter().filter(own) {
        let is_bad = |counts: &Counts| counts.gone_wrong() > 0;
        let end = spans.last().map(|span| span.from + SignedDuration::from_mins(span.minutes));
        match spans.last_mut() {
            // One in which the agent was restarted comes in parts.
            Some(span) if span.minutes == 1 && span.from == minute.time => span.counts += &minute.counts,
            Some(span) if !is_bad(&minute.counts) && !is_bad(&span.counts) && end == Some(minute.time) => {
                span.minutes += 1;
                span.counts += &minute.counts;
            }
            _ => spans.push(Span { from: minute.time, minutes: 1, counts: minute.counts.clone() }),
        }
    }
    let columns = [13, 8, 8, 7, 7, 7].map(|width| column(width, width != 13));
    let grid = grid(&columns, layout);
    let titles = ["LAST HOUR", "CONNECTS", "CONN/S", "FAILED", "P50", "P99"];
    let mut text = title(layout, &grid.row(&titles, "CAUSES"));
    if spans.is_empty() {
        return text + "nothing was counted\n";
    }
    for Span { from, minutes, counts } in spans {
        let time = |time: Timestamp| time.to_zoned(layout.zone.clone()).strftime("%H:%M").to_string();
        let until = (from + SignedDuration::from_mins(minutes)).min(of.status.time);
        let when = format!("{}–{}", time(from), time(until));
        let took = |q: f64| quantile_us(&counts.durations, q).map_or_else(|| "-".to_owned(), duration);
        let seconds = until.duration_since(from).as_secs_f64().max(1.0);
        let (attempts, wrong) = (counts.attempts.to_string(), counts.gone_wrong().to_string());
        let rate = rate(counts.attempts, seconds);
        text += &grid.row(&[&when, &attempts, &rate, &wrong, &took(0.5), &took(0.99)], &causes(&counts));
        text += "\n";
    }
    text
}
