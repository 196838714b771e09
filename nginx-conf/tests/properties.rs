//! What holds of every input: reading it never panics and takes no long time, and a tree that is written down is read
//! again as the same tree.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use nginx_conf::{Directive, Limits, Word, load_dump};
use proptest::collection::vec;
use proptest::prelude::*;

/// Reads a text as the main file.
fn read(text: &[u8]) -> Result<Vec<Directive>, nginx_conf::Error> {
    let dump = [b"# configuration file /c/main:\n", text, b"\n"].concat();
    load_dump(&dump, &Limits::default()).map(|config| config.directives)
}

/// A word in quotes, with its escapes.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

fn write(directives: &[Directive], text: &mut String) {
    for Directive { name, args, block } in directives {
        for word in [name].into_iter().chain(args) {
            write!(text, "{} ", quoted(&word.text)).expect("a string takes everything");
        }
        match block {
            None => text.push_str(";\n"),
            Some(children) => {
                text.push_str("{\n");
                write(children, text);
                text.push_str("}\n");
            }
        }
    }
}

/// The tree without places and quotes.
fn bare(directives: &[Directive]) -> Vec<Directive> {
    let word = |word: &Word| Word { text: word.text.clone(), is_quoted: false, place: Default::default() };
    let directive = |it: &Directive| Directive {
        name: word(&it.name),
        args: it.args.iter().map(word).collect(),
        block: it.block.as_deref().map(bare),
    };
    directives.iter().map(directive).collect()
}

/// Bytes that mean something, oftener than chance has them.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let telling = proptest::sample::select(b"ab $;{}\"'\\#\n\r\t[]-=".to_vec());
    vec(prop_oneof![3 => telling, 1 => any::<u8>()], 0..600)
}

/// What is no name of a directive that nginx-conf treats in a way of its own.
fn name() -> impl Strategy<Value = String> {
    "[a-z ;{}\"'\\\\#$\n]{0,8}".prop_map(|text| format!("x{text}"))
}

fn tree() -> impl Strategy<Value = Vec<Directive>> {
    let word = |text: String| Word { text: text.into(), is_quoted: true, place: Default::default() };
    let words = move || (name().prop_map(word), vec(any::<String>().prop_map(word), 0..4));
    let leaf = words().prop_map(|(name, args)| Directive { name, args, block: None });
    let directive = leaf.prop_recursive(4, 30, 5, move |inner| {
        (words(), vec(inner, 0..5)).prop_map(|((name, args), block)| Directive {
            name,
            args,
            block: Some(block),
        })
    });
    vec(directive, 0..5)
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(text in bytes()) {
        let start = Instant::now();
        // What is refused is refused with words about a line.
        if let Err(error) = read(&text) {
            prop_assert!(error.at.is_some_and(|at| at.line > 0));
        }
        prop_assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn what_was_read_and_written_down_is_read_the_same(text in bytes()) {
        if let Ok(read_once) = read(&text) && !String::from_utf8_lossy(&text).contains("lua") {
            let mut written = String::new();
            write(&read_once, &mut written);
            prop_assert_eq!(bare(&read(written.as_bytes()).expect("it was read before")), bare(&read_once));
        }
    }

    #[test]
    fn a_tree_that_is_written_down_is_read_the_same(tree in tree()) {
        let mut written = String::new();
        write(&tree, &mut written);
        prop_assert_eq!(bare(&read(written.as_bytes()).expect("everything is quoted")), bare(&tree));
    }
}

/// What is tedious when there is much of it.
const PIECES: &[&str] = &[
    "a",
    "a;",
    "a{",
    "{",
    "}",
    "\"",
    "\\",
    "\\\"",
    "\\'",
    "$",
    "${",
    "#",
    "\n",
    "a b",
    "\"a\" ",
    "[",
    "[=",
    "-- ",
    "--[[",
    "a{}",
    "/a",
    "x_by_lua_block{",
    "x_by_lua_block{\\\"}",
    "x_by_lua_block{--}",
    "\n# configuration file /a:\n",
    "include *; ",
];

#[test]
fn much_of_anything_takes_no_long_time() {
    let start = Instant::now();
    for piece in PIECES {
        let text = piece.repeat((1 << 20) / piece.len());
        drop(read(text.as_bytes()));
        drop(read(format!("x_by_lua_block {{ {text}").as_bytes()));
        drop(read(format!("x_by_lua_block {{ {text} }}").as_bytes()));
        drop(load_dump(format!("# configuration file /{text}:\na;\n").as_bytes(), &Limits::default()));
    }
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
