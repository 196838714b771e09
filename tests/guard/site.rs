//! A proxy whose configuration is changed under guard.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::{Captured, Guarded};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, Options};
use proxytrace_tests::proxytrace::command;
use proxytrace_tests::scratch;
use proxytrace_tests::wait::{self, SOON, patient};
use serde_json::Value;
use tempfile::TempDir;

use super::traffic::{RATE, Traffic};

pub(crate) const WELL: &str = "127.0.0.1:8080";
pub(crate) const WRONG: &str = "127.0.0.1:8081";

/// An nginx whose configuration is in a directory of its own, and a backend that is well.
pub(crate) struct Site {
    pub(crate) netns: Netns,
    pub(crate) nginx: Nginx,
    pub(crate) directory: TempDir,
    pub(crate) state: Rc<TempDir>,
    _backend: Backend,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::with(scratch::directory(), Rc::new(scratch::directory()))
    }

    /// Another one of the same host: guards of both keep what they keep in the same place.
    pub(crate) fn beside(&self) -> Self {
        Self::with(scratch::directory(), Rc::clone(&self.state))
    }

    /// One whose configuration is in that directory, which is empty.
    pub(crate) fn within(directory: TempDir) -> Self {
        Self::with(directory, Rc::new(scratch::directory()))
    }

    fn with(directory: TempDir, state: Rc<TempDir>) -> Self {
        let netns = Netns::new();
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes where the upstream `api` is.
    pub(crate) fn write_servers(&self, servers: &str) {
        write(self.directory.path(), "api.conf", &api(&self.nginx, servers));
    }

    /// A program that does that, for `--apply`.
    pub(crate) fn change_to(&self, servers: &str) -> String {
        self.change(&api(&self.nginx, servers))
    }

    /// The same for any text.
    pub(crate) fn change(&self, text: &str) -> String {
        write(self.state.path(), "next.conf", text);
        format!("cp {}/next.conf {}", self.state.path().display(), self.path("api.conf").display())
    }

    /// What reloads nginx.
    pub(crate) fn reload(&self) -> Vec<String> {
        let command = self.nginx.command();
        let arguments = command.get_args().map(|argument| argument.to_str().expect("text").to_owned());
        let program = command.get_program().to_str().expect("text").to_owned();
        [program].into_iter().chain(arguments).chain(["-s", "reload"].map(str::to_owned)).collect()
    }

    pub(crate) fn hang_up(&self) -> Vec<String> {
        ["kill", "-HUP", &self.nginx.master_pid().to_string()].map(str::to_owned).to_vec()
    }

    /// A guard with these options, which puts files back.
    pub(crate) fn guard(&self, options: &[&str], run: &[String]) -> Running {
        self.guard_by(command(), options, run)
    }

    /// The same by that command.
    pub(crate) fn guard_by(&self, command: Command, options: &[&str], run: &[String]) -> Running {
        let directory = self.directory.path().to_str().expect("text");
        self.run(command, &[&["--rollback-files", directory], options].concat(), run)
    }

    /// Waits for new workers, which `old` ones were not.
    pub(crate) fn wait_for_new_workers(&self, old: &[u32]) {
        wait::until_true("new workers", SOON, || {
            self.nginx.worker_pids().iter().any(|pid| !old.contains(pid))
        });
    }

    pub(crate) fn wait_for_the_files(&self, files: &[(String, String)]) {
        wait::until_true("the files to be put back", SOON, || self.files() == files);
    }

    pub(crate) fn guard_without_files(&self, options: &[&str], run: &[String]) -> Running {
        self.run(command(), options, run)
    }

    fn run(&self, mut command: Command, options: &[&str], run: &[String]) -> Running {
        let state = self.state.path().join("guard");
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
    pub(crate) fn recover(&self, options: &[&str]) -> Ended {
        self.recover_by(command(), options)
    }

    /// The same by that command.
    pub(crate) fn recover_by(&self, mut command: Command, options: &[&str]) -> Ended {
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
    pub(crate) fn files(&self) -> Vec<(String, String)> {
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

    /// Where guards of this directory keep what outlives them.
    pub(crate) fn kept(&self) -> PathBuf {
        let state = self.state.path().join("guard");
        let places = fs::read_dir(&state).map(|places| places.flatten().map(|place| place.path()).collect());
        let places: Vec<PathBuf> = places.unwrap_or_default();
        let name = self.directory.path().file_name().expect("a name").to_str().expect("text");
        let is_ours =
            |place: &&PathBuf| place.file_name().is_some_and(|own| own.to_string_lossy().starts_with(name));
        places.iter().find(is_ours).cloned().unwrap_or(state.join("none"))
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic::start(self.clients())
    }

    pub(crate) fn clients(&self) -> PathBuf {
        self.nginx.config().with_file_name("clients")
    }
}

pub(crate) fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("write a configuration");
}

pub(crate) fn api(nginx: &Nginx, servers: &str) -> String {
    let clients = nginx.config().with_file_name("clients");
    format!(
        "upstream api {{ {servers} }}\nserver {{ listen unix:{}; location / {{ proxy_pass http://api; }} }}\n",
        clients.display()
    )
}

/// A running guard.
pub(crate) struct Running {
    pub(crate) child: Guarded,
    stdout: Captured,
    stderr: Captured,
}

/// What is left of one.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) stderr: String,
}

impl Running {
    /// Starts one.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::start(Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())))
    }

    pub(crate) fn start(mut child: Guarded) -> Self {
        let stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
        let stderr = Captured::from(child.inner().stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    #[track_caller]
    pub(crate) fn says(&self, words: &str) {
        let said = wait::within(SOON, || self.stderr.text().contains(words).then_some(()));
        assert!(said.is_some(), "the guard never said {words:?}: {}", self.stderr.text());
    }

    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let status = self.child.wait(SOON * 6);
        let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
        let report = serde_json::from_str(&stdout).unwrap_or(Value::Null);
        Ended { code: status.code(), report, stderr }
    }
}

impl Ended {
    /// It ended with that status and verdict, and the first reason has these words.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, verdict: &str, words: &str) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.report["verdict"], verdict, "{self:#?}");
        let reasons = self.report["reasons"].to_string();
        assert!(reasons.contains(words), "{words:?} is not in {reasons}\n{self:#?}");
    }

    #[track_caller]
    pub(crate) fn was_taken_back(&self, put_back: &[&str]) {
        let rollback = &self.report["rollback"];
        assert_eq!(rollback["worked"], true, "{self:#?}");
        assert_eq!(rollback["put_back"], serde_json::json!(put_back), "{self:#?}");
    }

    /// Of a change to [`WRONG`] that was loaded: how many requests `failed` with 502, and for how long it `took` until they
    /// did not. Gives that in words.
    #[track_caller]
    pub(crate) fn has_taken_a_wrong_port_back(
        &self,
        site: &Site,
        files: &[(String, String)],
        (failed, took): (usize, Duration),
    ) -> String {
        self.is(1, "failed", "misrouted: upstream \\\"api\\\" moved from 127.0.0.1:8080 to 127.0.0.1:8081");
        self.was_taken_back(&["api.conf"]);
        assert_eq!(site.files(), files);
        assert!(failed > 0, "it was loaded");
        assert!(took < patient(Duration::from_secs(1)), "{took:?}");
        let changes = self.report["changes"].to_string();
        assert!(changes.contains("127.0.0.1:8080 became 127.0.0.1:8081"), "{changes}");
        assert_eq!(site.nginx.get("/"), 200);
        let times = &self.report["times"];
        format!("502s: {failed} at {RATE} requests/s, for {took:?} (the postmortem: 75 minutes); {times}")
    }

    pub(crate) fn notes(&self) -> String {
        self.report["notes"].to_string()
    }
}
