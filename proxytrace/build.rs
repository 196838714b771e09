//! Builds the kernel half, or takes an object that was built before, and leaves it in OUT_DIR for `include_bytes!`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, anyhow};
use aya_build::{Package, Toolchain};

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
    if let Some(object) = env::var_os(OBJECT_VARIABLE) {
        println!("cargo:rerun-if-changed={}", object.display());
        let target = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?).join(BINARY);
        fs::copy(&object, target)
            .with_context(|| format!("copy {}, named by {OBJECT_VARIABLE}", object.display()))?;
        return Ok(());
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?)
        .with_file_name(PACKAGE);
    let root = root.to_str().ok_or_else(|| anyhow!("{} is not UTF-8", root.display()))?;
    let toolchain = env::var(TOOLCHAIN_VARIABLE)
        .or_else(|_| env::var("RUSTUP_TOOLCHAIN"))
        .unwrap_or_else(|_| "stable".to_owned());
    // `-Z build-std`, for which the stable compiler has to be told that it is meant. For the kernel half only: set
    // for the whole build it would let host crates use unstable features as well.
    // SAFETY: nothing else runs in this process yet.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    aya_build::build_ebpf(
        [Package { name: PACKAGE, root_dir: root, ..Package::default() }],
        Toolchain::Custom(&toolchain),
    )
    .context("build the kernel half (`cargo xtask setup` brings what it needs)")
}
