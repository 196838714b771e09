//! Which values a variable can have, as far as `set`, `map`, `geo` and `split_clients` say.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    rc::Rc,
};

use nginx_conf::Directive;

/// At most so many values of one text are followed.
const MAX_VALUES: usize = 10_000;
/// At most so many values of all texts of a configuration, on the way to the last as well: a bound of time.
pub(crate) const BUDGET: usize = 4_000_000;
/// No longer than what a directive may have, in bytes. It bounds what variables within each other can grow to.
const MAX_LENGTH: usize = 4_096;
/// At most so many variables within each other.
const MAX_DEPTH: usize = 16;

/// Directives in `map` and `geo` that are no entries.
const MAP_OPTIONS: [&str; 3] = ["hostnames", "volatile", "include"];
const GEO_OPTIONS: [&str; 5] = ["delete", "proxy", "proxy_recursive", "ranges", "include"];

/// Variables that only a request fills, but which always begin alike, and so end a host before them.
const PATHS: [(&str, &str); 4] =
    [("request_uri", "/"), ("uri", "/"), ("document_uri", "/"), ("is_args", "?")];

/// What was assigned to variables, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables<'a>(HashMap<&'a str, Vec<Source<'a>>>);

#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    text: &'a str,
    /// A `$` in it is only that.
    is_literal: bool,
    /// Assigned to each request, so that what was assigned further out is gone.
    is_certain: bool,
}

/// The assignments that a text can see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scopes<'s, 'a> {
    /// By `set` in the blocks around it, from the nearest.
    pub(crate) around: &'s [Rc<Variables<'a>>],
    /// By `set` elsewhere in the server, where a request may have been before; counts when nothing around it does.
    pub(crate) elsewhere: &'s Variables<'a>,
    /// By `map` and its kin.
    pub(crate) common: &'s Variables<'a>,
    /// How many values may still be made.
    pub(crate) budget: &'s Cell<usize>,
}

/// One of the texts that a text with variables can become.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Value {
    /// Variables that only a request fills are left as they were.
    pub(crate) text: String,
    /// Where the first of those stands.
    pub(crate) unknown_from: Option<usize>,
}

impl<'a> Variables<'a> {
    /// What is set in a block itself, and in each `if` of it.
    pub(crate) fn set_in(block: &'a [Directive]) -> Self {
        let mut variables = Self::default();
        variables.set(block, true, &|name| name == "if");
        variables
    }

    /// What is set in a block or in any block within.
    pub(crate) fn set_within(block: &'a [Directive]) -> Self {
        let mut variables = Self::default();
        variables.set(block, false, &|_| true);
        variables
    }

    /// What `map`, `geo` and `split_clients` in a block assign.
    pub(crate) fn mapped_in(block: &'a [Directive]) -> Self {
        let mut variables = Self::default();
        for directive in block {
            let entries = directive.children().iter().map(|entry| (entry.name.text.as_str(), entry.arg(0)));
            match directive.name.text.as_str() {
                "map" => {
                    let entries = entries.filter(|(key, _)| !MAP_OPTIONS.contains(key));
                    variables.assign(directive.arg(1), with_default(entries), false, false);
                }
                "geo" => {
                    let entries = entries.filter(|(key, _)| !GEO_OPTIONS.contains(key));
                    let variable = directive.args.last().map(|word| word.text.as_str());
                    variables.assign(variable, with_default(entries), true, false);
                }
                "split_clients" => {
                    variables.assign(directive.arg(1), entries.filter_map(|(_, value)| value), true, false);
                }
                _ => {}
            }
        }
        variables
    }

    fn set(&mut self, block: &'a [Directive], is_certain: bool, enters: &dyn Fn(&str) -> bool) {
        for directive in block {
            if directive.name.text == "set" {
                self.assign(directive.arg(0), directive.arg(1).into_iter(), false, is_certain);
            } else if enters(&directive.name.text) {
                self.set(directive.children(), false, enters);
            }
        }
    }

    fn assign(
        &mut self,
        variable: Option<&'a str>,
        texts: impl Iterator<Item = &'a str>,
        is_literal: bool,
        is_certain: bool,
    ) {
        if let Some(name) = variable.and_then(|variable| variable.strip_prefix('$')) {
            let sources = texts.map(|text| Source { text, is_literal, is_certain });
            self.0.entry(name).or_default().extend(sources);
        }
    }

    fn of(&self, name: &str) -> &[Source<'a>] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }
}

impl<'a> Scopes<'_, 'a> {
    /// All the texts that `text` can become, each once.
    pub(crate) fn values(&self, text: &'a str) -> Vec<Value> {
        self.expand(text, &mut Vec::new())
    }

    fn sources(&self, name: &str) -> Vec<Source<'a>> {
        let mut sources = Vec::new();
        for scope in self.around {
            let of_scope = scope.of(name);
            sources.extend(of_scope);
            if of_scope.iter().any(|source| source.is_certain) {
                return sources;
            }
        }
        if sources.is_empty() {
            sources.extend(self.elsewhere.of(name));
        }
        sources.extend(self.common.of(name));
        sources
    }

    fn expand(&self, text: &'a str, open: &mut Vec<&'a str>) -> Vec<Value> {
        let mut values = vec![Value::default()];
        for part in parts(text) {
            let of_part = match part {
                Part::Literal(text) => vec![Value { text: text.to_owned(), unknown_from: None }],
                Part::Variable { name, written } => self
                    .of_variable(name, open)
                    .filter(|of_part| of_part.len() * values.len() <= MAX_VALUES)
                    .unwrap_or_else(|| vec![Value::of_request(name, written)]),
            };
            values = values
                .iter()
                .flat_map(|before| of_part.iter().map(|part| before.followed_by(part)))
                .collect();
            self.budget.set(self.budget.get().saturating_sub(values.len()));
            if self.budget.get() == 0 || values.iter().any(|value| value.text.len() > MAX_LENGTH) {
                return vec![Value { text: text.to_owned(), unknown_from: Some(0) }];
            }
        }
        let mut seen = HashSet::new();
        values.retain(|value| seen.insert(value.clone()));
        values
    }

    /// `None` where nothing that can be read says what it holds.
    fn of_variable(&self, name: &'a str, open: &mut Vec<&'a str>) -> Option<Vec<Value>> {
        let sources = self.sources(name);
        let is_enough = open.len() == MAX_DEPTH || self.budget.get() == 0;
        if sources.is_empty() || open.contains(&name) || is_enough {
            return None;
        }
        open.push(name);
        let mut values = Vec::new();
        for source in sources {
            if source.is_literal {
                values.push(Value { text: source.text.to_owned(), unknown_from: None });
            } else {
                values.extend(self.expand(source.text, open));
            }
            if values.len() > MAX_VALUES {
                break;
            }
        }
        open.pop();
        Some(values)
    }
}

/// `map` and `geo` give an empty text where no entry fits and no default is given.
fn with_default<'a>(
    entries: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> impl Iterator<Item = &'a str> {
    let mut entries: Vec<_> = entries.collect();
    if !entries.iter().any(|(key, _)| *key == "default") {
        entries.push(("default", Some("")));
    }
    entries.into_iter().filter_map(|(_, value)| value)
}

impl Value {
    fn of_request(name: &str, written: &str) -> Self {
        let start = PATHS.iter().find(|(path, _)| *path == name).map_or("", |(_, start)| start);
        Self { text: format!("{start}{written}"), unknown_from: Some(start.len()) }
    }

    fn followed_by(&self, next: &Self) -> Self {
        let at = self.text.len();
        Self {
            text: format!("{}{}", self.text, next.text),
            unknown_from: self.unknown_from.or(next.unknown_from.map(|from| at + from)),
        }
    }
}

/// The variables in texts, each once: the rest of a text may be what a `map` has for other purposes.
pub(crate) fn names_in(texts: &[String]) -> Vec<String> {
    let mut seen = HashSet::new();
    let names = texts.iter().flat_map(|text| names(text)).filter(|name| seen.insert(*name));
    names.map(|name| format!("${name}")).collect()
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    parts(text).filter_map(|part| match part {
        Part::Variable { name, .. } => Some(name),
        Part::Literal(_) => None,
    })
}

enum Part<'a> {
    Literal(&'a str),
    Variable { name: &'a str, written: &'a str },
}

/// `a$b${c}d`: four of them.
fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (written, part) = match rest.strip_prefix('$') {
            None if rest.is_empty() => return None,
            None => {
                let literal = &rest[..rest.find('$').unwrap_or(rest.len())];
                (literal, Part::Literal(literal))
            }
            Some(after) => {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
                let plain = after.find(|c| !is_name(c)).unwrap_or(after.len());
                let (name, length) =
                    braced.map_or((&after[..plain], plain + 1), |(name, _)| (name, name.len() + 3));
                let written = &rest[..length];
                (written, Part::Variable { name, written })
            }
        };
        rest = &rest[written.len()..];
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::names_in;

    #[test]
    fn of_what_only_a_request_fills_the_names_are_shown() {
        let texts = ["token hunter2 $arg_a", "http://${host}:81/$arg_a"].map(str::to_owned);
        assert_eq!(names_in(&texts), ["$arg_a", "$host"]);
    }
}
