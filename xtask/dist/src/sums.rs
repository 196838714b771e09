//! Checksums of the files, and a signature on those.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use xtask_tools::shell;

/// The file of checksums, in the form of sha256sum(1).
pub(crate) const FILE: &str = "SHA256SUMS";

/// Writes the checksums of files in a directory, and gives the text.
pub(crate) fn write(directory: &Path, files: &[String]) -> Result<String> {
    let sums = shell::output(Command::new("sha256sum").args(files).current_dir(directory))?;
    fs::write(directory.join(FILE), &sums).with_context(|| format!("write {FILE}"))?;
    Ok(sums)
}

/// Signs them with a secret key of minisign(1), which asks for its password if it has one.
pub(crate) fn sign(directory: &Path, key: &Path, version: &str) -> Result<()> {
    let key = key.canonicalize().with_context(|| format!("find the key {}", key.display()))?;
    let mut minisign = Command::new("minisign");
    minisign.args(["-S", "-m", FILE, "-t", &format!("proxytrace {version}"), "-s"]).arg(key);
    shell::run(minisign.current_dir(directory))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::{FILE, sign, write};

    fn passes(directory: &Path, command: &str) -> bool {
        let mut words = command.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(directory).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    #[test]
    fn a_file_that_was_changed_is_noticed_and_so_are_checksums_that_were() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        fs::write(directory.join("program"), "one").unwrap();
        assert!(passes(directory, "minisign -G -W -p key.pub -s key"));
        assert!(write(directory, &["program".to_owned()]).unwrap().ends_with("  program\n"));
        sign(directory, &directory.join("key"), "1.2.3").unwrap();
        let check = format!("sha256sum --check {FILE}");
        let verify = format!("minisign -V -p key.pub -m {FILE}");
        assert!(passes(directory, &check) && passes(directory, &verify));

        fs::write(directory.join("program"), "two").unwrap();
        assert!(!passes(directory, &check) && passes(directory, &verify));
        write(directory, &["program".to_owned()]).unwrap();
        assert!(passes(directory, &check) && !passes(directory, &verify));
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let error = sign(Path::new("/"), Path::new("/nowhere/key"), "1.2.3").unwrap_err();
        assert!(error.to_string().contains("/nowhere/key"), "{error}");
    }
}
