//! The kernels that proxytrace is tried on, and how the newest of a series is found by its name.

use crate::arch::{AMD64, ARM64, Arch};

/// A series of kernels, of which the newest is taken.
pub(crate) struct Series {
    /// What it is called on the command line and in docs/kernels.md.
    pub(crate) name: &'static str,
    pub(crate) arch: &'static Arch,
    pub(crate) kind: Kind,
    /// Debian's suites that have it.
    pub(crate) suites: &'static [&'static str],
    pub(crate) expect: Expect,
}

/// What such a kernel is packaged as, and so run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// An image that QEMU boots, in a package for each release; of a series the releases begin like this.
    Image { begins: &'static str },
    /// A program of the host, in a package of Debian's: with what it depends on, as the host's own may be older.
    Program { package: &'static str, path: &'static str },
}

/// What must happen there.
pub(crate) enum Expect {
    /// Under every profile all is well, of so many stories.
    Stories(Extent),
    /// It ends with status 3 and these words.
    Refusal { because: &'static str, words: &'static [&'static str] },
}

/// How many of the stories run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extent {
    /// All that a profile has.
    Whole,
    /// The same without what the oldest and the newest show: IPv6, which takes no way of its own through the kernel half, and
    /// ways to connect of which the ledger's story has each that matters to it.
    Between,
    /// What an architecture could get wrong: it is slow to emulate, and the rest is the kernel's own, which other series try.
    Part,
}

impl Expect {
    /// What takes longer comes first, so that nothing long is left when all else is done.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Stories(Extent::Whole) => 0,
            Self::Stories(Extent::Part) => 1,
            Self::Stories(Extent::Between) => 2,
            Self::Refusal { .. } => 3,
        }
    }
}

pub(crate) const SERIES: &[Series] = &[
    stories("5.10", "5.10.", &["bullseye-security"], Extent::Whole),
    stories("6.1", "6.1.", &["bookworm-security", "bookworm"], Extent::Between),
    stories("6.12", "6.12.", &["trixie-security", "bookworm-backports"], Extent::Between),
    stories("6.18", "6.18.", &["trixie-backports"], Extent::Between),
    stories("newest", "", &["trixie-backports"], Extent::Whole),
    Series {
        name: "6.12-arm64",
        arch: &ARM64,
        kind: Kind::Image { begins: "6.12." },
        suites: &["trixie-security", "bookworm-backports"],
        expect: Expect::Stories(Extent::Part),
    },
    // Debian's mirrors have no kernel for QEMU that was built without type information, and none older than 5.10. Before
    // 6.13 one for user mode does not run on processors with AMX: their state does not fit into it (`ptrace set fp regs failed`).
    Series {
        name: "uml",
        arch: &AMD64,
        kind: Kind::Program { package: "user-mode-linux", path: "usr/bin/linux.uml" },
        suites: &["forky"],
        expect: Expect::Refusal {
            because: "a kernel for user mode, built without BTF",
            words: &["cannot trace", "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y"],
        },
    },
];

const fn stories(
    name: &'static str,
    begins: &'static str,
    suites: &'static [&'static str],
    extent: Extent,
) -> Series {
    let (kind, expect) = (Kind::Image { begins }, Expect::Stories(extent));
    Series { name, arch: &AMD64, kind, suites, expect }
}

impl Series {
    /// Whether the stories run there.
    pub(crate) fn has_stories(&self) -> bool {
        matches!(self.expect, Expect::Stories(_))
    }

    /// The newest of these releases that belongs to the series.
    pub(crate) fn newest(&self, releases: impl IntoIterator<Item = String>) -> Option<String> {
        // A package that only points to others names no whole version: linux-image-6.1-cloud-amd64.
        let belongs = |release: &String| match self.kind {
            Kind::Image { begins } => {
                release.starts_with(begins)
                    && release.ends_with(&self.arch.flavour())
                    && numbers(release).len() > 2
            }
            Kind::Program { package, .. } => release.starts_with(package),
        };
        releases.into_iter().filter(belongs).max_by_key(|release| numbers(release))
    }

    /// What apt-cache has to search for.
    pub(crate) fn pattern(&self) -> String {
        match self.kind {
            Kind::Image { begins } => {
                format!("^linux-image-{}[0-9].*{}$", begins.replace('.', r"\."), self.arch.flavour())
            }
            Kind::Program { package, .. } => format!("^{package}$"),
        }
    }
}

/// The numbers in a release, by which releases are ordered: 6, 12, 90, 13, 1 of `6.12.90+deb13.1-cloud-amd64`.
fn numbers(release: &str) -> Vec<u64> {
    let parts = release.split('-').take_while(|part| part.starts_with(|first: char| first.is_ascii_digit()));
    let numbers = parts.flat_map(|part| part.split(|c: char| !c.is_ascii_digit()));
    numbers.filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(series: &str, releases: &[&str], expected: Option<&str>) {
        let series = SERIES.iter().find(|known| known.name == series).unwrap();
        let newest = series.newest(releases.iter().map(ToString::to_string));
        assert_eq!(newest.as_deref(), expected);
    }

    #[test]
    fn the_newest_is_found_by_its_numbers_not_by_its_letters() {
        let releases = ["5.10.0-9-cloud-amd64", "5.10.0-46-cloud-amd64", "5.10.0-32-cloud-amd64"];
        check("5.10", &releases, Some("5.10.0-46-cloud-amd64"));
        let releases =
            ["6.12.90+deb13.1-cloud-amd64", "6.12.117+deb13-cloud-amd64", "6.12.117+deb12-cloud-amd64"];
        check("6.12", &releases, Some("6.12.117+deb13-cloud-amd64"));
        check(
            "newest",
            &["6.19.14+deb13-cloud-amd64", "7.3.4+deb13-cloud-amd64"],
            Some("7.3.4+deb13-cloud-amd64"),
        );
    }

    #[test]
    fn other_series_other_flavours_and_pointers_are_passed_over() {
        let others =
            ["6.18.15+deb13-cloud-amd64", "6.1.0-56-rt-amd64", "6.1-cloud-amd64", "6.12-cloud-amd64"];
        check("6.1", &others, None);
        check("6.12-arm64", &["6.12.117+deb13-cloud-amd64", "6.12.117+deb13-arm64"], None);
        let release = "6.12.117+deb13-cloud-arm64";
        check("6.12-arm64", &[release], Some(release));
    }

    #[test]
    fn every_series_has_a_name_of_its_own() {
        for (n, series) in SERIES.iter().enumerate() {
            assert!(SERIES[..n].iter().all(|other| other.name != series.name), "{}", series.name);
        }
    }
}
