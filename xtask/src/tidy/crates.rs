//! The crates of the workspace as trees of modules, in which a path leads to the file that defines what it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;
use xtask_tools::cargo;

use super::code::{self, Kind, Scope};

/// What the compiler is called for once.
#[derive(Debug)]
pub(super) struct Crate {
    /// The file at its top, in the repository.
    pub(super) root: String,
    /// By their paths, which begin with the crate's name.
    pub(super) modules: BTreeMap<Vec<String>, Module>,
}

#[derive(Debug)]
pub(super) struct Module {
    pub(super) file: String,
    pub(super) names: Vec<Name>,
    imports: BTreeMap<String, Vec<String>>,
}

/// Something that a module names, by its path from the top of the crate that has it.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) path: Vec<String>,
    pub(super) kind: Kind,
    pub(super) line: usize,
}

/// A name of this crate's own: who names it, and who defines it.
#[derive(Debug)]
pub(super) struct Link<'a> {
    pub(super) module: &'a [String],
    pub(super) file: &'a str,
    pub(super) name: &'a Name,
    pub(super) definer: &'a [String],
    /// The definer's file.
    pub(super) to: &'a str,
}

/// Through how many imports something is searched.
const STEPS: usize = 8;

/// The packages of the workspace, as cargo lists them.
pub(super) fn packages() -> Vec<Value> {
    let mut command = cargo::cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// All crates of the workspace. They are read once.
pub(super) fn all() -> &'static [Crate] {
    static ALL: LazyLock<Vec<Crate>> = LazyLock::new(read_all);
    &ALL
}

fn read_all() -> Vec<Crate> {
    let top = format!("{}/", cargo::root().display());
    let text_of = |file: &str| fs::read_to_string(cargo::root().join(file)).ok();
    let targets = packages().into_iter().flat_map(|package| package["targets"].as_array().unwrap().clone());
    let crates = targets.map(|target| {
        let [name, root] = ["name", "src_path"].map(|field| target[field].as_str().unwrap());
        Crate::read(name, root.strip_prefix(&top).unwrap(), &text_of)
    });
    crates.collect()
}

impl Crate {
    /// Reads a crate by its name and the file at its top, with what gives the text of a file.
    pub(super) fn read(name: &str, root: &str, text_of: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut waiting = vec![(vec![name.replace('-', "_")], root.to_owned())];
        let mut scopes = BTreeMap::new();
        while let Some((module, file)) = waiting.pop() {
            let text = text_of(&file).unwrap_or_else(|| panic!("{file} cannot be read"));
            for scope in code::read(&text).unwrap_or_else(|error| panic!("{file}: {error}")) {
                let path = [&module[..], &scope.path].concat();
                for declared in &scope.modules {
                    let child = below(&path, &declared.name);
                    let place = Path::new(root).with_file_name(child[1..].join("/")).display().to_string();
                    let child_file = match &declared.file {
                        Some(named) => Path::new(&file).with_file_name(named).display().to_string(),
                        None if text_of(&format!("{place}.rs")).is_some() => format!("{place}.rs"),
                        None => format!("{place}/mod.rs"),
                    };
                    waiting.push((child, child_file));
                }
                scopes.insert(path, (file.clone(), scope));
            }
        }
        let modules = scopes.iter().map(|(path, (file, scope))| {
            let is_module = |path: &[String]| scopes.contains_key(path);
            (path.clone(), Module::of(file, path, scope, &is_module))
        });
        Self { root: root.to_owned(), modules: modules.collect() }
    }

    /// What it names of its own.
    pub(super) fn links(&self) -> impl Iterator<Item = Link<'_>> {
        self.modules.iter().flat_map(move |(path, Module { file, names, .. })| {
            names.iter().filter_map(move |name| {
                let (definer, Module { file: to, .. }) = self.definer(&name.path)?;
                Some(Link { module: path, file, name, definer, to })
            })
        })
    }

    /// The module that defines what a path names, whatever it is imported through on the way there; nothing where that
    /// is in another crate.
    fn definer(&self, path: &[String]) -> Option<(&[String], &Module)> {
        let mut path = path.to_vec();
        for _ in 0..STEPS {
            let depth = (1..=path.len()).rev().find(|&depth| self.modules.contains_key(&path[..depth]))?;
            let (known, module) = self.modules.get_key_value(&path[..depth])?;
            let imported = path.get(depth).and_then(|name| module.imports.get(name));
            match imported.filter(|target| target[0] == known[0]) {
                Some(target) => path = [target, &path[depth + 1..]].concat(),
                None => return Some((known, module)),
            }
        }
        None
    }
}

impl Module {
    fn of(file: &str, path: &[String], scope: &Scope, is_module: &dyn Fn(&[String]) -> bool) -> Self {
        let absolute = |written: &[String]| absolute(path, written, is_module);
        let imports: BTreeMap<_, _> =
            scope.imports.iter().map(|(called, target)| (called.clone(), absolute(target))).collect();
        let names = scope.names.iter().map(|name| {
            let path = match name.kind {
                Kind::Method | Kind::Attribute => name.path.clone(),
                Kind::Import | Kind::Path => behind(&imports, absolute(&name.path)),
            };
            Name { path, kind: name.kind, line: name.line }
        });
        let names = names.collect();
        let behind = imports.values().map(|target| behind(&imports, target.clone()));
        let imports = imports.keys().cloned().zip(behind).collect();
        Self { file: file.to_owned(), names, imports }
    }
}

/// The path itself where something is imported, and the path begins with what it is called here.
fn behind(imports: &BTreeMap<String, Vec<String>>, path: Vec<String>) -> Vec<String> {
    match imports.get(&path[0]) {
        // A function or macro may be called like its crate.
        Some(target) if target[0] != path[0] => [target, &path[1..]].concat(),
        _ => path,
    }
}

/// A path from the top of its crate, as far as what is written in `module` gives it.
fn absolute(module: &[String], written: &[String], is_module: &dyn Fn(&[String]) -> bool) -> Vec<String> {
    let ups = written.iter().take_while(|word| *word == "super").count();
    match written[0].as_str() {
        "crate" => [&module[..1], &written[1..]].concat(),
        "self" => [module, &written[1..]].concat(),
        "super" => [&module[..module.len().saturating_sub(ups).max(1)], &written[ups..]].concat(),
        child if is_module(&below(module, child)) => [module, written].concat(),
        _ => written.to_vec(),
    }
}

fn below(module: &[String], name: &str) -> Vec<String> {
    [module, &[name.to_owned()]].concat()
}

#[cfg(test)]
pub(super) mod tests {
    use super::Crate;

    /// A crate of these files, called `a`, with its top in `src/lib.rs`.
    pub(in super::super) fn of(files: &[(&str, &str)]) -> Crate {
        let text_of = |wanted: &str| {
            let found = files.iter().find(|(file, _)| format!("src/{file}") == wanted);
            found.map(|(_, text)| (*text).to_owned())
        };
        Crate::read("a", "src/lib.rs", &text_of)
    }

    /// What a module names, as others would.
    fn names(of: &Crate, module: &[&str]) -> Vec<String> {
        let path: Vec<_> = module.iter().map(ToString::to_string).collect();
        of.modules[&path].names.iter().map(|name| name.path.join("::")).collect()
    }

    fn definer<'a>(of: &'a Crate, path: &str) -> Option<&'a str> {
        let path: Vec<_> = path.split("::").map(str::to_owned).collect();
        of.definer(&path).map(|(_, module)| module.file.as_str())
    }

    #[test]
    fn files_are_found_wherever_a_module_may_have_its_own() {
        let files = [
            ("lib.rs", "mod one; mod two; #[cfg(test)] mod nowhere;"),
            ("one.rs", "mod deep;"),
            ("one/deep.rs", ""),
            ("two/mod.rs", "mod deep; #[path = \"other.rs\"] mod named;"),
            ("two/deep.rs", ""),
            ("two/other.rs", ""),
        ];
        let known = of(&files);
        let found: Vec<_> = known.modules.values().map(|module| module.file.as_str()).collect();
        let expected = ["lib.rs", "one.rs", "one/deep.rs", "two/mod.rs", "two/deep.rs", "two/other.rs"];
        assert_eq!(found, expected.map(|file| format!("src/{file}")));
    }

    #[test]
    fn a_name_is_resolved_from_the_top() {
        let files = [
            ("lib.rs", "mod one; mod two;"),
            ("one.rs", "mod deep; use deep::It; fn f() { self::deep::g(); std::fs::read(It::PATH); }"),
            ("one/deep.rs", "use super::super::two::Two; use crate::two as other; use other::Three;"),
            ("two.rs", "use anyhow::{anyhow, Result}; fn f() -> anyhow::Error {}"),
        ];
        let known = of(&files);
        let one = names(&known, &["a", "one"]);
        assert_eq!(one, ["a::one::deep::It", "a::one::deep::g", "std::fs::read", "a::one::deep::It::PATH"]);
        assert_eq!(names(&known, &["a", "one", "deep"]), ["a::two::Two", "a::two", "a::two::Three"]);
        let two = names(&known, &["a", "two"]);
        assert_eq!(two, ["anyhow::anyhow", "anyhow::Result", "anyhow::Error"]);
    }

    #[test]
    fn a_path_leads_through_imports_to_what_defines_it() {
        let files = [
            ("lib.rs", "mod one; mod two;"),
            (
                "one/mod.rs",
                "mod deep; pub use deep::It; pub(crate) use super::two::Two; use std::fs; struct Own;",
            ),
            ("one/deep.rs", "pub struct It;"),
            ("two.rs", "pub use crate::one::It as Again; pub struct Two;"),
        ];
        let known = of(&files);
        for (path, file) in [
            ("a::one::It::new", "src/one/deep.rs"),
            ("a::two::Again", "src/one/deep.rs"),
            ("a::one::Two", "src/two.rs"),
            ("a::one::Own", "src/one/mod.rs"),
            ("a::one::fs::read", "src/one/mod.rs"),
            ("a::one::deep", "src/one/deep.rs"),
        ] {
            assert_eq!(definer(&known, path), Some(file), "{path}");
        }
        assert_eq!(definer(&known, "std::fs"), None);
    }
}
