//! What fuzzing found to be different from everything before, through the same checks.

use std::fs;
use std::path::Path;

#[path = "../fuzz/reading.rs"]
pub mod reading;

#[track_caller]
fn check(target: &str, read: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(directory).expect("the corpus is there") {
        read(&fs::read(entry.expect("an entry").path()).expect("an input"));
        count += 1;
    }
    assert!(count > 20, "{count} inputs of {target}");
}

#[test]
fn files_of_the_corpus_are_read() {
    check("load", reading::read_files);
}

#[test]
fn dumps_of_the_corpus_are_read() {
    check("load_dump", reading::read_dump);
}
