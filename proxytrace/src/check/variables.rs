//! Findings about variables that nothing defines.

use std::collections::HashSet;

use nginx_conf::Directive;

use super::{finding::Finding, near, rules, subject::Subject};
use crate::nginx::{directives, places::Places, variables::names, writers::Writers};

/// By line: `http` or `stream`, and the name; one that ends in `_` is the beginning of names.
const TABLE: &str = include_str!("variables.tsv");

/// Where arguments with variables stand in directives of http and stream, from 0; `None` is all of them.
const EVALUATED: &[(&str, Option<usize>)] = &[
    ("access_log", Some(0)),
    ("add_header", Some(1)),
    ("add_trailer", Some(1)),
    ("alias", None),
    ("auth_basic", None),
    ("auth_request_set", Some(1)),
    ("fastcgi_param", Some(1)),
    ("fastcgi_pass", None),
    ("grpc_pass", None),
    ("grpc_set_header", Some(1)),
    ("hash", Some(0)),
    ("limit_conn_zone", Some(0)),
    ("limit_req_zone", Some(0)),
    ("log_format", None),
    ("map", Some(0)),
    ("proxy_cache_key", None),
    ("proxy_pass", None),
    ("proxy_redirect", Some(1)),
    ("proxy_set_header", Some(1)),
    ("proxy_ssl_name", None),
    ("return", None),
    ("rewrite", Some(1)),
    ("root", None),
    ("scgi_param", Some(1)),
    ("scgi_pass", None),
    ("set", Some(1)),
    ("split_clients", Some(0)),
    ("try_files", None),
    ("tunnel_pass", None),
    ("uwsgi_param", Some(1)),
    ("uwsgi_pass", None),
];

pub(super) fn find(subject: &Subject, findings: &mut Vec<Finding>) {
    // What other modules bring, and the rest of a part, may define any.
    if !subject.is_whole() || has_foreign(&subject.config.directives) {
        return;
    }
    let places = Places(&subject.config);
    for context in ["http", "stream"] {
        let blocks = subject.config.directives.iter().filter(|directive| directive.name.text == context);
        for block in blocks {
            let known = Defined::new(context, block.children());
            known.missing_in(block.children(), &places, findings);
        }
    }
}

/// Whether anything is none of nginx's own.
fn has_foreign(block: &[Directive]) -> bool {
    block.iter().any(|directive| {
        let name = directive.name.text.as_str();
        let is_foreign_module = name == "load_module" && !directive.arg(0).is_some_and(is_own_module);
        let has_values = matches!(name, "map" | "geo" | "split_clients" | "types" | "charset_map");
        is_foreign_module
            || directives::of(name).is_empty()
            || !has_values && has_foreign(directive.children())
    })
}

/// Whether a module defines no variables that the table lacks.
fn is_own_module(path: &str) -> bool {
    const OWN: [&str; 5] = [
        "ngx_stream_module",
        "ngx_mail_module",
        "_geoip_module",
        "_image_filter_module",
        "_xslt_filter_module",
    ];
    OWN.iter().any(|name| path.contains(name))
}

/// What may be used.
struct Defined {
    names: HashSet<String>,
    beginnings: Vec<&'static str>,
    writers: Writers,
}

impl Defined {
    fn new(context: &str, block: &[Directive]) -> Self {
        let of_table = TABLE.lines().filter_map(|line| line.split_once('\t'));
        let of_table = of_table.filter(|(of, _)| *of == context).map(|(_, name)| name);
        let (beginnings, whole): (Vec<_>, Vec<_>) = of_table.partition(|name| name.ends_with('_'));
        let mut names: HashSet<_> = whole.into_iter().map(str::to_owned).collect();
        assigned(block, &mut names);
        Self { names, beginnings, writers: Writers::within(block, &|_| true) }
    }

    fn has(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let is_capture = name.bytes().all(|byte| byte.is_ascii_digit());
        is_capture
            || self.names.contains(&name)
            || self.beginnings.iter().any(|start| name.starts_with(start))
            || self.writers.may_write(&name, false)
    }

    fn missing_in(&self, block: &[Directive], places: &Places<'_>, findings: &mut Vec<Finding>) {
        for directive in block {
            let name = directive.name.text.as_str();
            if let Some((_, argument)) = EVALUATED.iter().find(|(evaluated, _)| *evaluated == name) {
                let texts =
                    directive.args.iter().enumerate().filter(|(at, _)| argument.is_none_or(|one| one == *at));
                for (_, word) in texts {
                    self.missing(&word.text, places, directive, findings);
                }
            }
            if name == "map" {
                for entry in directive.children() {
                    entry.arg(0).into_iter().for_each(|text| self.missing(text, places, entry, findings));
                }
            } else {
                self.missing_in(directive.children(), places, findings);
            }
        }
    }

    fn missing(&self, text: &str, places: &Places<'_>, directive: &Directive, findings: &mut Vec<Finding>) {
        for name in names(text).filter(|name| !name.is_empty() && !self.has(name)) {
            let what = format!("nginx refuses the variable \"${name}\": nothing defines it");
            let fix = match near::nearest(name, self.names.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean ${meant}?"),
                None => "correct its name, or define it with set or map".to_owned(),
            };
            findings.push(Finding::new(&rules::UNKNOWN_VARIABLE, &places.line(directive), what, fix));
        }
    }
}

/// The variables that directives of nginx itself assign.
fn assigned(block: &[Directive], names: &mut HashSet<String>) {
    for directive in block {
        let variable = match directive.name.text.as_str() {
            "set" => directive.arg(0),
            "map" | "split_clients" => directive.arg(1),
            "geo" => directive.args.last().map(|word| word.text.as_str()),
            _ => None,
        };
        names.extend(variable.and_then(|text| text.strip_prefix('$')).map(str::to_ascii_lowercase));
        assigned(directive.children(), names);
    }
}
