//! nginx, as the reader knows it: which configuration a running one uses, what that declares, and what it logged of a rejected
//! reload. The one place here that names nginx's configuration: that of another proxy is another file like this.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nginx_conf::{Config, Directive, Files, Limits, glob};

use super::{
    logs::{self, End},
    owner::Opened,
    root::Root,
    said::TOO_LARGE,
};
use crate::{
    check,
    declared::{MAX_ENTRIES, Peer, Routes, Upstream},
    nginx::{
        config_path::{self, Compiled},
        log, read,
        version::Version,
    },
    programs::Arguments,
};

/// What nginx says in its log of requests that fail before they connect.
pub(super) use crate::nginx::complaint;

/// The port of a `server` line where none is written.
const HTTP: u16 = 80;

/// A program larger than that is not looked through for what was compiled into it, in bytes.
const MAX_PROGRAM: u64 = 64 << 20;

/// A configuration that was read.
pub(super) struct Loaded {
    /// The main file, a path below the process's root.
    pub(super) path: PathBuf,
    config: Config,
    version: Option<Version>,
    keeps_by_default: bool,
    /// What relative paths of logs begin with.
    prefix: PathBuf,
    /// Where nginx logs where its configuration does not say it.
    error_log: PathBuf,
}

/// Reads `path`, or else the configuration that the process `pid` of `arguments` names.
///
/// # Errors
/// Why it cannot be read, without a word of the files: one that is no configuration may hold anything.
pub(super) fn load(
    opened: &Opened,
    pid: u32,
    arguments: &Arguments,
    path: Option<&Path>,
) -> Result<Loaded, String> {
    let compiled = compiled(opened);
    // Of a program that cannot be read nothing is known.
    let keeps_by_default = compiled.as_ref().map_or(true, Compiled::keeps_by_default);
    let default = Compiled::default();
    let known = compiled.as_ref().unwrap_or(&default);
    let prefix = config_path::prefix(arguments, known, &opened.directory);
    let version = known.version;
    let error_log = arguments.error_log.as_ref().unwrap_or(&known.error_log).clone();
    let path = match path {
        Some(path) => path.to_owned(),
        None => compiled
            .map(|compiled| config_path::config_path(arguments, &compiled, &opened.directory))
            .map_err(|error| format!("process {pid}: read its program as its user: {error}"))?,
    };
    let globals = arguments.globals.as_deref();
    let mut config = nginx_conf::load(&opened.root, &path, globals, &Limits::default())
        .map_err(|error| error.without_words())?;
    // What the tree was made of is as large as the tree, and nobody reads it any more.
    config.files.iter_mut().for_each(|file| file.text = Vec::new());
    Ok(Loaded { path, config, version, keeps_by_default, prefix, error_log })
}

fn compiled(opened: &Opened) -> io::Result<Compiled> {
    let mut bytes = Vec::new();
    opened.root.open_found(&opened.program)?.take(MAX_PROGRAM).read_to_end(&mut bytes)?;
    Ok(config_path::compiled(&bytes))
}

impl Loaded {
    /// What it declares.
    ///
    /// # Errors
    /// It is too large.
    pub(super) fn routes(&self) -> Result<Routes, String> {
        if read::entries(&self.config) > MAX_ENTRIES {
            return Err(format!("{}: {TOO_LARGE}", self.path.display()));
        }
        Ok(Routes { keeps_by_default: self.keeps_by_default, ..read::routes(&self.config) })
    }

    /// The first that nginx refuses about its upstreams, in nginx's words.
    pub(super) fn fault(&self, root: &Root) -> Option<String> {
        let words = read::first_fault(&self.config)?;
        Some(log::without_secrets(&words, |path| root.is_public(path)))
    }

    /// What else nginx refuses, as far as the files tell.
    pub(super) fn refusal(self, root: &Root) -> Option<String> {
        let found = check::refusal(self.config, self.version, &|path| root.exists(path))?;
        Some(log::without(&found.words, found.quotes_names, |path| root.is_public(path)))
    }

    /// That a host of its routes does not resolve, in nginx's words.
    pub(super) fn host_not_found(&self, root: &Root, routes: &Routes, host: &str) -> Option<String> {
        let is_it = |peer: &&Peer| !peer.resolve && peer.endpoint.host() == Some(host);
        let found = |upstream: &'_ Upstream| {
            let peer = upstream.peers.iter().find(is_it)?;
            // As it is written there, most likely; a route that names a host is reported without the port.
            let port = match peer.endpoint.port() {
                port if upstream.is_implicit || port == HTTP => String::new(),
                port => format!(":{port}"),
            };
            Some(format!("host not found in upstream \"{host}{port}\" in {}", peer.place))
        };
        let words = routes.upstreams.iter().find_map(found)?;
        Some(log::without_secrets(&words, |path| root.is_public(path)))
    }

    /// The paths of its error logs, below the process's root.
    fn error_logs(&self) -> impl Iterator<Item = PathBuf> {
        let is_set = self.config.directives.iter().any(|directive| is_called("error_log")(&directive));
        let default = (!is_set).then(|| self.error_log.clone());
        let mut open: Vec<&Directive> = self.config.directives.iter().collect();
        let mut paths = Vec::new();
        while let Some(directive) = open.pop() {
            open.extend(directive.children());
            let path = directive.arg(0).filter(|_| is_called("error_log")(&directive));
            let is_file = |path: &&str| *path != "stderr" && !path.contains(':');
            paths.extend(path.filter(is_file).map(PathBuf::from));
        }
        default.into_iter().chain(paths).map(|path| self.prefix.join(path))
    }

    /// Its files, but those that nginx itself writes: where upstreams keep servers that were set while it runs.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let prefix = self.path.parent().unwrap_or(Path::new(""));
        let upstreams =
            self.config.directives.iter().flat_map(Directive::children).filter(is_called("upstream"));
        let states = upstreams.flat_map(Directive::children).filter(is_called("state"));
        let kept: Vec<_> = states.filter_map(|state| Some(prefix.join(state.arg(0)?))).collect();
        let files = self.config.files.iter().map(|file| file.path.as_path());
        files.filter(move |path| !kept.iter().any(|kept| kept == path))
    }
}

/// The files that the process has open and that its configuration calls its error logs, to be read.
///
/// By both: it may have other files open that clients write to, and the files of that name may not be what it writes to.
pub(super) fn error_logs(opened: &Opened, loaded: &Loaded) -> Vec<File> {
    let paths: Vec<_> = loaded.error_logs().collect();
    let Opened { root, logs, .. } = opened;
    let is_one = |found: &&OwnedFd| paths.iter().any(|path| root.is_same(path, found));
    logs.iter().filter(is_one).filter_map(|found| root.open_found(found).ok()).collect()
}

fn is_called(name: &str) -> impl Fn(&&Directive) -> bool {
    move |directive| directive.name.text == name
}

/// What the process that calls itself `pid` logged as the reason why a worker ended for good, or why it did not take the configuration that it was asked for at
/// `asked`.
///
/// `nginx -t` would say the same. But to run it is to run a program of the proxy's, which may be another container's, with our
/// privileges; and what it reads may have been fixed meanwhile.
///
/// A finding is reported to everybody. So of a line in a log that not everybody may read, what is in quotes is left out, and paths
/// that not everybody may look up.
pub(super) fn logged(opened: &Opened, pid: i32, asked: Timestamp) -> Option<String> {
    let Opened { root, logs, .. } = opened;
    let reason = |log: &OwnedFd| {
        let End { text, is_public } = logs::end(root, log).ok()?;
        let reason = log::reason(&text, pid, asked).or_else(|| log::last_words(&text, pid, asked))?;
        Some(if is_public { reason } else { log::without_secrets(&reason, |path| root.is_public(path)) })
    };
    logs.iter().filter_map(reason).last()
}

impl Files for Root {
    fn read(&self, path: &Path, max: u64) -> io::Result<Vec<u8>> {
        self.content(path, max)
    }

    fn glob(&self, pattern: &str, max: usize) -> io::Result<Vec<PathBuf>> {
        glob::expand(pattern, max, |directory| self.list(directory), |path| self.exists(path))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        path::{Path, PathBuf},
    };

    use super::{Config, Files as _, Limits, Loaded, Root};

    #[test]
    fn patterns_are_followed_below_the_root() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().join("etc/nginx/sites");
        fs::create_dir_all(&directory).unwrap();
        symlink("../../one", directory.join("relative")).unwrap();
        symlink("../../../../../../etc/one", directory.join("above")).unwrap();
        let root = Root::at(temporary.path()).unwrap();
        fs::write(temporary.path().join("etc/one"), "1").unwrap();
        let found = root.glob("/etc/nginx/sites/[ar]*", 10).unwrap();
        assert_eq!(found, [Path::new("/etc/nginx/sites/above"), Path::new("/etc/nginx/sites/relative")]);
    }

    fn loaded(path: PathBuf, config: Config) -> Loaded {
        let (prefix, error_log) = ("/usr/share/nginx".into(), "/var/log/nginx/error.log".into());
        Loaded { path, config, version: None, keeps_by_default: false, prefix, error_log }
    }

    #[test]
    fn the_error_logs_are_those_of_the_configuration_or_what_was_compiled_in() {
        let check = |text: &str, expected: &[&str]| {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("nginx.conf"), text).unwrap();
            let (root, path) = (Root::at(directory.path()).unwrap(), Path::new("/nginx.conf").to_owned());
            let config = nginx_conf::load(&root, &path, None, &Limits::default()).unwrap();
            let mut found: Vec<_> = loaded(path, config).error_logs().collect();
            found.sort();
            assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{text}");
        };
        check("events {}", &["/var/log/nginx/error.log"]);
        check("error_log logs/e.log warn; events {}", &["/usr/share/nginx/logs/e.log"]);
        check(
            "error_log stderr; http { error_log syslog:server=unix:/dev/log; server { error_log /a.log; } }",
            &["/a.log"],
        );
        check("http { error_log /a.log; }", &["/a.log", "/var/log/nginx/error.log"]);
    }

    #[test]
    fn what_nginx_writes_itself_is_none_of_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("nginx.conf", "http { upstream api { state api.state; } include more.conf; }");
        write("more.conf", "");
        write("api.state", "server 10.0.0.5:8080;");
        let (root, path) = (Root::at(directory.path()).unwrap(), Path::new("/nginx.conf").to_owned());
        let config = nginx_conf::load(&root, &path, Some("daemon off;"), &Limits::default()).unwrap();
        assert_eq!(config.files.len(), 4, "with what -g says");
        let loaded = loaded(path, config);
        let files: Vec<_> = loaded.files().collect();
        assert_eq!(files, [nginx_conf::GLOBALS, "/nginx.conf", "/more.conf"].map(Path::new));
    }
}
