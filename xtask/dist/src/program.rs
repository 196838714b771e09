//! What a program must be to be shipped, read from the file itself.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use object::{File, Object, ObjectKind, ObjectSection, ObjectSymbol, SectionKind};

use crate::targets::Target;

/// More bytes than this it may not have: it is copied to each proxy host, and into an image.
pub(crate) const MOST_BYTES: usize = 12_000_000;

/// Where `cargo auditable` puts the list of packages.
const PACKAGES: &str = ".dep-v0";

/// Checks that it is a static program of that architecture that can be loaded anywhere in memory, without symbols and debug
/// information, with the list of its packages, small, and naming none of these paths.
pub(crate) fn check<'a>(
    target: &Target,
    program: &[u8],
    paths: impl Iterator<Item = &'a Path>,
) -> Result<()> {
    let file = File::parse(program).context("read it as a program")?;
    ensure!(file.architecture() == target.architecture, "it is for {:?}", file.architecture());
    ensure!(file.kind() == ObjectKind::Dynamic, "it cannot be loaded anywhere in memory (static-pie)");
    for (section, means) in [(".interp", "wants a dynamic linker"), (".symtab", "has symbols")] {
        ensure!(file.section_by_name(section).is_none(), "it {means}");
    }
    let mut imported = file.dynamic_symbols().filter(|symbol| symbol.is_undefined() && !symbol.is_weak());
    if let Some(symbol) = imported.next() {
        bail!("it wants {} of a library", symbol.name()?);
    }
    let mut sections = file.sections();
    let debug = sections.find(|section| section.kind() == SectionKind::Debug);
    ensure!(debug.is_none(), "it has debug information");
    ensure!(file.section_by_name(PACKAGES).is_some(), "it has no list of its packages ({PACKAGES})");
    ensure!(program.len() <= MOST_BYTES, "it has {} bytes, and may have {MOST_BYTES}", program.len());
    for path in paths {
        let path = path.as_os_str().as_encoded_bytes();
        let is_named = program.windows(path.len()).any(|bytes| bytes == path);
        ensure!(!is_named, "it names {}, so it is not the same elsewhere", String::from_utf8_lossy(path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::check;
    use crate::targets::TARGETS;

    #[test]
    fn what_is_not_fit_to_be_shipped_is_refused_with_the_reason() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let refused = |name: &str, program: &[u8]| {
            let target = TARGETS.iter().find(|target| target.arch() == name).unwrap();
            check(target, program, iter::empty()).unwrap_err().to_string()
        };
        let (other, ours) = match std::env::consts::ARCH {
            "x86_64" => ("aarch64", "x86_64"),
            ours => ("x86_64", ours),
        };
        assert!(refused(other, &own).starts_with("it is for "));
        assert!(refused(ours, &own).contains("wants a dynamic linker"));
        assert!(refused(ours, b"#!/bin/sh").contains("as a program"));
    }
}
