//! `top` in a real terminal, during an outage.

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::terminal::Terminal;
use proxytrace_tests::{proxytrace, wait};

use crate::lookout::{AFTER, BEFORE, Lookout, api};

#[test]
fn an_outage_is_watched_sorted_filtered_and_looked_into() {
    let scene = Lookout::begin(&api(BEFORE));
    let _backend = Backend::start(&scene.netns, BEFORE, Manner::AnswerAndClose);
    scene.gets(12, 200);
    let terminal = Terminal::open(110, 30);
    terminal.run(&scene.agent.asked_by(&["top"]));
    let screen = terminal.shows_all(&["nothing is wrong", "UPSTREAM", "api", "ok", "? helps, q ends"]);
    println!("{screen}");

    wait::for_a_tick();
    scene.nginx.reload(&api(AFTER));
    scene.gets(8, 502);
    scene.raised("misrouted", AFTER);
    let screen = terminal.shows_all(&[
        "1 thing is wrong",
        "misrouted: ",
        "down",
        "refused 8",
        "new workers: 8 of 8 failed",
    ]);
    println!("{screen}");
    let of_api = |screen: &str| {
        let row = screen.lines().find(|line| line.starts_with("api ")).unwrap_or_default().to_owned();
        assert!(row.contains("down"), "{screen}");
        row
    };
    assert!(of_api(&screen).contains("40%"), "8 of 20 failed within the minute: {screen}");

    terminal.press("Enter");
    let screen = terminal.shows_all(&[
        "ROUTES THAT LEAD THERE",
        "proxy_pass http://api",
        "LAST HOUR",
        "esc goes back",
    ]);
    println!("{screen}");
    terminal.press("End");
    let screen = terminal.shows_all(&["LAST RECORDS", "reload_accepted"]);
    assert!(screen.contains("refused"), "{screen}");
    terminal.press("Escape");
    terminal.shows("by trouble; ? helps");

    terminal.types("/no-such");
    terminal.shows_all(&["filter: no-such", "nothing has that in its name"]);
    terminal.press("Escape");
    terminal.shows_all(&["by trouble; ? helps", "refused 8"]);
    terminal.types("s");
    terminal.shows("by connects per second");
    terminal.types("?");
    terminal.shows("look into the upstream");
    terminal.types("xa");
    terminal.shows_all(&[" ADDRESS ", BEFORE, AFTER]);
    terminal.types("aS ");
    terminal.shows_all(&["PAUSED", "by trouble"]);
    terminal.types(" ");

    terminal.resize(60, 18);
    let screen = wait::within(wait::patient(wait::SOON), || {
        let screen = terminal.screen();
        (screen.contains("down") && screen.lines().all(|line| line.chars().count() <= 60)).then_some(screen)
    });
    println!("{}", screen.as_deref().expect("it fits 60 columns"));
    terminal.types("q");
    terminal.is_given_back();

    scene.nginx.reload(&api(BEFORE));
    scene.gets(5, 200);
    scene.cleared("misrouted");
    let output = scene.agent.asked_by(&["top", "--once"]).output().expect("run top");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("nothing is wrong"), "{stdout}");
}

/// Without an agent it traces by itself, with what it gives up; and whatever ends it, the terminal is as before.
#[test]
fn without_an_agent_it_traces_and_the_terminal_is_given_back() {
    let scene = Lookout::begin(&api(BEFORE));
    let mut command = proxytrace::command();
    command.args(["top", "--process", scene.nginx.name()]);
    let terminal = Terminal::open(80, 24);
    terminal.run(&command);
    terminal.shows("no agent was asked");
    scene.gets(3, 502);
    terminal.shows_all(&["api", "100%", "refused 3"]);
    terminal.press("Enter");
    terminal.shows_all(&["ROUTES THAT LEAD THERE", "proxy_pass http://api"]);
    terminal.press("C-c");
    terminal.is_given_back();

    command.env("NO_COLOR", "1");
    terminal.run(&command);
    terminal.shows("no agent was asked");
    scene.gets(3, 502);
    terminal.shows_all(&["upstream_down", "down"]);
    let painted = terminal.painted();
    // The colour of the terminal itself is 39.
    let has_colour =
        painted.split("\x1b[").any(|code| matches!(code.as_bytes(), [b'3' | b'9', b'0'..=b'8', ..]));
    assert!(!has_colour, "{painted:?}");
    terminal.signal(Signal::SIGTERM);
    terminal.is_given_back();

    let output = command.output().expect("run top");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("use --once"), "{stderr}");
}

/// An agent that is restarted is there again, and until then it is said that what is shown is old.
#[test]
fn an_agent_that_ends_is_missed_and_found_again() {
    let scene = Lookout::begin(&api(BEFORE));
    scene.gets(2, 502);
    let Lookout { agent, nginx, .. } = &scene;
    let terminal = Terminal::open(80, 24);
    terminal.run(&agent.asked_by(&["top"]));
    terminal.shows_all(&["api", "refused 2"]);
    agent.signal(Signal::SIGTERM);
    terminal.shows_all(&["OLD: no agent listens", "refused 2"]);
    let mut again = proxytrace::command();
    again.env("PROXYTRACE_SOCKET", agent.socket());
    let port = proxytrace_tests::scratch::free_port().to_string();
    again.args(["agent", "--listen", &format!("127.0.0.1:{port}"), "--process", nginx.name()]);
    again.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let _again = proxytrace_tests::child::Guarded::spawn(&mut again);
    wait::until_true("the screen to be new", wait::SOON * 3, || !terminal.screen().contains("OLD:"));
    terminal.types("q");
    terminal.is_given_back();
}
