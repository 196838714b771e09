//! What was counted while a trace ran, as a table with a line for each address.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use proxytrace_ebpf::abi::Loss;

use super::{
    Paint, Screen,
    columns::{BELOW, Column, Grid, display_width},
    overview::causes,
};
use crate::{
    escape::printable,
    kernel::tables::{Table, full_by},
    model::{Counts, Key, RecordTotals},
    watch::View,
    width::Width,
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

/// The column of the address.
const ADDRESS: usize = 2;

/// The columns that hold numbers, and are aligned to the right.
const NUMBERS: Range<usize> = 3..9;

/// The column behind them.
const CAUSES: usize = NUMBERS.end;

/// A cell that is longer stands out of its column, and moves no other line. The longest IPv6 address with a port has 47.
const WIDEST: usize = 30;
const WIDEST_ADDRESS: usize = 47;
const WIDEST_ENDLESS: usize = 60;

/// Blanks before addresses that stand below their upstream.
const INDENT: usize = 2;

/// The summary of `took`, over the series that `wanted` lets pass.
#[must_use]
pub fn summary(view: &View, took: Duration, screen: Screen, wanted: impl Fn(&Key) -> bool) -> String {
    let series = view.series.iter().map(|(key, row)| (key.clone(), Counts::of(row, &view.clock)));
    let mut text = summary_of_counts(&series.collect(), took, screen, wanted);
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
pub fn summary_of_records(totals: &RecordTotals, screen: Screen, wanted: impl Fn(&Key) -> bool) -> String {
    let mut text = summary_of_counts(totals.series(), totals.span(), screen, wanted);
    if totals.lacks_established() {
        text +=
            "established connects were not recorded and are in no count above; trace --all records them\n";
    }
    if totals.lost() > 0 {
        text += &format!("{} records are missing and are in no count above\n", totals.lost());
    }
    text
}

/// The same of what was counted.
#[must_use]
pub fn summary_of_counts(
    all: &BTreeMap<Key, Counts>,
    took: Duration,
    screen: Screen,
    wanted: impl Fn(&Key) -> bool,
) -> String {
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
        text += &table(&rows, screen);
    }
    text
}

fn row(key: &Key, series: &Counts) -> [String; COLUMNS] {
    [
        printable(&key.proxy).into_owned(),
        printable(&key.upstream).into_owned(),
        printable(&key.address).into_owned(),
        series.attempts.to_string(),
        series.established().to_string(),
        series.ended().saturating_sub(series.established()).to_string(),
        series.in_flight().to_string(),
        series.broken.iter().sum::<u64>().to_string(),
        series.syn_retransmits.to_string(),
        causes(series),
    ]
}

/// A line for each row; where the terminal is too narrow for that, a line for each proxy's upstream, and below it its addresses.
fn table(rows: &[[String; COLUMNS]], screen: Screen) -> String {
    let titles = TITLES.map(str::to_owned);
    let mut columns: [Column; CAUSES] = std::array::from_fn(|place| {
        let widest = match (screen.width, place) {
            (Width::Endless, _) => WIDEST_ENDLESS,
            (_, ADDRESS) => WIDEST_ADDRESS,
            _ => WIDEST,
        };
        Column { width: 0, widest, is_number: NUMBERS.contains(&place) }
    });
    for row in rows.iter().chain([&titles]) {
        for (column, cell) in columns.iter_mut().zip(row) {
            column.width = column.width.max(display_width(cell).min(column.widest));
        }
    }
    let title = |text: &str| -> String {
        text.lines().map(|line| screen.colour.paint(Paint::Dim, line) + "\n").collect()
    };
    let cells = |row: &[String; COLUMNS], some: Range<usize>, words: &str, grid: &Grid<'_>| {
        let cells: Vec<&str> = row[some].iter().map(String::as_str).collect();
        grid.row(&cells, words)
    };
    let needed: usize = columns.iter().map(|column| column.width).sum();
    if screen.width.has_room_for(needed + 2 * (CAUSES - 1)) {
        let grid = Grid { columns: &columns, indent: 0, gap: 2, width: screen.width };
        let all = |row: &[String; COLUMNS]| cells(row, 0..CAUSES, &row[CAUSES], &grid);
        return rows.iter().fold(title(&all(&titles)), |text, row| text + &all(row) + "\n");
    }
    let [address, numbers @ ..] = &mut columns[ADDRESS..] else { return String::new() };
    let needed: usize = INDENT + numbers.iter().map(|column| column.width + 1).sum::<usize>();
    address.width = address.width.min(screen.width.end().unwrap_or(needed).saturating_sub(needed));
    let grid = Grid { columns: &columns[ADDRESS..], indent: INDENT, gap: 1, width: screen.width };
    let counts = |row: &[String; COLUMNS]| {
        let numbers = cells(row, ADDRESS..CAUSES, "", &grid);
        let below = screen.width.wrapped(&row[CAUSES], BELOW, BELOW);
        if row[CAUSES].is_empty() { numbers } else { numbers + "\n" + &below }
    };
    let [proxy, upstream, ..] = &titles;
    let mut text = title(&format!("{proxy} {upstream}")) + &title(&counts(&titles));
    let mut last = None;
    for row @ [proxy, upstream, ..] in rows {
        if last.replace((proxy, upstream)) != Some((proxy, upstream)) {
            text += &screen.width.wrapped(&format!("{proxy} {upstream}"), 0, INDENT);
            text.push('\n');
        }
        text += &counts(row);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use proxytrace_ebpf::{
        abi::{Loss, Owner, Row},
        outcome::{Broken, Outcome},
    };

    use super::{Screen, display_width, summary};
    use crate::output::{Colour, Width};
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
        assert_eq!(summary(&view, Duration::from_millis(12_345), Screen::PLAIN, |_| true), expected);
        let narrow = Screen { colour: Colour::Off, width: Width::Columns(80) };
        let expected = "\
summary of 1.0 s
PROXY UPSTREAM
  ADDRESS       ATTEMPTS ESTABLISHED FAILED IN FLIGHT BROKEN SYN RESENT
    CAUSES
nginx api
  10.0.0.5:8080        9           9      0         0      1          0
    closed_before_response 1
  10.0.0.5:8081      314           0    313         1      0          2
    proxy_timeout 312, refused 1
";
        let text = summary(&view, Duration::from_secs(1), narrow, |_| true);
        assert!(text.starts_with(expected), "{text}");
        let long = "a".repeat(70_000);
        assert!(
            summary(&self::view(&[(&long, bad)]), Duration::ZERO, Screen::PLAIN, |_| true).contains(&long)
        );
        let nothing = summary(&view, Duration::from_secs(1), Screen::PLAIN, |_| false);
        assert!(
            nothing.contains("no connect to what was asked for was seen; there were some to api\n"),
            "{nothing}"
        );
    }

    /// On a terminal no line is broken by it, and one long name moves no other line.
    #[test]
    fn long_names_fit_every_width() {
        let mut bad = Row { attempts: 1_234_567, ..Row::ZERO };
        bad.outcomes[Outcome::Refused as usize] = 1_234_567;
        let long = format!("unix:/run/{}.sock", "app/".repeat(20));
        let rows = [("10.0.0.5:8081", bad), ("[2001:db8:1:2:3:4:5:6]:8080", bad), (&*long, bad)];
        for columns in [60, 80, 100, 120, 200] {
            let screen = Screen { colour: Colour::Off, width: Width::Columns(columns) };
            let text = summary(&view(&rows), Duration::from_secs(1), screen, |_| true);
            assert!(text.lines().all(|line| display_width(line) <= columns.into()), "{columns}:\n{text}");
            let end = |what: &str| {
                let lines = text.lines().filter(|line| line.contains(what));
                lines.map(|line| line.find(what).unwrap_or(0) + what.len()).collect::<Vec<_>>()
            };
            let (title, counts) = (end("ATTEMPTS"), end(" 1234567 "));
            assert!(counts.len() == 3 && counts.iter().all(|at| *at == title[0] + 1), "{columns}:\n{text}");
        }
    }
}
