//! Which values a variable can have, as far as `set`, `map`, `geo` and `split_clients` say. Names are compared without regard to
//! case, as nginx does.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet},
    rc::Rc,
};

use nginx_conf::Directive;

use super::writers::Writers;

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

/// Variables of nginx that have one of a few values.
const FEW: [(&str, &[&str]); 1] = [("scheme", &["http", "https"])];

/// What was assigned to variables, by name in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables<'a>(HashMap<String, Vec<Source<'a>>>);

#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    holds: Holds<'a>,
    /// Assigned to each request, so that what was assigned further out is gone.
    is_certain: bool,
}

/// What is assigned.
#[derive(Clone, Copy, Debug)]
enum Holds<'a> {
    /// A text with variables in it.
    Text(&'a str),
    /// A text in which a `$` is only that.
    Literal(&'a str),
    /// Whatever a request brings, or code says.
    Anything,
}

/// The assignments that a text can see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scopes<'s, 'a> {
    /// By `set` in the blocks around it, from the nearest.
    pub(crate) around: &'s [Rc<Variables<'a>>],
    /// By `set` elsewhere in the server, where a request may have been before; counts when nothing in the block itself does.
    pub(crate) elsewhere: &'s Variables<'a>,
    /// The same of places that pass requests on without that what the server itself sets is set again.
    pub(crate) before: &'s Variables<'a>,
    /// By what is no `set`.
    pub(crate) writers: &'s Writers,
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
        variables.set(block, &mut true, &|directive| directive.name.text == "if");
        variables
    }

    /// What is set in a block or in any block within that is one of `those`.
    pub(crate) fn set_within(block: &'a [Directive], those: &dyn Fn(&Directive) -> bool) -> Self {
        let mut variables = Self::default();
        variables.set(block, &mut false, those);
        variables
    }

    /// Adds what others have.
    pub(crate) fn extend(&mut self, others: Self) {
        for (name, sources) in others.0 {
            self.0.entry(name).or_default().extend(sources);
        }
    }

    /// What `map`, `geo` and `split_clients` in a block assign.
    pub(crate) fn mapped_in(block: &'a [Directive]) -> Self {
        let mut variables = Self::default();
        for directive in block {
            let entries = directive.children().iter().map(|entry| (entry.name.text.as_str(), entry.arg(0)));
            match directive.name.text.as_str() {
                "map" => {
                    let entries = entries.filter(|(key, _)| !MAP_OPTIONS.contains(key));
                    variables.assign(directive.arg(1), with_default(entries).map(Holds::Text), false);
                }
                "geo" => {
                    let entries = entries.filter(|(key, _)| !GEO_OPTIONS.contains(key));
                    let variable = directive.args.last().map(|word| word.text.as_str());
                    variables.assign(variable, with_default(entries).map(Holds::Literal), false);
                }
                "split_clients" => {
                    let values = entries.filter_map(|(_, value)| value).map(Holds::Literal);
                    variables.assign(directive.arg(1), values, false);
                }
                _ => {}
            }
        }
        variables
    }

    /// `is_certain` as long as each request comes so far: behind what can end the rewriting of a request it does not.
    fn set(&mut self, block: &'a [Directive], is_certain: &mut bool, enters: &dyn Fn(&Directive) -> bool) {
        for directive in block {
            if directive.name.text == "set" {
                self.assign(directive.arg(0), directive.arg(1).map(Holds::Text).into_iter(), *is_certain);
            } else if matches!(&*directive.name.text, "break" | "rewrite") {
                *is_certain = false;
            } else if enters(directive) {
                let was_certain = std::mem::take(is_certain);
                self.set(directive.children(), is_certain, enters);
                *is_certain = was_certain && !ends_rewriting(directive.children());
            }
        }
    }

    fn assign(&mut self, variable: Option<&str>, holds: impl Iterator<Item = Holds<'a>>, is_certain: bool) {
        if let Some(name) = variable.and_then(|variable| variable.strip_prefix('$')) {
            let sources = holds.map(|holds| Source { holds, is_certain });
            self.0.entry(name.to_ascii_lowercase()).or_default().extend(sources);
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
        let mut sources = self.set_before(name);
        let is_set = !sources.is_empty();
        sources.extend(self.common.of(name));
        // What nothing assigns is open anyway.
        if !sources.is_empty() && self.writers.may_write(name, is_set) {
            sources.push(Source { holds: Holds::Anything, is_certain: false });
        }
        if sources.is_empty()
            && let Some((_, values)) = FEW.iter().find(|(few, _)| *few == name)
        {
            let source = |value: &&'static str| Source { holds: Holds::Literal(value), is_certain: false };
            sources.extend(values.iter().map(source));
        }
        sources
    }

    /// What `set` can have assigned when a request is passed on.
    fn set_before(&self, name: &str) -> Vec<Source<'a>> {
        let mut sources = Vec::new();
        // The last is the server, whose assignments are made before a location is chosen.
        let (server, around) =
            self.around.split_last().map_or((None, &[][..]), |(last, rest)| (Some(last), rest));
        for scope in around {
            sources.extend(scope.of(name));
            if scope.of(name).iter().any(|source| source.is_certain) {
                return sources;
            }
        }
        let of_server = server.map(|server| server.of(name)).unwrap_or_default();
        sources.extend(of_server);
        let is_set_again = of_server.iter().any(|source| source.is_certain);
        let others = if is_set_again { self.before } else { self.elsewhere };
        sources.extend(others.of(name));
        sources
    }

    fn expand(&self, text: &'a str, open: &mut Vec<String>) -> Vec<Value> {
        let mut values = vec![Value::default()];
        for part in parts(text) {
            let of_part = match part {
                Part::Literal(text) => vec![Value { text: text.to_owned(), unknown_from: None }],
                Part::Variable { name, written } => self
                    .of_variable(name, written, open)
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
    fn of_variable(&self, name: &str, written: &str, open: &mut Vec<String>) -> Option<Vec<Value>> {
        let name = name.to_ascii_lowercase();
        let sources = self.sources(&name);
        let is_enough = open.len() == MAX_DEPTH || self.budget.get() == 0;
        if sources.is_empty() || open.contains(&name) || is_enough {
            return None;
        }
        open.push(name.clone());
        let mut values = Vec::new();
        for source in sources {
            match source.holds {
                Holds::Literal(text) => values.push(Value { text: text.to_owned(), unknown_from: None }),
                Holds::Text(text) => values.extend(self.expand(text, open)),
                Holds::Anything => values.push(Value::of_request(&name, written)),
            }
            if values.len() > MAX_VALUES {
                break;
            }
        }
        open.pop();
        Some(values)
    }
}

/// Whether a block of a condition has what ends the rewriting of a request, also further in.
fn ends_rewriting(block: &[Directive]) -> bool {
    let is_end = |directive: &Directive| {
        matches!(&*directive.name.text, "break" | "rewrite") || ends_rewriting(directive.children())
    };
    block.iter().any(is_end)
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
        let name = name.to_ascii_lowercase();
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

/// The variables in a text, as they are written without `$`.
pub(crate) fn names(text: &str) -> impl Iterator<Item = &str> {
    uses(text).filter_map(|one| match one {
        Use::Capture(name) | Use::Variable(name) => Some(name),
        Use::Broken(_) => None,
    })
}

/// What a `$` begins in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use<'a> {
    /// The digit of a group.
    Capture(&'a str),
    /// The name, without `$`.
    Variable(&'a str),
    /// Nothing: nginx refuses it. As it is written.
    Broken(&'a str),
}

/// What the `$` in a text begin.
pub(crate) fn uses(text: &str) -> impl Iterator<Item = Use<'_>> {
    parts(text).filter_map(|part| match part {
        Part::Literal(_) => None,
        Part::Variable { name, written } if written.len() == 2 && is_capture(name) => {
            Some(Use::Capture(name))
        }
        Part::Variable { name, written } if !is_name(name) => Some(Use::Broken(written)),
        Part::Variable { name, .. } => Some(Use::Variable(name)),
    })
}

/// Whether that is a digit that stands for a group.
fn is_capture(name: &str) -> bool {
    matches!(name.as_bytes(), [b'1'..=b'9'])
}

/// Whether a variable can have that name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The text with its variables in one form: `$Host` as `${host}`.
pub(crate) fn canonical(text: &str) -> String {
    let one = |part| match part {
        Part::Literal(text) => text.to_owned(),
        Part::Variable { name, .. } => format!("${{{}}}", name.to_ascii_lowercase()),
    };
    parts(text).map(one).collect()
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
                let braced = after.strip_prefix('{').and_then(|after| after.split_once('}'));
                let plain = match after.get(..1) {
                    // A group has one digit, whatever follows.
                    Some(digit) if is_capture(digit) => 1,
                    _ => after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len()),
                };
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
    use super::{
        Use::{self, Broken, Capture, Variable},
        canonical, names_in, uses,
    };

    #[test]
    fn a_variable_has_one_form_for_all_ways_to_write_it() {
        assert_eq!(canonical("http://$Host:${PORT}/a$"), "http://${host}:${port}/a${}");
        assert_eq!(canonical("${a}b"), canonical("${A}b"));
        assert_ne!(canonical("${a}b"), canonical("$ab"));
    }

    #[test]
    fn of_what_only_a_request_fills_the_names_are_shown() {
        let texts = ["token hunter2 $arg_a", "http://${host}:81/$arg_a"].map(str::to_owned);
        assert_eq!(names_in(&texts), ["$arg_a", "$host"]);
    }

    #[test]
    fn what_a_dollar_begins_is_read_as_nginx_reads_it() {
        let check = |text: &str, expected: &[Use<'_>]| {
            assert_eq!(uses(text).collect::<Vec<_>>(), expected, "{text}");
        };
        check("/$1index.html$12", &[Capture("1"), Capture("1")]);
        check("$0 ${1} $1_a", &[Variable("0"), Variable("1"), Capture("1")]);
        check("$host$a_b.${c}d", &[Variable("host"), Variable("a_b"), Variable("c")]);
        check("5$", &[Broken("$")]);
        check("${host", &[Broken("$")]);
        check("a$$host", &[Broken("$"), Variable("host")]);
        check("$-x ${} ${a-b}", &[Broken("$"), Broken("${}"), Broken("${a-b}")]);
        assert_eq!(canonical("$1index"), canonical("${1}index"));
    }
}
