//! Records as lines for people: aligned, the name of the cause first because that is what one searches for.

use std::time::Duration;

use jiff::tz::TimeZone;
use proxytrace_ebpf::outcome::Outcome;

use super::{Colour, Paint, words};
use crate::escape::printable;
use crate::model::{
    Attempt, Body, Change, Connection, Exit, Record, Reload, ReloadResult, Route, State, Worker,
};

/// The longest name of a cause, `closed_before_response`.
const CAUSE_WIDTH: usize = 22;
/// What most names of upstreams need; grows with the longest seen.
const UPSTREAM_WIDTH: usize = 10;
/// What `255.255.255.255:65535` needs; grows with the longest address seen.
const ADDRESS_WIDTH: usize = 21;
const DURATION_WIDTH: usize = 8;
/// What `nginx.service[12345] reload 1` needs; grows with the longest seen.
const WHO_WIDTH: usize = 29;

/// Writes records as lines.
pub struct Human {
    colour: Colour,
    zone: TimeZone,
    upstream_width: usize,
    address_width: usize,
    who_width: usize,
}

impl Human {
    /// Lines with times of day in `zone`.
    #[must_use]
    pub const fn new(colour: Colour, zone: TimeZone) -> Self {
        Self {
            colour,
            zone,
            upstream_width: UPSTREAM_WIDTH,
            address_width: ADDRESS_WIDTH,
            who_width: WHO_WIDTH,
        }
    }

    /// The line above the columns.
    #[must_use]
    pub fn title(&self) -> String {
        let line = format!(
            "{:<12}  {:<CAUSE_WIDTH$}  {:<upstream_width$}  {:<width$}  {:>DURATION_WIDTH$}  {:<who_width$}  MEANING",
            "TIME",
            "CAUSE",
            "UPSTREAM",
            "ADDRESS",
            "AFTER",
            "PROXY",
            upstream_width = self.upstream_width,
            width = self.address_width,
            who_width = self.who_width,
        );
        self.colour.paint(Paint::Dim, &line)
    }

    /// The line of a record, `None` for one that people need not see.
    pub fn line(&mut self, record: &Record) -> Option<String> {
        let columns = match &record.body {
            Body::Header(_) | Body::Counts(_) | Body::Declared(_) | Body::Workers(_) => return None,
            Body::Finding(change) => return Some(self.finding(record, change)),
            Body::Connect(attempt) => connect(attempt),
            Body::Unanswered(unanswered) => Columns {
                paint: Paint::Yellow,
                cause: "unanswered",
                about: About::route(&unanswered.route, unanswered.duration_us),
                words: words::unanswered(unanswered.acknowledged).to_owned(),
            },
            Body::Stalled(attempt) => Columns {
                paint: Paint::Yellow,
                cause: "stalled",
                about: About::route(&attempt.route, attempt.duration_us),
                words: words::STALLED.to_owned() + &words::backend(&attempt.route),
            },
            Body::Broken(connection) => broken(connection),
            Body::Reload(reload) => self::reload(reload),
            Body::WorkerStarted(worker) => Columns {
                paint: Paint::Dim,
                cause: "worker_started",
                about: About::process(worker),
                words: String::new(),
            },
            Body::WorkerExited(exit) => exited(exit),
            Body::Lost(lost) => Columns {
                paint: Paint::Yellow,
                cause: "lost",
                about: About::default(),
                words: format!(
                    "{} records were not read in time; the counts in the summary are right",
                    lost.count
                ),
            },
        };
        Some(self.aligned(record, &columns))
    }

    /// Not in columns: it is a sentence, and no connect.
    fn finding(&self, record: &Record, change: &Change) -> String {
        let (paint, word) = match change.state {
            State::Raised => (Paint::Red, "FINDING"),
            State::Cleared => (Paint::Green, "CLEARED"),
        };
        let words = change.in_zone(&self.zone);
        format!("{}  {}  {}", self.time(record), self.colour.paint(paint, word), printable(&words))
    }

    fn time(&self, record: &Record) -> String {
        record.time.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string()
    }

    fn aligned(&mut self, record: &Record, columns: &Columns<'_>) -> String {
        let About { upstream, address, duration, who } = &columns.about;
        self.upstream_width = self.upstream_width.max(column_width(upstream));
        self.address_width = self.address_width.max(column_width(address));
        self.who_width = self.who_width.max(column_width(who));
        let time = self.time(record);
        let line = format!(
            "{time}  {}  {upstream:<upstream_width$}  {address:<width$}  {duration:>DURATION_WIDTH$}  {}  {}",
            self.colour.paint(columns.paint, &format!("{:<CAUSE_WIDTH$}", columns.cause)),
            self.colour.paint(Paint::Dim, &format!("{who:<who_width$}", who_width = self.who_width)),
            columns.words,
            upstream_width = self.upstream_width,
            width = self.address_width,
        );
        line.trim_end().to_owned()
    }
}

/// What goes into the columns of a line.
struct Columns<'a> {
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

fn connect(attempt: &Attempt) -> Columns<'_> {
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
    Columns {
        paint: if outcome == Outcome::Established { Paint::Green } else { Paint::Red },
        cause: outcome.name(),
        about: About::route(&attempt.route, attempt.duration_us),
        words,
    }
}

fn broken(connection: &Connection) -> Columns<'_> {
    Columns {
        paint: Paint::Red,
        cause: connection.cause.name(),
        about: About::route(&connection.route, connection.duration_us),
        words: connection.cause.words(connection.kept).to_owned() + &words::backend(&connection.route),
    }
}

fn reload(Reload { master, result, reason }: &Reload) -> Columns<'static> {
    let (paint, cause, words) = match result {
        ReloadResult::Accepted => (Paint::Green, "reload_accepted", words::RELOAD_ACCEPTED.to_owned()),
        ReloadResult::Rejected => (
            Paint::Red,
            "reload_rejected",
            words::reload_rejected(reason.as_deref().map(|reason| printable(reason).into_owned())),
        ),
    };
    Columns { paint, cause, about: About::process(master), words }
}

fn exited(exit: &Exit) -> Columns<'static> {
    let (paint, cause, words) = match (exit.signal, exit.code) {
        (Some(signal), _) => (Paint::Red, "worker_crashed", words::signal(signal, exit.core)),
        (None, None | Some(0)) => (Paint::Dim, "worker_exited", String::new()),
        (None, Some(code)) => (Paint::Red, "worker_failed", format!("ended with exit code {code}")),
    };
    Columns { paint, cause, about: About::process(&exit.worker), words }
}

/// Which process, and since which reload; the configuration that was there first needs no mention.
fn who(proxy: &str, pid: u32, generation: u32) -> String {
    let proxy = printable(proxy);
    match generation {
        0 => format!("{proxy}[{pid}]"),
        n => format!("{proxy}[{pid}] reload {n}"),
    }
}

/// The width that a column takes for a text: one that is very long stands out of it, and moves no other line. (Beyond 65 535
/// formatting panics.)
pub(super) fn column_width(text: &str) -> usize {
    const MAX_WIDTH: usize = 100;
    text.chars().count().min(MAX_WIDTH)
}

/// Three digits and a unit.
pub(super) fn duration(us: u64) -> String {
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
    use jiff::tz::TimeZone;
    use proxytrace_ebpf::outcome::{Broken, Outcome};

    use super::{Colour, Human, duration};
    use crate::model::{
        Attempt, Body, Connection, Exit, Lost, Record, Reload, ReloadResult, Route, Unanswered, Worker,
    };

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

    fn check(body: Body, expected: &str) {
        let mut human = Human::new(Colour::Off, TimeZone::UTC);
        let record = Record { time: "2026-11-22T14:30:02.123456789Z".parse().unwrap(), body };
        assert_eq!(human.line(&record).as_deref(), Some(expected));
    }

    #[test]
    fn lines_are_aligned_and_say_the_cause_in_words() {
        let human = Human::new(Colour::Off, TimeZone::UTC);
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
            "14:30:02.123  closed_before_response  api         10.0.0.5:8081           75.00 s  nginx.service[9694]            closed as the next request came: the backend's keepalive timeout is shorter than the proxy's; nginx tries idempotent requests again, others get 502",
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
        let mut human = Human::new(Colour::Off, TimeZone::UTC);
        let long = "u".repeat(70_000);
        let mut line = |upstream: &str| {
            let mut attempt = attempt(Some(Outcome::Refused), 111, 330, 0);
            attempt.route.upstream = upstream.into();
            attempt.route.proxy = upstream.into();
            human
                .line(&Record { time: "2026-11-22T14:30:02Z".parse().unwrap(), body: Body::Connect(attempt) })
                .unwrap()
        };
        assert!(line(&long).contains(&long));
        assert!(line("api\u{1b}[2J").contains(r"api\u{1b}[2J"));
        assert!(line("api").len() < 500);
    }

    #[test]
    fn colour_wraps_the_cause_only_where_it_is_wanted() {
        let mut human = Human::new(Colour::On, TimeZone::UTC);
        let record = Record {
            time: "2026-11-22T14:30:02Z".parse().unwrap(),
            body: Body::Connect(attempt(Some(Outcome::Refused), 111, 330, 0)),
        };
        let line = human.line(&record).unwrap();
        assert!(line.contains("\x1b[31mrefused               \x1b[0m"), "{line:?}");
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
