//! A real terminal, as tmux is one: programs that take all of it are run there, keys are pressed, and its screen is read.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{scratch, wait};

/// A terminal with a shell, which is gone when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    directory: TempDir,
}

/// What the shell asks with.
const PROMPT: &str = "ready>";

impl Terminal {
    /// One of that size.
    #[must_use]
    #[track_caller]
    pub fn open(columns: u16, rows: u16) -> Self {
        let terminal = Self { directory: scratch::directory() };
        let size = [columns.to_string(), rows.to_string()];
        let shell = format!("env -u TMUX PS1='{PROMPT}' HISTFILE= LC_ALL=C.UTF-8 TERM=screen-256color sh");
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "-u",
            "new-session",
            "-d",
            "-x",
            &size[0],
            "-y",
            &size[1],
            &shell,
        ]);
        terminal.shows(PROMPT);
        terminal
    }

    /// Types a command with its environment and arguments, and return.
    #[track_caller]
    pub fn run(&self, command: &Command) {
        let quote =
            |text: &std::ffi::OsStr| format!("'{}'", text.to_str().expect("UTF-8").replace('\'', "'\\''"));
        let unset = command.get_envs().filter(|(_, value)| value.is_none());
        let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut words = vec!["env".to_owned()];
        words.extend(unset.map(|(name, _)| format!("-u {}", quote(name))));
        words.extend(set.map(|(name, value)| format!("{}={}", name.to_str().expect("UTF-8"), quote(value))));
        words.push(quote(command.get_program()));
        words.extend(command.get_args().map(quote));
        self.types(&words.join(" "));
        self.press("Enter");
    }

    /// Types a text.
    #[track_caller]
    pub fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses a key, by the name that tmux has for it.
    #[track_caller]
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Makes it another size.
    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    /// What it shows now.
    #[must_use]
    #[track_caller]
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same with escape codes for colours and the like.
    #[must_use]
    #[track_caller]
    pub fn painted(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// Waits until it shows these words; gives the screen.
    #[track_caller]
    pub fn shows(&self, words: &str) -> String {
        self.shows_all(&[words])
    }

    /// Waits until it shows all of these.
    #[track_caller]
    pub fn shows_all(&self, words: &[&str]) -> String {
        let screen = wait::within(wait::patient(Duration::from_secs(20)), || {
            Some(self.screen()).filter(|screen| words.iter().all(|words| screen.contains(words)))
        });
        screen.unwrap_or_else(|| panic!("the terminal does not show {words:?}:\n{}", self.screen()))
    }

    /// Waits until the shell is asked again, and proves that the terminal does what it did before: it echoes, and takes lines.
    #[track_caller]
    pub fn is_given_back(&self) {
        wait::until_true("the shell to ask again", Duration::from_secs(20), || {
            self.screen().lines().rfind(|line| !line.is_empty()) == Some(PROMPT)
        });
        self.types("clear; expr 20000 + 222; stty -a");
        self.press("Enter");
        let screen = self.shows_all(&["20222", " icanon", " echo ", PROMPT]);
        assert!(!screen.contains("-icanon") && !screen.contains("-echo "), "{screen}");
        let modes = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(modes.trim(), "0 1", "the other screen is gone, and the cursor is there");
    }

    /// Sends a signal to what runs there.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children =
            fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).expect("read /proc");
        let pid = children.trim().parse().unwrap_or_else(|_| panic!("not one process: {children:?}"));
        kill(Pid::from_raw(pid), signal).expect("send a signal");
    }

    #[track_caller]
    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.directory.path().join("tmux"))
            .args(arguments)
            .env_remove("TMUX")
            .output()
            .expect("run tmux");
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.directory.path().join("tmux");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}
