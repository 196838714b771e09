//! Builds the kernel half, or takes an object that was built before, and leaves it in OUT_DIR for `include_bytes!`.
//!
//! Not by aya-build, which makes a warning of every line that the inner cargo prints, shown again at each later build.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// The package and binary of the kernel half.
const PACKAGE: &str = "proxytrace-ebpf";
const BINARY: &str = "proxytrace-programs";

/// A finished object to embed: for packagers, and for machines without bpf-linker.
const OBJECT_VARIABLE: &str = "PROXYTRACE_EBPF_OBJECT";
/// The rustup toolchain that builds the kernel half; it needs rust-src. By default the one that builds the rest.
const TOOLCHAIN_VARIABLE: &str = "PROXYTRACE_EBPF_TOOLCHAIN";

fn main() -> anyhow::Result<()> {
    for variable in [OBJECT_VARIABLE, TOOLCHAIN_VARIABLE] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(variable("OUT_DIR")?);
    let object = match env::var(OBJECT_VARIABLE) {
        Ok(object) => {
            println!("cargo:rerun-if-changed={object}");
            PathBuf::from(object)
        }
        Err(_) => build(&out).context("build the kernel half (`cargo xtask setup` brings what it needs)")?,
    };
    let built = fs::read(&object)
        .with_context(|| format!("read {}; {OBJECT_VARIABLE} takes an absolute path", object.display()))?;
    let slim = without_debug_information(&built).with_context(|| format!("strip {}", object.display()))?;
    fs::write(out.join(BINARY), slim).context("write the kernel half to OUT_DIR")
}

/// The object without what only debuggers read, which is nine tenths of it. The kernel reads `.BTF` and `.BTF.ext`; those, like
/// everything else, stay as they are.
fn without_debug_information(object: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    let is_debug = |name: &[u8]| {
        let name = name.strip_prefix(b".rel").unwrap_or(name);
        name.starts_with(b".debug_")
    };
    for section in &mut builder.sections {
        section.delete = is_debug(&section.name);
    }
    // Symbols of the sections that are gone.
    builder.delete_orphans();
    // LLVM keeps the names of sections among those of symbols, which this writer cannot.
    let names = builder.sections.add();
    names.name = b".shstrtab".as_slice().into();
    names.sh_type = elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut slim = Vec::new();
    builder.write(&mut slim)?;
    Ok(slim)
}

/// Runs cargo once more, for the target that the kernel half is for.
fn build(out: &Path) -> anyhow::Result<PathBuf> {
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")?).with_file_name(PACKAGE);
    println!("cargo:rerun-if-changed={}", root.display());
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    // Of its own: the outer cargo holds the lock of its target directory while this runs.
    let directory = out.join("kernel-half");
    // Debug information is what BTF is made from. The architecture is the kernel's: registers are named by it.
    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let flags =
        [&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\x1f");

    let call = |more: &[&str]| {
        let mut cargo = cargo();
        cargo
            // The versions that are tested, here as in the outer build.
            .args([
                "build",
                "--locked",
                "--quiet",
                "--release",
                "--package",
                PACKAGE,
                "--bins",
                "--target",
                target,
            ])
            .args(["-Z", "build-std=core"])
            // The object names source files, for what the kernel says where it refuses a program: the same wherever it was built.
            .args(["-Z", "trim-paths"])
            .env("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all")
            .args(more)
            .arg("--target-dir")
            .arg(&directory)
            .current_dir(&root)
            .env("CARGO_ENCODED_RUSTFLAGS", &flags)
            // `-Z` wants a nightly compiler, or to be told that it is meant. Here only: host crates stay stable.
            .env("RUSTC_BOOTSTRAP", "1");
        for outer in ["RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS"] {
            cargo.env_remove(outer);
        }
        cargo
    };
    // Without the network where everything is here already: cargo says where that is why it fails.
    let output = call(&["--offline"]).output().context("run cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("--offline") {
        let mut cargo = call(&[]);
        let status = cargo.status().with_context(|| format!("run {cargo:?}"))?;
        ensure!(status.success(), "{cargo:?} ended with {status}");
    } else {
        ensure!(output.status.success(), "{:?} ended with {}\n{said}", call(&[]), output.status);
    }
    Ok(directory.join(target).join("release").join(BINARY))
}

/// The cargo of the toolchain that was asked for, else the one that runs this.
fn cargo() -> Command {
    match env::var(TOOLCHAIN_VARIABLE) {
        Ok(toolchain) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", &toolchain, "cargo"]);
            rustup
        }
        Err(_) => Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
    }
}

fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).with_context(|| format!("cargo sets {name}"))
}
