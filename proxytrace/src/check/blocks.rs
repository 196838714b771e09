//! The blocks of a configuration that hold nginx's own directives, each with what may stand in it.

use nginx_conf::Directive;

/// Which block opens which context, by the context that it stands in.
const CONTEXTS: &[(&str, &str, &str)] = &[
    ("main", "events", "events"),
    ("main", "http", "http"),
    ("main", "stream", "stream"),
    ("main", "mail", "mail"),
    ("http", "server", "server"),
    ("http", "upstream", "upstream"),
    ("server", "location", "location"),
    ("location", "location", "location"),
    ("server", "if", "server-if"),
    ("location", "if", "location-if"),
    ("location", "limit_except", "limit_except"),
    ("stream", "server", "stream-server"),
    ("stream", "upstream", "stream-upstream"),
    ("mail", "server", "mail-server"),
];

/// A block. What stands in blocks of other modules, and in those that hold values, is none of nginx's directives and left out.
pub(super) struct Block<'a> {
    /// What may stand in it, as the table of directives calls it.
    pub(super) context: &'static str,
    pub(super) children: &'a [Directive],
    /// The directives that it stands in, from the outermost to the one that opens it; none for the top level.
    pub(super) inside: Vec<&'a Directive>,
}

/// All blocks, each before those within.
pub(super) fn all(directives: &[Directive]) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    add(Block { context: "main", children: directives, inside: Vec::new() }, &mut blocks);
    blocks
}

fn add<'a>(block: Block<'a>, blocks: &mut Vec<Block<'a>>) {
    let (context, children, inside) = (block.context, block.children, block.inside.clone());
    blocks.push(block);
    for directive in children {
        if let Some(context) = context_of(context, &directive.name.text) {
            let inside = inside.iter().copied().chain([directive]).collect();
            add(Block { context, children: directive.children(), inside }, blocks);
        }
    }
}

/// What may stand in the block that a directive opens.
pub(super) fn context_of(outer: &str, name: &str) -> Option<&'static str> {
    let entry = CONTEXTS.iter().find(|(within, opens, _)| *within == outer && *opens == name);
    entry.map(|(_, _, context)| *context)
}

/// The blocks around a context, from the outermost: what a part of a configuration is wrapped in.
pub(super) fn around(context: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    let mut inner = context;
    while let Some((outer, opens, _)) = CONTEXTS.iter().find(|(_, _, opened)| *opened == inner) {
        names.insert(0, *opens);
        inner = outer;
    }
    names
}

impl<'a> Block<'a> {
    /// The directives of that name in it.
    pub(super) fn named(&self, name: &'a str) -> impl Iterator<Item = &'a Directive> {
        self.children.iter().filter(move |directive| directive.name.text == name)
    }

    /// What opens it.
    pub(super) fn opened_by(&self) -> Option<&'a Directive> {
        self.inside.last().copied()
    }
}

/// The kind of a location and its path: `= /x` and `=/x` alike.
pub(super) fn modifier_and_path(location: &Directive) -> (&str, &str) {
    let first = location.arg(0).unwrap_or_default();
    if let Some(path) = location.arg(1) {
        return (first, path);
    }
    let glued = ["=", "^~", "~*", "~"]
        .into_iter()
        .find_map(|modifier| Some((modifier, first.strip_prefix(modifier)?)));
    glued.unwrap_or(("", first))
}
