//! The programs that are known as proxies: how their processes are known, and what their command lines say. The only
//! place that knows such names and titles. Pure.

use std::path::{Path, PathBuf};

/// The name of nginx's processes (comm).
pub const NGINX: &str = "nginx";

/// What nginx changes its title to, before the command line that it was started with (ngx_process_cycle.c).
const TITLE: &str = "nginx: master process ";

/// What a worker's title begins with.
const WORKER_TITLE: &str = "nginx: worker process";

/// The title of one that only finishes what it has begun.
const LEAVING_TITLE: &str = "nginx: worker process is shutting down";

/// What a process is, by its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A proxy that reads a configuration: a master, or one that works alone.
    Master(Arguments),
    /// A worker: its parent is the master.
    Worker,
    /// Of no program that is known.
    Other,
}

/// The options of nginx that say which configuration it reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// `-c`.
    pub(crate) config: Option<PathBuf>,
    /// `-p`.
    pub(crate) prefix: Option<PathBuf>,
    /// `-g`.
    pub(crate) globals: Option<String>,
    /// `-e`.
    pub(crate) error_log: Option<PathBuf>,
    /// It does an errand and ends: `-t`, `-T`, `-s`, `-v`, `-V`, `-h`.
    pub(crate) is_errand: bool,
}

impl Arguments {
    /// The configuration, where these alone name it.
    pub(crate) fn absolute_config(&self) -> Option<PathBuf> {
        let config = self.config.as_ref()?;
        let path = self.prefix.as_ref().map_or_else(|| config.clone(), |prefix| prefix.join(config));
        path.is_absolute().then_some(path)
    }

    /// The same for the same options, however they were written.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let paths = [&self.prefix, &self.config]
            .map(|path| path.as_ref().map(|path| path.as_os_str().as_encoded_bytes()));
        let parts = paths.into_iter().chain([self.globals.as_ref().map(String::as_bytes)]);
        parts.map(Option::unwrap_or_default).collect::<Vec<_>>().join(&0)
    }
}

/// What a process is that runs the program `exe`, by the content of its /proc/PID/cmdline.
pub(crate) fn role(cmdline: &[u8], exe: &Path) -> Role {
    let text = String::from_utf8_lossy(cmdline);
    let text = text.trim_end_matches('\0');
    if let Some(rest) = text.strip_prefix(TITLE) {
        // The arguments were joined with blanks, so one that holds blanks has lost its ends.
        let words: Vec<_> = rest.trim_end_matches([' ', '\0']).split(' ').collect();
        return Role::Master(arguments(&rejoined(&words)));
    }
    if text.starts_with(WORKER_TITLE) {
        return Role::Worker;
    }
    let is_nginx = exe.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        name.strip_suffix(" (deleted)").unwrap_or(&name).starts_with(NGINX) || name.starts_with("openresty")
    });
    if !is_nginx || text.starts_with("nginx: ") {
        return Role::Other;
    }
    let words: Vec<_> = text.split('\0').map(str::to_owned).collect();
    Role::Master(arguments(&words))
}

/// Whether that is the content of /proc/PID/cmdline of a worker that takes requests.
pub(crate) fn takes_requests(cmdline: &[u8]) -> bool {
    cmdline.starts_with(WORKER_TITLE.as_bytes()) && !cmdline.starts_with(LEAVING_TITLE.as_bytes())
}

/// The words of a title with those put together again that follow an option: up to the next word that is one.
fn rejoined(words: &[&str]) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    let mut in_value = false;
    for word in words {
        let is_option = word.starts_with('-') && word.len() > 1;
        match joined.last_mut() {
            Some(last) if in_value && !is_option => {
                last.push(' ');
                last.push_str(word);
            }
            _ => {
                in_value = joined.last().is_some_and(|last: &String| last.starts_with('-')) && !is_option;
                joined.push((*word).to_owned());
            }
        }
    }
    joined
}

fn arguments(words: &[String]) -> Arguments {
    let mut arguments = Arguments::default();
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let Some(letters) = word.strip_prefix('-') else { continue };
        // As nginx reads them (ngx_get_options): letters may stand together, a value may follow its letter at once.
        for (at, letter) in letters.char_indices() {
            arguments.is_errand |= matches!(letter, 't' | 'T' | 's' | 'v' | 'V' | 'h' | '?');
            if !matches!(letter, 'c' | 'p' | 'g' | 'e' | 's') {
                continue;
            }
            let glued = &letters[at + 1..];
            let value = if glued.is_empty() { words.next().cloned() } else { Some(glued.to_owned()) };
            match letter {
                'c' => arguments.config = value.map(PathBuf::from),
                'p' => arguments.prefix = value.map(PathBuf::from),
                'g' => arguments.globals = value,
                'e' => arguments.error_log = value.map(PathBuf::from),
                _ => {}
            }
            break;
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Arguments, Role, role, takes_requests};

    #[test]
    fn a_master_is_known_by_its_title_or_by_its_program() {
        let check = |cmdline: &str, exe: &str, expected: Option<(&str, &str, &str)>| {
            let found = match role(cmdline.as_bytes(), Path::new(exe)) {
                Role::Master(arguments) => Some(arguments),
                _ => None,
            };
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let expected = expected.map(|(config, prefix, globals)| Arguments {
                config: some(config).map(Into::into),
                prefix: some(prefix).map(Into::into),
                globals: some(globals),
                error_log: cmdline.contains("-e\0").then(|| "/x/e.log".into()),
                is_errand: cmdline.contains("-t") || cmdline.contains("-qt"),
            });
            assert_eq!(found, expected, "{cmdline:?}");
        };
        check("nginx: master process /usr/sbin/nginx\0\0\0", "/usr/sbin/nginx", Some(("", "", "")));
        check(
            "nginx: master process /usr/sbin/nginx -g daemon on; master_process on;\0",
            "/usr/sbin/nginx",
            Some(("", "", "daemon on; master_process on;")),
        );
        check(
            "nginx: master process nginx -p /srv/a b -c conf/x.conf\0",
            "/usr/sbin/nginx",
            Some(("conf/x.conf", "/srv/a b", "")),
        );
        check(
            "nginx\0-c\0/etc/a b.conf\0-gdaemon off;\0",
            "/usr/sbin/nginx",
            Some(("/etc/a b.conf", "", "daemon off;")),
        );
        check("nginx\0-qc\0/etc/x.conf\0", "/usr/sbin/nginx (deleted)", Some(("/etc/x.conf", "", "")));
        check("nginx\0-qtc\0/etc/x.conf\0", "/usr/sbin/nginx", Some(("/etc/x.conf", "", "")));
        check("nginx\0-e\0/x/e.log\0", "/usr/sbin/nginx", Some(("", "", "")));
        check("nginx\0-t\0", "/usr/sbin/nginx", Some(("", "", "")));
        check("/usr/sbin/nginx-debug\0", "/usr/sbin/nginx-debug", Some(("", "", "")));
        check("nginx: worker process\0", "/usr/sbin/nginx", None);
        check("nginx: cache manager process\0", "/usr/sbin/nginx", None);
        check("haproxy\0-f\0x\0", "/usr/sbin/haproxy", None);
        assert_eq!(role(b"nginx: worker process is shutting down\0", Path::new("/x/nginx")), Role::Worker);
        assert!(takes_requests(b"nginx: worker process\0"));
        assert!(!takes_requests(b"nginx: worker process is shutting down\0"));
        assert!(!takes_requests(b"nginx: master process nginx\0"));
    }
}
