//! The architectures of the machines: what emulates each, and what its programs are built with.

use std::env::consts;

use xtask_tools::cargo::Target;

/// An architecture.
#[derive(Debug)]
pub(crate) struct Arch {
    /// As Debian calls it.
    pub(crate) name: &'static str,
    /// The emulator and its arguments, all but those that say what to boot.
    pub(crate) qemu: &'static [&'static str],
    /// The serial line that the emulator has, as the kernel calls it.
    pub(crate) console: &'static str,
    /// As rustc calls it.
    triple: &'static str,
    /// A C compiler for it, where it is not this machine's.
    linker: &'static str,
}

/// Without the two features by which a processor says that copying bytes one by one is quick: here it is not, and kernels
/// spent a third of their time in it. Without AVX, which the C library takes where it is and which is slow here (60 s instead of
/// 73 s for `6.12 --profile tp_btf`). Without a fifth level of page tables, which only makes each miss longer.
pub(crate) const AMD64: Arch = Arch {
    name: "amd64",
    qemu: &["qemu-system-x86_64", "-cpu", "max,-erms,-fsrm,-la57,-avx"],
    console: "ttyS0",
    triple: "x86_64-unknown-linux-gnu",
    linker: "x86_64-linux-gnu-gcc",
};

/// A processor that has what servers have, and not yet what is slow to emulate: pointer authentication, tags of memory.
pub(crate) const ARM64: Arch = Arch {
    name: "arm64",
    qemu: &["qemu-system-aarch64", "-machine", "virt", "-cpu", "neoverse-n1"],
    console: "ttyAMA0",
    triple: "aarch64-unknown-linux-gnu",
    linker: "aarch64-linux-gnu-gcc",
};

impl Arch {
    /// What a release of Debian's cloud kernels ends with: they are small, and have type information.
    pub(crate) fn flavour(&self) -> String {
        format!("-cloud-{}", self.name)
    }

    /// What its programs are built for.
    pub(crate) fn target(&self) -> Target {
        if self.triple.split('-').next() == Some(consts::ARCH) {
            Target::Own
        } else {
            Target::Foreign { triple: self.triple, linker: self.linker }
        }
    }
}
