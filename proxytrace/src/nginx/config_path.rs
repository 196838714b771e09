//! Where the configuration of a running nginx is: by its command line, and by what was compiled into its program.

use std::path::{Path, PathBuf};

use crate::programs::Arguments;

/// What nginx was compiled with (`nginx -V`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// `--prefix`.
    pub(crate) prefix: PathBuf,
    /// `--conf-path`.
    pub(crate) config: PathBuf,
}

impl Default for Compiled {
    /// What nginx takes where its `configure` was given nothing (auto/options).
    fn default() -> Self {
        Self { prefix: "/usr/local/nginx".into(), config: "conf/nginx.conf".into() }
    }
}

/// What was compiled into a program, found among its bytes: nginx keeps what its `configure` was given for `nginx -V`.
pub(crate) fn compiled(program: &[u8]) -> Compiled {
    let value = |option: &str| {
        let needle = format!("--{option}=");
        let at = program.windows(needle.len()).position(|window| window == needle.as_bytes())?;
        let rest = &program[at + needle.len()..];
        let end = rest.iter().position(|byte| matches!(byte, 0 | b' ' | b'\''))?;
        Some(PathBuf::from(String::from_utf8_lossy(&rest[..end]).into_owned()))
    };
    let default = Compiled::default();
    Compiled {
        prefix: value("prefix").unwrap_or(default.prefix),
        config: value("conf-path").unwrap_or(default.config),
    }
}

/// The path of the configuration file; `directory` is the process's own, for what is relative to it.
pub(crate) fn config_path(arguments: &Arguments, compiled: &Compiled, directory: &Path) -> PathBuf {
    let prefix = directory.join(arguments.prefix.as_ref().unwrap_or(&compiled.prefix));
    prefix.join(arguments.config.as_ref().unwrap_or(&compiled.config))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Arguments, Compiled, compiled, config_path};

    #[test]
    fn what_was_compiled_in_is_found_in_the_program() {
        let program = b"\0junk --with-x=1\0--with-cc-opt='-g -O2' --prefix=/usr/share/nginx --conf-path=/etc/nginx/nginx.conf --x\0";
        let expected = Compiled { prefix: "/usr/share/nginx".into(), config: "/etc/nginx/nginx.conf".into() };
        assert_eq!(compiled(program), expected);
        assert_eq!(compiled(b"nothing"), Compiled::default());
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
