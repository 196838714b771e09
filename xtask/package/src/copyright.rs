//! The file `copyright` of the package: what Debian wants to know about licences, from those of the checkout.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Where the notices of what is linked into the program are, in the package.
const NOTICES: &str = "/usr/share/doc/proxytrace/THIRD-PARTY-NOTICES.md.gz";

/// Its text, from the licences at `top`.
pub(crate) fn text(top: &Path) -> Result<String> {
    let path = top.join("LICENSE-MIT");
    let mit = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    from(&mit).with_context(|| format!("{} has no line that begins with Copyright", path.display()))
}

/// In the machine-readable format. Debian calls this licence of MIT by the name of the program that it was written for, and has the
/// text of the other one on every host.
fn from(mit: &str) -> Option<String> {
    let (head, licence) = mit.split_once("\n\nPermission is hereby granted")?;
    let owner = head.lines().find_map(|line| line.strip_prefix("Copyright (c) "))?;
    let licence = indented(&format!("Permission is hereby granted{licence}"));
    Some(format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: proxytrace
Source: https://github.com/proxytrace/proxytrace
Comment: The packages that are linked into the program, with their licences
 and notices, are listed in {NOTICES}.

Files: *
Copyright: {owner}
License: Expat or Apache-2.0

License: Expat
{licence}
License: Apache-2.0
 On Debian systems, the text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
"
    ))
}

/// As the text of a field: an empty line is a full stop.
fn indented(text: &str) -> String {
    let line = |line: &str| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") };
    text.trim_end().lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use xtask_tools::cargo;

    #[test]
    fn the_licences_of_the_checkout_become_paragraphs() {
        let text = super::text(cargo::root()).unwrap();
        assert!(
            text.contains("\nCopyright: 2026 the proxytrace contributors\nLicense: Expat or Apache-2.0\n"),
            "{text}"
        );
        assert!(text.contains("\nLicense: Expat\n Permission is hereby granted, free of charge,"), "{text}");
        assert!(text.contains(" subject to the following conditions:\n .\n The above"), "{text}");
        assert!(text.contains(" SOFTWARE.\n\nLicense: Apache-2.0\n"), "{text}");
    }

    #[test]
    fn a_licence_of_nobody_is_none() {
        assert_eq!(super::from("MIT License\n\nPermission is hereby granted, free of charge"), None);
    }
}
