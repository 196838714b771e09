//! A directory as one file, whose bytes depend on nothing but the names and contents of what is in it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use xtask_tools::shell;

/// Packs the directory `name` of `directory` into `name.tar.gz` beside it; `time` is that of all that is in it, in seconds since 1970.
pub(crate) fn pack(directory: &Path, name: &str, time: &str) -> Result<String> {
    let archive = format!("{name}.tar.gz");
    let mut tar = Command::new("tar");
    tar.args(["--format=gnu", "--sort=name", "--numeric-owner", "--owner=0", "--group=0"]);
    tar.args(["--mode=u=rwX,go=rX", &format!("--mtime=@{time}"), "--use-compress-program=gzip -9n"]);
    tar.args(["--create", "--file", &archive, name]).current_dir(directory);
    shell::run(&mut tar)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::pack;

    #[test]
    fn what_it_was_made_from_and_when_does_not_change_it() {
        let packed = |names: [&str; 2], mode| {
            let directory = tempfile::tempdir().unwrap();
            let tree = directory.path().join("tree");
            fs::create_dir(&tree).unwrap();
            for name in names {
                fs::write(tree.join(name), name).unwrap();
                fs::set_permissions(tree.join(name), Permissions::from_mode(mode)).unwrap();
            }
            let archive = directory.path().join(pack(directory.path(), "tree", "1700000000").unwrap());
            let listed = Command::new("tar").arg("-tf").arg(&archive).output().unwrap().stdout;
            assert_eq!(String::from_utf8(listed).unwrap(), "tree/\ntree/one\ntree/two\n");
            fs::read(archive).unwrap()
        };
        assert_eq!(packed(["one", "two"], 0o644), packed(["two", "one"], 0o600));
        assert_ne!(packed(["one", "two"], 0o644), packed(["one", "two"], 0o755));
    }
}
