//! What happens when proxytrace is called wrongly, or may not do what it is asked for.

#![expect(unsafe_code, reason = "it changes a process between fork and exec")]

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use proxytrace_tests::child::{Captured, Guarded, run};
use proxytrace_tests::netns::Netns;
use proxytrace_tests::{proxytrace, skip, wait};

/// Numbers from linux/capability.h.
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_PERFMON: libc::c_ulong = 38;
const CAP_BPF: libc::c_ulong = 39;

#[test]
fn help_and_version_are_there_for_the_asking() {
    for arguments in [&["--help"][..], &["--version"], &["trace", "--help"], &["agent", "--help"]] {
        let (code, stdout, stderr) = ends(proxytrace::command().args(arguments));
        assert_eq!((code, &*stderr), (Some(0), ""), "{arguments:?}");
        assert!(stdout.contains("proxytrace"), "{arguments:?}: {stdout}");
    }
}

#[test]
fn a_wrong_call_is_a_usage_error_that_names_what_is_wrong() {
    let rows: &[(&[&str], &str)] = &[
        (&["no-such-command"], "no-such-command"),
        (&["trace", "--no-such-option"], "--no-such-option"),
        (&["trace", "--address", "10.0.0.300"], "10.0.0.300"),
        (&["trace", "--address", "10.0.0.0/33"], "10.0.0.0/33"),
        (&["trace", "--address", ":99999"], ":99999"),
        (&["trace", "--cause", "bad-luck"], "bad-luck"),
        (&["trace", "--duration", "soon"], "soon"),
        (&["trace", "--count", "few"], "few"),
        (&["trace", "--pid", "mine"], "mine"),
        (&["trace", "--connect-timeout", "never"], "never"),
        (&["trace", "--ring-size", "5000"], "5000"),
        (&["agent", "--listen", "nowhere"], "nowhere"),
    ];
    for (arguments, culprit) in rows {
        let (code, stdout, stderr) = ends(proxytrace::command().args(*arguments));
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(culprit), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_two_capabilities_that_it_asks_for_are_enough() {
    if !skip::unless_installed("setpriv") {
        return;
    }
    let (_directory, program) = proxytrace::copy_for_everybody();
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let capable = ["--inh-caps=+bpf,+perfmon", "--ambient-caps=+bpf,+perfmon"];
    let mut command = Command::new("setpriv");
    command.args(nobody).args(capable).arg(program).args(["trace", "--json", "--duration", "0.1"]);
    let (code, stdout, stderr) = ends(&mut command);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains(r#""kind":"header""#), "{stdout}");
}

#[test]
fn without_privileges_it_says_which_capability_is_missing_and_how_to_get_it() {
    let (_directory, program) = proxytrace::copy_for_everybody();
    type Restrict = fn(&mut Command) -> &mut Command;
    let rows: [(Restrict, &[&str]); 3] = [
        (|command| command.uid(65534).gid(65534), &["CAP_BPF", "CAP_PERFMON"]),
        (|command| without(command, &[CAP_SYS_ADMIN, CAP_BPF]), &["CAP_BPF"]),
        (|command| without(command, &[CAP_SYS_ADMIN, CAP_PERFMON]), &["CAP_PERFMON"]),
    ];
    for (restrict, missing) in rows {
        for arguments in [&["trace"][..], &["agent", "--listen", "127.0.0.1:0"]] {
            let (code, stdout, stderr) = ends(restrict(Command::new(&program).args(arguments)));
            assert_eq!((code, &*stdout), (Some(3), ""), "{arguments:?}: {stderr}");
            assert!(missing.iter().all(|name| stderr.contains(name)), "{missing:?}: {stderr}");
            let ways = ["sudo", "setcap", "AmbientCapabilities"];
            assert!(ways.iter().any(|way| stderr.contains(way)), "how to get them: {stderr}");
        }
    }
}

#[test]
fn a_port_that_is_taken_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("take a port");
    let address = taken.local_addr().expect("its address").to_string();
    let (code, stdout, stderr) = ends(proxytrace::command().args(["agent", "--listen", &address]));
    assert_eq!((code, &*stdout), (Some(1), ""), "{stderr}");
    assert!(stderr.contains(&address), "{stderr}");
}

#[test]
fn a_port_that_only_root_may_have_is_a_clear_error() {
    let (_directory, program) = proxytrace::copy_for_everybody();
    // Of the host's ports everybody may have any, where it says so.
    let (code, _, stderr) = Netns::new().enter(|| {
        ends(Command::new(&program).uid(65534).gid(65534).args(["agent", "--listen", "127.0.0.1:80"]))
    });
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("choose another with --listen, or grant CAP_NET_BIND_SERVICE"), "{stderr}");
}

#[test]
fn a_process_that_is_gone_is_a_clear_error() {
    let mut gone = Guarded::spawn(&mut Command::new("true"));
    let pid = gone.pid().to_string();
    gone.wait(wait::SOON);
    for command in ["trace", "agent"] {
        let (code, stdout, stderr) = ends(
            proxytrace::command().args([command, "--pid", &pid]).env("PROXYTRACE_LISTEN", "127.0.0.1:0"),
        );
        assert_eq!((code, &*stdout), (Some(1), ""), "{command}: {stderr}");
        assert!(stderr.contains(&pid) && stderr.contains("process"), "{command}: {stderr}");
    }
}

#[test]
fn what_the_environment_sets_counts_as_well() {
    let mut command = proxytrace::command();
    command.arg("agent").env("PROXYTRACE_LISTEN", "nowhere");
    let (code, _, stderr) = ends(&mut command);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("nowhere") && stderr.contains("by PROXYTRACE_LISTEN"), "{stderr}");
    // What is typed goes before it, and a wrong one is nobody else's.
    let (code, _, stderr) = ends(command.args(["--listen", "nowhere"]));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(!stderr.contains("PROXYTRACE_LISTEN"), "{stderr}");
    for (value, is_read) in [("1", true), ("yes", true), ("false", true), ("0", true), ("maybe", false)] {
        let mut command = proxytrace::command();
        let (code, _, stderr) = ends(command.args(["agent", "--check-config"]).env("PROXYTRACE_PAGE", value));
        assert_eq!(code, Some(if is_read { 0 } else { 2 }), "{value}: {stderr}");
        assert_eq!(
            stderr.contains("write true or false") && stderr.contains("by PROXYTRACE_PAGE"),
            !is_read,
            "{value}: {stderr}"
        );
    }
    let mut command = proxytrace::command();
    let (code, _, stderr) = ends(command.args(["agent", "--check-config"]).env("PROXYTRACE_LOG", "a=b=c"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("PROXYTRACE_LOG counts as not set"), "{stderr}");
    // And the program is the one under test.
    assert!(run(proxytrace::command().arg("--version")).starts_with("proxytrace "));
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let mut command = proxytrace::command();
    for name in ["HOOK_VIA", "TABLE_SIZE", "PROCESS", "PID", "CONNECT_TIMEOUT", "RING_SIZE"] {
        command.env(format!("PROXYTRACE_{name}"), "");
    }
    let (code, _, stderr) = ends(command.args(["trace", "--duration", "0.1"]));
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn a_variable_that_nothing_reads_is_named_and_its_value_is_not_shown() {
    let call = |names: &[&str]| {
        let mut command = proxytrace::command();
        command.args(["check", "--no-resolve", "/nowhere"]);
        ends(command.envs(names.iter().map(|name| (*name, "hush")))).2
    };
    let stderr = call(&["PROXYTRACE_LISTN", "PROXYTRACE_TEST_PATIENCE"]);
    for said in ["PROXYTRACE_LISTN; is PROXYTRACE_LISTEN meant?", "PROXYTRACE_TEST_PATIENCE; --help"] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
    assert!(!stderr.contains("hush"), "{stderr}");
    let stderr = call(&["PROXYTRACE_LOG", "PROXYTRACE_SERVICE_HOST", "PROXYTRACE_SERVICE_PORT_METRICS"]);
    assert!(!stderr.contains("variable"), "{stderr}");
}

#[test]
fn a_shell_completes_commands_and_options_and_offers_nothing_hidden() {
    let completed = |words: &str| {
        let script = run(proxytrace::command().args(["completions", "bash"]));
        // As readline calls it: the words, and which of them is to be completed.
        let ask = format!(
            "{script}\nCOMP_WORDS=(proxytrace {words} ''); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _proxytrace proxytrace '' ''; echo \"${{COMPREPLY[@]}}\""
        );
        run(Command::new("bash").args(["-c", &ask]))
    };
    let commands = completed("");
    let commands: Vec<_> = commands.split_whitespace().collect();
    assert!(["trace", "agent", "check", "doctor"].iter().all(|name| commands.contains(name)), "{commands:?}");
    assert!(
        commands.iter().all(|name| !name.contains("subject") && !name.contains("reader")),
        "{commands:?}"
    );
    assert!(completed("agent").contains("--max-addresses"));
    for (shell, marks) in [("zsh", "#compdef proxytrace"), ("fish", "complete -c proxytrace")] {
        let script = run(proxytrace::command().args(["completions", shell]));
        assert!(script.contains(marks), "{shell}: {script}");
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("make a directory");
    let pages = directory.path().join("man1");
    run(proxytrace::command().arg("man").arg(&pages));
    let entries = pages.read_dir().expect("the pages").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    let help = run(proxytrace::command().arg("--help"));
    let (_, listed) = help.split_once("Commands:\n").expect("a list of commands");
    // A line that is indented further goes on with what the line before says.
    let listed = listed.lines().take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let commands = listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let mut expected: Vec<_> = commands.map(|name| format!("proxytrace-{name}.1")).collect();
    expected.push("proxytrace.1".to_owned());
    expected.sort();
    assert_eq!(names, expected);
    let page = std::fs::read_to_string(pages.join("proxytrace-agent.1")).expect("a page");
    assert!(page.starts_with(".ie") && page.contains("PROXYTRACE_LISTEN"), "{page}");
}

/// Runs a command that ends by itself: its exit status, stdout and stderr.
#[track_caller]
fn ends(command: &mut Command) -> (Option<i32>, String, String) {
    let mut child =
        Guarded::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
    let mut stderr = Captured::from(child.inner().stderr.take().expect("a pipe"));
    let status = child.wait(wait::SOON);
    (status.code(), stdout.whole(), stderr.whole())
}

/// Root, but without these capabilities.
fn without<'a>(command: &'a mut Command, capabilities: &'static [libc::c_ulong]) -> &'a mut Command {
    let drop_them = move || {
        capabilities.iter().try_for_each(|&capability| {
            // SAFETY: it reads its arguments only.
            match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        })
    };
    // SAFETY: between fork and exec only prctl() is called, which is safe there.
    unsafe { command.pre_exec(drop_them) }
}
