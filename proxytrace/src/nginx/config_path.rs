//! Where the configuration of a running nginx is: by its command line, and by what was compiled into its program.

use std::path::{Path, PathBuf};

use super::version::Version;
use crate::programs::Arguments;

/// What nginx was compiled with (`nginx -V`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// `--prefix`.
    pub(crate) prefix: PathBuf,
    /// `--conf-path`.
    pub(crate) config: PathBuf,
    /// `--error-log-path`.
    pub(crate) error_log: PathBuf,
    /// nginx's version, or that of the nginx that it is made of.
    pub(crate) version: Option<Version>,
    /// `--user` and `--group`: those of workers where the configuration names none.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<String>,
}

impl Compiled {
    /// Whether connections may be kept that the configuration says nothing of.
    pub(crate) fn keeps_by_default(&self) -> bool {
        self.version.is_none_or(|version| version >= Version::KEEPS)
    }
}

impl Default for Compiled {
    /// What nginx takes where its `configure` was given nothing (auto/options).
    fn default() -> Self {
        Self {
            prefix: "/usr/local/nginx".into(),
            config: "conf/nginx.conf".into(),
            error_log: "logs/error.log".into(),
            version: None,
            user: None,
            group: None,
        }
    }
}

/// What was compiled into a program, found among its bytes: nginx keeps what its `configure` was given for `nginx -V`.
pub(crate) fn compiled(program: &[u8]) -> Compiled {
    let value = |option: &str| {
        let needle = format!("--{option}=");
        let at = program.windows(needle.len()).position(|window| window == needle.as_bytes())?;
        let rest = &program[at + needle.len()..];
        // A line feed follows the last one.
        let end = rest.iter().position(|byte| *byte == 0 || *byte == b'\'' || byte.is_ascii_whitespace())?;
        Some(PathBuf::from(String::from_utf8_lossy(&rest[..end]).into_owned()))
    };
    let default = Compiled::default();
    Compiled {
        prefix: value("prefix").unwrap_or(default.prefix),
        config: value("conf-path").unwrap_or(default.config),
        error_log: value("error-log-path").unwrap_or(default.error_log),
        version: version(program),
        user: value("user").map(|user| user.to_string_lossy().into_owned()),
        group: value("group").map(|group| group.to_string_lossy().into_owned()),
    }
}

/// What it calls itself for `nginx -v`. OpenResty's version begins with that of its nginx.
fn version(program: &[u8]) -> Option<Version> {
    const SAYS: &[u8] = b"nginx version: ";
    let says = program.windows(SAYS.len()).position(|window| window == SAYS)?;
    let rest = &program[says + SAYS.len()..];
    let end = rest.iter().position(|byte| byte.is_ascii_whitespace() || *byte == 0)?;
    let (name, version) = std::str::from_utf8(&rest[..end]).ok()?.split_once('/')?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    let version = Version::new(numbers.next()??, numbers.next()??, numbers.next()??);
    matches!(name, "nginx" | "openresty").then_some(version)
}

/// The path of the configuration file; `directory` is the process's own, for what is relative to it.
pub(crate) fn config_path(arguments: &Arguments, compiled: &Compiled, directory: &Path) -> PathBuf {
    let prefix = prefix(arguments, compiled, directory);
    prefix.join(arguments.config.as_ref().unwrap_or(&compiled.config))
}

/// What other paths are relative to, such as those of logs.
pub(crate) fn prefix(arguments: &Arguments, compiled: &Compiled, directory: &Path) -> PathBuf {
    directory.join(arguments.prefix.as_ref().unwrap_or(&compiled.prefix))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Arguments, Compiled, Version, compiled, config_path};

    #[test]
    fn what_was_compiled_in_is_found_in_the_program() {
        let program = b"\0junk --with-x=1\0--with-cc-opt='-g -O2' --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf --user=www-data --x\0";
        let (prefix, config) = ("/usr/share/nginx".into(), "/etc/nginx/nginx.conf".into());
        let user = Some("www-data".to_owned());
        assert_eq!(compiled(program), Compiled { prefix, config, user, ..Compiled::default() });
        assert_eq!(compiled(b"nothing"), Compiled::default());
        let last = compiled(b"\0--conf-path=/etc/n.conf --prefix=/srv/nginx\n\0");
        assert_eq!((last.prefix, last.config), ("/srv/nginx".into(), "/etc/n.conf".into()));
        // Without one it is the directory that nginx was started in.
        let none = compiled(b"\0configure arguments: --with-debug --prefix=\n\0");
        assert_eq!(
            config_path(&Arguments::default(), &none, Path::new("/home/me")),
            Path::new("/home/me/conf/nginx.conf")
        );
    }

    #[test]
    fn the_version_decides_whether_connections_may_be_kept() {
        let check = |program: &str, version: Option<[u16; 3]>, keeps: bool| {
            let compiled = compiled(program.as_bytes());
            let version = version.map(|[major, minor, patch]| Version::new(major, minor, patch));
            assert_eq!((compiled.version, compiled.keeps_by_default()), (version, keeps), "{program}");
        };
        check("\0nginx version: nginx/1.22.1\n\0", Some([1, 22, 1]), false);
        check("nginx version: nginx/1.29.6 (ubuntu)\n", Some([1, 29, 6]), false);
        check("nginx version: nginx/1.29.7\n", Some([1, 29, 7]), true);
        check("nginx version: openresty/1.27.1.2\n", Some([1, 27, 1]), false);
        check("nginx version: Tengine/3.1.0\n", None, true);
        check("nginx version: nginx/next\n", None, true);
        check("no nginx", None, true);
    }

    #[test]
    fn the_path_is_put_together_as_nginx_does() {
        let check = |prefix: Option<&str>, config: Option<&str>, expected: &str| {
            let [prefix, config] = [prefix, config].map(|path| path.map(PathBuf::from));
            let arguments = Arguments { prefix, config, ..Arguments::default() };
            let path = config_path(&arguments, &Compiled::default(), Path::new("/home/me"));
            assert_eq!(path, Path::new(expected), "{arguments:?}");
        };
        check(None, None, "/usr/local/nginx/conf/nginx.conf");
        check(None, Some("/etc/n.conf"), "/etc/n.conf");
        check(None, Some("n.conf"), "/usr/local/nginx/n.conf");
        check(Some("/srv/web"), Some("n.conf"), "/srv/web/n.conf");
        check(Some("web"), None, "/home/me/web/conf/nginx.conf");
    }
}
