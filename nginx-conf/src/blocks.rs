//! Which directives have blocks, and what stands in those.

/// Which files an `include` can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Include {
    Pattern,
    OneFile,
}

/// Blocks that hold values instead of directives, whether nginx follows an `include` there, and whether that may be a
/// pattern.
const VALUES: &[(&str, Option<Include>)] = &[
    ("types", Some(Include::Pattern)),
    ("map", Some(Include::Pattern)),
    ("geo", Some(Include::OneFile)),
    ("split_clients", None),
    ("charset_map", None),
];

/// Directives of nginx that must have a block.
const BLOCKS: &[&str] = &[
    "charset_map",
    "events",
    "geo",
    "http",
    "if",
    "limit_except",
    "location",
    "mail",
    "map",
    "split_clients",
    "stream",
    "types",
    "upstream",
];

/// Whether a block of that name holds values instead of directives, and then which includes are followed.
pub(crate) fn values(name: &str) -> Option<Option<Include>> {
    VALUES.iter().find(|(values, _)| *values == name).map(|(_, include)| *include)
}

/// Whether the directive `name` must have a block where it stands in the block `parent`: the name of that, or nothing at the top,
/// where a file may be a part of any block.
pub(crate) fn needs_block(name: &[u8], parent: &str) -> bool {
    let is_server = name == b"server" && !matches!(parent, "upstream" | "");
    is_server || is_lua(name) || BLOCKS.iter().any(|block| block.as_bytes() == name)
}

/// Whether the block of the directive `name` is Lua code.
pub(crate) fn is_lua(name: &[u8]) -> bool {
    name.ends_with(b"_by_lua_block")
}
