//! Against the reference: what `nginx -t` accepts and refuses, and with which words about which line; and what
//! `nginx -T` reads.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use nginx_conf::{Config, Disk, Limits, load, load_dump};
use proxytrace_tests::skip;

use self::support::nginx::{Case, NGINX};
use self::support::random::Random;
use self::support::snippets::{self, INCLUDES};

/// What the generators begin with: the same snippets on every run.
const SEED: u64 = 1221;

/// Around a snippet in which every word is taken, however many there are.
fn in_types(body: &[u8]) -> Vec<u8> {
    [b"pid nginx.pid;\nevents {}\nhttp {\naccess_log off;\ntypes {\n", body, b"\n}\n}\n"].concat()
}

#[test]
fn words_and_what_ends_them_are_those_of_nginx() {
    if !skip::unless_installed(NGINX) {
        return;
    }
    let case = Case::new();
    let long = |byte: &str, count: usize| byte.repeat(count);
    for body in snippets::BODIES {
        case.check(&in_types(body.as_bytes()), None);
    }
    for body in [&b"\xff a;"[..], b"a \xc3;", b"\xef\xbb a;", b"\xff", b"a \"\xfe\" \x80;"] {
        case.check(&in_types(body), None);
    }
    // Around the size of the buffer, at its beginning and after what shifts it.
    for before in [
        "",
        "b ",
        "bb \"\" ",
        "# c\n",
        "\n\n",
        &long(" ", 4000),
        &long("# comment\n", 500),
        &long("a b;", 1000),
    ] {
        for count in [4093, 4094, 4095, 4096, 4097, 8192] {
            let word = long("w", count);
            let forms = [
                format!("{word};"),
                format!("\"{word}\";"),
                format!("'{word}' b;"),
                format!("a {word}"),
                format!("a \"{word}"),
                format!("a '{word}\n"),
                format!("a {word}{{"),
                format!("a #{word}\n;"),
                format!("{};", long("\\\"", count / 2)),
                format!("a \"b\"{};", " ".repeat(count)),
                format!("a{} b;", " ".repeat(count)),
            ];
            for form in forms {
                case.check(&in_types(format!("{before}{form}").as_bytes()), None);
            }
        }
    }
    case.assert_compared(600, 0);
}

#[test]
fn blocks_of_lua_code_end_where_nginx_ends_them() {
    if !skip::unless_installed(NGINX) || !LUA_MODULES.iter().all(|module| skip::unless_installed(module)) {
        return;
    }
    let case = Case::new();
    let modules: String = LUA_MODULES.iter().map(|module| format!("load_module {module};\n")).collect();
    let check = |server: &str| {
        // What follows shows whether nginx goes on behind the same brace.
        let text = format!(
            "{modules}events {{}}\nhttp {{\naccess_log off;\nserver {{\nlisten unix:socket;\n{server}\n\
             server_name \"a}}{{\";\n}}\n}}\n"
        );
        case.check(text.as_bytes(), Some("pid nginx.pid;"));
    };
    for code in snippets::LUA_CODE {
        for directive in ["content_by_lua_block", "set_by_lua_block $a"] {
            check(&format!("location / {{\n{directive} {{{code}}}\n}}"));
        }
    }
    snippets::LUA_SERVERS.iter().for_each(|server| check(server));
    let mut random = Random::new(SEED + 2);
    for _ in 0..200 {
        check(&format!("rewrite_by_lua_block {{{}}}", random.lua()));
    }
    case.assert_compared(250, 50);
}

/// What nginx needs for blocks of Lua code.
const LUA_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ndk_http_module.so", "/usr/lib/nginx/modules/ngx_http_lua_module.so"];

#[test]
fn generated_words_are_taken_as_nginx_takes_them() {
    if !skip::unless_installed(NGINX) {
        return;
    }
    let case = Case::new();
    let mut random = Random::new(SEED);
    for _ in 0..500 {
        case.check(&in_types(&random.statements()), None);
    }
    case.assert_compared(500, 0);
}

#[test]
fn whole_files_are_taken_as_nginx_takes_them() {
    if !skip::unless_installed(NGINX) {
        return;
    }
    let case = Case::new();
    for text in snippets::WHOLE_FILES {
        case.check(text.as_bytes(), Some("pid nginx.pid;"));
    }
    let mut random = Random::new(SEED + 1);
    let whole = support::nginx::WHOLE.as_bytes();
    case.check(whole, Some("pid nginx.pid;"));
    for _ in 0..500 {
        case.check(&random.mutated(whole), Some("pid nginx.pid;"));
    }
    // The rest are names and arguments that no longer mean anything.
    case.assert_compared(250, 350);
}

#[test]
fn global_directives_are_taken_as_nginx_takes_them() {
    if !skip::unless_installed(NGINX) {
        return;
    }
    let case = Case::new();
    let long = format!("env {};", "a".repeat(5000));
    let long_quoted = format!("env '{}';", "a".repeat(9000));
    for globals in [
        "",
        ";",
        "env a;",
        "env a; ",
        "env a",
        "env a; env",
        "env a;\n\n#b",
        "#",
        "# a\nenv b;",
        "env \"a b\";",
        "env \"a",
        "env 'a'b;",
        "env ${a};",
        "env a\\;b;",
        "events {",
        "events {}",
        "env a; }",
        "}",
        "{",
        "env a #\n;",
        "env \"a\"#;",
        "env a}b;",
        "env a }",
        "include none;",
        "include none*;",
        "include a b;",
        "env \\",
        &long,
        &long_quoted,
    ] {
        case.check(b"events {}\n", Some(&format!("pid nginx.pid; {globals}")));
    }
    case.assert_compared(29, 0);
}

#[test]
fn files_are_read_that_nginx_reads_in_its_order() {
    if !skip::unless_installed(NGINX) {
        return;
    }
    let case = Case::new();
    for (name, text) in snippets::FILES {
        let path = case.directory().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("create it");
        fs::write(path, text).expect("write a file");
    }
    for include in INCLUDES {
        let text = format!("pid nginx.pid; events {{}}\nhttp {{\naccess_log off;\n{include}\n}}\n");
        if let Some(ours) = case.check(text.as_bytes(), None) {
            check_dump(&case, &ours, include);
        }
    }
    case.assert_compared(INCLUDES.len() - 5, 5);
}

/// A dump has the same files in the same order, and makes the same tree.
fn check_dump(case: &Case, ours: &Config, include: &str) {
    let dump = case.dump();
    let mut named: Vec<String> = Vec::new();
    for line in String::from_utf8_lossy(&dump).lines() {
        let name = line.strip_prefix("# configuration file /").and_then(|line| line.strip_suffix(':'));
        named.extend(name.map(|name| format!("/{name}")));
    }
    // As text: paths are equal although nginx tells them apart.
    let mut read: Vec<String> = Vec::new();
    for file in &ours.files {
        let name = file.path.display().to_string();
        if !read.contains(&name) {
            read.push(name);
        }
    }
    assert_eq!(named, read, "{include}");
    let dumped = load_dump(&dump, &Limits::default()).expect("nginx accepts it");
    assert_eq!(&dumped, ours, "{include}");
}

#[test]
fn what_debian_ships_is_read() {
    let main = PathBuf::from("/etc/nginx/nginx.conf");
    if !main.exists() {
        return skip::skip("Debian's nginx is not installed");
    }
    let config = load(&Disk, &main, None, &Limits::default()).expect("a packaged configuration");
    let mut names = String::new();
    for directive in &config.directives {
        write!(names, "{} ", directive.name.text).expect("a string takes everything");
    }
    assert!(names.contains("events") && names.contains("http"), "{names}");
}
