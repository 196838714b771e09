//! What docs/architecture.md says must stay so, as far as it can be seen in the text of the code.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cargo;

/// A name, and the only places whose code may use it.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("aya::", &["proxytrace/src/kernel/"]),
    ("prometheus_client::", &["proxytrace/src/metrics/"]),
    ("caps::", &["proxytrace/src/privilege/"]),
    ("seccompiler::", &["proxytrace/src/privilege/"]),
    ("aya_ebpf::", &["proxytrace-ebpf/src/"]),
];

/// Code without input and output: it serves a live host, a recording and a unit test alike.
const PURE: &[&str] = &[
    "proxytrace/src/findings/",
    "proxytrace/src/model/",
    "proxytrace/src/nginx/",
    "proxytrace/src/kernel/btf.rs",
    "proxytrace/src/kernel/hooks.rs",
];

/// What input and output look like in code.
const IO: &[&str] = &["std::fs", "std::io", "tokio::", "procfs::", "nix::"];

#[test]
fn every_file_says_what_lives_there() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{path} does not open with //!");
    }
}

#[test]
fn every_package_inherits_the_lints() {
    for package in ["nginx-conf", "proxytrace", "proxytrace-ebpf", "tests", "xtask"] {
        let manifest = fs::read_to_string(cargo::root().join(package).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{package}");
    }
}

#[test]
fn names_stay_in_their_places() {
    for (path, text) in sources().into_iter().filter(|(path, _)| path != "xtask/src/tidy.rs") {
        for (name, places) in ONLY_IN {
            let is_there = code(&text).contains(name);
            assert!(!is_there || places.iter().any(|place| path.starts_with(place)), "{path} names {name}");
        }
    }
}

#[test]
fn pure_code_does_no_io() {
    // A file of tests may look at a clock.
    let is_pure = |path: &str| PURE.iter().any(|pure| path.starts_with(pure)) && !path.ends_with("/tests.rs");
    for (path, text) in sources().into_iter().filter(|(path, _)| is_pure(path)) {
        for name in IO {
            assert!(!code(&text).contains(name), "{path} uses {name}");
        }
    }
}

/// A file's code: without comments, and without its tests, which come last.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every source file, by its path in the repository.
fn sources() -> Vec<(String, String)> {
    let mut directories = vec![cargo::root().to_path_buf()];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for path in entries(&directory) {
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let shown = path.strip_prefix(cargo::root()).unwrap().display().to_string();
                found.push((shown, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}
