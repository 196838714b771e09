//! A part of a configuration, such as a file of sites-enabled: it is wrapped in what must stand around it, by what is in it.

use nginx_conf::{Config, Directive, Word};

use super::blocks::{self, all};
use crate::nginx::directives::{self, Kind, Known};

/// Where parts belong, the likeliest first.
const CANDIDATES: [&str; 9] =
    ["http", "server", "location", "stream", "stream-server", "upstream", "mail", "mail-server", "events"];

/// What makes a configuration whole.
const WHOLE: [&str; 4] = ["http", "stream", "mail", "events"];

/// Where a part belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// What may stand around it, as the table of directives calls it.
    context: &'static str,
}

impl Part {
    /// The blocks around it.
    pub(super) fn around(self) -> String {
        blocks::around(self.context).join(" > ")
    }

    /// Whether it has servers that begin and end in it.
    pub(super) fn holds_servers(self) -> bool {
        matches!(self.context, "http" | "stream" | "mail")
    }
}

/// The configuration, with what must stand around it if it is a part.
pub(super) fn whole(config: Config) -> (Config, Option<Part>) {
    let names = || config.directives.iter().map(|directive| directive.name.text.as_str());
    let is_whole = names().any(|name| WHOLE.contains(&name));
    let stands_at_top = |name: &str| directives::of(name).iter().any(|known| known.is_in("main"));
    // What stands at the top anyway says nothing about what is missing.
    if is_whole || !names().any(|name| !directives::of(name).is_empty() && !stands_at_top(name)) {
        return (config, None);
    }
    let misplaced = |context: &&'static str| {
        let wrapped = wrapped(config.directives.clone(), context);
        let blocks = all(&wrapped);
        let misplaced =
            blocks.iter().flat_map(|block| block.children.iter().map(move |directive| (block, directive)));
        misplaced
            .filter(|(block, directive)| {
                let known = directives::of(&directive.name.text);
                let is_block = directive.block.is_some();
                let fits = |one: &Known| one.is_in(block.context) && (one.kind == Kind::Block) == is_block;
                !known.is_empty() && !known.iter().any(fits)
            })
            .count()
    };
    let Some(context) = CANDIDATES.into_iter().min_by_key(misplaced) else { return (config, None) };
    let Config { files, directives } = config;
    (Config { files, directives: wrapped(directives, context) }, Some(Part { context }))
}

fn wrapped(directives: Vec<Directive>, context: &str) -> Vec<Directive> {
    let place = directives.first().map(Directive::place).unwrap_or_default();
    let word = |text: &str| Word { text: text.into(), is_quoted: false, place };
    let mut inner = directives;
    for name in blocks::around(context).into_iter().rev() {
        let args = match name {
            "location" => vec![word("/")],
            "upstream" => vec![word("part")],
            _ => Vec::new(),
        };
        inner = vec![Directive { name: word(name), args, block: Some(inner) }];
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::{Part, whole};
    use crate::nginx::tests::config;

    #[test]
    fn a_part_belongs_where_what_is_in_it_may_stand() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(whole(config(text)).1.map(Part::around).as_deref(), expected, "{text}");
        };
        check("http { }", None);
        check("user www; pid x;", None);
        check("", None);
        check("upstream api { server a; }", Some("http"));
        check("server { listen 80; location / { proxy_pass http://api; } }", Some("http"));
        check("server { listen 1; proxy_pass api; }", Some("stream"));
        check("listen 80; location / { }", Some("http > server"));
        check("server 10.0.0.1:8080 weight=3; server 10.0.0.2:8080;", Some("http > upstream"));
        check("server { listen 25; protocol smtp; }", Some("mail"));
        check("worker_connections 1024;", Some("events"));
        check("proxy_pass http://api; proxy_set_header Host $host;", Some("http > server > location"));
    }
}
