//! How much is read before we say that it is too much.

/// How much is read before we say that it is too much: it bounds time and memory, whatever the configuration holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files; a file that is included twice counts twice.
    pub bytes: u64,
    /// Files that are read, and patterns that are searched for.
    pub files: usize,
    /// Words of all directives, the code of a `*_by_lua_block` being one.
    pub words: usize,
    /// Blocks inside each other. A tree is dropped by recursion: not more than a few thousand.
    pub blocks: usize,
    /// Files that include each other.
    pub includes: usize,
}

impl Default for Limits {
    /// Far above what anybody writes: 64 MiB in 32 768 files, 2 million words (some 200 MB at worst, beside the text),
    /// 256 blocks and 64 files inside each other.
    fn default() -> Self {
        Self { bytes: 64 << 20, files: 32_768, words: 2_000_000, blocks: 256, includes: 64 }
    }
}
