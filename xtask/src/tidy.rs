//! What docs/architecture.md says must stay so, as far as it can be seen in the text of the code.

mod code;
mod crates;
mod layers;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

use xtask_tools::cargo;

#[test]
fn every_file_says_what_lives_there() {
    for path in sources() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} does not open with //!", path.display());
    }
}

#[test]
fn every_package_inherits_the_lints() {
    for package in crates::packages() {
        let manifest = package["manifest_path"].as_str().unwrap();
        let text = fs::read_to_string(manifest).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{manifest}");
    }
}

/// Every source file, also those that are in no package of the workspace.
fn sources() -> Vec<PathBuf> {
    let mut directories = vec![cargo::root().to_path_buf()];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for path in entries(&directory) {
            let name = path.file_name().unwrap_or_default();
            if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}
