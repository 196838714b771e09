//! What `trace` shows to people and to programs, what it leaves out, and how it ends.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use proxytrace_tests::child::{Captured, Guarded};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, proxy_to, server};
use proxytrace_tests::proxytrace::{self, Trace};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};

#[test]
fn filters_leave_the_rest_out() {
    const ADDRESSES: [&str; 4] =
        ["10.0.0.5:8081", "10.0.0.5:8082", "[2001:db8::5]:8081", "unix:/no/such/socket"];
    let rows: &[(&[&str], &[usize])] = &[
        (&[], &[0, 1, 2, 3]),
        (&["--address", "10.0.0.5"], &[0, 1]),
        (&["--address", "10.0.0.5:8082"], &[1]),
        (&["--address", ":8081"], &[0, 2]),
        (&["--address", "10.0.0.0/24"], &[0, 1]),
        (&["--address", "10.0.1.0/24"], &[]),
        (&["--address", "2001:db8::/32"], &[2]),
        (&["--address", "[2001:db8::5]:8081"], &[2]),
        (&["--address", "::/0"], &[2]),
        (&["--address", "0.0.0.0/0"], &[0, 1]),
        (&["--cause", "no_such_socket"], &[3]),
        (&["--cause", "no_such_socket", "--cause", "refused"], &[0, 1, 2, 3]),
        (&["--cause", "refused", "--address", ":8082"], &[1]),
    ];
    let stage = Stage::new(Family::V4);
    let locations: String = (0..).zip(ADDRESSES).map(|(index, address)| location(index, address)).collect();
    let nginx = Nginx::start(&stage.proxy, &server(&locations));
    let traces: Vec<_> = rows
        .iter()
        .map(|(filters, _)| Trace::start(&[&["--process", nginx.name()], *filters].concat()))
        .collect();

    for index in 0..ADDRESSES.len() {
        assert_eq!(nginx.get(&format!("/{index}")), 502);
    }

    for (trace, (filters, expected)) in traces.into_iter().zip(rows) {
        let records = trace.stop().records;
        let shown: Vec<_> =
            records.iter().filter(|record| record.kind == "connect").map(|record| &*record.address).collect();
        let expected: Vec<_> = expected.iter().map(|&index| ADDRESSES[index]).collect();
        assert_eq!(shown, expected, "{filters:?}");
    }
}

#[test]
fn only_failures_are_shown_unless_all_are_asked_for() {
    let stage = Stage::new(Family::V4);
    let (alive, closed) = (stage.upstream_address(8080), stage.upstream_address(8081));
    let _upstream = proxytrace_tests::backend::Backend::start(
        &stage.upstream,
        &alive,
        proxytrace_tests::backend::Manner::Answer,
    );
    let nginx = Nginx::start(&stage.proxy, &server(&(location(0, &alive) + &location(1, &closed))));
    let failures = Trace::start(&["--process", nginx.name()]);
    let all = Trace::start(&["--process", nginx.name(), "--all"]);

    assert_eq!((nginx.get("/0"), nginx.get("/1")), (200, 502));

    assert_eq!(failures.next_of("connect").address, closed);
    assert_eq!(all.next_of("connect").address, alive);
    assert_eq!(all.next_of("connect").address, closed);
}

#[test]
fn it_ends_by_itself_after_so_many_records_or_so_long() {
    let (_netns, nginx) = failing();
    let (counted, timed) = (
        Trace::start(&["--process", nginx.name(), "--count", "2"]),
        Trace::start(&["--process", nginx.name(), "--duration", "1"]),
    );
    for _ in 0..3 {
        assert_eq!(nginx.get("/"), 502);
    }
    let counted = counted.end();
    assert_eq!(counted.records.iter().filter(|record| record.kind == "connect").count(), 2);
    for ended in [counted, timed.end()] {
        assert!(ended.status.success(), "{}: {}", ended.status, ended.stderr);
    }
}

#[test]
fn several_proxies_are_distinguished() {
    let (_netns, one) = failing();
    let (_other_netns, other) = failing();
    let trace = Trace::start(&["--process", one.name(), "--process", other.name()]);
    for nginx in [&one, &other] {
        assert_eq!(nginx.get("/"), 502);
        assert_eq!(trace.next_of("connect").proxy, nginx.name());
    }
}

#[test]
fn with_no_nginx_it_says_so_and_waits_for_one() {
    let netns = Netns::new();
    let mut nginx = Nginx::prepare(Options::default(), &proxy_to("127.0.0.1:8081", ""));
    let trace = Trace::start(&["--process", nginx.name()]);
    wait::until_true("it to say that there is none", SOON, || {
        let said = trace.stderr();
        said.contains(nginx.name()) && said.contains("waiting")
    });

    nginx.launch(&netns);
    assert_eq!(nginx.get("/"), 502);

    assert_eq!(trace.next_of("connect").address, "127.0.0.1:8081");
}

#[test]
fn people_get_a_line_per_failure_and_a_summary_at_the_end() {
    let (_netns, nginx) = failing();
    let (mut trace, mut stdout, mut stderr) = shown_through_a_pipe(&nginx);
    let line = first_failure(&nginx, &stdout);
    for word in ["127.0.0.1:8081", "refused", nginx.name()] {
        assert!(line.contains(word), "{word} in {line:?}");
    }

    let before = stdout.text();
    trace.signal(Signal::SIGINT);
    let status = trace.wait(SOON);

    assert!(status.success(), "{status}: {}", stderr.whole());
    let after = stdout.whole()[before.len()..].to_owned() + &stderr.whole();
    assert!(
        after.contains("127.0.0.1:8081") && after.contains("refused"),
        "a summary per address: {after:?}"
    );
}

#[test]
fn colour_is_for_terminals() {
    let (_netns, nginx) = failing();
    let coloured = |on_a_terminal: bool, no_color: bool| {
        let mut command = human(&nginx);
        if no_color {
            command.env("NO_COLOR", "1");
        }
        let (_child, stdout) = if on_a_terminal {
            let pty = openpty(None, None).expect("make a terminal");
            (Guarded::spawn(command.stdout(pty.slave)), Captured::from(File::from(pty.master)))
        } else {
            let mut child = Guarded::spawn(command.stdout(Stdio::piped()));
            let stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
            (child, stdout)
        };
        first_failure(&nginx, &stdout).contains('\x1b')
    };
    assert!(coloured(true, false), "on a terminal");
    assert!(!coloured(false, false), "in a pipe");
    assert!(!coloured(true, true), "on a terminal whose user wants none");
}

#[test]
fn on_a_terminal_lines_fit_and_repeated_ones_are_one() {
    const REQUESTS: usize = 40;
    let (_netns, nginx) = failing();
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let shown = |more: &[&str]| {
        let pty = openpty(&size, None).expect("make a terminal");
        let mut command = human(&nginx);
        command.args(more).env("NO_COLOR", "1").stdout(Stdio::from(pty.slave));
        let mut trace = Guarded::spawn(&mut command);
        drop(command);
        let mut stdout = Captured::from(File::from(pty.master));
        first_failure(&nginx, &stdout);
        for _ in 0..REQUESTS {
            assert_eq!(nginx.get("/"), 502);
        }
        trace.signal(Signal::SIGINT);
        assert!(trace.wait(SOON).success());
        stdout.whole().replace('\r', "")
    };

    let folded = shown(&[]);
    println!("{folded}");
    assert!(folded.lines().all(|line| line.chars().count() <= 80), "{folded}");
    let (lines, summary) = folded.split_once("summary of").expect("a summary");
    let starts = lines.lines().filter(|line| line.contains(" refused ")).count();
    assert!(starts < REQUESTS / 2 && lines.contains('×'), "{folded}");
    let repeated = lines
        .split('×')
        .skip(1)
        .map(|rest| rest.split(' ').next().and_then(|times| times.parse::<usize>().ok()).expect("a number"));
    let (folds, times) = repeated.fold((0, 0), |(folds, sum), times| (folds + 1, sum + times));
    let all = starts - folds + times;
    assert!(summary.contains(&format!("refused {all}")), "each is in a line: {all}: {folded}");

    let whole = shown(&["--no-fold", "--date"]);
    let lines = whole.lines().take_while(|line| !line.starts_with("summary of"));
    let lines: Vec<_> = lines.filter(|line| line.contains(" refused ")).collect();
    assert!(lines.len() > REQUESTS && !whole.contains('×'), "{whole}");
    assert!(lines.iter().all(|line| line.starts_with("20") && line.as_bytes()[4] == b'-'), "{whole}");
}

#[test]
fn a_pipe_that_is_closed_ends_it_quietly() {
    let (_netns, nginx) = failing();
    for arguments in [&[][..], &["--json"]] {
        let mut command = human(&nginx);
        let mut trace = Guarded::spawn(command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stderr = Captured::from(trace.inner().stderr.take().expect("a pipe"));
        let mut reader = BufReader::new(trace.inner().stdout.take().expect("a pipe"));

        // As `trace | head -1` does: one line, and the pipe is closed.
        let asking = std::thread::scope(|scope| {
            let line = scope.spawn(|| {
                let mut line = String::new();
                reader.read_line(&mut line).map(|_| line)
            });
            while !line.is_finished() {
                assert_eq!(nginx.get("/"), 502);
            }
            line.join().expect("a reader")
        });
        assert!(!asking.expect("a line").is_empty());
        drop(reader);

        let status = wait::until("it to notice that nobody reads", SOON, || {
            assert_eq!(nginx.get("/"), 502);
            trace.ended()
        });
        let said = stderr.whole();
        assert!(status.success(), "{arguments:?}: {status}: {said}");
        assert!(!said.to_lowercase().contains("pipe") && !said.contains("panic"), "{arguments:?}: {said}");
    }
}

/// nginx in front of a port where nobody listens.
fn failing() -> (Netns, Nginx) {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &proxy_to("127.0.0.1:8081", ""));
    (netns, nginx)
}

fn location(index: usize, address: &str) -> String {
    format!("location /{index} {{ proxy_pass http://{address}; }}\n")
}

/// `proxytrace trace` as people call it.
fn human(nginx: &Nginx) -> Command {
    let mut command = proxytrace::command();
    command
        .args(["trace", "--process", nginx.name()])
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .stderr(Stdio::null());
    command
}

fn shown_through_a_pipe(nginx: &Nginx) -> (Guarded, Captured, Captured) {
    let mut trace = Guarded::spawn(human(nginx).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let stdout = Captured::from(trace.inner().stdout.take().expect("a pipe"));
    let stderr = Captured::from(trace.inner().stderr.take().expect("a pipe"));
    (trace, stdout, stderr)
}

/// Lets requests fail until a line reports one: people see no header that would say when it is attached.
fn first_failure(nginx: &Nginx, stdout: &Captured) -> String {
    wait::until("a line about a failure", SOON, || {
        assert_eq!(nginx.get("/"), 502);
        let text = stdout.text();
        let whole_lines = &text[..text.rfind('\n')?];
        whole_lines.lines().find(|line| line.contains("127.0.0.1:8081")).map(ToOwned::to_owned)
    })
}
