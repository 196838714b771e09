//! The kernel modules that the stories need, in the order in which they can be loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use xtask_tools::shell;

use crate::kernels::Kernel;
use crate::series::Kind;

/// Cables between network namespaces, and firewalls that drop and reject.
const WANTED: &[&str] = &["veth", "nf_tables", "nft_reject_inet"];

/// A module as the kernel takes it.
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) object: Vec<u8>,
}

/// Those that are wanted and not built in, each after what it depends on.
pub(crate) fn of(kernel: &Kernel) -> Result<Vec<Module>> {
    if let Kind::Program { .. } = kernel.kind {
        return Ok(Vec::new()); // it is only asked whether proxytrace starts
    }
    let base = kernel.base()?;
    let directory = base.join("lib/modules").join(&kernel.release);
    if !directory.join("modules.dep").is_file() {
        shell::run(Command::new("/sbin/depmod").arg("--basedir").arg(&base).arg(&kernel.release))?;
    }
    let read = |file: &str| {
        let path = directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let dependencies = Dependencies::parse(&dependencies);

    let mut order = Vec::new();
    for wanted in WANTED {
        if let Some(path) = dependencies.named(wanted) {
            dependencies.visit(path, &mut order);
        } else if !builtin.lines().any(|path| name(path) == *wanted) {
            bail!("kernel {} has no module {wanted}", kernel.release);
        }
    }
    order.into_iter().map(|path| load(&directory, path)).collect()
}

/// What depmod found out: by path, the paths of what a module depends on.
struct Dependencies<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> Dependencies<'a> {
    fn parse(text: &'a str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        Self(lines.map(|(path, needed)| (path, needed.split_whitespace().collect())).collect())
    }

    fn named(&self, wanted: &str) -> Option<&'a str> {
        self.0.keys().copied().find(|path| name(path) == wanted)
    }

    /// Puts a module behind everything that it depends on.
    fn visit(&self, path: &'a str, order: &mut Vec<&'a str>) {
        if order.contains(&path) {
            return;
        }
        for needed in self.0.get(path).into_iter().flatten() {
            self.visit(needed, order);
        }
        order.push(path);
    }
}

/// A module's name: `veth` of `kernel/drivers/net/veth.ko.xz`.
fn name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

fn load(directory: &Path, path: &str) -> Result<Module> {
    let file = directory.join(path);
    let object = if path.ends_with(".xz") {
        let unpacked = Command::new("xz").args(["--decompress", "--stdout"]).arg(&file).output();
        let unpacked = unpacked.context("run xz")?;
        if !unpacked.status.success() {
            bail!("xz cannot decompress {}: {}", file.display(), String::from_utf8_lossy(&unpacked.stderr));
        }
        unpacked.stdout
    } else {
        fs::read(&file).with_context(|| format!("read {}", file.display()))?
    };
    Ok(Module { name: name(path).to_owned(), object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_loaded_after_all_that_it_depends_on() {
        let text = "k/reject_inet.ko.xz: k/reject.ko.xz k/tables.ko.xz\nk/reject.ko.xz: k/tables.ko.xz\n\
                    k/tables.ko.xz: k/nfnetlink.ko.xz\nk/nfnetlink.ko.xz:\nk/veth.ko.xz:\n";
        let dependencies = Dependencies::parse(text);
        let mut order = Vec::new();
        dependencies.visit(dependencies.named("reject_inet").unwrap(), &mut order);
        let names: Vec<_> = order.into_iter().map(name).collect();
        assert_eq!(names, ["nfnetlink", "tables", "reject", "reject_inet"]);
    }
}
