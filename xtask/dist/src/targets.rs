//! The architectures that a release is for: what each is built with, and what runs it on this machine.

use std::env::consts;

use object::Architecture;

/// An architecture.
#[derive(Debug)]
pub(crate) struct Target {
    /// What its files are called after.
    pub(crate) name: &'static str,
    /// As rustc calls it.
    pub(crate) triple: &'static str,
    /// As an executable says it.
    pub(crate) architecture: Architecture,
    /// What compiles parts in C that a library brings.
    pub(crate) c_compiler: &'static str,
    /// Whether rustc itself links its static programs so that they can be loaded anywhere in memory.
    pub(crate) is_static_pie: bool,
    /// What emulates it, in user mode.
    emulator: &'static str,
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "x86_64-linux-musl",
        triple: "x86_64-unknown-linux-musl",
        architecture: Architecture::X86_64,
        c_compiler: "x86_64-linux-gnu-gcc",
        is_static_pie: true,
        emulator: "qemu-x86_64",
    },
    Target {
        name: "aarch64-linux-musl",
        triple: "aarch64-unknown-linux-musl",
        architecture: Architecture::Aarch64,
        c_compiler: "aarch64-linux-gnu-gcc",
        is_static_pie: false,
        emulator: "qemu-aarch64",
    },
];

impl Target {
    /// The one of that architecture, as rustc calls it.
    pub(crate) fn of(arch: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.arch() == arch)
    }

    /// The architecture, as rustc calls it.
    pub(crate) fn arch(&self) -> &'static str {
        self.triple.split('-').next().unwrap_or(self.triple)
    }

    /// What goes before a program of it so that it runs here.
    pub(crate) fn runner(&self) -> Option<&'static str> {
        (self.arch() != consts::ARCH).then_some(self.emulator)
    }
}
