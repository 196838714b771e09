//! What a program wants to be loaded with it, read from the program itself: so it may be of any architecture.

use std::path::Path;

use anyhow::{Context, Result};
use object::elf::{DT_NEEDED, FileHeader64};
use object::endian::Endianness;
use object::read::elf::{FileHeader, ProgramHeader};

/// What the kernel and the dynamic linker look for; nothing for a static program.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The path of the dynamic linker.
    pub(crate) interpreter: Option<String>,
    /// The names of libraries.
    pub(crate) libraries: Vec<String>,
}

impl Wanted {
    /// Reads a program's, or a library's, of which `path` is shown in errors.
    pub(crate) fn by(path: &Path, program: &[u8]) -> Result<Self> {
        Self::read(program).with_context(|| format!("read {} as a program of 64 bits", path.display()))
    }

    fn read(program: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(program)?;
        let endian = header.endian()?;
        let mut wanted = Self::default();
        for segment in header.program_headers(endian, program)? {
            if let Some(path) = segment.interpreter(endian, program)? {
                wanted.interpreter = Some(String::from_utf8(path.to_vec())?);
            }
        }
        let dynamic = header.sections(endian, program)?.dynamic_table(endian, program)?;
        for entry in dynamic.iter().filter(|entry| entry.tag == DT_NEEDED) {
            wanted.libraries.push(String::from_utf8(dynamic.string(entry)?.to_vec())?);
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_program_wants_a_dynamic_linker_and_the_c_library() {
        let own = std::env::current_exe().unwrap();
        let wanted = Wanted::by(&own, &std::fs::read(&own).unwrap()).unwrap();
        assert!(wanted.interpreter.unwrap().contains("/ld"));
        assert!(wanted.libraries.iter().any(|name| name.starts_with("libc.so")), "{:?}", wanted.libraries);
    }

    #[test]
    fn what_is_no_program_is_named() {
        let error = Wanted::by(Path::new("/etc/passwd"), b"root:x:0:0").unwrap_err();
        assert!(error.to_string().contains("/etc/passwd"), "{error}");
    }
}
