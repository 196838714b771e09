//! The unit file: whether systemd finds it right, and whether it gives what docs/security.md says is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use xtask_tools::cargo;

const UNIT: &str = "deploy/systemd/proxytrace.service";

/// What the table of docs/security.md has and the unit has not, because not every host needs it.
const ON_REQUEST: &[&str] = &["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE"];

/// What any unit depends on, which a file system made for the test has not.
const TARGETS: &[&str] =
    &["basic.target", "multi-user.target", "network.target", "shutdown.target", "sysinit.target"];

fn read(path: &str) -> String {
    fs::read_to_string(cargo::root().join(path)).unwrap()
}

/// The words of a setting, which may stand in several lines.
fn setting<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let values = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).collect()
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let top = tempfile::tempdir().unwrap();
    let units = top.path().join("usr/lib/systemd/system");
    let programs = top.path().join("usr/bin");
    for directory in [&units, &programs] {
        fs::create_dir_all(directory).unwrap();
    }
    symlink("usr/lib", top.path().join("lib")).unwrap();
    fs::copy(cargo::root().join(UNIT), units.join("proxytrace.service")).unwrap();
    for target in TARGETS {
        fs::write(units.join(target), "[Unit]\nDefaultDependencies=no\n").unwrap();
    }
    for program in ["proxytrace", "kill"] {
        fs::copy("/bin/true", programs.join(program)).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(format!("--root={}", top.path().display()));
    let output = verify.arg(units.join("proxytrace.service")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_unit_is_confined_as_the_docs_say() {
    let docs = read("docs/install/systemd.md");
    let documented = docs.split("exposure level **").nth(1).and_then(|rest| rest.split("**").next());
    let documented: f64 = documented.unwrap().parse().unwrap();
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager"]).arg(cargo::root().join(UNIT));
    let output = security.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let level = said.rsplit("proxytrace.service: ").next().and_then(|rest| rest.split(' ').next());
    let level: f64 = level.unwrap().parse().unwrap();
    // Other versions of systemd know other settings.
    assert!(level <= documented, "{level} instead of {documented}: {said}");
}

#[test]
fn the_unit_gives_the_capabilities_that_the_docs_say_are_needed() {
    let docs = read("docs/security.md");
    let rows = docs.split("<!-- capabilities -->").nth(1).and_then(|rest| rest.split("<!-- end -->").next());
    let rows = rows.unwrap().lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    let needed: Vec<_> = rows.filter(|name| !ON_REQUEST.contains(name)).collect();
    assert!(needed.len() > 2, "{needed:?}");
    let unit = read(UNIT);
    assert_eq!(setting(&unit, "AmbientCapabilities"), needed);
    assert_eq!(setting(&unit, "CapabilityBoundingSet"), needed);
}

#[test]
fn the_unit_has_what_the_package_brings() {
    let (unit, manifest) = (read(UNIT), read("proxytrace/Cargo.toml"));
    let [program, command, option, config] = setting(&unit, "ExecStart")[..] else { panic!("{unit}") };
    assert_eq!((command, option), ("agent", "--config"));
    for (path, directory) in [(program, "usr/bin/"), (config, "etc/proxytrace/")] {
        let name = path.strip_prefix('/').and_then(|path| path.strip_prefix(directory)).unwrap();
        let is_asset = |line: &str| line.contains(&format!("/{name}\", \"{directory}\""));
        assert!(manifest.lines().any(is_asset), "{path} is no asset");
    }
    let user = setting(&unit, "User")[0];
    assert!(
        read("deploy/systemd/proxytrace.sysusers").contains(&format!("\nu {user} ")),
        "{user} is not made"
    );
}
