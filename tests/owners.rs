//! What is read for a proxy is read with the rights of its own user: a process that only poses as an nginx has nothing read
//! to it that it could not read itself.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use proxytrace_tests::child::Guarded;
use proxytrace_tests::fuse::{self, Fuse, Manner};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::{self, Agent, Trace};
use proxytrace_tests::scratch;
use proxytrace_tests::skip;
use proxytrace_tests::wait::{self, SOON};
use tempfile::TempDir;

use crate::privilege::confined;

const ROOT: u32 = 0;
const NOBODY: u32 = 65534;

/// What stands in files that are none of the forger's business, in all of them.
const SECRET: &str = "hunter2";

/// A configuration with the secret as the name of an upstream.
const SECRET_CONFIGURATION: &str = "upstream hunter2 { server 127.0.0.1:8081; }
server { location / { proxy_pass http://hunter2; } }";

/// A process that poses as an nginx with a configuration of its choice.
struct Forged {
    directory: TempDir,
    name: String,
    process: Option<Guarded>,
}

impl Forged {
    fn prepare() -> Self {
        Self { directory: scratch::directory(), name: scratch::unique_name("fgd"), process: None }
    }

    /// Writes a file that only `owner` may read; gives its path.
    fn file(&self, name: &str, owner: u32, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).expect("write a file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("close a file");
        chown(&path, Some(owner), Some(owner)).expect("give a file away");
        path
    }

    /// The program that it runs, which only waits: a link to a shell.
    fn program(&self) -> PathBuf {
        scratch::alias(Path::new("/bin/sh"), self.directory.path(), &self.name)
    }

    /// Starts `program` as `user`, with `wrapper` before it, titled as a master with the configuration `config`.
    fn start(&mut self, program: &Path, user: u32, wrapper: &[&str], config: &Path) {
        self.process = Some(Guarded::spawn(&mut Self::command(program, user, wrapper, config)));
    }

    fn command(program: &Path, user: u32, wrapper: &[&str], config: &Path) -> Command {
        let title = format!("nginx: master process nginx -c {}", config.display());
        let mut command = match wrapper {
            [] => {
                let mut command = Command::new(program);
                command.arg0(title);
                command
            }
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(arguments).args(["bash", "-c", r#"exec -a "$0" "$1""#]).arg(title).arg(program);
                command
            }
        };
        command.uid(user).gid(user).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn agent(&self) -> Agent {
        Agent::start(&["--process", &self.name])
    }
}

/// The agent comes to say `words`, and nowhere does it disclose the secret.
#[track_caller]
fn says_so_without_the_secret(agent: &Agent, words: &str) {
    wait::until_true(words, SOON, || agent.stderr().contains(words));
    for page in ["/routes", "/findings", "/metrics"] {
        let body = agent.get(page).body;
        assert!(!body.contains(SECRET), "{page}: {body}");
    }
    assert!(!agent.stderr().contains(SECRET), "{}", agent.stderr());
}

#[track_caller]
fn has_upstream(agent: &Agent, upstream: &str) {
    let name = format!("\"name\":\"{upstream}\"");
    let named = wait::within(SOON, || agent.get("/routes").body.contains(&name).then_some(()));
    assert!(named.is_some(), "{}\n{}", agent.get("/routes").body, agent.stderr());
}

#[test]
fn what_only_root_may_read_is_not_read_to_somebody_who_poses_as_an_nginx() {
    let includes = [
        ("configuration", SECRET_CONFIGURATION, "include {};"),
        ("no configuration", "root:hunter2:19000 {", "include {};"),
        (
            "values",
            "token hunter2;",
            "map $uri $leak { include {}; } server { location / { proxy_pass http://$leak; } }",
        ),
    ];
    for (what, text, include) in includes {
        let mut forged = Forged::prepare();
        let secret = forged.file("secret.conf", ROOT, text);
        let include = include.replace("{}", &secret.display().to_string());
        let config = forged.file("nginx.conf", NOBODY, &format!("http {{ {include} }}"));
        forged.start(&forged.program(), NOBODY, &[], &config);
        println!("{what}");
        says_so_without_the_secret(&forged.agent(), "Permission denied");
    }
}

#[test]
fn names_of_files_in_a_closed_directory_are_not_disclosed() {
    let mut forged = Forged::prepare();
    let closed = forged.directory.path().join("closed");
    fs::create_dir(&closed).expect("make a directory");
    fs::write(closed.join("hunter2.key"), "").expect("write a file");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("close a directory");
    let config = forged.file("nginx.conf", NOBODY, &format!("include {}/*;", closed.display()));
    forged.start(&forged.program(), NOBODY, &[], &config);
    says_so_without_the_secret(&forged.agent(), "Permission denied");
}

#[test]
fn what_the_kernel_says_of_processes_is_no_configuration_for_root_either() {
    let mut secretive = Command::new("/bin/cat");
    secretive.env("CONNECTION", "x;hunter2 1;").stdin(Stdio::piped()).stdout(Stdio::null());
    let secretive = Guarded::spawn(&mut secretive);
    for user in [NOBODY, ROOT] {
        let mut forged = Forged::prepare();
        let include = format!("http {{ map $uri $leak {{ include /proc/{}/environ; }} }}", secretive.pid());
        let config = forged.file("nginx.conf", user, &include);
        forged.start(&forged.program(), user, &[], &config);
        says_so_without_the_secret(&forged.agent(), "it is on proc, where");
    }
}

#[test]
fn a_set_user_id_program_that_poses_as_an_nginx_has_nothing_read_for_it() {
    let copied = |program: &Path| {
        fs::copy("/bin/cat", program).expect("copy a program");
        fs::set_permissions(program, Permissions::from_mode(0o4755)).expect("make it set-user-ID");
    };
    // As every host has it; it waits for a password.
    let of_the_host = |program: &Path| symlink("/bin/su", program).expect("make a link");
    for make in [&copied as &dyn Fn(&Path), &of_the_host] {
        let mut forged = Forged::prepare();
        let program = forged.directory.path().join(&forged.name);
        make(&program);
        let config = forged.file("nginx.conf", ROOT, &format!("http {{ {SECRET_CONFIGURATION} }}"));
        forged.start(&program, NOBODY, &[], &config);
        says_so_without_the_secret(&forged.agent(), "it runs with other rights than whoever started it");
    }
}

#[test]
fn a_file_that_is_a_program_of_whoever_mounted_it_is_not_opened() {
    /// What the kernel itself asks to find a file, without opening it.
    const TO_FIND: &[u32] = &[fuse::INIT, fuse::LOOKUP, fuse::FORGET, fuse::BATCH_FORGET];
    let mut forged = Forged::prepare();
    let mounted = forged.directory.path().join("mounted");
    fs::create_dir(&mounted).expect("make a directory");
    let config = forged.file("nginx.conf", NOBODY, &format!("http {{ include {}/x; }}", mounted.display()));
    let file_system = Fuse::mount(&mounted, NOBODY, Manner::Finds);
    let mut command = Forged::command(&forged.program(), NOBODY, &[], &config);
    forged.process = Some(file_system.spawn(&mut command));
    says_so_without_the_secret(&forged.agent(), "it is on fuse, where");
    let asked = file_system.asked();
    assert!(asked.contains(&fuse::LOOKUP), "{asked:?}");
    assert!(asked.iter().all(|kind| TO_FIND.contains(kind)), "{asked:?}");
}

#[test]
fn a_device_is_not_opened() {
    let mut forged = Forged::prepare();
    let device = forged.directory.path().join("device");
    // As /dev/null, which does nothing: but whether it is opened can be seen.
    let null = makedev(1, 3);
    mknod(&device, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), null).expect("make a device");
    fs::set_permissions(&device, Permissions::from_mode(0o666)).expect("open it to everybody");
    let watcher = Inotify::init(InitFlags::IN_NONBLOCK).expect("watch files");
    watcher.add_watch(&device, AddWatchFlags::IN_OPEN).expect("watch a device");
    fs::File::open(&device).expect("open it");
    assert_eq!(watcher.read_events().expect("an event").len(), 1, "opening it is seen");
    let config = forged.file("nginx.conf", NOBODY, &format!("http {{ include {}; }}", device.display()));
    let program = forged.program();
    for config in [&device, &config] {
        forged.start(&program, NOBODY, &[], config);
        says_so_without_the_secret(&forged.agent(), "not a regular file");
    }
    let opened = watcher.read_events();
    assert!(matches!(opened, Err(Errno::EAGAIN)), "{opened:?}");
}

#[test]
fn no_name_server_is_asked_for_what_only_root_may_read() {
    let server = UdpSocket::bind("127.0.0.1:0").expect("listen on loopback");
    let port = server.local_addr().expect("its address").port();
    let named = "server { set $to hunter2.test; location / { proxy_pass http://$to:81; } }";
    let ask = |owner: u32, forged: &mut Forged| {
        let included = forged.file("included.conf", owner, named);
        let text = format!("http {{ resolver 127.0.0.1:{port}; include {}; }}", included.display());
        let config = forged.file("nginx.conf", NOBODY, &text);
        forged.start(&forged.program(), NOBODY, &[], &config);
        forged.agent()
    };
    server.set_nonblocking(true).expect("do not wait");
    let mut forged = Forged::prepare();
    says_so_without_the_secret(&ask(ROOT, &mut forged), "Permission denied");
    assert!(server.recv(&mut [0; 512]).is_err(), "a name server was asked");

    server.set_nonblocking(false).expect("wait");
    let mut own = Forged::prepare();
    let _agent = ask(NOBODY, &mut own);
    let mut question = [0; 512];
    let length = server.recv(&mut question).expect("a question");
    assert!(String::from_utf8_lossy(&question[..length]).contains(SECRET), "{question:?}");
}

#[test]
fn what_a_closed_log_says_of_closed_files_is_not_disclosed() {
    let netns = Netns::new();
    let nginx = Nginx::start(&netns, &server(""));
    let log = nginx.config().with_file_name("error.log");
    fs::set_permissions(&log, Permissions::from_mode(0o600)).expect("close a log");
    let closed = nginx.config().with_file_name("closed");
    fs::create_dir(&closed).expect("make a directory");
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).expect("close a directory");
    let secret = closed.join("hunter2.key");
    fs::write(&secret, "hunter2-inside;").expect("write a file");
    let (agent, trace) =
        (Agent::start(&["--process", nginx.name()]), Trace::start(&["--process", nginx.name()]));

    nginx.configure(&format!("include {};", secret.display()));
    nginx.signal(Signal::SIGHUP);

    let reload = trace.next_among(&["reload"]);
    assert!(nginx.error_log().contains(SECRET), "{}", nginx.error_log());
    assert_eq!(reload.result, "rejected");
    assert!(reload.reason.starts_with("unknown directive") && !reload.reason.contains(SECRET), "{reload:?}");
    wait::until_true("the finding", SOON, || agent.get("/findings").body.contains("reload_rejected"));
    let findings = agent.get("/findings").body;
    assert!(!findings.contains(SECRET), "{findings}");
    let _ = trace.stop();
}

#[test]
fn a_master_has_its_own_files_read_whoever_it_is() {
    let mut forged = Forged::prepare();
    let own = forged.file("own.conf", NOBODY, SECRET_CONFIGURATION);
    let config = forged.file("nginx.conf", NOBODY, &format!("http {{ include {}; }}", own.display()));
    forged.start(&forged.program(), NOBODY, &[], &config);
    has_upstream(&forged.agent(), SECRET);
}

#[test]
fn a_master_of_root_has_a_file_read_that_is_another_users_alone() {
    let netns = Netns::new();
    let mut nginx =
        Nginx::prepare(Default::default(), &format!("include {{dir}}/deploy.conf; {}", server("")));
    let included = nginx.config().with_file_name("deploy.conf");
    fs::write(&included, "upstream deployed { server 127.0.0.1:8081; }").expect("write a file");
    fs::set_permissions(&included, Permissions::from_mode(0o600)).expect("close a file");
    chown(&included, Some(NOBODY), Some(NOBODY)).expect("give a file away");
    nginx.configure(&format!(
        "include {{dir}}/deploy.conf; {}",
        server("location / { proxy_pass http://deployed; }")
    ));
    nginx.launch(&netns);
    has_upstream(&Agent::start(&["--process", nginx.name()]), "deployed");
}

#[test]
fn who_is_root_in_a_user_namespace_of_its_own_has_its_own_files_read_and_no_others() {
    const WRAPPER: &[&str] = &["unshare", "--user", "--map-root-user"];
    if !skip::unless_installed("unshare") {
        return;
    }
    let mut honest = Forged::prepare();
    let config = honest.file("nginx.conf", NOBODY, &format!("http {{ {SECRET_CONFIGURATION} }}"));
    honest.start(&honest.program(), NOBODY, WRAPPER, &config);
    has_upstream(&honest.agent(), SECRET);

    let mut forged = Forged::prepare();
    let secret = forged.file("secret.conf", ROOT, SECRET_CONFIGURATION);
    let config = forged.file("nginx.conf", NOBODY, &format!("http {{ include {}; }}", secret.display()));
    forged.start(&forged.program(), NOBODY, WRAPPER, &config);
    says_so_without_the_secret(&forged.agent(), "Permission denied");
}

#[test]
fn an_agent_of_nobodys_reads_for_nobodys_proxies_and_for_others_with_the_capabilities_to_become_their_users()
{
    const READS_OWN: &str = "+bpf,+perfmon,+sys_ptrace";
    const LOOKS: &str = "+bpf,+perfmon,+sys_ptrace,+dac_read_search";
    const READS_ALL: &str = "+bpf,+perfmon,+sys_ptrace,+setuid,+setgid,+dac_read_search,+kill";
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    for (capabilities, user, refused) in [
        (READS_OWN, NOBODY, None),
        (READS_OWN, ROOT, Some("takes CAP_DAC_READ_SEARCH")),
        (LOOKS, ROOT, Some("takes CAP_SETUID and CAP_SETGID")),
        (READS_ALL, ROOT, None),
    ] {
        let mut forged = Forged::prepare();
        let config = forged.file("nginx.conf", user, &format!("http {{ {SECRET_CONFIGURATION} }}"));
        forged.start(&forged.program(), user, &[], &config);
        let command = confined(&program, NOBODY, capabilities);
        let agent = Agent::by(command, &["--process", &forged.name]);
        println!("{capabilities} for user {user}");
        match refused {
            None => has_upstream(&agent, SECRET),
            Some(why) => says_so_without_the_secret(&agent, why),
        }
    }
}

#[test]
fn whoever_reads_for_a_proxy_is_its_user_without_capabilities_and_may_do_little() {
    let silent = UdpSocket::bind("127.0.0.1:0").expect("listen on loopback");
    let port = silent.local_addr().expect("its address").port();
    let mut forged = Forged::prepare();
    let text = format!(
        "http {{ resolver 127.0.0.1:{port}; server {{ set $to app.test; location / {{ proxy_pass http://$to:81; }} }} }}"
    );
    let config = forged.file("nginx.conf", NOBODY, &text);
    let agent = forged.agent();
    forged.start(&forged.program(), NOBODY, &[], &config);
    forged.process.as_mut().expect("it runs").fork_once();

    // It waits for the name server.
    let status = wait::until("a process that asks", SOON, || {
        let reader = *children(agent.pid()).first()?;
        // It becomes so step by step, and is confined last.
        let is_confined =
            |status: &String| field(status, "Uid").starts_with("65534") && field(status, "Seccomp") != "0";
        children(reader).into_iter().map(status_of).find(is_confined)
    });
    for (name, expected) in [
        ("Uid", "65534\t65534\t65534\t65534"),
        ("Gid", "65534\t65534\t65534\t65534"),
        ("Groups", ""),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(field(&status, name), expected, "{name}");
    }
}

/// The processes that `pid` has started and not yet waited for.
fn children(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok());
    pids.filter(|&child| field(&status_of(child), "PPid") == pid.to_string()).collect()
}

/// Empty for one that has ended.
fn status_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

/// A field of /proc/PID/status.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
    value.unwrap_or_default().trim()
}
