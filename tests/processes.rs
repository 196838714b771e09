//! Who is traced, from when on, and in which generation.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::{Guarded, as_pid};
use proxytrace_tests::client::{Client, How, Plan};
use proxytrace_tests::http::answer;
use proxytrace_tests::metrics::Account;
use proxytrace_tests::nginx::{Nginx, Options, proxy_to, server};
use proxytrace_tests::proxytrace::{Agent, Record, Trace};
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::wait::{self, SOON};
use proxytrace_tests::{scratch, skip};

use crate::clients::CONNECTOR;
use crate::host::Host;
use crate::scene::{Expected, Named, Scene, Watch, counted, wait_for_in_flight};

#[test]
fn nginx_is_traced_whoever_was_there_first_and_however_it_runs() {
    for (nginx_first, daemon) in [(true, false), (true, true), (false, false), (false, true)] {
        let (stage, address, _upstream) = healthy();
        let mut nginx =
            Nginx::prepare(Options { workers: 2, daemon, ..Options::default() }, &proxy_to(&address, ""));
        let begin = |nginx: &Nginx| Watch::begin(&["--process", nginx.name()], nginx.name());
        let watch = if nginx_first {
            nginx.launch(&stage.proxy);
            begin(&nginx)
        } else {
            let watch = begin(&nginx);
            nginx.launch(&stage.proxy);
            watch
        };

        for _ in 0..3 {
            assert_eq!(nginx.get("/"), 200);
        }

        watch.saw(&address, 3, &established());
        assert_eq!(watch.agent.metrics().count("proxytrace_workers", &[("proxy", nginx.name())]), 2);
        watch.end();
    }
}

#[test]
fn a_process_is_traced_with_its_descendants_those_to_come_included() {
    for nginx_first in [true, false] {
        let (stage, address, _upstream) = healthy();
        let stranger = Nginx::start(&stage.proxy, &proxy_to(&stage.upstream_address(8081), ""));
        let mut nginx = Nginx::prepare(Options::default(), &proxy_to(&address, ""));
        let (name, directory) = (scratch::unique_name("sh"), scratch::directory());
        let shell = scratch::alias("/bin/sh".as_ref(), directory.path(), &name);
        // It starts nginx as a child on request, and stays.
        let mut script = stage.proxy.spawn(
            Command::new(shell)
                .args(["-c", r#"read go; "$@" & wait"#, "sh"])
                .args(command_line(&nginx))
                .stdin(Stdio::piped()),
        );
        let pid = script.pid().to_string();
        let mut launch = || {
            drop(script.inner().stdin.take());
            nginx.wait_until_serving();
        };
        let mut watch = if nginx_first {
            launch();
            Watch::begin(&["--pid", &pid], &name)
        } else {
            let watch = Watch::begin(&["--pid", &pid], &name);
            launch();
            watch
        };

        watch.named = Named::ByHost;

        assert_eq!(stranger.get("/"), 502);
        assert_eq!(nginx.get("/"), 200);

        watch.saw(&address, 1, &established());
        assert_eq!(
            watch.agent.metrics().values_of("address", "proxytrace_connect_attempts_total", &[]),
            [address]
        );
        watch.end();
    }
}

#[test]
fn after_a_reload_old_workers_keep_their_generation_to_the_attempt() {
    let (stage, holding, upstream) = healthy_with(Manner::HoldThenClose);
    let (old_next, new) = (stage.upstream_address(8081), stage.upstream_address(8082));
    let nginx = Nginx::start(
        &stage.proxy,
        &format!(
            "upstream api {{ server {holding} max_fails=0; server {old_next} backup; }} {}",
            server("location / { proxy_pass http://api; proxy_next_upstream error; }")
        ),
    );
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());
    let next = |address: &str| -> (u32, Record) {
        let record = watch.trace.next_of("connect");
        assert_eq!(record.address, address, "{record:?}");
        (record.generation, record)
    };

    let mut slow_client = nginx.begin("/");
    assert_eq!(next(&holding).0, 0);

    let old_workers = nginx.reload(&proxy_to(&new, ""));
    assert_eq!(nginx.get("/"), 502);
    let (generation, record) = next(&new);
    assert_eq!(generation, 1);
    assert!(!old_workers.contains(&record.pid), "by a new worker: {record:?}");

    // The old worker still serves the slow client, and now has to try the next upstream for it.
    upstream.release();
    assert_eq!(answer(&mut slow_client).status, 502);
    assert_eq!(watch.trace.next_of("broken").generation, 0);
    let (generation, record) = next(&old_next);
    assert_eq!(generation, 0);
    assert!(old_workers.contains(&record.pid), "by the old worker: {record:?}");

    nginx.reload(&proxy_to(&new, ""));
    assert_eq!(nginx.get("/"), 502);
    assert_eq!(next(&new).0, 2);
    let generation = watch.agent.metrics().count("proxytrace_config_generation", &[("proxy", nginx.name())]);
    assert_eq!(generation, 2);
}

#[test]
fn a_binary_upgrade_raises_the_generation() {
    let (stage, address, _upstream) = healthy();
    let options = Options { daemon: true, ..Options::default() };
    let nginx = Nginx::with(options, &stage.proxy, &proxy_to(&address, ""));
    let watch = Watch::begin(&["--process", nginx.name()], nginx.name());

    assert_eq!(nginx.get("/"), 200);
    assert_eq!(watch.trace.next_of("connect").generation, 0);

    let old_master = nginx.upgrade();
    assert_eq!(nginx.get("/"), 200);
    assert_eq!(watch.trace.next_of("connect").generation, 1);

    kill(as_pid(old_master), Signal::SIGQUIT).expect("end the old master");
    wait::until_true("the old master to end", SOON, || kill(as_pid(old_master), None).is_err());
    assert_eq!(nginx.get("/"), 200);
    let record = watch.trace.next_of("connect");
    assert_eq!((record.generation, &*record.proxy), (1, nginx.name()), "{record:?}");
    watch.counted(&address, &established().account(3));
}

#[test]
fn a_worker_that_is_killed_in_mid_handshake_leaves_nothing_in_flight() {
    let stage = Stage::new(Family::V4);
    stage.upstream.firewall("tcp dport 8080 drop");
    let scene = Scene::begin(&stage.proxy, &stage.upstream_address(8080), "proxy_connect_timeout 60s;");

    let _client = scene.nginx.begin("/");
    wait_for_in_flight(&scene.watch.agent, scene.nginx.name(), &scene.address, 1);
    let worker = scene.nginx.worker_pids()[0];
    kill(as_pid(worker), Signal::SIGKILL).expect("kill the worker");

    let cancelled = Expected::at_once("cancelled", 0).from("10.0.0.1:").after(0.0, 0..=2);
    let record = scene.watch.saw_next(&scene.address, &cancelled);
    assert_eq!(record.pid, worker);
    scene.watch.counted(&scene.address, &cancelled.account(1));

    // The worker that takes its place is traced as well.
    stage.upstream.firewall("");
    scene.gets(1, 502);
    let refused = Expected::at_once("refused", 111).from("10.0.0.1:");
    assert_ne!(scene.watch.saw_next(&scene.address, &refused).pid, worker);
    scene.end();
}

#[test]
fn threads_that_are_killed_together_end_their_process_once() {
    const CHILDREN: u32 = 200;
    let host = Host::new(8080);
    let client =
        Client::start(CONNECTOR, &host.netns, &Plan::simple(&[&host.full], How::KilledTogether, CHILDREN));
    let trace = Trace::start(&["--process", client.name()]);

    client.go();
    let truth = client.finish();

    let count = |records: &[Record], kind: &str, is_so: fn(&Record) -> bool| {
        records.iter().filter(|record| record.kind == kind && is_so(record)).count() as u64
    };
    let ended = trace.stop();
    let records = ended.records;
    let ends = count(&records, "worker_exited", |record| record.signal == Some(9));
    assert_eq!(ends, u64::from(CHILDREN), "each end is reported once");
    let cancelled = count(&records, "connect", |record| record.outcome == "cancelled");
    let others: Vec<_> = records
        .iter()
        .filter(|record| record.kind != "worker_exited" && record.outcome != "cancelled")
        .map(|record| (&record.kind, &record.outcome, record.pid))
        .collect();
    assert_eq!(
        cancelled,
        truth.attempts(),
        "so is what each of their threads was at; others: {others:?}; {}",
        ended.stderr
    );
}

#[test]
fn a_program_that_neither_forks_nor_connects_takes_no_place_among_proxies() {
    let (stage, address, _upstream) = healthy();
    let mut nginx = Nginx::prepare(Options::default(), &proxy_to(&address, ""));
    let watch = Watch::begin(&["--process", nginx.name(), "--table-size", "proxies=2"], nginx.name());

    // Nobody scrapes meanwhile, which would free capacity.
    for _ in 0..20 {
        let tested = stage.proxy.enter(|| nginx.command().arg("-t").status()).expect("run nginx -t");
        assert!(tested.success(), "{}", nginx.error_log());
    }
    nginx.launch(&stage.proxy);
    nginx.reload(&proxy_to(&address, ""));
    assert_eq!(nginx.get("/"), 200);

    let record = watch.trace.next_of("connect");
    assert_eq!((&*record.proxy, record.generation), (nginx.name(), 1), "{record:?}");
    watch.counted(&address, &established().account(1));
    let metrics = watch.agent.metrics();
    assert_eq!(metrics.count("proxytrace_untracked_total", &[("why", "proxy_table_full")]), 0);
    assert_eq!(metrics.values_of("proxy", "proxytrace_proxy_info", &[]), [nginx.name()]);
    watch.end();
}

#[test]
fn another_users_many_processes_leave_capacity_for_roots_nginx() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    for crowd_first in [true, false] {
        let (stage, address, _upstream) = healthy();
        let (name, directory) = (scratch::unique_name("crw"), scratch::directory());
        let shell = scratch::alias("/bin/sh".as_ref(), directory.path(), &name);
        let mut nginx = Nginx::prepare(Options::default(), &proxy_to(&address, ""));
        let arguments = ["--process", nginx.name(), "--process", &name, "--table-size", "proxies=16"];
        let arguments = [&arguments[..], &["--table-size", "processes=64"]].concat();
        let (crowd, watch) = if crowd_first {
            let crowd = crowd_of_nobody(&shell);
            (crowd, Watch::begin(&arguments, nginx.name()))
        } else {
            let watch = Watch::begin(&arguments, nginx.name());
            (crowd_of_nobody(&shell), watch)
        };

        nginx.launch(&stage.proxy);
        nginx.reload(&proxy_to(&address, ""));
        assert_eq!(nginx.get("/"), 200);

        let record = watch.trace.next_of("connect");
        assert_eq!((&*record.proxy, record.generation), (nginx.name(), 1), "{record:?}");
        let metrics = counted(&watch.agent, nginx.name(), &address, &established().account(1));
        let count = |name: &str, labels: &[(&str, &str)]| metrics.count(name, labels);
        let reloads =
            |result| count("proxytrace_reloads_total", &[("proxy", nginx.name()), ("result", result)]);
        assert_eq!((reloads("accepted"), reloads("rejected")), (1, 0));
        for why in ["proxy_table_full", "process_table_full"] {
            assert!(count("proxytrace_untracked_total", &[("why", why)]) > 0, "no {why} of the crowd");
        }
        drop(crowd);
    }
}

#[test]
fn an_agent_that_starts_while_a_master_forks_knows_it_as_a_master() {
    let (stage, address, _upstream) = healthy();
    let nginx =
        Nginx::with(Options { workers: 4, ..Options::default() }, &stage.proxy, &proxy_to(&address, ""));
    for _ in 0..4 {
        let agent = thread::scope(|scope| {
            let starts = scope.spawn(|| Agent::start(&["--process", nginx.name()]));
            // As many as fall into the start, and no more: it also reads each configuration.
            for _ in (0..10).take_while(|_| !starts.is_finished()) {
                nginx.reload(&proxy_to(&address, ""));
            }
            starts.join().expect("the agent starts")
        });
        let count = |name: &str, labels: &[(&str, &str)]| {
            agent.metrics().count(name, &[&[("proxy", nginx.name())], labels].concat())
        };
        let accepted = || count("proxytrace_reloads_total", &[("result", "accepted")]);
        let before = accepted();
        nginx.reload(&proxy_to(&address, ""));
        wait::until_true("the reload to count", SOON, || accepted() == before + 1);
        wait::until_true("the old workers to end", SOON, || nginx.worker_pids().len() == 4);
        wait::until_true("4 workers to be counted", SOON, || count("proxytrace_workers", &[]) == 4);
        agent.stop();
    }
}

#[test]
fn a_socket_that_outlives_its_process_is_followed_to_its_end() {
    for (closed, outcome, errno) in [(true, "cancelled", 0), (false, "timed_out", 110)] {
        let stage = Stage::new(Family::V4);
        stage.upstream.firewall("tcp dport 8080 drop");
        stage.proxy.sysctl("net.ipv4.tcp_syn_retries", "1");
        let address = stage.upstream_address(8080);
        let mut client =
            Client::start(CONNECTOR, &stage.proxy, &Plan::simple(&[&address], How::HandedOver, 1));
        let watch = Watch::begin(&["--process", client.name()], client.name());

        client.go();
        let socket = client.take_over();
        wait_for_in_flight(&watch.agent, client.name(), &address, 1);
        // Either its last owner closes it, or the kernel gives up on it.
        let _kept = if closed {
            drop(socket);
            None
        } else {
            Some(socket)
        };

        let expected = Expected::at_once(outcome, errno).from("10.0.0.1:").after(0.0, 0..=2);
        let record = watch.saw_next(&address, &expected);
        assert_eq!(record.pid, client.pid(), "who began it, not who ended it");
        watch.counted(&address, &expected.account(1));
        watch.end();
    }
}

#[test]
fn a_namespace_that_is_deleted_leaves_nothing_in_flight() {
    let stage = Stage::new(Family::V4);
    stage.upstream.firewall("tcp dport 8080 drop");
    let address = stage.upstream_address(8080);
    let mut client = Client::start(CONNECTOR, &stage.proxy, &Plan::simple(&[&address], How::Held, 3));
    let name = client.name().to_owned();
    let agent = Agent::start(&["--process", &name]);

    client.go();
    wait_for_in_flight(&agent, &name, &address, 3);
    // The cable goes with the namespaces' names, the namespace itself with its last process.
    drop(stage);
    client.kill();

    // By whatever cause: what is sent again in between finds no neighbour or no route any more.
    let mut last = Account::default();
    let ended = wait::within(SOON, || {
        last = agent.metrics().account(&name, &address);
        (last.balances() && (last.attempts, last.established, last.in_flight) == (3, 0, 0)).then_some(())
    });
    assert!(ended.is_some(), "{last:?}");
}

/// A stage with an upstream that answers at port 8080.
fn healthy() -> (Stage, String, Backend) {
    healthy_with(Manner::Answer)
}

fn healthy_with(manner: Manner) -> (Stage, String, Backend) {
    let stage = Stage::new(Family::V4);
    let address = stage.upstream_address(8080);
    let upstream = Backend::start(&stage.upstream, &address, manner);
    (stage, address, upstream)
}

/// Many processes of nobody's that go by the name of `shell`: each has forked, and waits until this is dropped.
fn crowd_of_nobody(shell: &Path) -> Guarded {
    const CROWD: usize = 100;
    let script = format!(
        r#"exec 3<&0; n=0; while [ $n -lt {CROWD} ]; do n=$((n+1)); "$0" -c '(:); echo; read x' <&3 & done; wait"#
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &script]).arg(shell);
    let mut crowd = Guarded::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut said = [0; CROWD];
    crowd.inner().stdout.take().expect("a pipe").read_exact(&mut said).expect("hear from each of them");
    crowd
}

fn established() -> Expected {
    Expected::at_once("established", 0).from("10.0.0.1:")
}

/// The words of the command that starts nginx.
fn command_line(nginx: &Nginx) -> Vec<std::ffi::OsString> {
    let command = nginx.command();
    let program = std::iter::once(command.get_program());
    program.chain(command.get_args()).map(ToOwned::to_owned).collect()
}
