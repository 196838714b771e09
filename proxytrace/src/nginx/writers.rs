//! What assigns variables besides `set`, `map`, `geo` and `split_clients`: code, captures of regular expressions, other modules.
//! What such a variable holds is not in the configuration.

use std::collections::HashSet;

use nginx_conf::Directive;

use super::directives;

/// Directives of nginx and common modules whose first argument (or second, behind the key) is a variable that they assign.
const ASSIGN_FIRST: [&str; 7] =
    ["auth_request_set", "js_set", "js_var", "perl_set", "set_by_lua", "set_by_lua_block", "set_by_lua_file"];
const ASSIGN_SECOND: [&str; 2] = ["keyval", "auth_jwt_claim_set"];

/// How directives begin whose code can assign whatever `set` made changeable.
const CODE: [&str; 2] = ["js_", "perl"];
/// Lua that runs before there is a request, or after an upstream was chosen for it.
const TOO_EARLY_OR_LATE: [&str; 6] = ["init_", "exit_", "ssl_", "balancer_", "body_filter_", "log_"];

/// How named groups begin in a regular expression.
const GROUPS: [(&str, char); 3] = [("(?<", '>'), ("(?P<", '>'), ("(?'", '\'')];

/// What else assigns variables in a server and around it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writers {
    /// In lower case, without `$`.
    names: HashSet<String>,
    /// There is code, which can assign whatever `set` made changeable.
    has_code: bool,
}

impl Writers {
    /// Those in a block; of blocks within, those that `enters` says.
    pub(crate) fn within(block: &[Directive], enters: &dyn Fn(&Directive) -> bool) -> Self {
        let mut writers = Self::default();
        writers.add(block, enters);
        writers
    }

    /// These, and those of a block further in.
    pub(crate) fn and(&self, inner: &Self) -> Self {
        Self { names: &self.names | &inner.names, has_code: self.has_code || inner.has_code }
    }

    /// Adds variables of these names.
    pub(crate) fn extend(&mut self, names: impl Iterator<Item = String>) {
        self.names.extend(names);
    }

    /// Whether a variable can hold what the configuration does not say. `is_set`: there is a `set` of it.
    pub(crate) fn may_write(&self, name: &str, is_set: bool) -> bool {
        self.names.contains(name) || (is_set && self.has_code)
    }

    fn add(&mut self, block: &[Directive], enters: &dyn Fn(&Directive) -> bool) {
        for directive in block {
            self.directive(directive);
            if enters(directive) {
                self.add(directive.children(), enters);
            }
        }
    }

    fn directive(&mut self, directive: &Directive) {
        let name = directive.name.text.as_str();
        self.has_code |= is_code(name);
        let is_foreign = directives::of(name).is_empty() && !ASSIGN_SECOND.contains(&name);
        let assigned = if ASSIGN_FIRST.contains(&name) || is_foreign {
            directive.arg(0)
        } else if ASSIGN_SECOND.contains(&name) {
            directive.arg(1)
        } else {
            None
        };
        self.names.extend(assigned.and_then(|text| text.strip_prefix('$')).map(str::to_ascii_lowercase));
        self.names.extend(captures(directive));
    }
}

/// The variables that the patterns of a directive assign by named groups, in lower case.
pub(crate) fn captures(directive: &Directive) -> impl Iterator<Item = String> {
    let name = directive.name.text.as_str();
    let keys = directive.children().iter().map(|entry| &entry.name).filter(move |_| name == "map");
    let patterns = match name {
        "location" | "server_name" | "if" => &directive.args[..],
        "rewrite" | "proxy_redirect" | "proxy_cookie_domain" | "proxy_cookie_flags" | "proxy_cookie_path" => {
            directive.args.get(..1).unwrap_or_default()
        }
        _ => &[],
    };
    patterns.iter().chain(keys).flat_map(|pattern| groups(&pattern.text))
}

/// Whether a directive runs code that can assign variables.
pub(crate) fn is_code(name: &str) -> bool {
    let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    begins(&CODE) || name.contains("_by_lua") && !begins(&TOO_EARLY_OR_LATE)
}

/// The names of the groups of a regular expression, in lower case.
fn groups(pattern: &str) -> impl Iterator<Item = String> {
    GROUPS.iter().flat_map(move |(start, end)| {
        pattern.split(start).skip(1).filter_map(|rest| {
            let (name, _) = rest.split_once(*end)?;
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            // `(?<=` and `(?<!` look behind.
            (is_name && !name.is_empty()).then(|| name.to_ascii_lowercase())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::groups;

    #[test]
    fn named_groups_of_a_pattern_are_found() {
        let check = |pattern: &str, expected: &[&str]| {
            assert_eq!(groups(pattern).collect::<Vec<_>>(), expected, "{pattern}");
        };
        check("^/(?<Be>a|b)/(?P<x>c)", &["be", "x"]);
        check("(?'be'a)", &["be"]);
        check("(?<=a)(?<!b)(c)", &[]);
    }
}
