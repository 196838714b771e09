//! What was counted while a trace ran, as a table with a line for each address.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proxytrace_ebpf::{
    abi::{Loss, Row},
    outcome::{Broken, Outcome},
};

use super::{Colour, Paint, human::column_width};
use crate::{
    escape::printable,
    kernel::tables::{Table, full_by},
    model::{Key, RecordTotals},
    watch::View,
};

const COLUMNS: usize = 10;

/// So many of the upstreams are named that were not asked for.
const NAMED: usize = 8;

const TITLES: [&str; COLUMNS] = [
    "PROXY",
    "UPSTREAM",
    "ADDRESS",
    "ATTEMPTS",
    "ESTABLISHED",
    "FAILED",
    "IN FLIGHT",
    "BROKEN",
    "SYN RESENT",
    "CAUSES",
];

/// The columns that hold numbers, and are aligned to the right.
const NUMBERS: std::ops::Range<usize> = 3..9;

/// The summary of `took`, over the series that `wanted` lets pass.
#[must_use]
pub fn summary(view: &View, took: Duration, colour: Colour, wanted: impl Fn(&Key) -> bool) -> String {
    let mut text = counts(&view.series, took, colour, wanted);
    let losses = Loss::ALL.into_iter().map(|loss| (loss, view.losses[loss as usize]));
    for (loss, count) in losses.filter(|(_, count)| *count > 0) {
        text += &match loss {
            Loss::RingFull => format!("{count} records were not read in time; the counts above are right\n"),
            loss => {
                let room = full_by(loss).map(|Table { name, holds, .. }| {
                    format!("; there was no room for more {holds}, give it with --table-size {name}=N")
                });
                let (name, effect, room) = (loss.name(), loss.effect(), room.unwrap_or_default());
                format!("{count} could not be followed ({name}): {effect}{room}\n")
            }
        };
    }
    text
}

/// The same of what records report.
#[must_use]
pub fn summary_of_records(totals: &RecordTotals, colour: Colour, wanted: impl Fn(&Key) -> bool) -> String {
    let mut text = counts(totals.series(), totals.span(), colour, wanted);
    if totals.lacks_established() {
        text +=
            "established connects were not recorded and are in no count above; trace --all records them\n";
    }
    if totals.lost() > 0 {
        text += &format!("{} records are missing and are in no count above\n", totals.lost());
    }
    text
}

fn counts(all: &BTreeMap<Key, Row>, took: Duration, colour: Colour, wanted: impl Fn(&Key) -> bool) -> String {
    let seen = || all.iter().filter(|(_, series)| series.attempts > 0);
    let series: BTreeMap<_, _> = seen().filter(|(key, _)| wanted(key)).collect();
    let others: BTreeSet<_> = seen().map(|(key, _)| &*key.upstream).collect();
    let mut text = format!("summary of {:.1} s\n", took.as_secs_f64());
    if others.is_empty() {
        text += "no connect to an upstream was seen\n";
    } else if series.is_empty() {
        let named: Vec<_> = others.iter().take(NAMED).map(|name| printable(name)).collect();
        let more = if others.len() > NAMED { " and others" } else { "" };
        text += &format!(
            "no connect to what was asked for was seen; there were some to {}{more}\n",
            named.join(", ")
        );
    } else {
        let rows: Vec<_> = series.iter().map(|(key, series)| row(key, series)).collect();
        text += &table(&rows, colour);
    }
    text
}

fn row(key: &Key, series: &Row) -> [String; COLUMNS] {
    [
        printable(&key.proxy).into_owned(),
        printable(&key.upstream).into_owned(),
        printable(&key.address).into_owned(),
        series.attempts.to_string(),
        series.outcome(Outcome::Established).to_string(),
        series.failures().to_string(),
        series.in_flight().to_string(),
        series.broken.iter().sum::<u64>().to_string(),
        series.syn_retransmits.to_string(),
        causes(series),
    ]
}

/// The causes that happened, the most frequent first.
fn causes(series: &Row) -> String {
    let failures = Outcome::ALL.into_iter().skip(1).map(|outcome| (outcome.name(), series.outcome(outcome)));
    let broken = Broken::ALL.into_iter().map(|broken| (broken.name(), series.broken[broken as usize]));
    let mut causes: Vec<_> = failures.filter(|(_, n)| *n > 0).collect();
    causes.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    causes.extend(broken.filter(|(_, n)| *n > 0));
    causes.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}

fn table(rows: &[[String; COLUMNS]], colour: Colour) -> String {
    let titles = TITLES.map(str::to_owned);
    let mut widths = [0; COLUMNS];
    for row in rows.iter().chain([&titles]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(column_width(cell));
        }
    }
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let title = colour.paint(Paint::Dim, &line(&titles));
    rows.iter().fold(title + "\n", |text, row| text + &line(row) + "\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use proxytrace_ebpf::{
        abi::{Loss, Owner, Row},
        outcome::{Broken, Outcome},
    };

    use super::{Colour, summary};
    use crate::{
        model::{Clock, Entry, Key},
        watch::View,
    };

    fn view(rows: &[(&str, Row)]) -> View {
        let rows: Vec<_> = rows
            .iter()
            .map(|(address, row)| {
                let key = Key { proxy: "nginx".into(), upstream: "api".into(), address: (*address).into() };
                Entry { key, owner: Owner::HOST_ROOT, row: *row }
            })
            .collect();
        View::of(&rows, Clock::new(0, Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn each_address_has_a_line_and_losses_are_told() {
        let mut bad = Row { attempts: 314, syn_retransmits: 2, ..Row::ZERO };
        bad.outcomes[Outcome::Refused as usize] = 1;
        bad.outcomes[Outcome::ProxyTimeout as usize] = 312;
        let mut good = Row { attempts: 9, ..Row::ZERO };
        good.outcomes[Outcome::Established as usize] = 9;
        good.broken[Broken::ClosedBeforeResponse as usize] = 1;
        let mut view = view(&[("10.0.0.5:8081", bad), ("10.0.0.5:8080", good)]);
        view.losses[Loss::RingFull as usize] = 5;
        view.losses[Loss::ProcessTableFull as usize] = 7;
        view.losses[Loss::ReadFailed as usize] = 2;
        let expected = "\
summary of 12.3 s
PROXY  UPSTREAM  ADDRESS        ATTEMPTS  ESTABLISHED  FAILED  IN FLIGHT  BROKEN  SYN RESENT  CAUSES
nginx  api       10.0.0.5:8080         9            9       0          0       1           0  closed_before_response 1
nginx  api       10.0.0.5:8081       314            0     313          1       0           2  proxy_timeout 312, refused 1
5 records were not read in time; the counts above are right
7 could not be followed (process_table_full): the attempts, reloads and crashes of the processes and of what they fork are in no count; there was no room for more traced processes, give it with --table-size processes=N
2 could not be followed (read_failed): the attempts are in no count, or are counted with a wrong address or cause
";
        assert_eq!(summary(&view, Duration::from_millis(12_345), Colour::Off, |_| true), expected);
        let long = "a".repeat(70_000);
        assert!(summary(&self::view(&[(&long, bad)]), Duration::ZERO, Colour::Off, |_| true).contains(&long));
        let nothing = summary(&view, Duration::from_secs(1), Colour::Off, |_| false);
        assert!(
            nothing.contains("no connect to what was asked for was seen; there were some to api\n"),
            "{nothing}"
        );
    }
}
