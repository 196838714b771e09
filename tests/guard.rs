//! A change that takes itself back, with a real nginx and real files.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::{Captured, Guarded};
use proxytrace_tests::haproxy::Haproxy;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options, proxy_to};
use proxytrace_tests::proxytrace::{Agent, command, command_of, copy_for_everybody};
use proxytrace_tests::wait::{self, SOON, patient};
use proxytrace_tests::{http, scratch, skip};
use serde_json::Value;
use tempfile::TempDir;

const WELL: &str = "127.0.0.1:8080";
const WRONG: &str = "127.0.0.1:8081";

/// Requests a second of [`Traffic`].
const RATE: u32 = 200;

/// An nginx whose configuration is in a directory of its own, and a backend that is well.
struct Site {
    netns: Netns,
    nginx: Nginx,
    directory: TempDir,
    state: TempDir,
    _backend: Backend,
}

impl Site {
    fn new() -> Self {
        let (netns, directory, state) = (Netns::new(), scratch::directory(), scratch::directory());
        let backend = Backend::start(&netns, WELL, Manner::Answer);
        let place = directory.path().display();
        let main = format!("include {place}/*.main;");
        let options = Options { workers: 2, main, ..Options::default() };
        let mut nginx = Nginx::prepare(options, &format!("include {place}/*.conf;"));
        fs::write(directory.path().join("notes"), "not nginx's").expect("write");
        fs::set_permissions(directory.path().join("notes"), Permissions::from_mode(0o640)).expect("close");
        symlink("api.conf", directory.path().join("link")).expect("link");
        write(directory.path(), "api.conf", &api(&nginx, &format!("server {WELL};")));
        nginx.launch(&netns);
        Self { netns, nginx, directory, state, _backend: backend }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes where the upstream `api` is.
    fn write_servers(&self, servers: &str) {
        write(self.directory.path(), "api.conf", &api(&self.nginx, servers));
    }

    /// A program that does that, for `--apply`.
    fn change_to(&self, servers: &str) -> String {
        self.change(&api(&self.nginx, servers))
    }

    /// The same for any text.
    fn change(&self, text: &str) -> String {
        write(self.state.path(), "next.conf", text);
        format!("cp {}/next.conf {}", self.state.path().display(), self.path("api.conf").display())
    }

    /// What reloads nginx.
    fn reload(&self) -> Vec<String> {
        let command = self.nginx.command();
        let arguments = command.get_args().map(|argument| argument.to_str().expect("text").to_owned());
        let program = command.get_program().to_str().expect("text").to_owned();
        [program].into_iter().chain(arguments).chain(["-s", "reload"].map(str::to_owned)).collect()
    }

    fn hang_up(&self) -> Vec<String> {
        ["kill", "-HUP", &self.nginx.master_pid().to_string()].map(str::to_owned).to_vec()
    }

    /// A guard with these options, which puts files back.
    fn guard(&self, options: &[&str], run: &[String]) -> Running {
        let directory = self.directory.path().to_str().expect("text");
        self.guard_without_files(&[&["--rollback-files", directory], options].concat(), run)
    }

    fn guard_without_files(&self, options: &[&str], run: &[String]) -> Running {
        let state = self.state.path().join("guard");
        let mut command = command();
        command.args(["guard", "--json", "--process", self.nginx.name(), "--state"]).arg(state);
        for (option, value) in [("--baseline", "1"), ("--window", "2")] {
            if !options.contains(&option) {
                command.args([option, value]);
            }
        }
        command.args(options).arg("--").args(run);
        Running::start(
            self.netns.enter(|| Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))),
        )
    }

    /// Takes back what a guard left that was killed.
    fn recover(&self, options: &[&str]) -> Ended {
        let mut command = command();
        command.args([
            "guard",
            "--recover",
            "--json",
            "--process",
            self.nginx.name(),
            "--window",
            "1",
            "--state",
        ]);
        command.arg(self.state.path().join("guard")).args(options);
        let child =
            self.netns.enter(|| Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())));
        Running::start(child).end()
    }

    /// Everything in the directory: content, owner, mode and time of each file, and where links lead.
    fn files(&self) -> Vec<(String, String)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.directory.path()).expect("read the directory") {
            let path = entry.expect("read the directory").path();
            // What guard renames into its place may be gone by now.
            let Ok(about) = path.symlink_metadata() else { continue };
            let content = match path.read_link() {
                Ok(target) => target.display().to_string(),
                Err(_) => fs::read_to_string(&path).unwrap_or_default(),
            };
            let about = (about.mode(), about.uid(), about.gid(), about.is_file().then(|| about.mtime_nsec()));
            files.push((path.display().to_string(), format!("{about:?} {content}")));
        }
        files.sort();
        files
    }

    fn traffic(&self) -> Traffic {
        Traffic::start(self.clients())
    }

    fn clients(&self) -> PathBuf {
        self.nginx.config().with_file_name("clients")
    }
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("write a configuration");
}

fn api(nginx: &Nginx, servers: &str) -> String {
    let clients = nginx.config().with_file_name("clients");
    format!(
        "upstream api {{ {servers} }}\nserver {{ listen unix:{}; location / {{ proxy_pass http://api; }} }}\n",
        clients.display()
    )
}

/// A running guard.
struct Running {
    child: Guarded,
    stdout: Captured,
    stderr: Captured,
}

/// What is left of one.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    report: Value,
    stderr: String,
}

impl Running {
    fn start(mut child: Guarded) -> Self {
        let stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
        let stderr = Captured::from(child.inner().stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    #[track_caller]
    fn says(&self, words: &str) {
        let said = wait::within(SOON, || self.stderr.text().contains(words).then_some(()));
        assert!(said.is_some(), "the guard never said {words:?}: {}", self.stderr.text());
    }

    #[track_caller]
    fn end(mut self) -> Ended {
        let status = self.child.wait(SOON * 6);
        let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
        let report = serde_json::from_str(&stdout).unwrap_or(Value::Null);
        Ended { code: status.code(), report, stderr }
    }
}

impl Ended {
    /// It ended with that status and verdict, and the first reason has these words.
    #[track_caller]
    fn is(&self, code: i32, verdict: &str, words: &str) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.report["verdict"], verdict, "{self:#?}");
        let reasons = self.report["reasons"].to_string();
        assert!(reasons.contains(words), "{words:?} is not in {reasons}\n{self:#?}");
    }

    #[track_caller]
    fn was_taken_back(&self, put_back: &[&str]) {
        let rollback = &self.report["rollback"];
        assert_eq!(rollback["worked"], true, "{self:#?}");
        assert_eq!(rollback["put_back"], serde_json::json!(put_back), "{self:#?}");
    }

    fn notes(&self) -> String {
        self.report["notes"].to_string()
    }
}

/// Requests, at a steady rate.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(Instant, u16)>>,
}

impl Traffic {
    fn start(clients: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let (mut next, mut answers, mut requests) = (Instant::now(), Vec::new(), Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    // A machine that stood still makes up for nothing: a burst would be more than nginx has connections for.
                    next = (next + Duration::from_secs(1) / RATE).max(Instant::now());
                    thread::sleep(next.saturating_duration_since(Instant::now()));
                    // Each waits for itself: an upstream that does not answer must not slow down the others.
                    let Ok(mut stream) = UnixStream::connect(&clients) else {
                        answers.push((Instant::now(), 0));
                        continue;
                    };
                    requests.push(thread::spawn(move || {
                        let _ = stream.set_read_timeout(Some(patient(SOON)));
                        // A worker that ends may close what it has not accepted.
                        let asked = stream.write_all(b"GET / HTTP/1.0\r\nHost: site\r\n\r\n");
                        let answer = asked.map_or(None, |()| http::try_answer(&mut stream).ok());
                        let status = answer.map_or(0, |answer| answer.status);
                        (Instant::now(), status)
                    }));
                }
                answers.extend(requests.into_iter().map(|request| request.join().expect("a request")));
                answers.sort();
                answers
            }
        });
        Self { stop, thread }
    }

    #[expect(clippy::print_stdout, reason = "the figure that a reader of the run looks for")]
    /// What requests got: how many did not get 200, and from the first to the last of those.
    fn end(self) -> (usize, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        let answers = self.thread.join().expect("the requests");
        let failed: Vec<_> = answers.iter().filter(|(_, status)| *status != 200).collect();
        let took = failed.first().zip(failed.last()).map(|(first, last)| last.0 - first.0);
        let mut statuses: Vec<_> = failed.iter().map(|(_, status)| *status).collect();
        statuses.sort_unstable();
        statuses.dedup();
        let (count, took) = (failed.len(), took.unwrap_or_default());
        println!("{count} of {} requests failed ({statuses:?}; 0: no answer), over {took:?}", answers.len());
        (count, took)
    }
}

#[test]
fn a_wrong_port_is_taken_back_before_a_second_has_passed() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    // What would have stopped it before is left out.
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--no-check", "--no-probe", "--apply", &apply], &site.reload()).end();
    let (failed, took) = traffic.end();
    println!(
        "502s: {failed} at {RATE} requests/s, for {took:?} (the postmortem: 75 minutes); {}",
        ended.report["times"]
    );
    ended.is(1, "failed", "misrouted: upstream \\\"api\\\" moved from 127.0.0.1:8080 to 127.0.0.1:8081");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
    assert!(failed > 0, "it was loaded");
    assert!(took < patient(Duration::from_secs(1)), "{took:?}");
    let changes = ended.report["changes"].to_string();
    assert!(changes.contains("127.0.0.1:8080 became 127.0.0.1:8081"), "{changes}");
    assert_eq!(site.nginx.get("/"), 200);
}

#[test]
fn a_wrong_port_is_not_even_loaded_where_it_is_looked_at_before() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    let workers = site.nginx.worker_pids();
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", "a connect to 127.0.0.1:8081 fails: refused");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(traffic.end().0, 0);
    assert_eq!((site.files(), site.nginx.worker_pids()), (files, workers));
}

#[test]
fn a_change_that_works_stays() {
    let site = Site::new();
    let other = Backend::start(&site.netns, WRONG, Manner::AnswerAfter(Duration::from_millis(700)));
    let agent = Agent::start(&["--process", site.nginx.name()]);
    let traffic = site.traffic();
    // It is slow, and fine.
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(0, "passed", "[]");
    assert_eq!(ended.report["rollback"], Value::Null);
    assert_eq!(traffic.end().0, 0);
    assert!(other.accepted() > 0);
    assert!(fs::read_to_string(site.path("api.conf")).expect("read").contains(WRONG));
    assert!(!site.state.path().join("guard/change").exists(), "no copy is left");
    // What it says is what an agent beside it says.
    let row = &ended.report["upstreams"][0];
    assert_eq!((&row["upstream"], &row["address"]), (&"api".into(), &WELL.into()), "{row}");
    assert!(row["before"]["connects"].as_u64().expect("a number") > 0, "{row}");
    let counted = agent.metrics().sum("proxytrace_connects_established_total", &[("address", WRONG)]);
    assert!(counted > 0.0);
}

#[test]
fn one_dead_peer_of_two_is_a_note() {
    let site = Site::new();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WELL}; server {WRONG};"));
    let ended = site.guard(&["--no-check", "--apply", &apply], &site.reload()).end();
    ended.is(0, "passed", "[]");
    assert!(ended.notes().contains(WRONG), "{}", ended.notes());
    assert_eq!(traffic.end().0, 0);
}

#[test]
fn a_service_that_closes_what_it_accepts_is_taken_back() {
    let site = Site::new();
    let _wrong = Backend::start(&site.netns, WRONG, Manner::CloseUnanswered);
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    // It accepts, so a probe takes it for well.
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", WRONG);
    ended.was_taken_back(&["api.conf"]);
    let (_, took) = traffic.end();
    assert!(took < patient(Duration::from_secs(1)), "{took:?}");
    assert_eq!(site.files(), files);
}

#[test]
fn a_service_that_never_answers_is_taken_back() {
    let site = Site::new();
    let hung = Backend::start(&site.netns, WRONG, Manner::HoldThenClose);
    let files = site.files();
    let clients = site.clients();
    let stop = Arc::new(AtomicBool::new(false));
    // Few: each of them waits.
    let requests = thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut waiting = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let mut stream = UnixStream::connect(&clients).expect("connect to nginx");
                http::ask(&mut stream, "/", &[]);
                waiting.push(stream);
                thread::sleep(Duration::from_millis(100));
            }
        }
    });
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--window", "15", "--apply", &apply], &site.reload()).end();
    stop.store(true, Ordering::SeqCst);
    requests.join().expect("the requests");
    hung.release();
    ended.is(1, "failed", "127.0.0.1:8081 takes requests and does not answer");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
    let judged = ended.report["times"]["judged_ms"].as_u64().expect("a time");
    println!("a service that hangs: {}", ended.report["times"]);
    assert!(judged < patient(Duration::from_secs(9)).as_millis() as u64, "{judged}");
}

#[test]
fn a_black_hole_is_taken_back() {
    let site = Site::new();
    site.netns.firewall("tcp dport 8081 drop");
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", "a connect to 127.0.0.1:8081 fails: timed_out");
    ended.was_taken_back(&["api.conf"]);
    let traffic = site.traffic();
    let ended =
        site.guard(&["--no-check", "--no-probe", "--apply", &apply, "--window", "10"], &site.reload()).end();
    ended.is(1, "failed", "127.0.0.1:8081");
    ended.was_taken_back(&["api.conf"]);
    println!("a black hole: {}", ended.report["times"]);
    // Requests that wait for the connect fail when the workers end, and later.
    site.netns.firewall("tcp dport 9 drop");
    traffic.end();
    assert_eq!(site.files(), files);
}

#[test]
fn a_missing_socket_is_found_as_the_user_of_the_workers_sees_it() {
    let site = Site::new();
    let closed = site.path("closed.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&closed).expect("listen");
    fs::set_permissions(&closed, Permissions::from_mode(0o600)).expect("close the socket");
    let missing = site.path("missing.sock");
    for (path, outcome) in [(&closed, "permission_denied"), (&missing, "no_such_socket")] {
        let apply = site.change_to(&format!("server unix:{};", path.display()));
        let ended = site.guard(&["--apply", &apply], &site.reload()).end();
        ended.is(1, "failed", outcome);
        ended.was_taken_back(&["api.conf"]);
    }
}

#[test]
fn what_nginx_does_not_take_is_put_back_with_its_own_words() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    let broken = site.change("no_such_directive on;");
    let ended = site.guard(&["--apply", &broken], &site.reload()).end();
    ended.is(1, "failed", "nginx -t: [emerg] ");
    ended.was_taken_back(&["api.conf"]);
    let ended = site.guard(&["--no-check", "--apply", &broken], &site.hang_up()).end();
    ended.is(1, "failed", "unknown directive \\\"no_such_directive\\\"");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(ended.report["rollback"]["reloaded_by"], Value::Null, "nothing was loaded");
    // A name that does not resolve.
    let typo = site.change_to("server backedn.invalid:80;");
    let ended = site.guard(&["--apply", &typo], &site.reload()).end();
    ended.is(1, "failed", "host not found in upstream");
    ended.was_taken_back(&["api.conf"]);
    let ended = site.guard(&["--no-check", "--apply", &typo], &site.reload()).end();
    ended.is(1, "failed", "-s reload ended with exit status: 1");
    ended.is(1, "failed", "host not found in upstream");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(traffic.end().0, 0);
    assert_eq!(site.files(), files);
}

#[test]
fn workers_that_exit_at_once_are_taken_back() {
    let site = Site::new();
    let files = site.files();
    // nginx -t does not see that the workers may not enter it.
    let cores = site.state.path().join("cores");
    fs::create_dir(&cores).expect("make a directory");
    fs::set_permissions(&cores, Permissions::from_mode(0o700)).expect("close it");
    write(site.state.path(), "cores.main", &format!("working_directory {};", cores.display()));
    let apply =
        format!("cp {}/cores.main {}", site.state.path().display(), site.path("cores.main").display());
    let ended = site.guard(&["--apply", &apply], &site.reload()).end();
    ended.is(1, "failed", "worker");
    ended.was_taken_back(&[]);
    assert_eq!(ended.report["rollback"]["removed"], serde_json::json!(["cores.main"]));
    assert_eq!(site.files(), files);
    assert_eq!(site.nginx.get("/"), 200);
}

#[test]
fn no_traffic_is_no_proof_and_a_probe_is_one() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let apply = site.change_to(&format!("server {WRONG};"));
    let ended = site.guard(&["--no-probe", "--apply", &apply], &site.reload()).end();
    ended.is(1, "unproven", "upstream \\\"api\\\" is not proven: no connect to it succeeded");
    ended.was_taken_back(&["api.conf"]);
    let ended = site.guard(&["--min-connects", "1", "--apply", &apply], &site.reload()).end();
    ended.is(1, "unproven", "not proven");
    let ended = site.guard(&["--no-probe", "--allow-unproven", "--apply", &apply], &site.reload()).end();
    ended.is(0, "passed", "[]");
    assert!(ended.notes().contains("not proven"), "{}", ended.notes());
    let back = site.change_to(&format!("server {WELL};"));
    let ended = site.guard(&["--apply", &back], &site.reload()).end();
    ended.is(0, "passed", "[]");
    assert_eq!(ended.report["probes"][0]["outcome"], "established");
}

#[test]
fn few_connects_of_kept_connections_are_a_proof() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let traffic = site.traffic();
    let kept = api(&site.nginx, &format!("server {WRONG}; keepalive 64;"))
        .replace("proxy_pass", "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass");
    let apply = site.change(&kept);
    let ended = site.guard(&["--no-probe", "--apply", &apply], &site.reload()).end();
    ended.is(0, "passed", "[]");
    let connects = ended.report["upstreams"][1]["new_workers"]["connects"].as_u64().expect("a number");
    assert!((1..100).contains(&connects), "{ended:#?}");
    assert_eq!(traffic.end().0, 0);
}

#[test]
fn a_change_is_taken_back_by_a_command_where_one_is_given() {
    let site = Site::new();
    let was = fs::read_to_string(site.path("api.conf")).expect("read");
    write(site.state.path(), "was.conf", &was);
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    let reload = site.reload().join(" ");
    let back = format!(
        "cp {}/was.conf {} && {reload}",
        site.state.path().display(),
        site.path("api.conf").display()
    );
    let options = ["--no-check", "--no-probe", "--apply", &apply, "--rollback", &back];
    let ended = site.guard_without_files(&options, &site.reload()).end();
    ended.is(1, "failed", "misrouted");
    ended.was_taken_back(&[]);
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), was);
    assert!(traffic.end().1 < patient(Duration::from_secs(1)));
    let options = ["--no-check", "--apply", &apply, "--rollback", "false"];
    let ended = site.guard_without_files(&options, &site.reload()).end();
    ended.is(4, "failed", "");
    let reasons = ended.report["rollback"]["reasons"].to_string();
    assert!(reasons.contains("false ended with exit status: 1"), "{reasons}");
}

#[test]
fn where_the_rollback_fails_as_well_it_ends_with_4_and_keeps_the_copy() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    let apply = site.change_to(&format!("server {WRONG};"));
    // The service from before goes as well.
    site.netns.firewall("tcp dport 8082 drop");
    let reload = site.reload().join(" ");
    let gone = format!(
        "{reload}; nft add rule inet filter input tcp dport 8080 reject with tcp reset 2>/dev/null || ip route add unreachable 127.0.0.1 table local; ip link set lo down"
    );
    let run = ["/bin/sh", "-c", &gone].map(str::to_owned);
    let ended = site.guard(&["--no-check", "--apply", &apply, "--window", "3"], &run).end();
    drop(traffic);
    assert_eq!(ended.code, Some(4), "{ended:#?}");
    assert_eq!(site.files(), files, "the files are put back nevertheless");
    assert!(site.state.path().join("guard/change/journal.json").exists());
    let reasons = ended.report["rollback"]["reasons"].to_string();
    assert!(reasons.contains("the copy from before is kept in"), "{reasons}");
}

#[test]
fn where_nginx_does_not_take_what_is_put_back_its_words_are_in_the_report() {
    let site = Site::new();
    let outside = site.state.path().join("outside.inc");
    fs::write(&outside, "").expect("write a file");
    let files = format!("{}\ninclude {};\n", api(&site.nginx, &format!("server {WELL};")), outside.display());
    write(site.directory.path(), "api.conf", &files);
    // The change needs it no more, and takes it away. nginx's own command would see that.
    let apply = format!("{} && rm {}", site.change_to(&format!("server {WRONG};")), outside.display());
    let ended = site.guard(&["--no-check", "--apply", &apply], &site.hang_up()).end();
    ended.is(4, "failed", WRONG);
    assert!(ended.notes().contains("which are not put back"), "{ended:#?}");
    assert!(ended.notes().contains("outside.inc"), "{ended:#?}");
    let reasons = ended.report["rollback"]["reasons"].to_string();
    assert!(reasons.contains("did not take the change: ") && reasons.contains("outside.inc"), "{reasons}");
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), files);
    // What is missing is put there, and it goes back.
    fs::write(&outside, "").expect("write a file");
    let ended = site.recover(&[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(site.nginx.get("/"), 200);
}

#[test]
fn a_guard_that_is_interrupted_takes_the_change_back() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let old = site.nginx.worker_pids();
        let running = site.guard(&["--window", "60", "--apply", &apply], &site.reload());
        wait::until_true("new workers", SOON, || {
            site.nginx.worker_pids().iter().any(|pid| !old.contains(pid))
        });
        running.child.signal(signal);
        // Nothing interrupts that, but it is watched for as long as the change would be.
        running.says("takes the change back");
        wait_for_the_files(&site, &files);
        running.child.signal(Signal::SIGKILL);
        let _ = running.end();
        let ended = site.recover(&[]);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
    let running = site.guard(&["--window", "2", "--apply", &apply], &site.reload());
    running.says("runs ");
    running.child.signal(Signal::SIGTERM);
    let ended = running.end();
    ended.is(1, "failed", "interrupted by SIGTERM");
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(site.files(), files);
}

fn wait_for_the_files(site: &Site, files: &[(String, String)]) {
    wait::until_true("the files to be put back", SOON, || site.files() == files);
}

#[test]
fn what_a_killed_guard_left_is_found_and_nothing_is_lost() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let kill = || {
        let running = site.guard(&["--window", "60", "--apply", &apply], &site.reload());
        running.says("runs ");
        wait::until_true("the journal to have both listings", SOON, || {
            let journal = fs::read_to_string(site.state.path().join("guard/change/journal.json"));
            journal.is_ok_and(|journal| journal.contains("\"is_loaded\":true"))
        });
        thread::sleep(patient(Duration::from_millis(500)));
        running.child.signal(Signal::SIGKILL);
        let _ = running.end();
    };
    kill();
    assert_ne!(site.files(), files);
    // The next one says so, and changes nothing.
    let next = site.guard(&["--apply", "touch /nonexistent/x"], &site.reload()).end();
    assert_eq!(next.code, Some(1), "{next:#?}");
    assert!(next.stderr.contains("`proxytrace guard --recover`"), "{}", next.stderr);
    let ended = site.recover(&[]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(site.files(), files);
    ended.was_taken_back(&["api.conf"]);
    assert_eq!(ended.report["rollback"]["reloaded_by"], "SIGHUP", "{ended:#?}");
    assert_eq!(site.recover(&[]).code, Some(0), "there is nothing to recover any more");
    kill();
    let ended = site.recover(&["--discard"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(fs::read_to_string(site.path("api.conf")).expect("read").contains(WRONG));
    assert!(!site.state.path().join("guard/change").exists());
}

#[test]
fn a_command_that_hangs_is_ended_and_one_that_is_not_there_is_never_begun() {
    let site = Site::new();
    let files = site.files();
    let apply = site.change_to(&format!("server {WRONG};"));
    let run = ["sleep", "600"].map(str::to_owned);
    let ended = site.guard(&["--no-check", "--timeout", "2", "--apply", &apply], &run).end();
    ended.is(1, "failed", "sleep 600 did not end within 2 s (--timeout)");
    assert_eq!(site.files(), files);
    let ended = site.guard(&["--no-check", "--timeout", "2", "--apply", &apply], &["true".to_owned()]).end();
    ended.is(1, "failed", "no new generation came within 2 s (--timeout)");
    assert_eq!(site.files(), files);
    let ended = site.guard(&["--apply", &apply], &["no-such-program".to_owned()]).end();
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("no-such-program: no such program"), "{}", ended.stderr);
    assert_eq!(site.files(), files);
}

#[test]
fn who_may_not_trace_is_told_so_and_nothing_is_changed() {
    let (_directory, program) = copy_for_everybody();
    let mut command = command_of("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    command.args(["guard", "--apply", "touch /nonexistent/x", "--", "true"]);
    let ended = Running::start(Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))).end();
    assert_eq!(ended.code, Some(3), "{ended:#?}");
    assert!(ended.stderr.contains("CAP_BPF"), "{}", ended.stderr);
}

#[test]
fn of_two_reloads_the_second_is_judged() {
    let site = Site::new();
    let reload = site.reload().join(" ");
    let conf = site.path("api.conf");
    let (wrong, well) = (site.state.path().join("wrong.conf"), site.state.path().join("well.conf"));
    fs::write(&wrong, api(&site.nginx, &format!("server {WRONG};"))).expect("write");
    fs::write(&well, api(&site.nginx, &format!("server {WELL} weight=2;"))).expect("write");
    let line = format!(
        "cp {} {conf}; {reload}; sleep 0.5; cp {} {conf}; {reload}",
        wrong.display(),
        well.display(),
        conf = conf.display()
    );
    let traffic = site.traffic();
    let run = ["/bin/sh", "-c", &line].map(str::to_owned);
    let ended = site.guard(&["--no-check"], &run).end();
    ended.is(0, "passed", "[]");
    assert_eq!(ended.report["generations"][0]["generation"], 2, "{ended:#?}");
    assert!(traffic.end().0 > 0, "the first one failed");
}

#[test]
fn two_guards_do_not_work_at_once() {
    let site = Site::new();
    let _other = Backend::start(&site.netns, WRONG, Manner::Answer);
    let apply = site.change_to(&format!("server {WRONG};"));
    let first = site.guard(&["--window", "4", "--apply", &apply], &site.reload());
    first.says("runs ");
    let refused = site.guard(&["--timeout", "0.5"], &site.reload()).end();
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("another guard is at work"), "{}", refused.stderr);
    let second = site.guard(&[], &site.reload());
    second.says("waiting for another guard to end");
    first.end().is(0, "passed", "[]");
    second.end().is(0, "passed", "[]");
}

#[test]
fn what_somebody_else_changed_meanwhile_is_left_and_named() {
    let site = Site::new();
    let _wrong = Backend::start(&site.netns, WRONG, Manner::Answer);
    let apply = site.change_to(&format!("server {WRONG};"));
    let old = site.nginx.worker_pids();
    let running = site.guard(&["--window", "60", "--apply", &apply], &site.reload());
    running.says("runs ");
    wait::until_true("new workers", SOON, || site.nginx.worker_pids().iter().any(|pid| !old.contains(pid)));
    thread::sleep(patient(Duration::from_millis(300)));
    let theirs = api(&site.nginx, &format!("server {WELL}; # theirs"));
    write(site.directory.path(), "api.conf", &theirs);
    write(site.directory.path(), "theirs", "theirs");
    running.child.signal(Signal::SIGTERM);
    running.says("takes the change back");
    wait::until_true("the end of the rollback's first part", SOON, || {
        site.state.path().join("guard/taken-back").exists()
    });
    thread::sleep(patient(Duration::from_millis(500)));
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), theirs);
    assert_eq!(fs::read_to_string(site.path("theirs")).expect("read"), "theirs");
    running.child.signal(Signal::SIGKILL);
    let _ = running.end();
    let ended = site.recover(&[]);
    assert_eq!(ended.report["rollback"]["left"], serde_json::json!(["api.conf"]), "{ended:#?}");
    assert_eq!(fs::read_to_string(site.path("api.conf")).expect("read"), theirs);
}

#[test]
fn a_full_disk_changes_nothing() {
    let site = Site::new();
    fs::write(site.path("large"), vec![b'x'; 1 << 20]).expect("write a large file");
    let files = site.files();
    let small = site.state.path().join("small");
    fs::create_dir(&small).expect("make a directory");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", "mount -t tmpfs -o size=256k none \"$0\" && exec \"$@\""])
        .arg(&small);
    command.arg(proxytrace_tests::proxytrace::binary()).args(["guard", "--process", site.nginx.name()]);
    command.arg("--state").arg(small.join("guard")).arg("--rollback-files").arg(site.directory.path());
    command.args(["--apply", "touch /nonexistent/x", "--"]).args(site.reload());
    let child = site.netns.enter(|| Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())));
    let ended = Running::start(child).end();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("nothing was changed"), "{}", ended.stderr);
    assert!(ended.stderr.contains("No space left on device"), "{}", ended.stderr);
    assert_eq!(site.files(), files);
}

#[test]
fn traffic_goes_to_what_is_expected_and_not_to_what_is_forbidden() {
    let site = Site::new();
    let _green = Backend::start(&site.netns, WRONG, Manner::Answer);
    let both = |to: &str| {
        let text = api(&site.nginx, &format!("server {WELL};"));
        format!(
            "upstream green {{ server {WRONG}; }}\n{}",
            text.replace("http://api", &format!("http://{to}"))
        )
    };
    let traffic = site.traffic();
    let demands = ["--expect-upstream", "green", "--forbid-upstream", "api"];
    let apply = site.change(&both("green"));
    let ended = site.guard(&[&demands[..], &["--apply", &apply]].concat(), &site.reload()).end();
    ended.is(0, "passed", "[]");
    let apply = site.change(&both("api"));
    let ended = site.guard(&[&demands[..], &["--apply", &apply]].concat(), &site.reload()).end();
    ended.is(1, "failed", "upstream \\\"api\\\" was forbidden");
    ended.was_taken_back(&["api.conf"]);
    let ended = site.guard(&["--expect-upstream", "gren"], &site.reload()).end();
    ended.is(1, "failed", "has none of that name");
    assert_eq!(traffic.end().0, 0);
}

#[test]
fn a_change_that_comes_before_its_guard_is_taken_back_to_what_worked_last() {
    let site = Site::new();
    let files = site.files();
    let traffic = site.traffic();
    // As of a service manager, which only reloads. What is changed within a second of the start may have been there before.
    thread::sleep(Duration::from_millis(1500));
    site.write_servers(&format!("server {WRONG};"));
    let ended = site.guard(&[], &site.reload()).end();
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(
        ended.stderr.contains("no copy from before is there to be put back: nothing was changed"),
        "{ended:#?}"
    );
    site.write_servers(&format!("server {WELL};"));
    site.nginx.signal(Signal::SIGHUP);
    wait::for_a_tick();
    site.guard(&[], &site.reload()).end().is(0, "passed", "[]");
    site.write_servers(&format!("server {WRONG};"));
    write(site.directory.path(), "new", "");
    for options in [&["--no-check", "--no-probe"][..], &[]] {
        let ended = site.guard(options, &site.reload()).end();
        ended.is(1, "failed", "api");
        ended.was_taken_back(&["api.conf"]);
        assert_eq!(ended.report["rollback"]["removed"], serde_json::json!(["new"]));
        let contents = |files: Vec<(String, String)>| -> Vec<_> {
            files
                .into_iter()
                .map(|(path, what)| (path, what.rsplit(") ").next().map(str::to_owned)))
                .collect()
        };
        assert_eq!(contents(site.files()), contents(files.clone()));
        site.write_servers(&format!("server {WRONG};"));
        write(site.directory.path(), "new", "");
    }
    assert!(traffic.end().1 < patient(Duration::from_secs(1)));
}

#[test]
fn from_outside_the_network_of_the_proxy_the_same_is_seen() {
    let site = Site::new();
    let run = |apply: &str| {
        let mut command = command();
        command.args(["guard", "--json", "--process", site.nginx.name(), "--baseline", "0", "--window", "1"]);
        command
            .arg("--state")
            .arg(site.state.path().join("guard"))
            .arg("--rollback-files")
            .arg(site.directory.path());
        command.args(["--apply", apply, "--"]).args(site.reload());
        Running::start(Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))).end()
    };
    // There is nobody at that port in our own network, nor at the other.
    let apply = site.change_to(&format!("server {WELL} weight=3; server {WRONG} backup;"));
    let ended = run(&apply);
    ended.is(0, "passed", "[]");
    assert!(ended.notes().contains("a connect to 127.0.0.1:8081 fails: refused"), "{ended:#?}");
    let ended = run(&site.change_to(&format!("server {WRONG};")));
    ended.is(1, "failed", "a connect to 127.0.0.1:8081 fails: refused");
}

#[test]
fn what_goes_wrong_at_another_proxy_meanwhile_is_no_fault_of_the_change() {
    let site = Site::new();
    let other = Nginx::start(&site.netns, &proxy_to(WRONG, ""));
    let stop = Arc::new(AtomicBool::new(false));
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(other.get("/"), 502);
                thread::sleep(Duration::from_millis(20));
            }
        });
        // It begins to fail in the middle of it, as far as anybody can see.
        let options = ["--process", other.name(), "--baseline", "0", "--window", "3"];
        let ended = site.guard(&options, &site.reload()).end();
        stop.store(true, Ordering::SeqCst);
        ended
    });
    ended.is(0, "passed", "[]");
    let generations = ended.report["generations"].as_array().expect("generations");
    assert_eq!(generations.len(), 1, "{ended:#?}");
}

/// Anybody may start a process that calls itself nginx, with a program and a configuration of its own.
#[test]
fn another_users_process_that_calls_itself_nginx_is_neither_run_nor_read() {
    const NOBODY: u32 = 65534;
    let site = Site::new();
    let place = scratch::directory();
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).expect("open it to all");
    let program = place.path().join(site.nginx.name());
    fs::copy("/bin/bash", &program).expect("copy a shell");
    // nginx would refuse it, so whoever looks at it finds a fault.
    write(
        place.path(),
        "evil.conf",
        &format!("events {{}}\nhttp {{ upstream u {{ server {WELL} weight=0; }} }}\n"),
    );
    let config = place.path().join("evil.conf");
    let mut command = Command::new(&program);
    command.arg0(format!("nginx: master process nginx -c {}", config.display()));
    command.uid(NOBODY).gid(NOBODY).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut forged = site.netns.spawn(&mut command);
    forged.fork_once();

    let ended =
        site.guard(&["--apply", &site.change_to(&format!("server {WELL} weight=2;"))], &site.reload()).end();

    ended.is(0, "passed", "[]");
    assert!(ended.notes().contains("its master runs as another user"), "{ended:#?}");
    assert!(
        !ended.stderr.contains("evil.conf") && !ended.report.to_string().contains("evil.conf"),
        "{ended:#?}"
    );
}

#[test]
fn another_proxy_is_judged_without_names() {
    if !skip::unless_installed("haproxy") {
        return;
    }
    let netns = Netns::new();
    let state = scratch::directory();
    let _backend = Backend::start(&netns, WELL, Manner::AnswerAndClose);
    let mut haproxy = Haproxy::prepare(WELL);
    haproxy.launch(&netns);
    let master = haproxy.master_pid().to_string();
    let guard = |options: &[&str]| {
        let mut command = command();
        command.args(["guard", "--json", "--process", haproxy.name(), "--baseline", "1", "--window", "3"]);
        command.arg("--state").arg(state.path()).args(options).args(["--", "kill", "-USR2", &master]);
        let child = netns.enter(|| Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())));
        let running = Running::start(child);
        running.says("runs ");
        running
    };
    let running = guard(&[]);
    let ended = running.end();
    ended.is(1, "unproven", "its configuration is not known");
    let running = guard(&[]);
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(250));
        assert_eq!(haproxy.get(), 200);
    }
    let ended = running.end();
    ended.is(0, "passed", "[]");
}

#[test]
fn files_that_were_changed_before_are_compared_with_what_is_given() {
    let site = Site::new();
    let old = site.state.path().join("old.conf");
    let text = |name: &str| fs::read_to_string(site.path(name)).expect("read");
    fs::write(&old, format!("events {{}} http {{ {} }}", text("api.conf"))).expect("write");
    site.write_servers(&format!("server {WRONG};"));
    let traffic = site.traffic();
    let options = ["--no-check", "--against", old.to_str().expect("text")];
    let ended = site.guard_without_files(&options, &site.reload()).end();
    ended.is(1, "failed", "api");
    assert!(ended.report["changes"].to_string().contains("became 127.0.0.1:8081"), "{ended:#?}");
    assert_eq!(ended.report["rollback"], Value::Null, "none was asked for");
    traffic.end();
}
