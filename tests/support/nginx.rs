//! The real nginx, with a prefix, a name and a client socket of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use tempfile::TempDir;

use crate::child::{Guarded, as_pid};
use crate::http::{self, Half, Response};
use crate::netns::Netns;
use crate::wait::{self, SOON, patient};
use crate::{child, process, scratch, skip};

/// A running nginx; master and workers are ended when it is dropped.
///
/// It runs through a link with a unique name, so that `--process` distinguishes it from every other nginx on the host. Its
/// clients come in over a unix socket: they work from every namespace, and need no local port.
#[derive(Debug)]
pub struct Nginx {
    name: String,
    directory: TempDir,
    options: Options,
    /// The master, as long as it is our child: not when it went into the background.
    child: Option<Guarded>,
}

/// What the name of each begins with.
pub const NAME: &str = "ngx";

/// How nginx is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many workers.
    pub workers: usize,
    /// Whether the master goes into the background, as it does when it is started by hand.
    pub daemon: bool,
    /// The user that the workers become.
    pub user: &'static str,
    /// How many connections a worker may have.
    pub connections: usize,
    /// Where it logs: `{dir}` as in `http`.
    pub error_log: &'static str,
    /// What stands outside of `http {}` and before it, such as `load_module` and `stream {}`; `{dir}` as in there.
    pub main: String,
    /// Whether it has an /etc/hosts and an /etc/resolv.conf of its own: `hosts` and `resolv.conf` in its directory.
    pub own_names: bool,
}

/// Becomes the rest of its arguments where the first two are /etc/hosts and /etc/resolv.conf.
const WITH_OWN_NAMES: &str =
    "mount --bind \"$1\" /etc/hosts && mount --bind \"$2\" /etc/resolv.conf && shift 2 && exec \"$@\"";

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 1,
            daemon: false,
            user: "www-data",
            connections: 512,
            error_log: "{dir}/error.log",
            main: String::new(),
            own_names: false,
        }
    }
}

/// A server that passes everything to `address` (`HOST:PORT`, `unix:PATH`), with more `directives` in its location.
#[must_use]
pub fn proxy_to(address: &str, directives: &str) -> String {
    server(&format!("location / {{ proxy_pass http://{address}; {directives} }}"))
}

/// A server that the clients of [`Nginx`] reach, with `body` in it.
#[must_use]
pub fn server(body: &str) -> String {
    format!("server {{ listen unix:{{dir}}/clients; {body} }}\n")
}

/// Where the module `name` of the nginx that stories run is, such as `ngx_stream_module`: where Debian's packages put it.
#[must_use]
pub fn module(name: &str) -> String {
    let program = program();
    let usr = program.ancestors().nth(2).unwrap_or(Path::new("/usr"));
    format!("{}/lib/nginx/modules/{name}.so", usr.display())
}

/// The nginx that stories run: another than the installed one where this names it.
#[must_use]
pub fn program() -> PathBuf {
    std::env::var_os("PROXYTRACE_TEST_NGINX").map_or_else(|| "/usr/sbin/nginx".into(), PathBuf::from)
}

/// The newest nginx, which `cargo xtask setup` unpacks; says that the test is skipped where it has not been.
#[must_use]
#[track_caller]
pub fn newest() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let program = target.join("setup/nginx-newest/usr/sbin/nginx");
    skip::unless_installed(&program.to_string_lossy()).then_some(program)
}

/// Whether the nginx that stories run keeps connections to upstreams unless it is told otherwise (since 1.29.7).
#[must_use]
pub fn keeps_by_default() -> bool {
    version() >= [1, 29, 7]
}

/// Whether the nginx that stories run follows names in `upstream` blocks, each by a `resolver` of its own (since 1.27.3).
#[must_use]
pub fn follows_names() -> bool {
    version() >= [1, 27, 3]
}

/// Of the nginx that stories run: three numbers.
fn version() -> [u32; 3] {
    static VERSION: OnceLock<[u32; 3]> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let told = Command::new(program()).arg("-v").output().expect("ask nginx for its version");
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        let version = told.trim().rsplit_once('/').map(|(_, version)| version).unwrap_or_default();
        let mut numbers = version.split(['.', ' ']).map_while(|number| number.parse().ok());
        std::array::from_fn(|_| numbers.next().unwrap_or_else(|| panic!("no version in {told:?}")))
    })
}

impl Nginx {
    /// Starts nginx with one worker; `http` is what goes into `http {}`, `{dir}` in it stands for nginx's directory.
    #[must_use]
    pub fn start(netns: &Netns, http: &str) -> Self {
        Self::with(Options::default(), netns, http)
    }

    /// Starts it in another way.
    #[must_use]
    pub fn with(options: Options, netns: &Netns, http: &str) -> Self {
        let mut nginx = Self::prepare(options, http);
        nginx.launch(netns);
        nginx
    }

    /// Lays everything out, but starts nothing yet: [`Nginx::launch`] or [`Nginx::command`] does.
    #[must_use]
    pub fn prepare(options: Options, http: &str) -> Self {
        let (name, directory) = (scratch::unique_name(NAME), scratch::directory());
        scratch::alias(&program(), directory.path(), &name);
        let nginx = Self { name, directory, options, child: None };
        if nginx.options.own_names {
            nginx.set_hosts("127.0.0.1 localhost\n");
            // A name server that answers for nobody: at the port of one nobody listens.
            fs::write(nginx.path("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
                .expect("write resolv.conf");
        }
        nginx.configure(http);
        nginx
    }

    /// Starts what was prepared, and waits until it serves.
    pub fn launch(&mut self, netns: &Netns) {
        let mut command = self.command();
        if self.options.daemon {
            netns.enter(|| child::run(&mut command));
        } else {
            self.child = Some(netns.spawn(&mut command));
        }
        self.wait_until_serving();
    }

    /// Ends it at once, and starts it again.
    pub fn restart(&mut self, netns: &Netns) {
        process::end(&self.name);
        let _ = fs::remove_file(self.path("clients"));
        self.launch(netns);
    }

    /// The command that starts it, for those who want another process to do so.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = match self.options.own_names {
            true => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", WITH_OWN_NAMES, "sh"]);
                command.args([self.path("hosts"), self.path("resolv.conf"), self.path(&self.name)]);
                command
            }
            false => Command::new(self.path(&self.name)),
        };
        // Where it says what there is to say before it has read its configuration.
        let first =
            if self.options.error_log == "stderr" { "stderr".to_owned() } else { self.path("error.log") };
        command.args(["-e", &first, "-p", &self.path(""), "-c", &self.path("nginx.conf")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("nginx.conf").into()
    }

    /// Waits until all the workers are there and a client could connect.
    pub fn wait_until_serving(&mut self) {
        wait::until("nginx to serve", SOON, || {
            if let Some(status) = self.child.as_mut().and_then(Guarded::ended) {
                panic!("nginx ended with {status}: {}", self.error_log());
            }
            UnixStream::connect(self.path("clients")).ok()?;
            (self.worker_pids().len() == self.options.workers).then_some(())
        });
    }

    /// The name that its processes have, which is also its `proxy` label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for `path` and gives the status of the answer.
    #[track_caller]
    pub fn get(&self, path: &str) -> u16 {
        http::answer(&mut self.begin(path)).status
    }

    /// Asks for `path` and gives the whole answer.
    #[track_caller]
    pub fn fetch(&self, path: &str) -> Response {
        http::answer(&mut self.begin(path))
    }

    /// Asks for `path` and leaves it to the caller to wait for the answer, or to go away.
    #[track_caller]
    pub fn begin(&self, path: &str) -> UnixStream {
        let mut stream = self.connect();
        http::ask(&mut stream, path, &[]);
        stream
    }

    /// Asks for `path` by half.
    #[track_caller]
    #[must_use]
    pub fn begin_half(&self, path: &str) -> Half {
        Half::begin(self.connect(), path)
    }

    /// A client's connection, on which nothing was asked yet.
    #[track_caller]
    #[must_use]
    pub fn connect(&self) -> UnixStream {
        self.connect_to("clients")
    }

    /// The same to a socket `name` in nginx's directory, on which a server of the test's own listens.
    #[track_caller]
    #[must_use]
    pub fn connect_to(&self, name: &str) -> UnixStream {
        let stream = UnixStream::connect(self.path(name)).expect("connect to nginx");
        stream
            .set_read_timeout(Some(patient(SOON).max(Duration::from_secs(60))))
            .expect("limit the wait for an answer");
        stream
    }

    /// Whether its master has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        process::named(&self.name).is_empty()
    }

    /// Everything in the error log (level `info`).
    #[must_use]
    pub fn error_log(&self) -> String {
        fs::read_to_string(self.path("error.log")).unwrap_or_default()
    }

    /// Waits until the error log says `words`: the proof that a scenario is what it claims to be.
    #[track_caller]
    pub fn says(&self, words: &str) {
        let said = wait::within(SOON, || self.error_log().contains(words).then_some(()));
        assert!(said.is_some(), "nginx never said {words:?}, but: {}", self.error_log());
    }

    /// The process id of the (newest) master.
    #[must_use]
    pub fn master_pid(&self) -> u32 {
        self.current_master().unwrap_or_else(|| panic!("no master: {}", self.error_log()))
    }

    /// The workers of the (newest) master, old ones that still serve included.
    #[must_use]
    pub fn worker_pids(&self) -> Vec<u32> {
        let Some(master) = self.current_master() else { return Vec::new() };
        let processes = process::named(&self.name).into_iter();
        processes.filter(|process| process.parent == master).map(|process| process.pid).collect()
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: Signal) {
        kill(as_pid(self.master_pid()), signal).expect("signal the master");
    }

    /// Where its configuration is.
    #[must_use]
    pub fn config_path(&self) -> String {
        self.path("nginx.conf")
    }

    /// From now on that stands in the `/etc/hosts` of one that has its own.
    pub fn set_hosts(&self, hosts: &str) {
        fs::write(self.path("hosts"), hosts).expect("write the hosts");
    }

    /// A file in its directory, such as a log; empty where there is none.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        fs::read(self.path(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Writes another configuration without signalling nginx.
    pub fn configure(&self, http: &str) {
        let Options { workers, daemon, user, connections, error_log, ref main, .. } = self.options;
        let daemon = if daemon { "on" } else { "off" };
        let conf = format!(
            "user {user}; worker_processes {workers}; daemon {daemon}; pid {{dir}}/nginx.pid;\n\
             error_log {error_log} info;\n\
             {main}\n\
             events {{ worker_connections {connections}; }}\n\
             http {{\n\
             access_log off; client_body_temp_path {{dir}}/body; proxy_temp_path {{dir}}/proxy;\n\
             fastcgi_temp_path {{dir}}/fastcgi; uwsgi_temp_path {{dir}}/uwsgi; scgi_temp_path {{dir}}/scgi;\n\
             {http}\n}}\n"
        );
        let conf = conf.replace("{dir}", self.path("").trim_end_matches('/'));
        fs::write(self.path("nginx.conf"), conf).expect("write nginx.conf");
    }

    /// Reloads with another configuration; gives the old workers when only new ones take requests. What was asked for
    /// before is done with first: its workers would be taken for those of this reload.
    pub fn reload(&self, http: &str) -> Vec<u32> {
        wait::until_true("the master to wait for signals", SOON, || {
            process::waits_for_signals(self.master_pid())
        });
        let old = self.worker_pids();
        self.configure(http);
        self.signal(Signal::SIGHUP);
        self.wait_for_new_workers(&old);
        old
    }

    /// Replaces the binary (USR2) and gives the old master, which is still there but for its workers, when only the
    /// new one takes requests. Only for a daemon: nginx refuses while the process that started it lives.
    pub fn upgrade(&self) -> u32 {
        assert!(self.options.daemon, "nginx upgrades itself only as a daemon");
        let (old_master, old_workers) = (self.master_pid(), self.worker_pids());
        self.signal(Signal::SIGUSR2);
        // It says that it is there before it has workers.
        wait::until_true("a new master with workers", SOON, || {
            let new = self.current_master().filter(|&master| master != old_master);
            new.is_some() && self.worker_pids().len() == self.options.workers
        });
        kill(as_pid(old_master), Signal::SIGWINCH).expect("have the old master retire its workers");
        self.wait_for_new_workers(&old_workers);
        old_master
    }

    /// New workers are there, and the old ones have closed their listening sockets.
    fn wait_for_new_workers(&self, old: &[u32]) {
        wait::until("new workers", SOON, || {
            let new = self.worker_pids().iter().filter(|pid| !old.contains(pid)).count();
            let retired = |pid: &u32| {
                let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                title.is_empty() || String::from_utf8_lossy(&title).contains("shutting down")
            };
            (new == self.options.workers && old.iter().all(retired)).then_some(())
        });
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.directory.path().display())
    }

    /// What the pid file says: for a moment, when masters change, nothing.
    fn current_master(&self) -> Option<u32> {
        fs::read_to_string(self.path("nginx.pid")).ok()?.trim().parse().ok()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        process::end(&self.name);
    }
}
