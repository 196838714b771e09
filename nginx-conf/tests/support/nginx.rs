//! What the real nginx says about a configuration, beside what we say.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nginx_conf::{Config, Disk, Error, Kind, Limits, load};
use tempfile::TempDir;

/// Where Debian has it; the PATH of users often lacks that directory.
pub(crate) const NGINX: &str = "/usr/sbin/nginx";

/// A configuration with everything in it, to be damaged.
pub(crate) const WHOLE: &str = r#"worker_processes 1; # one
events { worker_connections 64; }
http {
    access_log off;
    types { text/html html htm; "text/plain" 'txt'; }
    map $uri $a {
        default "";
        ~^/b(c{2})$ "${uri}\"d";
        '~ e' \;f;
    }
    geo $g { default 0; 127.0.0.0/8 "1"; }
    split_clients "$uri${a}x" $s { 50% one; * "tw\o"; }
    upstream u { server 127.0.0.1:1 weight=2; server unix:/none backup; }
    log_format main '$a - "$g"' "\t$s";
    server {
        listen unix:socket;
        server_name a b.c "~^(d|e)$";
        location / { proxy_pass http://u; }
        location ~ "\.(a|b){1,2}$" {
            if ($a = "b") { return 301 "/x y"; }
            add_header A "b;c{d}#" always; # e
            set $v "${a}b$g";
        }
        location = /f { return 200 "it's\n"; }
    }
}
"#;

/// How nginx refuses what is no configuration at all; other messages are about names and arguments of directives.
const SYNTAX: &[&str] = &[
    "unexpected \"",
    "unexpected end of ",
    "too long parameter",
    "block directives are not supported",
    "invalid number of arguments in \"include\" directive",
    "directive \"include\" is not terminated by \";\"",
    "open() \"",
    "pread() \"",
    "read() \"",
    "Lua code block missing ",
];

/// A directory with a configuration, which nginx and we read.
pub(crate) struct Case {
    directory: TempDir,
    compared: Cell<usize>,
    aside: Cell<usize>,
}

/// What nginx says.
#[derive(Debug)]
struct Refusal {
    message: String,
    /// The file and the line, where nginx names them.
    at: Option<(PathBuf, u32)>,
}

impl Refusal {
    fn is_about_syntax(&self) -> bool {
        // Of the directives that need a block we know those of nginx itself.
        let has_no_block =
            self.message.starts_with("directive \"") && self.message.ends_with("has no opening \"{\"");
        has_no_block || SYNTAX.iter().any(|start| self.message.starts_with(start))
    }

    /// Whether it means the same as ours.
    fn is(&self, ours: &Error) -> bool {
        let is_unreadable =
            ["open() \"", "pread() \"", "read() \""].iter().any(|it| self.message.starts_with(it));
        let is_same_kind = match &ours.kind {
            Kind::Unreadable { .. } => is_unreadable,
            Kind::Cycle(_) => self.message.contains("(24: "),
            Kind::ByteOrderMark(_) => self.message.starts_with("unknown directive \"\u{feff}"),
            // nginx shows the first byte of it.
            Kind::Unexpected(character) if !character.is_ascii() => self.message == "unexpected \"\u{fffd}\"",
            // The Lua module adds that the code may be too long.
            kind @ Kind::UnfinishedLongBracket(_) => self.message.starts_with(&kind.to_string()),
            kind => kind.to_string().starts_with(&self.message),
        };
        let is_same_place = match (&self.at, &ours.at) {
            (Some((path, line)), Some(at)) => *path == at.path && *line == at.line,
            // nginx has no line for the option -g, nor for what it could open but not read.
            (None, Some(at)) => {
                at.path == Path::new(nginx_conf::GLOBALS)
                    || !self.message.starts_with("open() \"") && is_unreadable
            }
            (theirs, ours) => theirs.is_none() && ours.is_none(),
        };
        is_same_kind && (is_same_place || matches!(ours.kind, Kind::Cycle(_)))
    }
}

impl Case {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        Self { directory, compared: Cell::new(0), aside: Cell::new(0) }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn main(&self) -> PathBuf {
        self.directory().join("nginx.conf")
    }

    fn nginx(&self, option: &str, globals: Option<&str>) -> Output {
        let mut command = Command::new(NGINX);
        command.arg(option).arg("-p").arg(self.directory()).arg("-c").arg(self.main()).args(["-e", "stderr"]);
        command.args(globals.map(|globals| ["-g", globals]).into_iter().flatten());
        command.output().expect("run nginx")
    }

    /// What `nginx -T` prints.
    pub(crate) fn dump(&self) -> Vec<u8> {
        self.nginx("-T", None).stdout
    }

    /// Has nginx and us read `text`, and compares what both say; gives what we read where both accept it.
    #[track_caller]
    pub(crate) fn check(&self, text: &[u8], globals: Option<&str>) -> Option<Config> {
        fs::write(self.main(), text).expect("write the main file");
        let theirs = refusal(&self.nginx("-t", globals));
        let ours = load(&Disk, &self.main(), globals, &Limits::default());
        let shown = || {
            let text = String::from_utf8_lossy(text);
            let text = if text.len() > 1000 { format!("{text:.1000?}...") } else { format!("{text:?}") };
            format!(
                "nginx and we differ\n text: {text}\n -g: {globals:?}\nnginx: {theirs:?}\n ours: {:?}",
                ours.as_ref().err()
            )
        };
        let mut is_aside = false;
        match (&theirs, &ours) {
            (None, Ok(_)) => {}
            (Some(theirs), Err(ours)) if theirs.is(ours) => {}
            (Some(theirs), ours) if !theirs.is_about_syntax() => {
                is_aside = true;
                // nginx got as far as there, so there was nothing to refuse before.
                if let (Some((path, line)), Err(Error { at: Some(at), .. })) = (&theirs.at, ours) {
                    assert!(*path != at.path || *line <= at.line, "{}", shown());
                }
            }
            _ => panic!("{}", shown()),
        }
        let count = if is_aside { &self.aside } else { &self.compared };
        count.set(count.get() + 1);
        if theirs.is_none() { ours.ok() } else { None }
    }

    /// How many were compared, and how many nginx refused for reasons that are none of ours.
    #[track_caller]
    pub(crate) fn assert_compared(&self, least: usize, most_aside: usize) {
        let (compared, aside) = (self.compared.get(), self.aside.get());
        assert!(compared >= least && aside <= most_aside, "{compared} compared, {aside} aside");
    }
}

/// Why nginx refuses, if it does.
fn refusal(output: &Output) -> Option<Refusal> {
    if output.status.success() {
        return None;
    }
    let printed = String::from_utf8_lossy(&output.stderr);
    // The Lua module refuses code that is empty as an error only.
    let said = ["[emerg] ", "[crit] ", "[error] "].iter().find_map(|level| printed.split_once(level));
    let (_, rest) = said.unwrap_or_else(|| panic!("{output:?}"));
    let message = rest.split("\nnginx: configuration file ").next().unwrap_or(rest).trim_end_matches('\n');
    // After the process id, once it has read where to log.
    let message = match message.split_once("#") {
        Some((pid, after)) if pid.bytes().all(|byte| byte.is_ascii_digit()) => {
            after.split_once(": ").map_or(message, |it| it.1)
        }
        _ => message,
    };
    if let Some(message) = message.strip_suffix(" in command line") {
        return Some(Refusal { message: message.into(), at: None });
    }
    let placed = message.rsplit_once(" in /").and_then(|(message, place)| {
        let (path, line) = place.rsplit_once(':')?;
        Some(Refusal { message: message.into(), at: Some((format!("/{path}").into(), line.parse().ok()?)) })
    });
    Some(placed.unwrap_or_else(|| Refusal { message: message.into(), at: None }))
}
