//! The story: healthy traffic, a reload with the wrong upstream port, and a black hole; then the same reload through guard.

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::http;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::supervisor;

use crate::failures::{BLACK_HOLE, Failure, RIGHT_PORT, Seen, WRONG_PORT};
use crate::guarded;
use crate::live::Live;
use crate::verdict::Evidence;

/// nginx's connect timeout in seconds; its default of 60 is too long for a demo. proxytrace finds it in the configuration.
const CONNECT_TIMEOUT: &str = "5";
const BETWEEN_USERS: Duration = Duration::from_millis(100);
/// Longer than the connect timeout: who has said nothing by then says nothing at all.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run() -> Result<()> {
    supervisor::report_panics_plainly("demo");
    let stage = Stage::new(Family::V4);
    let _backend = Backend::start(&stage.upstream, &stage.upstream_address(RIGHT_PORT), Manner::Answer);
    let nginx = Nginx::start(&stage.proxy, &routes_to(&stage, RIGHT_PORT));
    let name = nginx.name().to_owned();
    let watched = ["--process", &name];
    narrate(&format!("proxytrace trace {}", watched.join(" ")));
    let (agent, records) = (Agent::start(&watched), Trace::start(&watched));
    let mut live = Live::start(&watched);
    let show = Show { stage, nginx, agent };

    narrate(&format!("healthy: nginx passes everything to {}", show.stage.upstream_address(RIGHT_PORT)));
    let mut healthy = show.users(20);

    narrate("a deploy: nginx is reloaded with the wrong upstream port");
    let refused = show.watch(&WRONG_PORT, || {
        show.nginx.reload(&routes_to(&show.stage, WRONG_PORT.port));
    });

    narrate("somebody is called only now, and asks the agent: proxytrace status");
    show.status()?;

    narrate("rolled back");
    show.nginx.reload(&routes_to(&show.stage, RIGHT_PORT));
    healthy.append(&mut show.users(5));

    narrate(&format!(
        "a firewall drops what goes to the upstream; nginx gives each connect {CONNECT_TIMEOUT} s"
    ));
    let dropped = show.watch(&BLACK_HOLE, || {
        show.stage.upstream.firewall(&format!("tcp dport {RIGHT_PORT} drop;"));
    });

    narrate("the firewall is fixed");
    show.stage.upstream.firewall("");
    healthy.append(&mut show.users(5));

    narrate("trace is ended as by Ctrl-C, and sums up");
    live.stop();
    let evidence = Evidence { records: records.stop().records, metrics: show.agent.metrics(), live };
    let missed = evidence.judge(&healthy, &[refused, dropped])?;
    for what in &missed {
        eprintln!("demo: missed: {what}");
    }
    if !missed.is_empty() {
        bail!("proxytrace missed what is listed above");
    }
    narrate(
        "proxytrace missed nothing: every answer that a user got has its connect in the records and in the metrics",
    );

    narrate("the same deploy once more, through proxytrace guard");
    let routes = [RIGHT_PORT, WRONG_PORT.port].map(|port| routes_to(&show.stage, port));
    guarded::run(&show.stage.proxy, &show.nginx, [&routes[0], &routes[1]])?;
    narrate("the bad reload was taken back");
    Ok(())
}

fn narrate(what: &str) {
    println!("demo: {what}");
}

fn routes_to(stage: &Stage, port: u16) -> String {
    let location =
        format!("location / {{ proxy_pass http://api; proxy_connect_timeout {CONNECT_TIMEOUT}; }}");
    format!("upstream api {{\nserver {};\n}}\n{}", stage.upstream_address(port), server(&location))
}

struct Show {
    stage: Stage,
    nginx: Nginx,
    agent: Agent,
}

impl Show {
    /// What the agent says to whoever comes late.
    fn status(&self) -> Result<()> {
        let output = self.agent.asked_by(&["status"]).output().context("run proxytrace status")?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().for_each(|line| println!("  status | {line}"));
        let wrong = self.stage.upstream_address(WRONG_PORT.port);
        ensure!(text.contains("misrouted: ") && text.contains(&wrong), "status does not name {wrong}");
        Ok(())
    }

    /// That many users, none of them waiting for the one before; gives what each of them got.
    fn users(&self, count: usize) -> Vec<u16> {
        let arrive = |_| {
            thread::sleep(BETWEEN_USERS);
            self.nginx.begin("/")
        };
        let mut waiting: Vec<_> = (0..count).map(arrive).collect();
        let statuses: Vec<u16> = waiting.iter_mut().map(|user| http::answer(user).status).collect();
        narrate(&format!("{count} users got {}", summary(&statuses)));
        statuses
    }

    /// Breaks something and sees who notices: the metric and the log are asked all the time while users come.
    fn watch(&self, failure: &'static Failure, break_it: impl FnOnce()) -> Seen {
        let address = self.stage.upstream_address(failure.port);
        let value = || self.agent.metrics().count(failure.metric, &[("address", &address)]);
        let (since, before) = (SystemTime::now(), value());
        break_it();
        thread::scope(|scope| {
            let metric = scope.spawn(|| first_time(|| value() > before));
            let log = scope.spawn(|| first_time(|| self.nginx.error_log().contains(failure.in_log)));
            let statuses = self.users(failure.users);
            // A watcher that failed has seen nothing.
            let (metric, log) = (metric.join().ok().flatten(), log.join().ok().flatten());
            Seen { failure, address: address.clone(), since, statuses, metric, log }
        })
    }
}

/// `20 x 502`
fn summary(statuses: &[u16]) -> String {
    let groups = statuses.chunk_by(|one, next| one == next);
    groups.map(|group| format!("{} x {}", group.len(), group[0])).collect::<Vec<_>>().join(", ")
}

fn first_time(condition: impl Fn() -> bool) -> Option<SystemTime> {
    let deadline = Instant::now() + NOTICE_TIMEOUT;
    while Instant::now() < deadline {
        if condition() {
            return Some(SystemTime::now());
        }
        thread::sleep(Duration::from_millis(2));
    }
    None
}
