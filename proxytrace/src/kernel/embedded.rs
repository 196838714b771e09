//! What is in the object of the kernel half, and what is not.

use std::path::Path;

use object::{File, Object as _, ObjectSection as _};

/// What the kernel reads: types, and for each program its functions and lines.
const NEEDED: [&str; 2] = [".BTF", ".BTF.ext"];

#[test]
fn the_embedded_object_has_type_information_and_nothing_that_only_debuggers_read() {
    let file = File::parse(super::OBJECT).expect("the object is an ELF file");
    for name in NEEDED {
        let section = file.section_by_name(name).unwrap_or_else(|| panic!("there is no {name}"));
        assert!(section.size() > 10_000, "{name} has {} bytes", section.size());
    }
    for section in file.sections() {
        let name = section.name().expect("it has a name");
        assert!(!name.contains(".debug_"), "{name}");
    }
}

#[test]
fn the_embedded_object_names_its_source_files_alike_wherever_it_was_built() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let root = root.as_os_str().as_encoded_bytes();
    assert!(!super::OBJECT.windows(root.len()).any(|bytes| bytes == root));
    let file = b"proxytrace-ebpf/src/handshake.rs";
    assert!(
        super::OBJECT.windows(file.len()).any(|bytes| bytes == file),
        "the lines of programs have no file"
    );
}
