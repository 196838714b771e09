//! Other programs: run in process groups of their own, so that a Ctrl-C is for the guard, which ends them itself.

use std::{
    env, fs, io,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use tokio::{process::Command, time::timeout};

use super::group::Group;

/// What a shell would make of more than words. A line without any of that is run without a shell: none may be there, or work,
/// when a change is taken back.
const FOR_A_SHELL: &[char] = &[
    '|', '&', ';', '<', '>', '(', ')', '$', '`', '\\', '"', '\'', '*', '?', '[', ']', '#', '~', '!', '{',
    '}', '\n',
];

/// How a program ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself.
    Itself(ExitStatus),
    /// It took longer than it may, and was ended.
    TimedOut,
    /// The guard is to end, and ended it.
    Interrupted,
    /// It could not be started.
    NotStarted(io::Error),
}

impl Ended {
    pub(super) fn is_well(&self) -> bool {
        matches!(self, Self::Itself(status) if status.success())
    }

    /// What is wrong about that, after the name of the program.
    pub(super) fn in_words(&self, within: Duration) -> String {
        match self {
            Self::Itself(status) => format!("ended with {status}"),
            Self::TimedOut => {
                format!("did not end within {} s (--timeout) and was ended", within.as_secs_f64())
            }
            Self::Interrupted => "was ended".to_owned(),
            Self::NotStarted(error) => format!("could not be started: {error}"),
        }
    }
}

/// The words of a command line; a shell's, where it takes one.
pub(super) fn words(line: &str) -> Vec<String> {
    let has_assignment = line.split_whitespace().next().is_some_and(|word| word.contains('='));
    if line.contains(FOR_A_SHELL) || has_assignment {
        return ["/bin/sh", "-c", line].map(str::to_owned).to_vec();
    }
    line.split_whitespace().map(str::to_owned).collect()
}

/// The file that would be run.
pub(super) fn found(program: &str) -> Option<PathBuf> {
    let is_program = |path: &Path| {
        fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_program(path));
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|path| is_program(path))
}

/// Runs a program until it ends, `within` is over or `stop` says so. What it prints goes to standard error. `started` is told what is to
/// be ended where nobody does that here.
pub(super) async fn run(
    words: &[String],
    within: Duration,
    stop: impl Future<Output = ()>,
    started: impl FnOnce(&Group),
) -> Ended {
    let Some(mut command) = prepared(words) else {
        return Ended::NotStarted(io::ErrorKind::InvalidInput.into());
    };
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    command.stdout(stderr.map_or_else(|_| Stdio::null(), Stdio::from));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ended::NotStarted(error),
    };
    let group = child.id().map(Group::of);
    if let Some(group) = &group {
        started(group);
    }
    let why = tokio::select! {
        status = child.wait() => return status.map_or_else(Ended::NotStarted, Ended::Itself),
        () = tokio::time::sleep(within) => Ended::TimedOut,
        () = stop => Ended::Interrupted,
    };
    let end = async {
        if let Some(group) = &group {
            group.end().await;
        }
    };
    let (_, ()) = tokio::join!(child.wait(), end);
    why
}

/// Runs a program in a directory until it ends, and gives what it printed.
///
/// # Errors
/// It cannot be started, or takes longer than that.
pub(super) async fn output(words: &[String], directory: &Path, within: Duration) -> io::Result<Output> {
    let mut command = prepared(words).ok_or(io::ErrorKind::InvalidInput)?;
    command.current_dir(directory).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let late = || io::Error::other(format!("it did not end within {} s", within.as_secs_f64()));
    timeout(within, command.output()).await.map_err(|_| late())?
}

fn prepared(words: &[String]) -> Option<Command> {
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).process_group(0);
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::{found, words};

    #[test]
    fn a_shell_is_taken_only_where_it_takes_one() {
        let check = |line: &str, expected: &[&str]| assert_eq!(words(line), expected);
        check("nginx -s  reload", &["nginx", "-s", "reload"]);
        check("/usr/sbin/nginx -p /srv/a-b_c.d:e,f", &["/usr/sbin/nginx", "-p", "/srv/a-b_c.d:e,f"]);
        check("git pull && nginx -s reload", &["/bin/sh", "-c", "git pull && nginx -s reload"]);
        check("A=1 nginx", &["/bin/sh", "-c", "A=1 nginx"]);
        check("cp 'a b' c", &["/bin/sh", "-c", "cp 'a b' c"]);
        check("", &[]);
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert!(found("sh").is_some_and(|path| path.is_absolute()));
        assert!(found("/bin/sh").is_some());
        assert_eq!(found("no-such-program-anywhere"), None);
        assert_eq!(found("/etc/passwd"), None);
    }
}
