//! The agent's socket: where commands of this host ask it. Its mode is the gate, so that whoever is in its group can ask.

use std::{
    fs::{self, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process,
    str::FromStr,
};

use nix::sys::stat::{Mode, umask};

use crate::privilege::{self, GROUP};

/// The version of what is spoken there. It rises when what was there before means something else; what is only added leaves it.
pub const PROTOCOL: u32 = 1;

/// The header field of an answer that says so.
pub const PROTOCOL_FIELD: &str = "proxytrace-protocol";

/// Where the socket is where nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/proxytrace/agent.sock";

/// Where the agent's socket is to be, or its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// There.
    At(PathBuf),
    /// Nowhere.
    Off,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::Off),
            text if text.starts_with('/') => Ok(Self::At(text.into())),
            _ => Err("not a path; write an absolute one, or none"),
        }
    }
}

/// Listens at `path`: for this user, and for the group of the agent. A socket that nobody listens at any more is replaced.
///
/// # Errors
/// Somebody listens there, something else is there, or the directory cannot be written to.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => return Err(io::Error::new(ErrorKind::AddrInUse, "another agent listens there")),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
        Err(error) => return Err(error),
    }
    if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "it is there already, and is no socket"));
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    // Under another name until its mode is right: nobody is to connect before.
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", process::id()));
    let new = PathBuf::from(name);
    // One that was killed right then had our process id.
    let _ = fs::remove_file(&new);
    let mask = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&new);
    umask(mask);
    let listener = listener?;
    let done = open_to_group(&new).and_then(|()| fs::rename(&new, path));
    if let Err(error) = done {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(listener)
}

/// Lets the group of the agent connect. An agent with a user of its own has that group.
fn open_to_group(path: &Path) -> io::Result<()> {
    if let Some(group) = privilege::group()
        && let Err(error) = chown(path, None, Some(group))
    {
        tracing::warn!("give {} to the group {GROUP}: {error}; only root can ask there", path.display());
    }
    fs::set_permissions(path, Permissions::from_mode(0o660))
}

#[cfg(test)]
mod tests {
    use std::{fs, io::ErrorKind, os::unix::fs::PermissionsExt as _, path::PathBuf};

    use super::{Place, bind};

    #[test]
    fn a_socket_that_nobody_listens_at_is_replaced_and_one_in_use_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("made").join("agent.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(first);
        let _second = bind(&path).unwrap();
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        fs::write(&path, "mine").unwrap();
        assert!(bind(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn a_socket_is_a_path_or_none() {
        assert_eq!("none".parse(), Ok(Place::Off));
        assert_eq!("/run/a.sock".parse(), Ok(Place::At(PathBuf::from("/run/a.sock"))));
        assert!("a.sock".parse::<Place>().is_err());
    }
}
