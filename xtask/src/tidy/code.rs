//! What the code of one file names, imports and declares. What is compiled for tests alone is left out.

use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ImplItem, Item, ItemMod, Lit, Meta, Token, UseTree};

/// A module in the text of a file: the file itself, or a `mod {}` in it.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Its path in the file.
    pub(super) path: Vec<String>,
    pub(super) names: Vec<Written>,
    /// What something is called here, and its path.
    pub(super) imports: Vec<(String, Vec<String>)>,
    pub(super) modules: Vec<Declared>,
}

/// A path as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) path: Vec<String>,
    pub(super) kind: Kind,
    pub(super) line: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// After `use`.
    Import,
    /// In an attribute, where a lint is a word.
    Attribute,
    /// After a dot: a method.
    Method,
    /// Anywhere else.
    Path,
}

/// `mod name;`
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    /// `#[path = "..."]`
    pub(super) file: Option<String>,
}

/// Reads a file: gives itself first, then the modules within.
pub(super) fn read(text: &str) -> syn::Result<Vec<Scope>> {
    let file = syn::parse_file(text)?;
    let mut collector = Collector { scopes: vec![Scope::default()], current: 0 };
    if !is_for_tests(&file.attrs) {
        collector.visit_file(&file);
    }
    Ok(collector.scopes)
}

struct Collector {
    scopes: Vec<Scope>,
    /// Which of them is being read.
    current: usize,
}

impl Collector {
    fn scope(&mut self) -> &mut Scope {
        &mut self.scopes[self.current]
    }

    fn name(&mut self, path: Vec<String>, kind: Kind, at: &Ident) {
        self.scope().names.push(Written { path, kind, line: at.span().start().line });
    }

    /// What a `use` brings, or a part of one, after `before`.
    fn import(&mut self, before: &[&Ident], tree: &UseTree) {
        let (last, called) = match tree {
            UseTree::Path(part) => return self.import(&[before, &[&part.ident]].concat(), &part.tree),
            UseTree::Group(group) => return group.items.iter().for_each(|part| self.import(before, part)),
            UseTree::Glob(_) => (None, None),
            UseTree::Name(part) if part.ident == "self" => (None, before.last().copied()),
            UseTree::Rename(part) if part.ident == "self" => (None, Some(&part.rename)),
            UseTree::Name(part) => (Some(&part.ident), Some(&part.ident)),
            UseTree::Rename(part) => (Some(&part.ident), Some(&part.rename)),
        };
        let words: Vec<&Ident> = before.iter().copied().chain(last).collect();
        let path: Vec<String> = words.iter().map(ToString::to_string).collect();
        self.scope().imports.extend(called.map(|called| (called.to_string(), path.clone())));
        if let Some(at) = words.last() {
            self.name(path, Kind::Import, at);
        }
    }

    /// What is given to a macro or an attribute has no syntax of its own: each path and method that it could be made of.
    fn tokens(&mut self, tokens: &TokenStream, kind: Kind) {
        let tokens: Vec<_> = tokens.clone().into_iter().collect();
        let mut rest = &tokens[..];
        while let [first, after @ ..] = rest {
            rest = after;
            match first {
                TokenTree::Group(group) => self.tokens(&group.stream(), kind),
                TokenTree::Ident(word) => {
                    let mut path = vec![word.to_string()];
                    while let [
                        TokenTree::Punct(one),
                        TokenTree::Punct(two),
                        TokenTree::Ident(next),
                        after @ ..,
                    ] = rest
                        && (one.as_char(), two.as_char()) == (':', ':')
                    {
                        path.push(next.to_string());
                        rest = after;
                    }
                    self.name(path, kind, word);
                }
                TokenTree::Punct(dot) if dot.as_char() == '.' => {
                    if let [TokenTree::Ident(method), after @ ..] = rest {
                        self.name(vec![method.to_string()], Kind::Method, method);
                        rest = after;
                    }
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let name = module.ident.to_string();
        if module.content.is_none() {
            self.scope().modules.push(Declared { name, file: file_of(&module.attrs) });
            return visit::visit_item_mod(self, module);
        }
        let outer = self.current;
        let path = [&self.scope().path[..], &[name]].concat();
        self.current = self.scopes.len();
        self.scopes.push(Scope { path, ..Scope::default() });
        visit::visit_item_mod(self, module);
        self.current = outer;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.name(words, Kind::Path, &first.ident);
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.name(vec![call.method.to_string()], Kind::Method, &call.method);
        visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(&call.tokens, Kind::Path);
        visit::visit_macro(self, call);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.tokens(&list.tokens, Kind::Attribute);
        visit::visit_meta_list(self, list);
    }
}

/// Whether it is compiled only where `test` holds, or `fuzzing`, which is a way to test as well.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions
        .filter_map(|attribute| attribute.parse_args().ok())
        .any(|condition| fails_elsewhere(&condition))
}

fn fails_elsewhere(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return condition.path().is_ident("test") || condition.path().is_ident("fuzzing");
    };
    let parts = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default();
    let mut parts = parts.iter();
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("all") => parts.any(fails_elsewhere),
        Some("any") => parts.all(fails_elsewhere),
        _ => false,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The value of `#[path = "..."]`.
fn file_of(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Kind, read};

    /// What the file itself names, of one kind.
    fn names(text: &str, kind: Kind) -> Vec<String> {
        let names = read(text).unwrap().swap_remove(0).names.into_iter();
        names.filter(|name| name.kind == kind).map(|name| name.path.join("::")).collect()
    }

    #[test]
    fn what_is_for_tests_alone_is_left_out_and_what_follows_is_read() {
        let text = "
            #[cfg(test)] mod tests;
            #[cfg(test)] use a::b;
            #[cfg(any(fuzzing, test))] pub mod fuzzing { use c::d; }
            #[cfg(all(test, unix))] fn one() { e::f(); }
            impl Thing { #[cfg(test)] fn two() { g::h(); } }
            #[cfg(not(test))] use i::j;
            #[cfg(any(test, unix))] use k::l;
            use m::n;
        ";
        assert_eq!(names(text, Kind::Import), ["i::j", "k::l", "m::n"]);
        assert_eq!(names(text, Kind::Path), ["Thing"]);
        assert!(read(text).unwrap()[0].modules.is_empty());
        assert!(names("#![cfg(test)] use a::b;", Kind::Import).is_empty());
    }

    #[test]
    fn words_in_strings_and_comments_are_no_names() {
        let text = "/// aya::Ebpf\nfn one() -> &'static str { \"aya::Ebpf\" } // aya::Ebpf";
        assert!(names(text, Kind::Path).iter().all(|name| !name.contains("aya")));
    }

    #[test]
    fn an_import_is_collected_with_all_that_goes_before_it() {
        let text = "use a::{self, b::{c, d as e}, f::*, g::self as h};";
        let scope = read(text).unwrap().swap_remove(0);
        assert_eq!(names(text, Kind::Import), ["a", "a::b::c", "a::b::d", "a::f", "a::g"]);
        let called: Vec<_> = scope.imports.iter().map(|(called, _)| called.as_str()).collect();
        assert_eq!(called, ["a", "c", "e", "h"]);
    }

    #[test]
    fn macros_and_attributes_are_read_as_well() {
        let text = "
            macro_rules! one { ($it:expr) => { $crate::a::b($it)?.c() } }
            #[expect(unsafe_code, reason = \"x::y\")]
            fn two() { println!(\"{}\", d::e::<u8>().f()); }
        ";
        let paths = names(text, Kind::Path);
        assert!(["crate::a::b", "d::e"].iter().all(|path| paths.contains(&(*path).to_owned())), "{paths:?}");
        assert_eq!(names(text, Kind::Method), ["c", "f"]);
        assert_eq!(names(text, Kind::Attribute), ["unsafe_code", "reason"]);
    }

    #[test]
    fn modules_are_collected_with_their_paths_and_files() {
        let scopes = read("mod a; #[path = \"x/y.rs\"] mod b; mod c { mod d; use super::e; }").unwrap();
        let declared: Vec<_> =
            scopes[0].modules.iter().map(|module| (module.name.as_str(), module.file.as_deref())).collect();
        assert_eq!(declared, [("a", None), ("b", Some("x/y.rs"))]);
        assert_eq!((scopes[1].path.join("::"), scopes[1].modules[0].name.as_str()), ("c".to_owned(), "d"));
        assert_eq!(scopes[1].names[0].path, ["super", "e"]);
    }
}
