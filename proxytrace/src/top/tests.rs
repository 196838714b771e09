//! What is drawn, at every width: compared with the screens in `screens/`, which `PROXYTRACE_UPDATE_DOCS=1` writes anew.

use std::{fs, path::Path, time::Instant};

use jiff::{SignedDuration, tz::TimeZone};
use ratatui::{Terminal, backend::TestBackend, style::Color};
use serde_json::json;

use super::{Details, Glimpse, Key, Look, Reaction, Top, draw, height, lines};
use crate::{
    model::{Minute, Remembered},
    output::Colour,
    status::Status,
};

const NOW: &str = "2026-11-22T14:35:10Z";

/// An outage: the upstream `api` after a bad reload, and others around it.
fn status() -> Status {
    let kept = |attempts: u64| json!({"attempts": attempts, "established": attempts, "handshakes_us": {"100": attempts}});
    let failing =
        json!({"attempts": 63, "failures": {"refused": 60, "proxy_timeout": 3}, "syn_retransmits": 12});
    serde_json::from_value(json!({
        "time": NOW, "version": "0.1.0", "source": "agent",
        "since": "2026-11-22T09:12:44Z", "recent_since": "2026-11-22T14:34:10Z",
        "findings": [
            {"proxy": "nginx.service", "finding": "misrouted", "upstream": "api", "address": "10.0.0.5:8081",
             "severity": "critical", "since": "2026-11-22T14:30:02Z", "place": "/etc/nginx/conf.d/api.conf:4",
             "evidence": {"failed": 312, "of": 312, "causes": {"refused": 312}, "from": ["10.0.0.5:8080"],
                          "reload": "2026-11-22T14:30:02Z", "generation": 3, "old_workers": {"failed": 0, "of": 41}},
             "sentence": ""},
        ],
        "proxies": [{"proxy": "nginx.service", "pid": 700, "workers": 6, "old_workers": 2, "generation": 3,
                     "reloaded": "2026-11-22T14:30:02Z", "rejected": 0, "crashes": 0, "names_ready": true}],
        "upstreams": [
            {"proxy": "nginx.service", "upstream": "web", "state": "ok", "state_since": "2026-11-22T09:12:44Z",
             "recent": kept(492), "connect_p50_us": 64, "connect_p99_us": 240, "in_flight": 0,
             "addresses": [{"address": "10.0.0.9:80", "declared": true, "counts": kept(90000)}]},
            {"proxy": "nginx.service", "upstream": "api", "state": "down", "state_since": "2026-11-22T14:30:02Z",
             "recent": failing, "in_flight": 0, "waiting": {"connections": 2, "oldest_ms": 12_000},
             "reload": {"old": kept(41), "new": {"attempts": 312, "failures": {"refused": 312}}},
             "addresses": [{"address": "10.0.0.5:8080", "declared": false, "counts": kept(41)},
                           {"address": "10.0.0.5:8081", "declared": true, "counts": failing}]},
            {"proxy": "nginx.service", "upstream": "a-name-so-long-that-no-column-has-room-for-it.example.internal",
             "state": "failing", "state_since": "2026-11-22T14:34:50Z",
             "recent": {"attempts": 200, "established": 199, "failures": {"timed_out": 1}, "handshakes_us": {"1000": 199}},
             "connect_p50_us": 750, "connect_p99_us": 995, "in_flight": 1, "addresses": []},
            {"proxy": "nginx.service", "upstream": "evil\u{1b}[2J\n<b>\u{202e}名前", "state": "quiet", "recent": {}, "in_flight": 0,
             "addresses": [{"address": "unix:/run/\u{7}x.sock", "declared": true, "counts": {}}]},
        ]
    }))
    .unwrap()
}

fn minutes() -> Vec<Minute> {
    let minute = |minute: i64, upstream: &str, attempts: u64, refused: u64| {
        let time = NOW.parse::<jiff::Timestamp>().unwrap() - SignedDuration::from_mins(minute);
        let counts = json!({"time": time, "proxy": "nginx.service", "upstream": upstream, "attempts": attempts,
            "established": attempts - refused, "failures": {"refused": refused}});
        serde_json::from_value(counts).unwrap()
    };
    (0..15)
        .flat_map(|ago| {
            [
                minute(ago, "api", 60, if ago < 5 { 60 } else { u64::from(ago % 2 == 1) }),
                minute(ago, "web", 480, 0),
            ]
        })
        .collect()
}

fn glimpse() -> Glimpse {
    Glimpse { status: status(), minutes: Some(minutes()), details: None }
}

fn outage() -> Top {
    let mut top = Top::default();
    top.show(glimpse());
    top
}

const PLAIN: Look = Look { colour: Colour::Off, zone: TimeZone::UTC };

fn terminal(top: &mut Top, width: u16, height: u16, look: &Look) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, top, look)).unwrap();
    terminal
}

/// The screen as text.
fn screen(top: &mut Top, width: u16, height: u16) -> String {
    let terminal = terminal(top, width, height, &PLAIN);
    lines(terminal.backend().buffer()).join("\n") + "\n"
}

#[track_caller]
fn check(name: &str, screen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/screens").join(name);
    if std::env::var_os("PROXYTRACE_UPDATE_DOCS").is_some() {
        fs::write(&path, screen).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), screen, "{}", path.display());
}

fn press(top: &mut Top, keys: &str) {
    for key in keys.chars() {
        let key = match key {
            '\n' => Key::Enter,
            '\u{1b}' => Key::Escape,
            key => Key::Char(key),
        };
        assert_ne!(top.press(key), Reaction::Quit);
    }
}

#[test]
fn an_outage_fits_every_width() {
    for width in [60, 80, 120, 200] {
        let text = screen(&mut outage(), width, 24);
        check(&format!("outage-{width}.txt"), &text);
        for part in ["misrouted:", "api", "down", "100%", "312 of 312"] {
            assert!(text.contains(part), "{part} at {width}:\n{text}");
        }
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text}");
    }
}

#[test]
fn addresses_help_and_details_have_screens_of_their_own() {
    let mut top = outage();
    press(&mut top, "a");
    check("addresses-80.txt", &screen(&mut top, 80, 24));
    check("addresses-60.txt", &screen(&mut top, 60, 24));
    press(&mut top, "a?");
    check("help-80.txt", &screen(&mut top, 80, 24));
    press(&mut top, "x");
    assert_eq!(top.press(Key::Enter), Reaction::Ask);
    let of = top.looked_at().cloned().unwrap();
    assert_eq!(&*of.1, "api");
    let record = r#"{"time":"2026-11-22T14:35:01Z","kind":"connect","proxy":"nginx.service","pid":9,"generation":3,"upstream":"UP","address":"10.0.0.5:8081","outcome":"refused","cause":"refused","errno":111,"duration_us":58,"syn_retransmits":0}"#;
    let record = |upstream| serde_json::from_str::<Remembered>(&record.replace("UP", upstream)).unwrap();
    let details = Details::new(of, Vec::new(), minutes(), vec![record("api"), record("web")]);
    assert_eq!((details.minutes.len(), details.records.len()), (15, 1));
    top.show(Glimpse { details: Some(details), ..glimpse() });
    check("details-80.txt", &screen(&mut top, 80, 40));
    check("details-60.txt", &screen(&mut top, 60, 60));
    // Where it does not fit, it scrolls.
    screen(&mut top, 80, 12);
    let before = screen(&mut top, 80, 12);
    top.press(Key::End);
    let after = screen(&mut top, 80, 12);
    assert!(!before.contains("refused by") && before != after && after.contains("LAST RECORDS"), "{after}");
    press(&mut top, "\u{1b}");
    assert!(top.looked_at().is_none());
}

#[test]
fn rows_are_sorted_and_filtered_and_the_selected_one_stays() {
    let mut top = outage();
    let names = |top: &Top| {
        top.rows.iter().map(|row| row.key.upstream.chars().take(3).collect()).collect::<Vec<String>>()
    };
    assert_eq!(names(&top), ["api", "a-n", "web", "evi"]);
    press(&mut top, "jj");
    assert_eq!(&*top.selected.clone().unwrap().upstream, "web");
    top.show(glimpse());
    assert_eq!(&*top.selected.clone().unwrap().upstream, "web");
    press(&mut top, "s");
    assert_eq!(names(&top), ["web", "a-n", "api", "evi"]);
    press(&mut top, "S/ap\n");
    assert_eq!(names(&top), ["api"]);
    press(&mut top, "/x\u{1b}");
    assert_eq!(top.filter, "ap");
    press(&mut top, "\u{1b}/down\n");
    assert_eq!(names(&top), ["api"]);
    press(&mut top, "\u{1b}/\u{1b}");
    assert_eq!(names(&top).len(), 4);
    assert_eq!(top.press(Key::Char('q')), Reaction::Quit);
}

#[test]
fn while_it_is_paused_nothing_changes_and_then_the_newest_is_shown() {
    let mut top = outage();
    press(&mut top, " ");
    let before = screen(&mut top, 100, 24);
    assert!(before.contains("PAUSED"), "{before}");
    for seconds in [10, 20] {
        let mut later = glimpse();
        later.status.time += SignedDuration::from_secs(seconds);
        later.status.upstreams.retain(|of| &*of.upstream == "web");
        top.show(later);
    }
    assert_eq!(screen(&mut top, 100, 24), before);
    press(&mut top, "p");
    let after = screen(&mut top, 100, 24);
    assert!(after.contains("14:35:30") && !after.contains("PAUSED") && top.rows.len() == 1, "{after}");
    top.note_trouble("no agent listens there".to_owned());
    assert!(screen(&mut top, 100, 24).contains("OLD: no agent listens there"));
    top.show(glimpse());
    assert!(!screen(&mut top, 100, 24).contains("OLD:"));
}

#[test]
fn without_colour_there_is_none_and_with_it_nothing_is_green() {
    let colours = |look: &Look| {
        let terminal = terminal(&mut outage(), 120, 24, look);
        let cells = terminal.backend().buffer().content().iter();
        let mut colours: Vec<_> =
            cells.map(|cell| cell.fg).filter(|colour| *colour != Color::Reset).collect();
        colours.dedup();
        colours
    };
    assert_eq!(colours(&PLAIN), []);
    let colours = colours(&Look { colour: Colour::On, ..PLAIN });
    assert!(colours.contains(&Color::LightRed) && colours.contains(&Color::Yellow), "{colours:?}");
    assert!(!colours.iter().any(|colour| [Color::Green, Color::LightGreen].contains(colour)), "{colours:?}");
}

#[test]
fn recent_counts_of_an_address_are_those_since_an_earlier_look() {
    let mut top = outage();
    for turn in 1..=4_u64 {
        let mut later = glimpse();
        later.status.time += SignedDuration::from_secs(turn as i64 * 20);
        later.status.upstreams[0].addresses[0].counts.attempts += 40 * turn;
        top.show(later);
    }
    press(&mut top, "a/10.0.0.9\n");
    let row = &top.rows[0];
    // The first look is too long ago by now.
    assert_eq!((row.attempts, row.seconds), (120, 60.0));
}

/// Two proxies may have two hosts at one address, and upstreams of one name.
#[test]
fn what_is_wrong_of_one_proxy_says_nothing_of_another() {
    let mut status = status();
    let kept = json!({"attempts": 600, "established": 600});
    let other = json!({"proxy": "prod/web-7d9f8-abcde/nginx", "upstream": "api", "state": "ok", "recent": kept, "in_flight": 0,
        "addresses": [{"address": "10.0.0.5:8081", "declared": true, "counts": kept}]});
    status.upstreams.push(serde_json::from_value(other).unwrap());
    let mut top = Top::default();
    top.show(Glimpse { status, minutes: None, details: None });
    for keys in ["", "a"] {
        press(&mut top, keys);
        let text = screen(&mut top, 80, 30);
        let row = |proxy: &str| {
            text.lines()
                .find(|line| line.starts_with("api ") && line.contains(proxy))
                .unwrap_or_else(|| panic!("{text}"))
        };
        assert!(row("nginx.service").contains(" down "), "{text}");
        assert!(row("abcde/nginx").contains(" ok "), "{text}");
    }
}

#[test]
fn ten_thousand_addresses_are_drawn_without_delay() {
    let mut large = status();
    let upstream = large.upstreams.remove(1);
    large.upstreams = (0..200)
        .map(|number| {
            let mut upstream = upstream.clone();
            upstream.upstream = format!("upstream-{number}").into();
            let to = upstream.addresses[1].clone();
            upstream.addresses = (0..50)
                .map(|last| {
                    let mut to = to.clone();
                    to.address = format!("10.0.{number}.{last}:8080").into();
                    to
                })
                .collect();
            upstream
        })
        .collect();
    let mut top = Top::default();
    press(&mut top, "a");
    let begun = Instant::now();
    for _ in 0..5 {
        top.show(Glimpse { status: large.clone(), minutes: None, details: None });
        for _ in 0..10 {
            press(&mut top, "j");
            screen(&mut top, 200, 60);
        }
    }
    assert_eq!(top.rows.len(), 10_000);
    // As it is built for tests, on a machine that does other things as well.
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    assert!(height(&top, 200, &PLAIN) > 10_000);
}

#[test]
fn any_size_of_a_terminal_will_do() {
    for (width, height) in [(1, 1), (3, 2), (20, 5), (59, 7), (500, 200)] {
        for keys in ["", "?", "a", "\n", "/x"] {
            let mut top = outage();
            press(&mut top, keys);
            screen(&mut top, width, height);
        }
    }
    screen(&mut Top::default(), 80, 24);
}
