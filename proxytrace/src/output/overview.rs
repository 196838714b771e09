//! How things are, on one screen: what is wrong first, then each proxy with its upstreams.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use proxytrace_ebpf::outcome::{Broken, Outcome};

use super::{
    Colour, Paint,
    columns::display_width,
    human::duration,
    together::{Together, kinds, together},
};
use crate::{
    escape::printable,
    model::{Counts, Severity},
    status::{Proxy, Sides, Source, Standing, State, Status, Upstream},
    width::{fit, padded, wrapped},
};

/// So many upstreams of a proxy are listed, the worst first.
const MAX_ROWS: usize = 15;

/// What is wrong takes no more lines, but for the first; the rest is counted.
const MAX_LINES: usize = 16;

/// How a status is laid out.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Whether it has colours.
    pub colour: Colour,
    /// Where the clock is that people look at.
    pub zone: TimeZone,
    /// The width of lines, in characters.
    pub width: usize,
    /// Whether everything is listed.
    pub is_wide: bool,
}

/// How things are.
#[must_use]
pub fn overview(status: &Status, layout: &Layout) -> String {
    let mut text = headline(status, layout);
    text += &findings(status, layout);
    for proxy in &status.proxies {
        text += "\n";
        text += &self::proxy(proxy, status, layout);
    }
    text
}

/// Whether all is well, and who says so.
#[must_use]
pub fn headline(status: &Status, layout: &Layout) -> String {
    let wrong = status.findings.iter().filter(|standing| standing.finding.severity > Severity::Info).count();
    let state = match (wrong, status.proxies.len()) {
        (0, _) if !status.started => layout.colour.paint(Paint::Yellow, "not all is known yet"),
        (0, 0) => layout.colour.paint(Paint::Yellow, "no proxy runs"),
        (0, _) => layout.colour.paint(Paint::Green, "nothing is wrong"),
        (1, _) => layout.colour.paint(Paint::Red, "1 thing is wrong"),
        (wrong, _) => layout.colour.paint(Paint::Red, &format!("{wrong} things are wrong")),
    };
    let now = clock(status.time, status.time, layout);
    let source = match status.source {
        Source::Agent => format!("the agent watches since {}", clock(status.since, status.time, layout)),
        Source::Trace => {
            let seconds = seconds(status.since, status.time);
            format!("no agent was asked: only what {seconds:.0} s of tracing saw is known")
        }
    };
    let head = format!("{state} at {now}; ");
    let plain = head.chars().count();
    if plain + source.chars().count() <= layout.width {
        format!("{head}{source}\n")
    } else {
        format!("{head}\n{source}\n")
    }
}

/// What is wrong: what says the same is one, and what there is no room for is counted.
fn findings(status: &Status, layout: &Layout) -> String {
    if layout.is_wide {
        return status.findings.iter().map(|standing| finding(standing, layout)).collect();
    }
    let (all, mut text) = (together(status), String::new());
    for (place, one) in all.iter().enumerate() {
        let own = painted(one.first, &sentence_of_all(one, layout), layout);
        if place > 0 && text.lines().count() + own.lines().count() > MAX_LINES {
            let rest = &all[place..];
            let count: usize = rest.iter().map(Together::len).sum();
            let words = format!("and {count} more ({}): --wide lists them", kinds(rest.iter()));
            return text + &wrapped(&words, layout.width, 2) + "\n";
        }
        text += &own;
    }
    text
}

pub(super) fn finding(standing: &Standing, layout: &Layout) -> String {
    painted(standing, &sentence(standing, layout), layout)
}

fn painted(standing: &Standing, lines: &str, layout: &Layout) -> String {
    let paint = match standing.finding.severity {
        Severity::Critical => Paint::Red,
        Severity::Warning => Paint::Yellow,
        Severity::Info => Paint::Dim,
    };
    let (kind, rest) = lines.split_once(':').unwrap_or((lines, ""));
    format!("{}:{rest}\n", layout.colour.paint(paint, kind))
}

/// What a finding says, in lines without an end.
fn sentence(standing: &Standing, layout: &Layout) -> String {
    sentence_with(standing, "", layout)
}

/// The same of several that say the same.
#[must_use]
pub fn sentence_of_all(all: &Together<'_>, layout: &Layout) -> String {
    sentence_with(all.first, &all.same_of(), layout)
}

fn sentence_with(standing: &Standing, more: &str, layout: &Layout) -> String {
    let Standing { finding, seen, .. } = standing;
    let mut words = printable(&(finding.in_zone(&layout.zone) + more)).into_owned();
    if let Some(seen) = seen {
        let seen = clock(*seen, *seen, layout);
        words += &format!(
            " (As the agent saw it until {seen}, before it was restarted; nothing to the contrary was seen since.)"
        );
    }
    wrapped(&words, layout.width, 2)
}

/// What is known of a proxy, in one line.
#[must_use]
pub fn proxy_line(proxy: &Proxy, status: &Status, layout: &Layout) -> String {
    let workers = match (proxy.workers, proxy.old_workers) {
        (1, 0) => "1 worker".to_owned(),
        (all, 0) => format!("{all} workers"),
        (all, old) => format!("{all} workers, {old} of them of an earlier configuration"),
    };
    let reloaded = proxy.reloaded.map_or_else(
        || "no reload was seen".to_owned(),
        |time| format!("reloaded {} ({} ago)", clock(time, status.time, layout), ago(time, status.time)),
    );
    let more = [(proxy.rejected, "rejected"), (proxy.crashes, "crashed")];
    let more = more.iter().filter(|(count, _)| *count > 0).map(|(count, what)| match *what {
        "rejected" => format!(", {count} reloads rejected"),
        _ => format!(", {count} workers crashed"),
    });
    let name = printable(&proxy.proxy).into_owned();
    format!("{name}  {workers}; {reloaded}{}", more.collect::<String>())
}

fn proxy(proxy: &Proxy, status: &Status, layout: &Layout) -> String {
    let mut text = wrapped(&proxy_line(proxy, status, layout), layout.width, 2) + "\n";
    if proxy.names_ready == Some(false) {
        let words =
            "its configuration could not be read, so upstreams have no names: the agent's log says why";
        text += &format!("  {}\n", wrapped(words, layout.width, 2));
    }
    let own = status.upstreams.iter().filter(|upstream| upstream.proxy == proxy.proxy);
    // What is counted elsewhere would only take room.
    let own: Vec<_> = own.filter(|upstream| layout.is_wide || !upstream.all_shared).collect();
    if own.is_empty() {
        return text + "  it has connected to nothing yet\n";
    }
    text += &format!("{}\n", layout.colour.paint(Paint::Dim, &title(layout)));
    // The worst come first.
    let (shown, rest) = own.split_at(if layout.is_wide { own.len() } else { own.len().min(MAX_ROWS) });
    for upstream in shown {
        text += &row(upstream, status, layout);
    }
    let ill = rest.iter().filter(|upstream| upstream.state < State::Ok).count();
    text + &match (ill, rest.len()) {
        (_, 0) => String::new(),
        (0, more) => format!("  and {more} more without trouble: --wide lists them\n"),
        (ill, more) => format!("  and {more} more, {ill} of them down or failing: --wide lists them\n"),
    }
}

/// How wide the name of an upstream is.
const NAME: usize = 20;

fn title(layout: &Layout) -> String {
    let line = format!(
        "  {:<NAME$} {:<7} {:<8} {:>6} {:>6} {:>7} {:>7} {:>7}",
        "UPSTREAM", "STATE", "SINCE", "CONN/S", "FAILED", "WAITING", "P50", "P99"
    );
    if layout.is_wide { line + "  CAUSES AND ADDRESSES" } else { line }
}

fn row(upstream: &Upstream, status: &Status, layout: &Layout) -> String {
    let Upstream { recent, waiting, .. } = upstream;
    let name = printable(&upstream.upstream).into_owned();
    let since = upstream.state_since.map_or_else(|| "-".to_owned(), |time| clock(time, status.time, layout));
    let failed = recent.gone_wrong();
    let time = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), duration);
    let paint = match upstream.state {
        State::Down => Paint::Red,
        State::Failing => Paint::Yellow,
        State::Ok => Paint::Green,
        State::Quiet => Paint::Dim,
    };
    let state = layout.colour.paint(paint, &format!("{:<7}", upstream.state.name()));
    // A long name has a line of its own.
    let shown = if layout.is_wide { fit(&name, 60) } else { fit(&name, layout.width.saturating_sub(2)) };
    let head = if display_width(&shown) > NAME {
        format!("  {shown}\n  {:<NAME$}", "")
    } else {
        format!("  {}", padded(&shown, NAME))
    };
    let mut line = format!(
        "{head} {state} {since:<8} {:>6} {:>6} {:>7} {:>7} {:>7}",
        rate(recent.attempts, seconds(status.recent_since, status.time)),
        if failed > 0 { failed.to_string() } else { "-".to_owned() },
        if waiting.connections > 0 { waiting.connections.to_string() } else { "-".to_owned() },
        time(upstream.connect_p50_us),
        time(upstream.connect_p99_us),
    );
    let causes = causes(recent);
    let shares: Vec<_> = upstream.shares.iter().map(|row| printable(row)).collect();
    if layout.is_wide {
        let addresses: Vec<_> = upstream.addresses.iter().map(|to| printable(&to.address)).collect();
        let addresses = addresses.join(" ");
        let counted = match (upstream.is_shared_row() || shares.is_empty(), upstream.all_shared) {
            (true, _) => String::new(),
            (false, true) => format!("(counted as {})", shares.join(" and ")),
            (false, false) => format!("(also counted as {})", shares.join(" and ")),
        };
        let parts = [causes, addresses, counted].into_iter().filter(|part| !part.is_empty());
        line += &format!("  {}", parts.collect::<Vec<_>>().join(" "));
        return line.trim_end().to_owned() + "\n";
    }
    let mut words = Vec::new();
    if !causes.is_empty() {
        words.push(causes);
    }
    if waiting.connections > 0 {
        words.push(format!("the oldest request waits {}", duration(u64::from(waiting.oldest_ms) * 1000)));
    }
    line = line.trim_end().to_owned() + "\n";
    if !words.is_empty() {
        line += &format!("    {}\n", wrapped(&words.join("; "), layout.width, 4));
    }
    line
}

/// The causes that happened, the most frequent first.
#[must_use]
pub fn causes(counts: &Counts) -> String {
    let failures = Outcome::ALL.into_iter().skip(1).map(|outcome| (outcome.name(), counts.outcome(outcome)));
    let broken = Broken::ALL.into_iter().map(|broken| (broken.name(), counts.broken[broken as usize]));
    let mut causes: Vec<_> = failures.chain(broken).filter(|(_, n)| *n > 0).collect();
    causes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    causes.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}

/// What workers on both sides of a reload did.
#[must_use]
pub fn sides(Sides { old, new }: &Sides) -> String {
    let fared = |counts: &Counts| format!("{} of {} failed", counts.gone_wrong(), counts.attempts);
    format!("old workers: {}; new workers: {}", fared(old), fared(new))
}

/// In one second, with three digits.
#[must_use]
pub fn rate(count: u64, seconds: f64) -> String {
    if count == 0 || seconds <= 0.0 {
        return "-".to_owned();
    }
    match count as f64 / seconds {
        rate if rate < 10.0 => format!("{rate:.2}"),
        rate if rate < 100.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// The time of day, or the day where it is another one.
#[must_use]
pub fn clock(time: Timestamp, now: Timestamp, layout: &Layout) -> String {
    let [time, now] = [time, now].map(|time| time.to_zoned(layout.zone.clone()));
    let format = if time.date() == now.date() { "%H:%M:%S" } else { "%b %e" };
    time.strftime(format).to_string()
}

/// How long that is ago, roughly.
fn ago(time: Timestamp, now: Timestamp) -> String {
    match seconds(time, now) as u64 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    Duration::try_from(to.duration_since(from)).unwrap_or_default().as_secs_f64()
}
