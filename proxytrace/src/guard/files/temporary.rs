//! Names of files that are written beside their place and renamed there.

use std::{ffi::OsString, path::Path};

const BEGINNING: &str = ".proxytrace-guard.";

/// The name of the one with that number.
pub(super) fn name(number: u32) -> OsString {
    format!("{BEGINNING}{}.{number}", std::process::id()).into()
}

/// Whether a guard has given it that name.
pub(super) fn is_one(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let numbers = name.and_then(|name| name.strip_prefix(BEGINNING)).and_then(|rest| rest.split_once('.'));
    numbers.is_some_and(|(pid, number)| pid.parse::<u32>().is_ok() && number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{is_one, name};

    #[test]
    fn only_names_that_a_guard_gives_are_its_own() {
        assert!(is_one(&Path::new("conf.d").join(name(7))));
        for other in [".proxytrace-guard.conf", ".proxytrace-guard.1", ".proxytrace-guard.1.x", "a.1.2"] {
            assert!(!is_one(Path::new(other)), "{other}");
        }
    }
}
