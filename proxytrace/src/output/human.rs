//! Records as lines for people: aligned, the name of the cause first because that is what one searches for.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use proxytrace_ebpf::outcome::Outcome;

use super::{
    Paint, Screen, Width,
    columns::{Cell, Column, Columns},
    words,
};
use crate::escape::printable;
use crate::model::{
    Attempt, Body, Change, Connection, Exit, Record, Reload, ReloadResult, Remembered, Route, State, Worker,
};

/// How lines for people look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Where they are shown.
    pub screen: Screen,
    /// Where times of day are from.
    pub zone: TimeZone,
    /// Whether the date stands before the time.
    pub date: bool,
}

const TITLES: [&str; 6] = ["TIME", "CAUSE", "UPSTREAM", "ADDRESS", "AFTER", "PROXY"];

/// Writes records as lines.
pub struct Human {
    look: Look,
    columns: Columns<6>,
}

impl Human {
    /// Lines that look like that.
    #[must_use]
    pub fn new(look: Look) -> Self {
        let columns = Columns::new(columns(&look), look.screen);
        Self { look, columns }
    }

    /// The line above the columns.
    #[must_use]
    pub fn title(&mut self) -> String {
        self.columns.line(&TITLES.map(|text| Cell { text, paint: Some(Paint::Dim) }), "MEANING")
    }

    /// The line of a record, or of many in one; `None` for one that people need not see.
    pub fn line(&mut self, remembered: &Remembered) -> Option<String> {
        let Remembered { record, times, until } = remembered;
        let mut shown = match &record.body {
            Body::Header(_)
            | Body::Counts(_)
            | Body::Declared(_)
            | Body::Generation(_)
            | Body::Rejection(_)
            | Body::Workers(_)
            | Body::Complaints(_)
            | Body::Tick => return None,
            Body::Finding(change) => return Some(self.finding(record, change)),
            Body::Connect(attempt) => connect(attempt),
            Body::Unanswered(unanswered) => Shown {
                paint: Paint::Yellow,
                cause: "unanswered",
                about: About::route(&unanswered.route, unanswered.duration_us),
                words: words::unanswered(unanswered.acknowledged).to_owned(),
            },
            Body::Stalled(attempt) => Shown {
                paint: Paint::Yellow,
                cause: "stalled",
                about: About::route(&attempt.route, attempt.duration_us),
                words: words::STALLED.to_owned() + &words::backend(&attempt.route),
            },
            Body::Broken(connection) => broken(connection),
            Body::Reload(reload) => self::reload(reload),
            Body::WorkerStarted(worker) => Shown {
                paint: Paint::Dim,
                cause: "worker_started",
                about: About::process(worker),
                words: String::new(),
            },
            Body::WorkerExited(exit) => exited(exit),
            Body::Lost(lost) => Shown {
                paint: Paint::Yellow,
                cause: "lost",
                about: About::default(),
                words: format!(
                    "{} records were not read in time; the counts in the summary are right",
                    lost.count
                ),
            },
        };
        if *times > 1 {
            let until = until.map(|until| format!(" until {}", self.time(until))).unwrap_or_default();
            shown.words = format!("×{times}{until}: {}", shown.words);
        }
        Some(self.aligned(record, &shown))
    }

    /// Not in columns: it is a sentence, and no connect.
    fn finding(&self, record: &Record, change: &Change) -> String {
        let (paint, word) = match change.state {
            State::Raised => (Paint::Red, "FINDING"),
            State::Cleared => (Paint::Green, "CLEARED"),
        };
        let before = format!("{}  {word}  ", self.time(record.time));
        let text = before.clone() + &printable(&change.in_zone(&self.look.zone));
        let text = self.look.screen.width.wrapped(&text, 0, before.len());
        text.replacen(word, &self.look.screen.colour.paint(paint, word), 1)
    }

    /// A time as it stands in lines.
    #[must_use]
    pub fn time(&self, time: Timestamp) -> String {
        let format = if self.look.date { "%Y-%m-%d %H:%M:%S%.3f" } else { "%H:%M:%S%.3f" };
        time.to_zoned(self.look.zone.clone()).strftime(format).to_string()
    }

    fn aligned(&mut self, record: &Record, shown: &Shown<'_>) -> String {
        let About { upstream, address, duration, who } = &shown.about;
        let time = self.time(record.time);
        let plain = |text| Cell { text, paint: None };
        let cells = [
            plain(&time),
            Cell { text: shown.cause, paint: Some(shown.paint) },
            plain(upstream),
            plain(address),
            plain(duration),
            Cell { text: who, paint: Some(Paint::Dim) },
        ];
        self.columns.line(&cells, &shown.words)
    }
}

/// What most cells need: `closed_before_response` is the longest cause, `255.255.255.255:65535` a long address,
/// `nginx.service[12345] reload 1` a usual proxy. Names and IPv6 addresses widen their columns. With less room columns are
/// narrower, so that a date, a cause and an address stay on one line of 80.
fn columns(look: &Look) -> [Column; 6] {
    let fixed = |width, is_number| Column { width, widest: width, is_number };
    let growing = |width, widest| Column { width, widest, is_number: false };
    let is_endless = look.screen.width == Width::Endless;
    let time = if look.date { 23 } else { 12 };
    let is_tight = look.date && !look.screen.width.has_room_for(100);
    let (cause, address) = if is_tight { (16, 18) } else { (22, 21) };
    [
        fixed(time, false),
        fixed(cause, false),
        growing(10, 30),
        growing(address, 47),
        fixed(8, true),
        growing(if is_endless { 29 } else { 20 }, 60),
    ]
}

/// What goes into the columns of a line.
struct Shown<'a> {
    paint: Paint,
    cause: &'a str,
    about: About,
    words: String,
}

/// Where to, after how long, and who.
#[derive(Default)]
struct About {
    upstream: String,
    address: String,
    duration: String,
    who: String,
}

impl About {
    fn route(route: &Route, us: u64) -> Self {
        let Route { proxy, pid, generation, upstream, address, .. } = route;
        let upstream = printable(upstream).into_owned();
        let address = printable(&address.to_string()).into_owned();
        Self { upstream, address, duration: duration(us), who: who(proxy, *pid, *generation) }
    }

    fn process(Worker { proxy, pid, generation }: &Worker) -> Self {
        Self { who: who(proxy, *pid, *generation), ..Self::default() }
    }
}

fn connect(attempt: &Attempt) -> Shown<'_> {
    let outcome = attempt.outcome.unwrap_or(Outcome::Other);
    let mut words = outcome.words().to_owned();
    if outcome == Outcome::Other && attempt.errno != 0 {
        words = format!("{words}: {}", std::io::Error::from_raw_os_error(attempt.errno.cast_signed()));
    }
    if outcome == Outcome::GivenUp {
        words += words::GIVEN_UP;
    }
    match attempt.syn_retransmits {
        0 => {}
        1 => words += ", 1 SYN sent again",
        n => words += &format!(", {n} SYNs sent again"),
    }
    words += &words::backend(&attempt.route);
    Shown {
        paint: if outcome == Outcome::Established { Paint::Green } else { Paint::Red },
        cause: outcome.name(),
        about: About::route(&attempt.route, attempt.duration_us),
        words,
    }
}

fn broken(connection: &Connection) -> Shown<'_> {
    Shown {
        paint: Paint::Red,
        cause: connection.cause.name(),
        about: About::route(&connection.route, connection.duration_us),
        words: connection.cause.words(connection.kept).to_owned() + &words::backend(&connection.route),
    }
}

fn reload(Reload { master, result, reason }: &Reload) -> Shown<'static> {
    let (paint, cause, words) = match result {
        ReloadResult::Accepted => (Paint::Green, "reload_accepted", words::RELOAD_ACCEPTED.to_owned()),
        ReloadResult::Rejected => (
            Paint::Red,
            "reload_rejected",
            words::reload_rejected(reason.as_deref().map(|reason| printable(reason).into_owned())),
        ),
    };
    Shown { paint, cause, about: About::process(master), words }
}

fn exited(exit: &Exit) -> Shown<'static> {
    let (paint, cause, words) = match (exit.signal, exit.code) {
        (Some(signal), _) => (Paint::Red, "worker_crashed", words::signal(signal, exit.core)),
        (None, None | Some(0)) => (Paint::Dim, "worker_exited", String::new()),
        (None, Some(code)) => (Paint::Red, "worker_failed", format!("ended with exit code {code}")),
    };
    Shown { paint, cause, about: About::process(&exit.worker), words }
}

/// Which process, and since which reload; the configuration that was there first needs no mention.
fn who(proxy: &str, pid: u32, generation: u32) -> String {
    let proxy = printable(proxy);
    match generation {
        0 => format!("{proxy}[{pid}]"),
        n => format!("{proxy}[{pid}] reload {n}"),
    }
}

/// Three digits and a unit.
#[must_use]
pub fn duration(us: u64) -> String {
    let duration = Duration::from_micros(us);
    match us {
        0..1_000 => format!("{us} us"),
        1_000..100_000 => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
        100_000..1_000_000 => format!("{} ms", us / 1000),
        1_000_000..100_000_000 => format!("{:.2} s", duration.as_secs_f64()),
        _ => format!("{} s", duration.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp, tz::TimeZone};
    use proxytrace_ebpf::outcome::{Broken, Outcome};

    use super::{Human, Look, Screen, Width, duration};
    use crate::model::{
        Attempt, Body, Connection, Exit, Lost, Record, Reload, ReloadResult, Remembered, Route, Unanswered,
        Worker,
    };
    use crate::output::Colour;

    fn route(address: &str, generation: u32) -> Route {
        Route {
            proxy: "nginx.service".into(),
            pid: 9694,
            generation,
            upstream: "api".into(),
            address: address.parse().unwrap(),
            local: None,
            backend: None,
        }
    }

    fn attempt(outcome: Option<Outcome>, errno: u32, duration_us: u64, syn_retransmits: u32) -> Attempt {
        Attempt { route: route("10.0.0.5:8081", 0), outcome, errno, duration_us, syn_retransmits }
    }

    fn at(screen: Screen, date: bool) -> Human {
        Human::new(Look { screen, zone: TimeZone::UTC, date })
    }

    fn plain() -> Human {
        at(Screen::PLAIN, false)
    }

    /// Lines on a terminal of so many columns.
    fn on(columns: u16, date: bool, bodies: &[(Body, u64)]) -> String {
        let mut human = at(Screen { colour: Colour::Off, width: Width::Columns(columns) }, date);
        let time: Timestamp = "2026-11-22T14:30:02.123456789Z".parse().unwrap();
        let mut lines = vec![human.title()];
        for (body, times) in bodies {
            let until = (*times > 1).then(|| time + SignedDuration::from_secs(1));
            let record = Record { time, body: body.clone() };
            lines.push(human.line(&Remembered { record, times: *times, until }).unwrap());
        }
        lines.join("\n") + "\n"
    }

    fn check(body: Body, expected: &str) {
        let mut human = plain();
        let record = Record { time: "2026-11-22T14:30:02.123456789Z".parse().unwrap(), body };
        assert_eq!(human.line(&Remembered::once(record)).as_deref(), Some(expected));
    }

    #[test]
    fn lines_are_aligned_and_say_the_cause_in_words() {
        let mut human = plain();
        let title = "TIME          CAUSE                   UPSTREAM    ADDRESS                   AFTER  PROXY                          MEANING";
        assert_eq!(human.title(), title);
        check(
            Body::Connect(attempt(Some(Outcome::Refused), 111, 330, 0)),
            "14:30:02.123  refused                 api         10.0.0.5:8081            330 us  nginx.service[9694]            nobody listens there, or a firewall rejects it",
        );
        check(
            Body::Connect(attempt(Some(Outcome::ProxyTimeout), 0, 5_000_000, 2)),
            "14:30:02.123  proxy_timeout           api         10.0.0.5:8081            5.00 s  nginx.service[9694]            no answer within the proxy's connect timeout, 2 SYNs sent again",
        );
        check(
            Body::Connect(Attempt {
                route: route("10.0.0.5:8081", 2),
                ..attempt(Some(Outcome::Other), 22, 12_300, 0)
            }),
            "14:30:02.123  other                   api         10.0.0.5:8081           12.3 ms  nginx.service[9694] reload 2   connect failed: Invalid argument (os error 22)",
        );
        check(
            Body::Connect(attempt(Some(Outcome::GivenUp), 0, 3_000_000, 1)),
            "14:30:02.123  given_up                api         10.0.0.5:8081            3.00 s  nginx.service[9694]            no answer, and then the proxy gave up: its client left, the worker exits, or its connect timeout is shorter than --connect-timeout says, 1 SYN sent again",
        );
        let mut sent_on = attempt(Some(Outcome::Refused), 111, 330, 0);
        sent_on.route.backend = Some("10.0.7.1:80".parse().unwrap());
        check(
            Body::Connect(sent_on),
            "14:30:02.123  refused                 api         10.0.0.5:8081            330 us  nginx.service[9694]            nobody listens there, or a firewall rejects it; this host sent it on to 10.0.7.1:80",
        );
        check(
            Body::Stalled(attempt(None, 0, 1_020_000, 1)),
            "14:30:02.123  stalled                 api         10.0.0.5:8081            1.02 s  nginx.service[9694]            no answer yet, SYN sent again: packets are dropped, or the listener's backlog is full",
        );
        let connection = Connection {
            route: route("unix:/run/php-fpm/a-rather-long-name.sock", 0),
            cause: Broken::ClosedBeforeResponse,
            errno: 0,
            duration_us: 250_000,
            kept: false,
        };
        check(
            Body::Broken(connection),
            "14:30:02.123  closed_before_response  api         unix:/run/php-fpm/a-rather-long-name.sock    250 ms  nginx.service[9694]            connected, then closed without an answer: wrong service, or it crashed",
        );
        let kept = Connection {
            route: route("10.0.0.5:8081", 0),
            cause: Broken::ClosedBeforeResponse,
            errno: 0,
            duration_us: 75_000_000,
            kept: true,
        };
        check(
            Body::Broken(kept),
            "14:30:02.123  closed_before_response  api         10.0.0.5:8081           75.00 s  nginx.service[9694]            closed as the next request came: the backend's keepalive timeout is shorter than the proxy's, or it was restarted; nginx tries idempotent requests again, others get 502",
        );
        let unanswered = |acknowledged: bool| {
            Body::Unanswered(Unanswered {
                route: route("10.0.0.5:8081", 0),
                duration_us: 5_320_000,
                acknowledged,
            })
        };
        check(
            unanswered(true),
            "14:30:02.123  unanswered              api         10.0.0.5:8081            5.32 s  nginx.service[9694]            a request waits for its answer: it was acknowledged, so the host is there and the application hangs or is slow",
        );
        check(
            unanswered(false),
            "14:30:02.123  unanswered              api         10.0.0.5:8081            5.32 s  nginx.service[9694]            a request waits, and nothing acknowledges it: the host or the way to it is gone",
        );
        let worker = Worker { proxy: "nginx.service".into(), pid: 9694, generation: 1 };
        let reload = |result: ReloadResult| {
            let reason = (result == ReloadResult::Rejected).then(|| "unknown directive \"sever\"".into());
            Body::Reload(Reload { master: worker.clone(), result, reason })
        };
        let exited = |status: u32| Body::WorkerExited(Exit::of_status(worker.clone(), status));
        check(
            reload(ReloadResult::Accepted),
            "14:30:02.123  reload_accepted                                                      nginx.service[9694] reload 1   new workers have started",
        );
        check(
            reload(ReloadResult::Rejected),
            "14:30:02.123  reload_rejected                                                      nginx.service[9694] reload 1   no new worker came, the previous configuration stays: unknown directive \"sever\"",
        );
        check(
            Body::WorkerStarted(worker.clone()),
            "14:30:02.123  worker_started                                                       nginx.service[9694] reload 1",
        );
        check(
            exited(11 | 0x80),
            "14:30:02.123  worker_crashed                                                       nginx.service[9694] reload 1   ended by SIGSEGV, memory dumped",
        );
        check(
            exited(2 << 8),
            "14:30:02.123  worker_failed                                                        nginx.service[9694] reload 1   ended with exit code 2",
        );
        check(
            exited(0),
            "14:30:02.123  worker_exited                                                        nginx.service[9694] reload 1",
        );
        check(
            Body::Lost(Lost { count: 7 }),
            "14:30:02.123  lost                                                                                                7 records were not read in time; the counts in the summary are right",
        );
    }

    #[test]
    fn a_name_that_is_too_long_to_align_is_shown_and_moves_no_other_line() {
        let mut human = plain();
        let long = "u".repeat(70_000);
        let mut line = |upstream: &str| {
            let mut attempt = attempt(Some(Outcome::Refused), 111, 330, 0);
            attempt.route.upstream = upstream.into();
            attempt.route.proxy = upstream.into();
            human
                .line(&Remembered::once(Record {
                    time: "2026-11-22T14:30:02Z".parse().unwrap(),
                    body: Body::Connect(attempt),
                }))
                .unwrap()
        };
        assert!(line(&long).contains(&long));
        assert!(line("api\u{1b}[2J").contains(r"api\u{1b}[2J"));
        assert!(line("api").len() < 500);
    }

    #[test]
    fn lines_fit_the_terminal_and_are_broken_between_words() {
        let mut far = attempt(Some(Outcome::Refused), 111, 330, 0);
        far.route.address = "[2001:db8:1234:5678:9abc:def0:1234:5678]:8081".parse().unwrap();
        far.route.upstream = "an-upstream-with-a-long-name".into();
        far.route.proxy = "default/nginx-ingress-controller-7c9d8/controller".into();
        let lines = [
            (Body::Connect(attempt(Some(Outcome::Refused), 111, 330, 0)), 300),
            (Body::Connect(far), 1),
            (Body::Connect(attempt(Some(Outcome::Established), 0, 330, 0)), 1),
            (Body::Lost(Lost { count: 7 }), 1),
        ];
        let narrow = "\
TIME         CAUSE                  UPSTREAM   ADDRESS                  AFTER
             PROXY: MEANING
14:30:02.123 refused                api        10.0.0.5:8081           330 us
             nginx.service[9694]: ×300 until 14:30:03.123: nobody listens there,
             or a firewall rejects it
14:30:02.123 refused                an-upstream-with-a-long-name
             [2001:db8:1234:5678:9abc:def0:1234:5678]:8081             330 us
             default/nginx-ingress-controller-7c9d8/controller[9694]: nobody
             listens there, or a firewall rejects it
14:30:02.123 established            api        10.0.0.5:8081           330 us
             nginx.service[9694]: connected
14:30:02.123 lost
             7 records were not read in time; the counts in the summary are
             right
";
        assert_eq!(on(80, false, &lines), narrow);
        let roomy = "\
TIME          CAUSE                   UPSTREAM    ADDRESS                   AFTER  PROXY                 MEANING
14:30:02.123  refused                 api         10.0.0.5:8081            330 us  nginx.service[9694]
              ×300 until 14:30:03.123: nobody listens there, or a firewall rejects it
14:30:02.123  established             api         10.0.0.5:8081            330 us  nginx.service[9694]   connected
";
        assert_eq!(on(120, false, &[lines[0].clone(), lines[2].clone()]), roomy);
        // A cell is never cut: the longest needs 69 columns.
        for columns in 60..200 {
            let text = on(columns, true, if columns < 70 { &lines[..1] } else { &lines });
            assert!(text.lines().all(|line| line.chars().count() <= columns.into()), "{text}");
        }
    }

    #[test]
    fn colour_wraps_the_cause_only_where_it_is_wanted() {
        let mut human = at(Screen { colour: Colour::On, width: Width::Endless }, false);
        let record = Record {
            time: "2026-11-22T14:30:02Z".parse().unwrap(),
            body: Body::Connect(attempt(Some(Outcome::Refused), 111, 330, 0)),
        };
        let line = human.line(&Remembered::once(record)).unwrap();
        assert!(line.contains("  \x1b[31mrefused\x1b[0m                 api"), "{line:?}");
    }

    #[test]
    fn durations_have_three_digits() {
        let check = |us: u64, expected: &str| assert_eq!(duration(us), expected);
        check(0, "0 us");
        check(999, "999 us");
        check(1_000, "1.0 ms");
        check(99_949, "99.9 ms");
        check(100_000, "100 ms");
        check(1_020_000, "1.02 s");
        check(120_000_000, "120 s");
    }
}
