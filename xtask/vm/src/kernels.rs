//! Kernels from Debian's packages, unpacked into a cache and never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xtask_tools::private_apt::{PrivateApt, Source, remove};

use crate::series::{Kind, Series};
use crate::user_mode;

/// What apt-get and dpkg-deb put beside an image.
const PARTS: [&str; 3] = ["linux-base-", "linux-binary-", "linux-modules-"];

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` says; of a program the package and its version.
    pub(crate) release: String,
    pub(crate) kind: Kind,
    /// What its packages were unpacked to.
    pub(crate) directory: PathBuf,
}

impl Kernel {
    /// The newest of a series; of those in the cache, where the mirror cannot be reached.
    pub(crate) fn newest(series: &Series, work: &Path) -> Result<Self> {
        let cache = work.join("kernels");
        fetch(series, work, &cache).or_else(|error| {
            let release = series.newest(names_in(&cache));
            let release =
                release.with_context(|| format!("{error:#}, and none is in {}", cache.display()))?;
            eprintln!("vm: {}: {error:#}; taking {release}, which was downloaded before", series.name);
            Ok(Self { directory: cache.join(&release), release, kind: series.kind })
        })
    }

    /// What QEMU boots.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let release = &self.release;
        let places = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
        let mut images = places.iter().map(|place| self.directory.join(place));
        images.find(|image| image.is_file()).with_context(|| {
            format!(
                "no {} in {}: remove that directory to have it downloaded again",
                places.join(" or "),
                self.directory.display()
            )
        })
    }

    /// Where its `lib/modules` is: newer packages have it below usr.
    pub(crate) fn base(&self) -> Result<PathBuf> {
        let mut bases = [self.directory.clone(), self.directory.join("usr")].into_iter();
        bases.find(|base| base.join("lib/modules").join(&self.release).is_dir()).with_context(|| {
            format!(
                "no modules in {}: remove that directory to have it downloaded again",
                self.directory.display()
            )
        })
    }
}

fn fetch(series: &Series, work: &Path, cache: &Path) -> Result<Kernel> {
    let sources = series.suites.iter().copied().map(Source::debian).collect::<Result<Vec<_>>>()?;
    let apt = PrivateApt::new(work.join("apt").join(series.name), &sources, series.arch.name)?;
    apt.update()?;
    let release = newest_release(series, &apt)?
        .with_context(|| format!("no kernel of series {} in {}", series.name, series.suites.join(", ")))?;
    let directory = cache.join(&release);
    if !directory.is_dir() {
        // Unpacked beside its place, so that it appears there whole or not at all.
        let partial = work.join("apt").join(series.name).join("unpacked");
        eprintln!("vm: downloading {release}");
        match series.kind {
            Kind::Image { .. } => apt.unpack(&packages(&release, &apt)?, &partial)?,
            Kind::Program { package, .. } => {
                apt.unpack_with_dependencies(&[package], &partial)?;
                user_mode::complete(&partial)?;
            }
        }
        fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
        fs::rename(&partial, &directory)
            .with_context(|| format!("move {} to {}", partial.display(), directory.display()))?;
    }
    apt.end()?;
    Ok(Kernel { release, kind: series.kind, directory })
}

fn newest_release(series: &Series, apt: &PrivateApt) -> Result<Option<String>> {
    let names = apt.names(&series.pattern())?;
    Ok(match series.kind {
        Kind::Image { .. } => {
            let releases = names.iter().filter_map(|name| name.strip_prefix("linux-image-"));
            series.newest(releases.map(str::to_owned))
        }
        Kind::Program { package, .. } => apt.version(package)?.map(|version| format!("{package}-{version}")),
    })
}

/// The packages that an image of such a release is made of.
fn packages(release: &str, apt: &PrivateApt) -> Result<Vec<String>> {
    let image = format!("linux-image-{release}");
    let mut packages = apt.dependencies(&image)?;
    packages.retain(|name| PARTS.iter().any(|part| name.strip_prefix(part) == Some(release)));
    packages.push(image);
    Ok(packages)
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Takes away what a killed run left behind, and the kernels that newer ones have taken the place of: all but `kept`.
pub(crate) fn clean(work: &Path, kept: &[&str]) -> Result<()> {
    remove(&work.join("apt"))?;
    let cache = work.join("kernels");
    let mut old = names_in(&cache).into_iter().filter(|name| !kept.contains(&name.as_str()));
    old.try_for_each(|name| remove(&cache.join(name)))
}
