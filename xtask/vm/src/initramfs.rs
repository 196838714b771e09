//! The file system that a virtual machine boots into: programs with the libraries they need, at the places that they have
//! where they come from.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::cpio::Archive;
use crate::kernels::Kernel;
use crate::modules;
use crate::root::{MERGED, Root};

const INIT: &str = include_str!("init.sh");

/// What the stories and /init call.
const PROGRAMS: &[&str] = &["nginx", "ip", "nft", "setpriv", "unshare", "dash", "busybox", "openssl"];
/// What nginx loads: the module for streams, and its Lua module, with it a tree of Lua files.
const MODULES: &[&str] = &[
    "usr/lib/nginx/modules/ngx_stream_module.so",
    "usr/lib/nginx/modules/ndk_http_module.so",
    "usr/lib/nginx/modules/ngx_http_lua_module.so",
];
const LUA: &str = "usr/share/lua";
/// What is called by another name.
const LINKS: &[(&str, &str)] = &[("/usr/bin/sh", "dash")];
/// What busybox, which is one program for many, is called in /init and in the stories.
const APPLETS: &[&str] = &["cat", "chmod", "insmod", "mkdir", "mount", "poweroff", "sleep", "true", "uname"];
/// The users that nginx and the stories run as, and what openssl asks for before it makes a certificate.
const FILES: &[(&str, &str)] = &[
    ("/usr/lib/ssl/openssl.cnf", OPENSSL),
    ("/etc/passwd", "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"),
    ("/etc/group", "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"),
];

/// A certificate without an extension is of the first version, which rustls refuses.
const OPENSSL: &str = "[req]
distinguished_name = subject
x509_extensions = extensions
[subject]
[extensions]
basicConstraints = CA:TRUE
";

/// What was built, and is put where it was built: there the stories look for the client. /init knows the others by links.
pub(crate) struct Built {
    pub(crate) proxytrace: PathBuf,
    pub(crate) stories: PathBuf,
    pub(crate) connector: PathBuf,
}

/// Where the part is that all kernels of an architecture share.
pub(crate) fn base(work: &Path, arch: &Arch) -> PathBuf {
    work.join(format!("base-{}.cpio", arch.name))
}

/// Writes that part.
pub(crate) fn write_base(path: &Path, root: &Root, built: Built) -> Result<()> {
    let mut archive = Archive::new(create(path)?);
    for name in MERGED {
        archive.directory(&format!("usr/{name}"))?;
        archive.link(name, &format!("usr/{name}"))?;
    }
    archive.program("/init", INIT.as_bytes())?;
    for (path, content) in FILES {
        archive.file(path, content.as_bytes())?;
    }
    for applet in APPLETS {
        archive.link(&format!("/usr/bin/{applet}"), "busybox")?;
    }
    for (path, target) in LINKS {
        archive.link(path, target)?;
    }

    for (name, program) in [("proxytrace", &built.proxytrace), ("stories", &built.stories)] {
        archive.link(&format!("/usr/bin/{name}"), &program.to_string_lossy())?;
    }
    let mut programs = PROGRAMS.iter().map(|name| root.program(name)).collect::<Result<Vec<_>>>()?;
    programs.extend([built.proxytrace, built.stories, built.connector]);
    programs.extend(MODULES.iter().map(|module| root.path(module)));
    for (place, file) in root.closure(programs)? {
        archive.program(&place, &read(&file)?)?;
    }
    for (place, file) in root.tree(LUA)? {
        archive.file(&place, &read(&file)?)?;
    }
    archive.end().with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// Writes a whole one: the part that all share, the modules of this kernel, and what is to be done.
pub(crate) fn write(path: &Path, base: &Path, kernel: &Kernel, plan: &str) -> Result<()> {
    fs::copy(base, path).with_context(|| format!("copy {} to {}", base.display(), path.display()))?;
    let file = File::options().append(true).open(path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    for (number, module) in modules::of(kernel)?.iter().enumerate() {
        archive.file(&format!("/vm/modules/{number:02}-{}.ko", module.name), &module.object)?;
    }
    archive.file("/vm/plan", plan.as_bytes())?;
    archive.end().with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("create {}", path.display()))?))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
