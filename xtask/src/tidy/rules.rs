//! Which names may be where.

use xtask_tools::cargo;

use super::code::Kind;
use super::crates::{self, Crate, Name};

/// What only some places may name: `crate_name::` is all that a crate has, and `proxytrace::nginx` a module of ours with all that
/// is in it. A lint is named by whoever is excused from it.
const NAMED_ONLY_IN: &[(&str, &[&str])] = &[
    ("aya::", &["proxytrace/src/kernel/", "tests/bench/programs.rs"]),
    ("prometheus_client::", &["proxytrace/src/metrics/"]),
    ("caps::", &["proxytrace/src/privilege/"]),
    ("ratatui::", &["proxytrace/src/top/", "proxytrace/src/commands/top.rs"]),
    ("seccompiler::", &["proxytrace/src/privilege/", "tests/support/filter.rs"]),
    ("aya_ebpf::", &["proxytrace-ebpf/src/"]),
    // Another proxy's configuration is one more reader beside nginx's.
    ("nginx_conf::", NGINX),
    ("proxytrace::nginx", NGINX),
    ("unsafe_code", UNSAFE),
];

/// Who knows nginx's configuration: the module for it, the child that reads one, and `check`, which is about nothing else.
const NGINX: &[&str] =
    &["nginx-conf/", "proxytrace/src/nginx/", "proxytrace/src/reader/nginx.rs", "proxytrace/src/check/"];

/// Where `unsafe` may be: calls that no library offers, and memory of the kernel.
const UNSAFE: &[&str] = &[
    "nginx-conf/src/lib.rs", // which forbids it
    "proxytrace/src/commands/shutdown.rs",
    "proxytrace/src/kernel/",
    "proxytrace/src/memory.rs",
    "proxytrace/src/reader/serve.rs",
    "proxytrace-ebpf/src/",
    "tests/",
];

/// Code without input and output: it serves a live host, a recording and a unit test alike.
const PURE: &[&str] = &[
    "nginx-conf/src/",
    "proxytrace/src/capacity.rs",
    "proxytrace/src/escape.rs",
    "proxytrace/src/findings/",
    "proxytrace/src/guard/changes.rs",
    "proxytrace/src/guard/earlier.rs",
    "proxytrace/src/guard/mod.rs",
    "proxytrace/src/guard/options.rs",
    "proxytrace/src/guard/probed.rs",
    "proxytrace/src/guard/report.rs",
    "proxytrace/src/guard/seen.rs",
    "proxytrace/src/guard/verdict/",
    "proxytrace/src/history/class.rs",
    "proxytrace/src/history/course.rs",
    "proxytrace/src/history/fold.rs",
    "proxytrace/src/history/last.rs",
    "proxytrace/src/history/minutes.rs",
    "proxytrace/src/history/store.rs",
    "proxytrace/src/history/tag.rs",
    "proxytrace/src/identity/cgroup.rs",
    "proxytrace/src/identity/pod.rs",
    "proxytrace/src/kernel/btf.rs",
    "proxytrace/src/kernel/hooks.rs",
    "proxytrace/src/kernel/tables.rs",
    "proxytrace/src/declared/",
    "proxytrace/src/doctor/report.rs",
    "proxytrace/src/model/",
    "proxytrace/src/nginx/",
    "proxytrace/src/output/",
    "proxytrace/src/programs.rs",
    "proxytrace/src/status/",
    "proxytrace/src/width.rs",
    "proxytrace/src/top/",
    "proxytrace/src/watch/view.rs",
];

/// The file among them that is there to do it, and the one that hands it out.
const NOT_PURE: &[&str] = &["nginx-conf/src/disk.rs", "nginx-conf/src/lib.rs"];

/// How input and output are written in code: paths, or their beginnings, and methods. Clocks and the machine are among it.
const IO: &[&str] = &[
    "std::env::",
    "std::fs::",
    "std::io::",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os::unix::net::",
    "std::process::",
    "std::thread::",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "hyper::",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "jiff::tz::TimeZone::system",
    "libc::",
    "nix::",
    "procfs::",
    "rustix::",
    "tokio::",
    ".canonicalize",
    ".elapsed",
    ".exists",
    ".is_dir",
    ".is_file",
    ".metadata",
    ".read_dir",
    ".read_link",
    ".symlink_metadata",
    ".to_socket_addrs",
    ".try_exists",
];

/// What is written alike and is not: values, and what writes to where its caller says.
const NO_IO: &[&str] = &[
    "nix::sys::signal::Signal",
    "std::io::Error",
    "std::io::ErrorKind",
    "std::io::Result",
    "std::io::Write",
    "std::process::ExitCode",
];

#[test]
fn names_stay_in_their_places() {
    let found = misplaced(crates::all(), NAMED_ONLY_IN);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn pure_code_does_no_io_and_stands_on_pure_code() {
    let found = impure(crates::all(), |file| is_in(PURE, file) && !is_in(NOT_PURE, file));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// A rule about what was renamed or moved away would hold for ever.
#[test]
fn every_rule_is_about_something() {
    let places = NAMED_ONLY_IN.iter().flat_map(|(_, places)| places.iter());
    for place in places.chain(PURE).chain(NOT_PURE) {
        assert!(cargo::root().join(place).exists(), "{place} is not there");
    }
    for (entry, _) in NAMED_ONLY_IN {
        let mut all = crates::all().iter().flat_map(names);
        assert!(all.any(|(_, name)| is_named(entry, name)), "nothing names {entry}");
    }
}

/// What is named where it may not be.
fn misplaced(crates: &[Crate], only_in: &[(&str, &[&str])]) -> Vec<String> {
    let names = crates.iter().flat_map(names);
    let found = names.flat_map(|(file, name)| {
        let rules = only_in.iter().filter(move |(entry, _)| is_named(entry, name));
        let broken = rules.filter(move |(_, places)| !is_in(places, file));
        broken.map(move |(_, places)| {
            let (line, path, places) = (name.line, name.path.join("::"), places.join(", "));
            format!("{file}:{line} names {path}, which only {places} may")
        })
    });
    found.collect()
}

/// What does input and output, or could by what it calls, where that may not be.
fn impure(crates: &[Crate], is_pure: impl Fn(&str) -> bool + Copy) -> Vec<String> {
    let is_io = |name: &Name| {
        IO.iter().any(|entry| is_named(entry, name)) && !NO_IO.iter().any(|entry| is_named(entry, name))
    };
    let io = crates.iter().flat_map(names).filter(|(file, name)| is_pure(file) && is_io(name));
    let io = io.map(|(file, name)| format!("{file}:{} uses {}", name.line, name.path.join("::")));
    // Everybody may name the crate itself, as in pub(crate).
    let links = crates.iter().flat_map(Crate::links).filter(|link| link.name.path.len() > 1);
    let links = links.filter(|link| is_pure(link.file) && !is_pure(link.to));
    let links = links.map(|link| {
        let path = link.name.path.join("::");
        format!("{}:{} uses {path} of {}, which is not pure", link.file, link.name.line, link.to)
    });
    io.chain(links).collect()
}

/// What a crate names, with the file that does.
fn names(of: &Crate) -> impl Iterator<Item = (&str, &Name)> {
    of.modules.values().flat_map(|module| module.names.iter().map(|name| (module.file.as_str(), name)))
}

/// Whether a name is what an entry is about: `one::` all below it, `one::Two` that and what belongs to it, `.three` a method.
fn is_named(entry: &str, name: &Name) -> bool {
    let path = name.path.join("::");
    match (name.kind, entry.strip_prefix('.')) {
        (Kind::Method, method) => method == Some(&path),
        (_, Some(_)) => false,
        _ => path
            .strip_prefix(entry)
            .is_some_and(|rest| entry.ends_with("::") || rest.is_empty() || rest.starts_with("::")),
    }
}

fn is_in(places: &[&str], file: &str) -> bool {
    places.iter().any(|place| file == *place || place.ends_with('/') && file.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::super::crates::tests::of;
    use super::{impure, misplaced};

    #[test]
    fn a_name_out_of_its_place_is_found_by_whatever_way_it_is_written() {
        let files = [
            ("lib.rs", "mod inside; mod outside; #[cfg(test)] mod tests { use kit::Tool; }"),
            ("inside/mod.rs", "mod deep; use kit::Tool; pub(crate) use self::deep::secret;"),
            ("inside/deep.rs", "pub(crate) fn secret() { kit::work() }"),
            (
                "outside.rs",
                "use kit as other; #[cfg(test)] mod tests;
                fn f() { print!(\"{}\", other::work()) }
                fn g() { super::inside::deep::secret() }
                #[expect(hazard)] fn kit() { kit() }",
            ),
        ];
        let rules: &[(&str, &[&str])] = &[
            ("kit::", &["src/inside/"]),
            ("a::inside::deep", &["src/inside/mod.rs"]),
            ("hazard", &["src/danger.rs"]),
        ];
        let expected = [
            "src/outside.rs:2 names kit::work, which only src/inside/ may",
            "src/outside.rs:3 names a::inside::deep::secret, which only src/inside/mod.rs may",
            "src/outside.rs:4 names hazard, which only src/danger.rs may",
        ];
        assert_eq!(misplaced(&[of(&files)], rules), expected);
    }

    #[test]
    fn input_and_output_are_found_in_paths_in_methods_and_in_what_is_called() {
        let files = [
            ("lib.rs", "mod free; mod pure;"),
            ("free.rs", "use std::fs;"),
            (
                "pure.rs",
                "use std::{io, time::Instant}; pub(crate) struct Pure;
                fn f(at: Instant) -> io::Result<()> { Err(io::Error::other(1)) }
                fn g(path: &Path) { path.exists(); io::stdout(); }
                fn h() -> Instant { Instant::now() }
                fn i() { crate::free::read() }",
            ),
        ];
        let expected = [
            "src/pure.rs:3 uses exists",
            "src/pure.rs:3 uses std::io::stdout",
            "src/pure.rs:4 uses std::time::Instant::now",
            "src/pure.rs:5 uses a::free::read of src/free.rs, which is not pure",
        ];
        assert_eq!(impure(&[of(&files)], |file| file == "src/pure.rs"), expected);
    }
}
