//! The same trees as crossplane, F5's own parser, on configurations as they are found in the world.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nginx_conf::{Directive, Disk, Limits, load};
use proxytrace_tests::skip;
use serde_json::Value;

/// One line of JSON for each file.
const PARSE: &str = "
import crossplane, json, sys
for path in sys.argv[1:]:
    print(json.dumps(crossplane.parse(path, combine=True, check_ctx=False, check_args=False)))
";

/// Where crossplane is not like nginx: file, line and why. Each was seen with `nginx -t` or in the code of nginx's Lua
/// module. No line means that it refuses the file.
const ERRORS_OF_CROSSPLANE: &[(&str, Option<u32>, &str)] = &[
    ("lua-hard.conf", None, "it does not know the long strings of Lua"),
    ("quotes.conf", Some(7), "it leaves \\t and \\n as they are written"),
    ("spa-api.conf", Some(12), "it leaves \\n as it is written"),
    ("variables.conf", Some(10), "it does not end a word at the space after ${name}"),
];

#[test]
fn trees_are_those_of_crossplane() {
    // Where `cargo xtask setup` puts it.
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../setup/crossplane-0.5.8/bin/python");
    if !python.exists() {
        return skip::skip("crossplane is not there: run `cargo xtask setup`");
    }
    if !of_modules().exists() {
        return skip::skip("the configurations of Debian's modules are not there: run `cargo xtask setup`");
    }
    let files = configurations();
    assert!(files.len() > 60, "{files:?}");
    let output = Command::new(python).args(["-c", PARSE]).args(&files).output().expect("run crossplane");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines = output.stdout.split(|byte| *byte == b'\n');

    let mut different = BTreeSet::new();
    for file in &files {
        let theirs: Value = serde_json::from_slice(lines.next().expect("a line for each")).expect("JSON");
        let ours = load(&Disk, file, None, &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
        if theirs["status"] != "ok" {
            different.insert((shown(file), None));
            continue;
        }
        let mut nodes = Vec::new();
        flatten(&theirs["config"][0]["parsed"], 0, &mut nodes);
        let mut expected = Vec::new();
        describe(&ours.directives, 0, &mut expected);
        assert_eq!(nodes.len(), expected.len(), "{}", file.display());
        for (theirs, ours) in nodes.iter().zip(&expected) {
            if theirs != ours {
                println!("crossplane: {theirs:?}\n      ours: {ours:?}");
                different.insert((shown(file), Some(ours.line)));
            }
        }
    }
    let known = ERRORS_OF_CROSSPLANE.iter().map(|(file, line, _)| ((*file).to_owned(), *line)).collect();
    assert_eq!(different, known);
}

/// A directive with its depth. Its file is not compared: crossplane names the last one that was included.
#[derive(Debug, PartialEq)]
struct Node {
    depth: usize,
    line: u32,
    words: Vec<String>,
    has_block: bool,
}

fn flatten(parsed: &Value, depth: usize, nodes: &mut Vec<Node>) {
    let directives = parsed.as_array().expect("directives").iter();
    // It gives comments inside of directives although none are asked for.
    for item in directives.filter(|item| item["directive"] != "#") {
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let args = item["args"].as_array().expect("arguments").iter().map(text);
        nodes.push(Node {
            depth,
            line: item["line"].as_u64().and_then(|line| line.try_into().ok()).expect("a line"),
            words: [text(&item["directive"])].into_iter().chain(args).collect(),
            has_block: item.get("block").is_some(),
        });
        if let Some(block) = item.get("block") {
            flatten(block, depth + 1, nodes);
        }
    }
}

fn describe(directives: &[Directive], depth: usize, nodes: &mut Vec<Node>) {
    for directive in directives {
        let is_lua = directive.name.text.ends_with("_by_lua_block");
        let mut args: Vec<_> = directive.args.iter().map(|word| word.text.to_string()).collect();
        if directive.name.text == "if" {
            without_parentheses(&mut args);
        }
        nodes.push(Node {
            depth,
            line: directive.place().line,
            words: [directive.name.text.to_string()].into_iter().chain(args).collect(),
            has_block: directive.block.is_some() && !is_lua,
        });
        describe(directive.children(), depth + 1, nodes);
    }
}

/// crossplane leaves out those around a condition; nginx and we leave them to whoever reads the `if`.
fn without_parentheses(args: &mut Vec<String>) {
    if let Some(rest) = args.first().and_then(|first| first.strip_prefix('(')).map(str::to_owned) {
        let alone = rest.is_empty();
        args.splice(..1, (!alone).then_some(rest));
    }
    if let Some(rest) = args.last().and_then(|last| last.strip_suffix(')')).map(str::to_owned) {
        let alone = rest.is_empty();
        args.splice(args.len() - 1.., (!alone).then_some(rest));
    }
}

/// Debian's packages of modules, unpacked by `cargo xtask setup`.
fn of_modules() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../setup/nginx-modules")
}

/// What is tried: our own collection, what Debian's nginx brought here, and what its packages of modules hold.
fn configurations() -> Vec<PathBuf> {
    let collection = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    let mut files = vec![collection.join("gitlab/nginx.conf")];
    let modules = of_modules();
    for directory in [
        &collection,
        Path::new("/etc/nginx"),
        &modules.join("usr/share/nginx/modules-available"),
        &modules.join("etc/nginx/sites-available"),
    ] {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let paths = entries.map(|entry| entry.expect("an entry").path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "conf")));
    }
    let debian = [
        "fastcgi_params",
        "proxy_params",
        "scgi_params",
        "uwsgi_params",
        "mime.types",
        "koi-utf",
        "win-utf",
        "sites-available/default",
    ];
    files.extend(debian.iter().map(|name| Path::new("/etc/nginx").join(name)).filter(|path| path.exists()));
    files.sort();
    files
}

/// A file as the table names it.
fn shown(path: &Path) -> String {
    let collection = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs");
    path.strip_prefix(collection).unwrap_or(path).display().to_string()
}
