//! nginx, as the reader knows it: which configuration a running one uses, what that declares, and what it logged of a rejected
//! reload. The one place here that names nginx's configuration: that of another proxy is another file like this.

use std::{
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
    declared::{MAX_ENTRIES, Routes},
    nginx::{
        config_path::{self, Compiled},
        log, read,
    },
    programs::Arguments,
};

/// A program larger than that is not looked through for what was compiled into it, in bytes.
const MAX_PROGRAM: u64 = 64 << 20;

/// A configuration that was read.
pub(super) struct Loaded {
    /// The main file, a path below the process's root.
    pub(super) path: PathBuf,
    config: Config,
    keeps_by_default: bool,
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
    Ok(Loaded { path, config, keeps_by_default })
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
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::{Files as _, Limits, Loaded, Root};

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
        let loaded = Loaded { path, config, keeps_by_default: false };
        let files: Vec<_> = loaded.files().collect();
        assert_eq!(files, [nginx_conf::GLOBALS, "/nginx.conf", "/more.conf"].map(Path::new));
    }
}
