//! How it is drawn: a head, what is wrong, the table or what is looked at, and a foot. What colours say, words and marks say too.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Clear, Paragraph},
};

use super::{
    Top,
    columns::{Column, columns},
    detail,
    keys::HELP,
    look::Look,
    rows::Row,
};
use crate::{
    escape::printable,
    model::Severity,
    output::{
        Colour, Together, causes, clock, display_width, duration, fit, fit_end, headline, proxy_line, rate,
        sentence_of_all, sides, together,
    },
    status::{State, Status},
};

/// What is wrong takes no more than that part of the screen.
const FINDINGS: u16 = 3;

/// So many proxies have a line.
const MAX_PROXIES: usize = 3;

/// How high a screen is that has room for everything.
#[must_use]
pub fn height(top: &Top, width: u16, look: &Look) -> u16 {
    let head = top.status.as_ref().map_or(1, |status| head(status, width, u16::MAX, look).len());
    let lines = head + 2 + top.rows.len() + foot(top, width, look).len();
    u16::try_from(lines).unwrap_or(u16::MAX)
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, top: &mut Top, look: &Look) {
    let area = frame.area();
    let Some(status) = &top.status else {
        let words = top.trouble.clone().unwrap_or_else(|| "looks at the proxies of this host".to_owned());
        frame.render_widget(Paragraph::new(printable(&words).into_owned()), area);
        return;
    };
    let limit = (area.height / FINDINGS).max(2);
    let mut lines = match &top.looked_at {
        None => head(status, area.width, limit, look),
        Some(_) => head(status, area.width, 0, look).into_iter().take(1).collect(),
    };
    let foot = foot(top, area.width, look);
    let room = usize::from(area.height).saturating_sub(lines.len() + foot.len());
    let middle = if top.looked_at.is_some() {
        details(top, area.width, room, look)
    } else {
        table(top, area.width, room, look)
    };
    let missing = room.saturating_sub(middle.len());
    lines.extend(middle);
    lines.extend((0..missing).map(|_| Line::default()));
    lines.extend(foot);
    frame.render_widget(Paragraph::new(lines), area);
    if top.has_help {
        help(frame, area);
    }
}

/// What was drawn, as lines of text.
#[must_use]
pub fn lines(buffer: &Buffer) -> Vec<String> {
    let line = |row: u16| {
        let mut line = String::new();
        let mut column = 0;
        while column < buffer.area.width {
            let symbol = buffer[(column, row)].symbol();
            line += symbol;
            // What takes two columns is followed by an empty cell.
            column += u16::try_from(display_width(symbol)).unwrap_or(1).max(1);
        }
        line.trim_end().to_owned()
    };
    (0..buffer.area.height).map(line).collect()
}

/// Whether all is well, what is wrong, and the proxies. What is wrong takes `limit` lines at most.
fn head(status: &Status, width: u16, limit: u16, look: &Look) -> Vec<Line<'static>> {
    let layout = look.layout(width);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut lines: Vec<_> =
        headline(status, &layout).lines().map(|line| Line::styled(line.to_owned(), bold)).collect();
    let mut shown: u16 = 0;
    let all = together(status);
    for (place, one) in all.iter().enumerate() {
        let (standing, words) = (one.first, sentence_of_all(one, &layout));
        let own = u16::try_from(words.lines().count()).unwrap_or(u16::MAX);
        if shown.saturating_add(own) > limit && place > 0 {
            let more: usize = all[place..].iter().map(Together::len).sum();
            lines.push(Line::raw(format!("and {more} more: proxytrace status lists them")));
            break;
        }
        shown = shown.saturating_add(own);
        let style = match standing.finding.severity {
            Severity::Critical => look.of_state(State::Down),
            Severity::Warning => look.of_state(State::Failing),
            Severity::Info => Style::new(),
        };
        for (number, line) in words.lines().enumerate().take(limit.max(1).into()) {
            lines.push(match line.split_once(':').filter(|_| number == 0) {
                Some((kind, rest)) => {
                    Line::from(vec![Span::styled(format!("{kind}:"), style), Span::raw(rest.to_owned())])
                }
                None => Line::raw(line.to_owned()),
            });
        }
    }
    for proxy in status.proxies.iter().take(MAX_PROXIES) {
        lines.push(Line::raw(fit(&proxy_line(proxy, status, &layout), width.into())));
    }
    if let Some(more) = status.proxies.len().checked_sub(MAX_PROXIES).filter(|more| *more > 0) {
        lines.push(Line::raw(format!("and {more} more proxies")));
    }
    lines
}

/// What is selected, and what keys do.
fn foot(top: &Top, width: u16, look: &Look) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if let Some(status) = &top.status
        && top.looked_at.is_none()
        && let Some(row) = top.rows.get(top.place())
    {
        lines.extend(selected(row, top, status, width, look));
    }
    let mut words = Vec::new();
    if let Some(trouble) = &top.trouble {
        words.push(format!("OLD: {}", printable(trouble)));
    }
    if top.is_paused {
        words.push("PAUSED".to_owned());
    }
    match (&top.is_filtering, &*top.filter) {
        (Some(_), filter) => {
            words.push(format!("filter: {}_  enter keeps it, esc does not", printable(filter)));
        }
        (None, "") => {}
        (None, filter) => words.push(format!("only with {:?}", printable(filter))),
    }
    if top.is_filtering.is_none() {
        words.push(match top.looked_at {
            None => format!("by {}; ? helps, q ends", top.sort.words()),
            Some(_) => "esc goes back, ? helps, q ends".to_owned(),
        });
    }
    let line = fit(&words.join("; "), width.into());
    lines.push(Line::styled(line, Style::new().add_modifier(Modifier::REVERSED)));
    lines
}

/// What the table has no room for, of the row that is selected.
fn selected(row: &Row, top: &Top, status: &Status, width: u16, look: &Look) -> Vec<Line<'static>> {
    let mut words = Vec::new();
    let causes = causes(&row.recent(status, &top.baseline));
    if !causes.is_empty() {
        words.push(causes);
    }
    if let Some(upstream) = row.upstream(status).filter(|_| row.key.address.is_none()) {
        words.extend(upstream.reload.as_ref().map(sides));
        if upstream.waiting.oldest_ms > 0 {
            let oldest = duration(u64::from(upstream.waiting.oldest_ms) * 1000);
            words.push(format!("the oldest request waits {oldest}"));
        }
    }
    let name = printable(&row.key.upstream);
    let address = row.key.address.as_ref().map(|address| format!(" at {}", printable(address)));
    let head = format!(
        "{name}{} of {}: {}",
        address.unwrap_or_default(),
        printable(&row.key.proxy),
        row.state.name()
    );
    let dim = match look.colour {
        Colour::On => Style::new().fg(Color::Cyan),
        Colour::Off => Style::new(),
    };
    let lines = [head, words.join("; ")];
    lines.iter().map(|line| Line::styled(fit(line, width.into()), dim)).collect()
}

/// The title of the table, and the rows around the one that is selected.
fn table(top: &mut Top, width: u16, room: usize, look: &Look) -> Vec<Line<'static>> {
    let columns = columns(width.into(), top.content);
    let room = room.saturating_sub(1);
    top.room = room;
    let place = top.place();
    let last = top.rows.len().saturating_sub(room);
    top.offset = top.offset.clamp((place + 1).saturating_sub(room).min(place), place).min(last);
    let Some(status) = &top.status else { return Vec::new() };
    let cell = |(column, width): &(Column, usize), text: &str| {
        let text = if column.is_told_by_its_end() { fit_end(text, *width) } else { fit(text, *width) };
        aligned(&text, *width, column.is_number())
    };
    let titles = columns.iter().map(|column| {
        let title = match column.0 {
            Column::Trend if column.1 < column.0.title().len() => "MIN",
            column => column.title(),
        };
        cell(column, title)
    });
    let dim = Style::new().add_modifier(Modifier::DIM);
    let mut lines = vec![Line::styled(titles.collect::<Vec<_>>().join(" "), dim)];
    if top.rows.is_empty() {
        let words = if top.filter.is_empty() {
            "nothing was connected to yet"
        } else {
            "nothing has that in its name: esc clears the filter"
        };
        lines.push(Line::raw(fit(words, width.into())));
    }
    for (number, row) in top.rows.iter().enumerate().skip(top.offset).take(room) {
        let mut spans = Vec::new();
        for column in &columns {
            if !spans.is_empty() {
                spans.push(Span::raw(" "));
            }
            match column.0 {
                Column::Trend => {
                    let key = (row.key.proxy.clone(), row.key.upstream.clone());
                    let trend = top.trends.get(&key).cloned().unwrap_or_default();
                    spans.extend(trend.cells(column.1).map(|(symbol, is_wrong)| {
                        let style = if is_wrong { look.of_state(State::Failing) } else { Style::new() };
                        Span::styled(symbol.to_string(), style)
                    }));
                }
                Column::State => {
                    spans.push(Span::styled(cell(column, row.state.name()), look.of_state(row.state)));
                }
                which => spans.push(Span::raw(cell(column, &text(which, row, top, status, look)))),
            }
        }
        let line = Line::from(spans);
        let is_selected = number == place;
        lines.push(if is_selected {
            line.style(Style::new().add_modifier(Modifier::REVERSED))
        } else {
            line
        });
    }
    lines
}

/// What stands in a column.
fn text(column: Column, row: &Row, top: &Top, status: &Status, look: &Look) -> String {
    let none = || "-".to_owned();
    let upstream = row.upstream(status);
    let time = |us: Option<u64>| us.map_or_else(none, duration);
    let count = |count: u64| if count > 0 { count.to_string() } else { none() };
    let side = |sides: Option<(u64, u64)>| match sides {
        Some((wrong, all)) if all > 0 => format!("{wrong} of {all}"),
        _ => none(),
    };
    let sides = upstream.and_then(|upstream| upstream.reload.as_ref());
    match column {
        Column::Name => printable(&row.key.upstream).into_owned(),
        Column::Address => {
            row.key.address.as_deref().map_or_else(none, |address| printable(address).into_owned())
        }
        Column::Proxy => printable(&row.key.proxy).into_owned(),
        Column::Since => {
            let since = upstream.and_then(|upstream| upstream.state_since);
            since.map_or_else(none, |time| clock(time, status.time, &look.layout(0)))
        }
        Column::Rate => rate(row.attempts, row.seconds),
        Column::Failed => match (row.wrong, row.attempts.max(row.wrong)) {
            (0, _) => none(),
            // Less than all is never 100 %, and some are never none.
            (wrong, all) => format!(
                "{:.0}%",
                (100.0 * wrong as f64 / all as f64).clamp(1.0, if wrong < all { 99.0 } else { 100.0 })
            ),
        },
        Column::Waiting => row.waiting.map_or_else(none, |waiting| count(waiting.into())),
        Column::Resent => count(row.resent),
        Column::P50 => time(upstream.and_then(|upstream| upstream.connect_p50_us)),
        Column::P99 => time(row.p99_us),
        Column::Old => side(sides.map(|sides| (sides.old.gone_wrong(), sides.old.attempts))),
        Column::New => side(sides.map(|sides| (sides.new.gone_wrong(), sides.new.attempts))),
        Column::Causes => causes(&row.recent(status, &top.baseline)),
        Column::State | Column::Trend => String::new(),
    }
}

/// The upstream that is looked at.
fn details(top: &mut Top, width: u16, room: usize, look: &Look) -> Vec<Line<'static>> {
    let (Some(status), Some((proxy, name))) = (&top.status, &top.looked_at) else { return Vec::new() };
    let mut own = status.upstreams.iter().filter(|one| one.proxy == *proxy && one.upstream == *name);
    let lines = match own.next() {
        Some(upstream) => detail::lines(status, upstream, top.details.as_ref(), width, look),
        None => vec![format!("{} is not connected to any more", printable(name))],
    };
    top.room = room;
    top.scrollable = lines.len().saturating_sub(room);
    top.scrolled = top.scrolled.min(top.scrollable);
    lines.into_iter().skip(top.scrolled).take(room).map(|line| Line::raw(fit(&line, width.into()))).collect()
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let mut lines = Vec::new();
    let width = usize::from(area.width).saturating_sub(4).min(86);
    for (keys, does) in HELP {
        let words = crate::output::columned(keys, does, 16, width);
        lines.extend(words.lines().map(|line| Line::raw(format!(" {line}"))));
    }
    let height = u16::try_from(lines.len() + 2).unwrap_or(area.height).min(area.height);
    let width = u16::try_from(width + 4).unwrap_or(area.width).min(area.width);
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    frame.render_widget(
        Paragraph::new(lines).block(ratatui::widgets::Block::bordered().title(" keys ")),
        place,
    );
}

/// In a cell of that width.
fn aligned(text: &str, width: usize, is_number: bool) -> String {
    let blanks = " ".repeat(width.saturating_sub(display_width(text)));
    if is_number { blanks + text } else { text.to_owned() + &blanks }
}
