//! The blocks of a configuration that hold nginx's own directives, each with what may stand in it.

use std::{cell::OnceCell, collections::HashMap, ptr, rc::Rc};

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
    /// What all of them share.
    lines: Rc<Lines<'a>>,
}

/// The directives in each block by their names, made when somebody asks for them: a block of http may hold many thousands, and each
/// server asks what is in force in it.
struct Lines<'a> {
    directives: &'a [Directive],
    by_name: OnceCell<ByName<'a>>,
}

/// By what opens the block that they stand in, and then by their name.
type ByName<'a> = HashMap<*const Directive, HashMap<&'a str, Vec<&'a Directive>>>;

impl<'a> Lines<'a> {
    fn by_name(&self) -> &ByName<'a> {
        self.by_name.get_or_init(|| {
            let mut lines = ByName::new();
            for directive in self.directives {
                if let Some(context) = context_of("main", &directive.name.text) {
                    collect(context, directive, &mut lines);
                }
            }
            lines
        })
    }
}

fn collect<'a>(context: &str, opened_by: &'a Directive, lines: &mut ByName<'a>) {
    for directive in opened_by.children() {
        let own = lines.entry(ptr::from_ref(opened_by)).or_default();
        own.entry(directive.name.text.as_str()).or_default().push(directive);
        if let Some(context) = context_of(context, &directive.name.text) {
            collect(context, directive, lines);
        }
    }
}

/// All blocks, each before those within.
pub(super) fn all(directives: &[Directive]) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let lines = Rc::new(Lines { directives, by_name: OnceCell::new() });
    add(Block { context: "main", children: directives, inside: Vec::new(), lines }, &mut blocks);
    blocks
}

fn add<'a>(block: Block<'a>, blocks: &mut Vec<Block<'a>>) {
    let (context, children, inside) = (block.context, block.children, block.inside.clone());
    let lines = Rc::clone(&block.lines);
    blocks.push(block);
    for directive in children {
        if let Some(context) = context_of(context, &directive.name.text) {
            let inside = inside.iter().copied().chain([directive]).collect();
            let lines = Rc::clone(&lines);
            add(Block { context, children: directive.children(), inside, lines }, blocks);
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
    pub(super) fn named<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a Directive> + use<'a, 'n> {
        self.children.iter().filter(move |directive| directive.name.text == name)
    }

    /// Those that are in force in it: its own, or those of the nearest block around it that has any.
    pub(super) fn in_force(&self, name: &str) -> &[&'a Directive] {
        let lines = self.lines.by_name();
        let of_block = |opened_by: &&'a Directive| lines.get(&ptr::from_ref(*opened_by))?.get(name);
        self.inside.iter().rev().find_map(of_block).map(Vec::as_slice).unwrap_or_default()
    }

    /// The names of the directives in it and in the blocks around it.
    pub(super) fn names_around(&self) -> impl Iterator<Item = &'a str> {
        let lines = self.lines.by_name();
        let blocks = self.inside.iter().filter_map(|opened_by| lines.get(&ptr::from_ref(*opened_by)));
        blocks.flat_map(|block| block.keys().copied())
    }

    /// The first argument of the last of those that are in force.
    pub(super) fn last_in_force(&self, name: &str) -> Option<&'a str> {
        self.in_force(name).last()?.arg(0)
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
