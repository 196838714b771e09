//! A proxy that is slow, stuck, huge or forged delays only itself: others are named as soon as ever, and the agent neither
//! grows nor waits.

use std::fmt::Write as _;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxytrace_tests::child::Guarded;
use proxytrace_tests::fuse::{Fuse, Manner};
use proxytrace_tests::http::Response;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, proxy_to, server};
use proxytrace_tests::proxytrace::{Agent, Trace};
use proxytrace_tests::scale::natural;
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON, patient};
use tempfile::TempDir;

/// The user of those who are up to no good.
const NOBODY: u32 = 65534;

/// Where nobody listens.
const CLOSED: &str = "127.0.0.1:8081";

/// Processes that only pose as the masters of an nginx: anybody can start them.
struct Forgery {
    name: String,
    directory: TempDir,
}

impl Forgery {
    /// None yet; all of them have the same name.
    fn new() -> Self {
        let (name, directory) = (scratch::unique_name("ptf"), scratch::directory());
        scratch::alias(Path::new("/bin/sh"), directory.path(), &name);
        Self { name, directory }
    }

    /// Writes a configuration.
    fn write(&self, file: &str, text: &str) -> String {
        let path = self.directory.path().join(file);
        fs::write(&path, text).expect("write a configuration");
        path.display().to_string()
    }

    /// A process that says that it runs this configuration. It ends when it is dropped.
    fn start(&self, netns: &Netns, config: &str) -> Guarded {
        let mut forged = netns.spawn(&mut self.command(config));
        forged.fork_once();
        forged
    }

    fn command(&self, config: &str) -> Command {
        let mut command = Command::new(self.directory.path().join(&self.name));
        command.arg0(format!("nginx: master process nginx -c {config}"));
        command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped()).stdout(Stdio::null());
        command
    }
}

/// The process that reads for an agent, or a trace.
pub(crate) fn reader_of(pid: u32) -> u32 {
    wait::until("the process that reads", SOON, || children_of(pid).first().copied())
}

fn children_of(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// What the kernel says of a process's memory, in MiB; 0 where it has ended.
fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() / 1024
}

/// An honest nginx whose upstream has a name that is resolved, started now; gives how long it took until an attempt was named.
#[track_caller]
fn time_to_name(agent: &Agent, nginx: &mut Nginx, netns: &Netns) -> Duration {
    nginx.launch(netns);
    let start = Instant::now();
    assert_eq!(nginx.get("/"), 502);
    // A page may have megabytes: to read it all would take longer than what is measured.
    let series =
        format!("proxytrace_connect_attempts_total{{proxy=\"{}\",upstream=\"honest\",", nginx.name());
    wait::until_true("the honest proxy's name", SOON * 3, || {
        let Response { body, .. } = agent.get("/metrics");
        let of_honest = body.match_indices(&series).map(|(at, _)| &body[at..]);
        of_honest.filter_map(|rest| rest.lines().next()).any(|line| !line.ends_with(" 0"))
    });
    start.elapsed()
}

fn honest() -> Nginx {
    let upstream = "upstream honest { server localhost:8081; }";
    Nginx::prepare(
        Default::default(),
        &format!("{upstream} {}", server("location / { proxy_pass http://honest; }")),
    )
}

#[test]
fn silent_name_servers_of_others_delay_no_proxy() {
    let (netns, forgery, mut nginx) = (Netns::new(), Forgery::new(), honest());
    let silent = netns.enter(|| UdpSocket::bind("127.0.0.1:0").expect("bind a name server"));
    let port = silent.local_addr().expect("an address").port();
    let mut text = format!("events {{}} http {{ resolver 127.0.0.1:{port};\n");
    for n in 0..200 {
        writeln!(text, "upstream u{n} {{ zone u{n} 1m; server h{n}.test resolve; }}").expect("a string");
    }
    let config = forgery.write("slow.conf", &(text + "}"));
    let _forged: Vec<_> = (0..8).map(|_| forgery.start(&netns, &config)).collect();
    let agent = Agent::start(&["--process", &forgery.name, "--process", nginx.name()]);
    // They are being asked for.
    silent.recv(&mut [0; 512]).expect("a question");
    let named = time_to_name(&agent, &mut nginx, &netns);
    println!("beside eight silent name servers: named after {named:?}");
    assert!(named < patient(Duration::from_secs(2)), "{named:?}");
    agent.stop();
}

#[test]
fn a_proxy_whose_names_are_waited_for_holds_up_no_record_of_another() {
    let netns = Netns::new();
    let silent = netns.enter(|| UdpSocket::bind("127.0.0.1:0").expect("bind a name server"));
    let port = silent.local_addr().expect("an address").port();
    // What the name stands for is being asked for, so it is not known yet whether this is one of its addresses.
    let asking = Nginx::start(
        &netns,
        &server(&format!(
            "resolver 127.0.0.1:{port}; set $app app.test; location /app {{ proxy_pass http://$app:8082; }} \
             location / {{ proxy_pass http://$arg_to; }}"
        )),
    );
    let other = Nginx::start(&netns, &proxy_to(CLOSED, ""));
    let trace = Trace::start(&["--process", asking.name(), "--process", other.name()]);
    silent.recv(&mut [0; 512]).expect("a question");

    assert_eq!(asking.get("/?to=127.0.0.1:8082"), 502);
    assert_eq!(other.get("/"), 502);

    let records = [trace.next_about_connections(), trace.next_about_connections()];
    let proxies = records.each_ref().map(|record| record.proxy.as_str());
    assert_eq!(proxies, [other.name(), asking.name()], "{records:?}");
    assert!(records[0].time > records[1].time, "the one that waited was the first: {records:?}");
    let _ = trace.stop();
}

#[test]
fn a_file_system_that_never_answers_holds_two_children_of_its_owner_and_nobody_else() {
    /// Of these two hang; the others are not read at all.
    const FORGED: usize = 4;
    let (netns, forgery, mut nginx) = (Netns::new(), Forgery::new(), honest());
    let mounted = forgery.directory.path().join("mounted");
    fs::create_dir(&mounted).expect("make a directory");
    let file_system = Fuse::mount(&mounted, NOBODY, Manner::Hangs);
    let agent = Agent::start(&["--process", &forgery.name, "--process", nginx.name()]);
    let start = |_| {
        let mut command = forgery.command(&mounted.join("nginx.conf").display().to_string());
        let mut forged = file_system.spawn(&mut command);
        forged.fork_once();
        forged
    };
    let forged: Vec<_> = (0..FORGED).map(start).collect();
    let stuck = "processes that read for the same user hang in the kernel";
    wait::until_true("it to be known that they hang", SOON * 3, || agent.stderr().contains(stuck));

    let reader = reader_of(agent.pid());
    let hanging = children_of(reader);
    assert_eq!(hanging.len(), 2, "{hanging:?}; {}", agent.stderr());
    for &pid in &hanging {
        assert_eq!(state_of(pid), Some('D'), "SIGKILL does not end what hangs in the kernel");
    }
    let named = time_to_name(&agent, &mut nginx, &netns);
    println!("beside a file system that never answers: named after {named:?}");
    assert!(named < patient(Duration::from_secs(2)), "{named:?}");
    assert_eq!(agent.get("/readyz").status, 200);
    assert!(agent.stop() < patient(Duration::from_secs(1)), "it waits for what hangs");

    drop((forged, file_system));
    wait::until_true("what hung to end", SOON, || hanging.iter().all(|&pid| state_of(pid).is_none()));
}

/// The state of a process as ps(1) shows it; none once it has ended.
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn long_titles_and_names_make_no_long_lines() {
    const LONGEST: usize = 2500;
    let (netns, forgery) = (Netns::new(), Forgery::new());
    let agent = Agent::start(&["--process", &forgery.name]);
    let title = |mark: char| format!("/tmp/{}{mark}", "A".repeat(100_000));
    let upstream = "U".repeat(4000);
    let config = forgery.write(
        "long.conf",
        &format!(
            "events {{}} http {{ upstream {upstream} {{ server 127.0.0.1:8081; }} \
             server {{ location / {{ proxy_pass http://{upstream}; }} }} }}"
        ),
    );
    let _forged = [title('1'), title('2'), config].map(|config| forgery.start(&netns, &config));
    let infos = |page: &str| page.lines().filter(|line| line.starts_with("proxytrace_proxy_info{")).count();
    let page = wait::until("three proxies, and an upstream", SOON, || {
        let page = agent.get("/metrics").body;
        (infos(&page) == 3 && page.contains("upstream=\"UUU")).then_some(page)
    });
    for text in [page, agent.get("/readyz").body, agent.stderr()] {
        let longest = text.lines().map(str::len).max().unwrap_or_default();
        assert!(longest < LONGEST, "a line of {longest} bytes");
    }
    agent.stop();
}

/// The largest that the children of the process that reads ever were, in MiB, and how long a configuration took until
/// `is_done`.
fn watch_reading(agent: &Agent, is_done: impl Fn() -> bool) -> (u64, Duration) {
    let (reader, start, mut peak) = (reader_of(agent.pid()), Instant::now(), 0);
    while !is_done() {
        assert!(start.elapsed() < patient(SOON), "the configuration is still not read; {}", agent.stderr());
        let of_children = children_of(reader).into_iter().map(|pid| memory(pid, "VmHWM"));
        peak = of_children.max().unwrap_or_default().max(peak);
        thread::sleep(Duration::from_millis(2));
    }
    (peak, start.elapsed())
}

#[test]
fn a_configuration_of_20_mb_is_read_in_two_seconds_and_little_memory() {
    /// So many of its lines count: the rest is what most of a large configuration consists of.
    const LOCATIONS: usize = 10_000;
    let (netns, forgery) = (Netns::new(), Forgery::new());
    let mut text = "events {} http { upstream api { server 10.0.0.5:8080; }\nserver {\n".to_owned();
    for n in 0..LOCATIONS {
        writeln!(text, "location /{n} {{ proxy_pass http://api;").expect("a string");
        for header in 0..28 {
            writeln!(text, "    proxy_set_header X-Some-Header-{header:02} \"$host some value that {n:05}-is-passed on\";")
                .expect("a string");
        }
        text.push_str("}\n");
    }
    text.push_str("} }\n");
    assert!(text.len() > 20_000_000, "{}", text.len());
    let config = forgery.write("large.conf", &text);
    let agent = Agent::start(&["--process", &forgery.name]);
    let before = memory(agent.pid(), "VmRSS");
    let _forged = forgery.start(&netns, &config);
    let (peak, took) = watch_reading(&agent, || agent.get("/routes").body.contains("\"/9999\""));
    let kept = memory(agent.pid(), "VmRSS").saturating_sub(before);
    println!("20 MB: read in {took:?} by a child of {peak} MiB, {kept} MiB kept and shown");
    assert!(took < patient(Duration::from_secs(2)), "{took:?}");
    assert!(peak <= 200, "{peak} MiB");
    agent.stop();
}

#[test]
fn a_configuration_that_is_too_large_to_be_kept_is_reported_and_others_are_named() {
    let (netns, forgery, mut nginx) = (Netns::new(), Forgery::new(), honest());
    let mut text = "events {} http { upstream api {\n".to_owned();
    for n in 0..900_000 {
        writeln!(text, "server 10.{}.{}.{};", n >> 16, n >> 8 & 255, n & 255).expect("a string");
    }
    text.push_str("} server { location / { proxy_pass http://api; } } }\n");
    let config = forgery.write("huge.conf", &text);
    let agent = Agent::start(&["--process", &forgery.name, "--process", nginx.name()]);
    let before = memory(agent.pid(), "VmRSS");
    let _forged = forgery.start(&netns, &config);
    let (peak, took) = watch_reading(&agent, || agent.stderr().contains("its configuration is too large"));
    let kept = memory(agent.pid(), "VmRSS").saturating_sub(before);
    println!("900 000 servers: refused in {took:?} by a child of {peak} MiB, {kept} MiB kept");
    assert!(took < patient(Duration::from_secs(2)) && peak <= 200 && kept <= 32, "{took:?} {peak} {kept}");
    let named = time_to_name(&agent, &mut nginx, &netns);
    assert!(named < patient(Duration::from_secs(2)), "{named:?}");
    agent.stop();
}

#[test]
fn a_storm_of_reloads_delays_no_other_proxy_and_takes_little_memory() {
    const UPSTREAMS: usize = 1000;
    let reloads = natural(150, 1500);
    let (netns, mut calm) = (Netns::new(), [honest(), honest(), honest()]);
    let mut http = String::new();
    for n in 0..UPSTREAMS {
        write!(http, "upstream u{n} {{ ").expect("a string");
        for peer in 1..=5 {
            write!(http, "server 10.{}.{}.{peer}:80; ", n / 200, n % 200).expect("a string");
        }
        http.push_str("}\n");
    }
    http.push_str(&server("location / { proxy_pass http://u999; }"));
    let stormy = Nginx::start(&netns, &http);
    let names = [stormy.name(), calm[0].name(), calm[1].name(), calm[2].name()];
    let agent = Agent::start(&names.map(|name| ["--process", name]).concat());
    wait::until_true("its routes", SOON, || agent.get("/routes").body.contains("u999"));
    let before = memory(agent.pid(), "VmRSS");
    // It goes on at least until the others are named.
    let is_named = AtomicBool::new(false);
    let named = thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let go_on = |n: &usize| *n < reloads || !is_named.load(Ordering::Relaxed);
            (0..).take_while(go_on).for_each(|_| drop(stormy.reload(&http)));
        });
        let named = calm.each_mut().map(|calm| time_to_name(&agent, calm, &netns));
        is_named.store(true, Ordering::Relaxed);
        storm.join().expect("the storm");
        named
    });
    let rss = memory(agent.pid(), "VmRSS").saturating_sub(before);
    println!("during {reloads} reloads: others are named after {named:?}, the agent grew by {rss} MiB");
    assert!(named.iter().all(|named| *named < patient(Duration::from_secs(1))), "{named:?}");
    assert!(rss <= 64, "{rss} MiB");
    // What runs now has its names, whatever was left out on the way.
    let generation = agent.metrics().sum("proxytrace_config_generation", &[("proxy", stormy.name())]);
    wait::until_true("the newest configuration", SOON, || {
        agent.get("/routes").body.contains(&format!("\"generation\":{generation}"))
    });
    agent.stop();
}

#[test]
fn connect_timeouts_of_others_take_no_capacity_from_a_proxys() {
    const CAPACITY: usize = 16;
    let (netns, forgery) = (Netns::new(), Forgery::new());
    netns.firewall("tcp dport 8099 drop");
    // Each has its own: what all of a configuration have in common takes one entry.
    let mut text = "events {} http { server {\n".to_owned();
    for n in 0..4 * CAPACITY {
        writeln!(text, "location /{n} {{ proxy_connect_timeout {}s; proxy_pass http://10.0.0.{n}; }}", n + 5)
            .expect("a string");
    }
    let config = forgery.write("many.conf", &(text + "}}"));
    let silent = "proxy_connect_timeout 1s; proxy_next_upstream off; proxy_pass http://127.0.0.1:8099;";
    let mut nginx = Nginx::prepare(Default::default(), &server(&format!("location / {{ {silent} }}")));
    let agent = Agent::start(&[
        "--process",
        &forgery.name,
        "--process",
        nginx.name(),
        "--table-size",
        &format!("timeouts={CAPACITY}"),
    ]);
    let _forged = forgery.start(&netns, &config);
    let is_full =
        || agent.metrics().count("proxytrace_table_entries", &[("table", "timeouts")]) == CAPACITY as u64 / 2;
    wait::until_true("its share to be full", SOON, is_full);
    nginx.launch(&netns);
    wait::until_true("the honest proxy's routes", SOON, || agent.get("/routes").body.contains("8099"));
    assert_eq!(nginx.get("/"), 504);
    let of = [("proxy", nginx.name()), ("cause", "proxy_timeout")];
    let count = || agent.metrics().count("proxytrace_connect_failures_total", &of);
    wait::until_true("a timeout, and no cancelled connect", SOON, || count() == 1);
    assert!(agent.stderr().contains("--table-size timeouts=N"), "{}", agent.stderr());
    agent.stop();
}

#[test]
fn a_process_with_twenty_thousand_mounts_costs_the_agent_nothing() {
    /// Each doubles the number of mounts.
    const DOUBLINGS: usize = 14;
    let (netns, forgery, mut nginx) = (Netns::new(), Forgery::new(), honest());
    let agent = Agent::start(&["--process", &forgery.name, "--process", nginx.name()]);
    let script = format!(
        "mount --make-rprivate /; mount -t tmpfs none /mnt; cd /mnt
         long=$(printf 'a%.0s' $(seq 200)); mkdir -p $long/$long/$long/d
         for n in $(seq {DOUBLINGS}); do mkdir -p /mnt/$long/$n; mount --rbind /mnt /mnt/$long/$n || exit 1; done
         wc -l < /proc/self/mountinfo >&2; exec -a 'nginx: master process nginx -c /mnt/none.conf' {} ",
        forgery.directory.path().join(&forgery.name).display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-ec", &script]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut forged = netns.spawn(&mut command);
    wait::until_true("the mounts", SOON * 3, || {
        fs::read_to_string(format!("/proc/{}/comm", forged.pid()))
            .is_ok_and(|comm| comm.trim() == forgery.name)
    });
    forged.fork_once();
    // It was read for.
    wait::until_true("its configuration", SOON, || agent.stderr().contains("none.conf"));
    let named = time_to_name(&agent, &mut nginx, &netns);
    let (peak, reader) = (memory(agent.pid(), "VmHWM"), memory(reader_of(agent.pid()), "VmHWM"));
    println!(
        "beside 20 000 mounts: named after {named:?}; agent {peak} MiB, its reader {reader} MiB at most"
    );
    assert!(named < patient(Duration::from_secs(2)), "{named:?}");
    assert!(reader < 40 && peak < 80, "{reader} {peak}");
    agent.stop();
}

#[test]
fn an_agent_whose_reader_was_killed_ends_and_says_why() {
    let name = scratch::unique_name("ptn");
    let mut agent = Agent::start(&["--process", &name]);
    kill(pid(reader_of(agent.pid())), Signal::SIGKILL).expect("kill the reader");
    let start = Instant::now();
    let status = agent.wait();
    assert!(start.elapsed() < patient(Duration::from_secs(1)), "{:?}", start.elapsed());
    assert_eq!(status.code(), Some(1));
    let said = agent.stderr();
    assert!(said.contains("the process that reads nginx's configurations has ended"), "{said}");
}

#[test]
fn a_reader_that_is_stopped_stops_neither_an_agent_nor_a_trace_and_does_not_outlive_them() {
    let netns = Netns::new();
    let http = server(&format!("location / {{ proxy_pass http://{CLOSED}; }}"));
    let nginx = Nginx::start(&netns, &http);
    let process = ["--process", nginx.name()];
    let (agent, trace) = (Agent::start(&process), Trace::start(&process));
    let readers = [reader_of(agent.pid()), reader_of(trace.pid())];
    for reader in readers {
        kill(pid(reader), Signal::SIGSTOP).expect("stop the reader");
    }
    // Each would take its place in a pipe that nobody empties.
    for _ in 0..20 {
        nginx.reload(&http);
    }
    assert_eq!(nginx.get("/"), 502);
    let record = trace.next_of("connect");
    assert_eq!((&*record.upstream, &*record.address), ("unknown", CLOSED), "{record:?}");
    let start = Instant::now();
    assert_eq!(agent.get("/healthz").status, 200);
    assert!(start.elapsed() < patient(Duration::from_millis(100)), "{:?}", start.elapsed());
    let ended = agent.stop();
    assert!(ended < patient(Duration::from_secs(1)), "{ended:?}");
    drop(trace.stop());
    wait::until_true("the end of the readers", SOON, || {
        readers.iter().all(|reader| !Path::new(&format!("/proc/{reader}/exe")).exists())
    });
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}
