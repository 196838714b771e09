//! apt-get with package sources, lists and cache of its own: packages of other releases, unpacked and never installed.

use std::env::consts;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;

/// Below the private directory: what is installed (nothing), and what apt-get downloads to install it.
const STATUS: &str = "status";
const ARCHIVES: &str = "cache/archives";

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from.
#[derive(Debug, Clone)]
pub struct Source {
    uri: String,
    suite: &'static str,
}

impl Source {
    /// A suite of Debian, from the mirror that this machine's apt is set up with.
    pub fn debian(suite: &'static str) -> Result<Self> {
        let is_security = suite.ends_with("-security");
        let uri = mirror(|uri| uri.contains("debian") && uri.contains("security") == is_security)
            .with_context(|| format!("/etc/apt names no Debian mirror to take {suite} from"))?;
        Ok(Self { uri, suite })
    }

    /// As a line of apt's sources.list.
    #[must_use]
    pub fn line(&self) -> String {
        self.line_of("deb")
    }

    /// The same for the packages' sources.
    #[must_use]
    pub fn line_of_sources(&self) -> String {
        self.line_of("deb-src")
    }

    fn line_of(&self, kind: &str) -> String {
        let Self { uri, suite } = self;
        format!("{kind} [signed-by={KEYRING}] {uri} {suite} main")
    }
}

/// The first source that the machine's own apt has of that kind.
fn mirror(is_wanted: impl Fn(&str) -> bool) -> Option<String> {
    let directory = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let files = directory.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
    // As apt does: others are backups, or switched off.
    let files = files.filter(|file| file.extension().is_some_and(|kind| kind == "list" || kind == "sources"));
    let sources: String =
        files.filter_map(|file| fs::read_to_string(file).ok()).collect::<Vec<_>>().join("\n");
    let lines = sources.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut uris = lines.flat_map(str::split_whitespace).filter(|word| word.contains("://"));
    uris.find(|uri| is_wanted(uri)).map(str::to_owned)
}

/// The architecture of this machine, as Debian calls it.
pub const OWN: &str = match consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"aarch64" => "arm64",
    _ => consts::ARCH,
};

/// The package manager, which leaves the system's own sources alone, and ignores what is installed.
pub struct PrivateApt {
    directory: PathBuf,
    arch: &'static str,
}

impl PrivateApt {
    /// Of packages for `arch`, as Debian calls it. Everything it needs is in `directory`, whose former content goes.
    pub fn new(directory: PathBuf, sources: &[Source], arch: &'static str) -> Result<Self> {
        remove(&directory)?;
        for part in ["lists/partial", &format!("{ARCHIVES}/partial")] {
            fs::create_dir_all(directory.join(part))
                .with_context(|| format!("create {}", directory.display()))?;
        }
        let lines: String = sources.iter().map(|source| source.line() + "\n").collect();
        fs::write(directory.join("sources.list"), lines).context("write the private sources.list")?;
        fs::write(directory.join(STATUS), "").context("write the private list of what is installed")?;
        Ok(Self { directory, arch })
    }

    /// Fetches the lists of packages.
    pub fn update(&self) -> Result<()> {
        shell::run(self.tool("apt-get").args(["--quiet=2", "--error-on=any", "update"]))
    }

    /// The names of packages that match a regular expression.
    pub fn names(&self, pattern: &str) -> Result<Vec<String>> {
        let found = shell::output(self.tool("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(found.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// The version of a package that would be taken, if there is one.
    pub fn version(&self, package: &str) -> Result<Option<String>> {
        let shown = shell::output(self.tool("apt-cache").args(["show", "--no-all-versions", package]))?;
        Ok(shown.lines().find_map(|line| line.strip_prefix("Version: ")).map(str::to_owned))
    }

    /// The names of packages that a package cannot do without.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let found = shell::output(self.tool("apt-cache").args(["depends", "--important", package]))?;
        let names =
            found.lines().filter_map(|line| line.trim_start_matches([' ', '|']).strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them below `place`, as if that were the top of the file system.
    pub fn unpack(&self, packages: &[String], place: &Path) -> Result<()> {
        unpack(self.tool("apt-get"), packages, &self.directory, place)
    }

    /// The same with all that they depend on, as where nothing is installed.
    pub fn unpack_with_dependencies(&self, packages: &[&str], place: &Path) -> Result<()> {
        let mut install = self.tool("apt-get");
        install.args(["--quiet=2", "--yes", "--download-only", "--no-install-recommends"]);
        // What another apt-get installs meanwhile is not our business.
        install.args(["-o", "Debug::NoLocking=1", "install"]).args(packages);
        shell::run(install.stdout(Stdio::null()))?;
        extract(&archives_in(&self.directory.join(ARCHIVES))?, place)
    }

    /// Takes its lists and cache away.
    pub fn end(self) -> Result<()> {
        remove(&self.directory)
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = as_ourselves(program);
        command.current_dir(&self.directory);
        for (option, value) in [
            ("Dir::Etc::SourceList", self.directory.join("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::State::Lists", self.directory.join("lists")),
            ("Dir::State::Status", self.directory.join(STATUS)),
            ("Dir::Cache", self.directory.join("cache")),
            ("APT::Architecture", self.arch.into()),
            ("APT::Architectures", self.arch.into()),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command
    }
}

/// A tool of apt that downloads as root: as another user it might not enter the checkout.
pub fn as_ourselves(program: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-o", "APT::Sandbox::User=root"]);
    command
}

/// Has `apt_get` download packages to `directory`, and unpacks them below `place`.
pub fn unpack(
    mut apt_get: Command,
    packages: &[impl AsRef<OsStr>],
    directory: &Path,
    place: &Path,
) -> Result<()> {
    apt_get.args(["--quiet=2", "download"]).args(packages);
    shell::run(apt_get.current_dir(directory))?;
    let archives = archives_in(directory)?;
    if archives.len() < packages.len() {
        bail!(
            "apt-get said that it downloaded {} packages, but {} are there",
            packages.len(),
            archives.len()
        );
    }
    extract(&archives, place)
}

fn archives_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}

/// Unpacks packages below `place`, and takes their archives away.
fn extract(archives: &[PathBuf], place: &Path) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
    for archive in archives {
        shell::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(place))?;
        fs::remove_file(archive).with_context(|| format!("remove {}", archive.display()))?;
    }
    Ok(())
}

/// Removes a directory with all that is in it, if it is there.
pub fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    Ok(())
}
