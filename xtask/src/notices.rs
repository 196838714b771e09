//! `cargo xtask notices`: what the licences of the packages in the program ask to be handed on with it, as one file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xtask_tools::cargo;

/// The file, at the top of the repository.
const FILE: &str = "THIRD-PARTY-NOTICES.md";

/// What is in the program: a package with what it depends on, for each target that it is built for.
const SHIPPED: &[(&str, &str)] = &[
    ("proxytrace", "x86_64-unknown-linux-musl"),
    ("proxytrace", "aarch64-unknown-linux-musl"),
    ("proxytrace-ebpf", "bpfel-unknown-none"),
];

/// What a static program has of others beside packages: its name, licence and origin, and its notice where the licence asks for one.
const LIBRARIES: &[(&str, &str, &str, Option<&str>)] = &[
    ("musl (C library)", "MIT", "https://musl.libc.org", Some(include_str!("notices/musl.txt"))),
    ("libunwind (of LLVM)", "Apache-2.0 WITH LLVM-exception", "https://github.com/llvm/llvm-project", None),
];

/// What the names of files begin with that a licence asks to be handed on.
const TEXTS: &[&str] = &["LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT", "UNLICENSE"];

/// Writes the file.
pub(crate) fn run() -> Result<()> {
    let path = cargo::root().join(FILE);
    fs::write(&path, text()?).with_context(|| format!("write {}", path.display()))
}

/// A package of others.
struct Package {
    licence: String,
    repository: String,
    texts: BTreeSet<String>,
}

fn text() -> Result<String> {
    let packages = packages()?;
    let mut out = String::from(
        "# Third-party notices\n\nWhat is in the program `proxytrace` beside its own code and Rust's standard library (MIT or Apache-2.0), \
         and the notices that come with it.\nMade by `cargo xtask notices`; a test keeps it fresh.\n\n\
         | package | licence | from |\n|---|---|---|\n",
    );
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, Package { licence, repository, texts }) in &packages {
        writeln!(out, "| {name} | {licence} | {repository} |")?;
        for text in texts {
            users.entry(text).or_default().push(name);
        }
    }
    for (text, names) in users {
        // No text has a line of four backticks.
        write!(out, "\n## {}\n\n````text\n{text}\n````\n", names.join(", "))?;
    }
    Ok(out)
}

fn packages() -> Result<BTreeMap<String, Package>> {
    let libraries = LIBRARIES.iter().map(|(name, licence, repository, text)| {
        let texts = text.iter().map(|text| text.trim_end().to_owned()).collect();
        let package = Package { licence: (*licence).to_owned(), repository: (*repository).to_owned(), texts };
        ((*name).to_owned(), package)
    });
    let mut all: BTreeMap<_, _> = libraries.collect();
    for (root, target) in SHIPPED {
        let args = ["metadata", "--format-version", "1", "--locked", "--filter-platform", target];
        let output = cargo::cargo(&args).output().context("run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let reached = reached(&metadata, root)?;
        for package in metadata["packages"].as_array().into_iter().flatten() {
            let is_ours = package["source"].is_null();
            if !is_ours && reached.contains(text_of(package, "id")) && !is_macro(package) {
                let name = format!("{} {}", text_of(package, "name"), text_of(package, "version"));
                all.insert(name, read(package)?);
            }
        }
    }
    Ok(all)
}

/// The ids of the packages that are compiled into `root`.
fn reached<'a>(metadata: &'a Value, root: &str) -> Result<BTreeSet<&'a str>> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let mut own = packages.filter(|package| package["source"].is_null() && package["name"] == root);
    let root = own.next().with_context(|| format!("there is no package {root}"))?;
    let nodes = metadata["resolve"]["nodes"].as_array().into_iter().flatten();
    let nodes: BTreeMap<&str, &Value> = nodes.map(|node| (text_of(node, "id"), node)).collect();
    let (mut found, mut open) = (BTreeSet::new(), vec![text_of(root, "id")]);
    while let Some(id) = open.pop() {
        if !found.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().into_iter().flatten() {
            let mut kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
            // Others are for building and testing.
            if kinds.any(|kind| kind["kind"].is_null()) {
                open.push(text_of(dependency, "pkg"));
            }
        }
    }
    Ok(found)
}

/// A macro runs in the compiler, and is not in the program.
fn is_macro(package: &Value) -> bool {
    let mut targets = package["targets"].as_array().into_iter().flatten();
    targets.any(|target| {
        target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "proc-macro"))
    })
}

fn read(package: &Value) -> Result<Package> {
    let directory =
        Path::new(text_of(package, "manifest_path")).parent().context("a manifest is in a directory")?;
    let mut texts = BTreeSet::new();
    for path in notices(directory)? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        let text = lines.join("\n").trim_matches('\n').to_owned();
        ensure!(!text.contains("````"), "{} holds what ends a text in Markdown", path.display());
        texts.insert(text);
    }
    let [licence, repository] = ["license", "repository"].map(|field| text_of(package, field).to_owned());
    Ok(Package { licence, repository, texts })
}

fn notices(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && TEXTS.iter().any(|text| name.starts_with(text)) {
            paths.push(path);
        }
    }
    Ok(paths)
}

fn text_of<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{FILE, text};
    use xtask_tools::cargo;

    #[test]
    fn the_notices_are_those_of_the_packages_in_the_program() {
        let written = std::fs::read_to_string(cargo::root().join(FILE)).unwrap();
        assert!(written == text().unwrap(), "{FILE} is stale: cargo xtask notices");
        for package in ["aya ", "aya-ebpf ", "tokio ", "serde ", "musl "] {
            assert!(written.contains(&format!("\n| {package}")), "{package}");
        }
        assert!(!written.contains("\n| proptest "), "what only tests use is not in the program");
    }
}
