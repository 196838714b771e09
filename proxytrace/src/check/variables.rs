//! Findings about variables: those that nothing defines, and those that nginx fills itself and that something assigns.

use std::collections::HashSet;

use nginx_conf::Directive;

use super::{
    directives::meant,
    evaluated::{Read, evaluated},
    finding::Finding,
    near, rules,
    subject::Subject,
};
use crate::nginx::{
    directives,
    places::Places,
    variables::{Use, uses},
    version::Version,
    writers::{self, Writers},
};

/// By line: `http` or `stream`, the name, the first version that has it, and what it is; `-` is all versions. A name that ends in `_`
/// is the beginning of names. What it is: `fixed` is not to be assigned, `free` may be, and `module` is of a module that may be loaded
/// or built in, or not be there at all.
const TABLE: &str = include_str!("variables.tsv");

/// A variable of nginx, or the beginning of some.
struct Own {
    name: &'static str,
    since: Option<Version>,
    is_fixed: bool,
}

/// Those that servers of a kind have.
fn own(context: &str) -> impl Iterator<Item = Own> {
    TABLE.lines().filter_map(move |line| {
        let mut columns = line.split('\t');
        if columns.next()? != context {
            return None;
        }
        let (name, since) = (columns.next()?, columns.next()?.parse().ok());
        Some(Own { name, since, is_fixed: columns.next()? == "fixed" })
    })
}

impl Own {
    fn is_of(&self, version: Option<Version>) -> bool {
        self.since.is_none_or(|since| version.is_none_or(|own| own >= since))
    }

    fn is(&self, name: &str) -> bool {
        if self.name.ends_with('_') { name.starts_with(self.name) } else { name == self.name }
    }
}

pub(super) fn find(subject: &Subject, version: Option<Version>, findings: &mut Vec<Finding>) {
    // What other modules bring, and the rest of a part, may define any.
    let is_known = subject.is_whole() && !has_foreign(&subject.config.directives);
    let places = Places(&subject.config);
    for context in ["http", "stream"] {
        let blocks = subject.config.directives.iter().filter(|directive| directive.name.text == context);
        for block in blocks {
            let known = Known::new(context, version, block.children(), is_known);
            known.check(block.children(), &places, findings);
        }
    }
}

/// Whether anything is none of nginx's own.
fn has_foreign(block: &[Directive]) -> bool {
    block.iter().any(|directive| {
        let name = directive.name.text.as_str();
        let is_foreign_module = name == "load_module" && !directive.arg(0).is_some_and(is_own_module);
        is_foreign_module
            || directives::of(name).is_empty() && meant(name).is_none()
            || !has_values(directive) && has_foreign(directive.children())
    })
}

/// Whether what stands in its block is no directive.
fn has_values(directive: &Directive) -> bool {
    matches!(&*directive.name.text, "map" | "geo" | "split_clients" | "types" | "charset_map")
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

/// What may be used and assigned.
struct Known {
    context: &'static str,
    version: Option<Version>,
    names: HashSet<String>,
    writers: Writers,
    /// Whether there are no others.
    is_all: bool,
}

impl Known {
    fn new(context: &'static str, version: Option<Version>, block: &[Directive], is_all: bool) -> Self {
        let mut names = HashSet::new();
        assigned(block, &mut names);
        let writers = Writers::within(block, &|directive| !has_values(directive));
        Self { context, version, names, writers, is_all }
    }

    fn has(&self, name: &str) -> bool {
        let is_own = || own(self.context).any(|own| own.is(name) && own.is_of(self.version));
        self.names.contains(name) || self.writers.may_write(name, false) || is_own()
    }

    fn check(&self, block: &[Directive], places: &Places<'_>, findings: &mut Vec<Finding>) {
        for directive in block {
            self.fixed(directive, places, findings);
            for (read, text) in evaluated(directive) {
                self.read(read, text, places, directive, findings);
            }
            if directive.name.text == "map" {
                for entry in directive.children().iter().filter(|entry| entry.name.text != "include") {
                    entry.arg(0).into_iter().for_each(|text| {
                        self.read(Read::Text, text, places, entry, findings);
                    });
                }
            } else if !has_values(directive) {
                self.check(directive.children(), places, findings);
            }
        }
    }

    /// Says what is assigned although nginx fills it itself.
    fn fixed(&self, directive: &Directive, places: &Places<'_>, findings: &mut Vec<Finding>) {
        let target = target(directive).map(str::to_ascii_lowercase);
        for name in target.into_iter().chain(writers::captures(directive)) {
            let is_fixed = |own: Own| own.is_fixed && own.name == name && own.is_of(self.version);
            if own(self.context).any(is_fixed) {
                let what = format!("nginx refuses to assign ${name}, which it fills itself");
                let fix = "choose another name";
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(directive), what, fix));
            }
        }
    }

    fn read(
        &self,
        read: Read,
        text: &str,
        places: &Places<'_>,
        directive: &Directive,
        findings: &mut Vec<Finding>,
    ) {
        let uses: Vec<_> = match (read, text.strip_prefix('$')) {
            (Read::Name, Some(name)) => vec![Use::Variable(name)],
            (Read::Name, None) => Vec::new(),
            _ => uses(text).collect(),
        };
        for one in uses {
            match one {
                Use::Capture(_) if read == Read::Text => {}
                Use::Capture(name) | Use::Variable(name) => self.missing(name, places, directive, findings),
                Use::Broken(written) => {
                    let what = format!("nginx refuses \"{text}\": \"{written}\" in it begins no variable");
                    let fix = "write the name of a variable behind $: a $ by itself can not be written, \
                               but a geo or map can hold one";
                    findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(directive), what, fix));
                }
            }
        }
    }

    fn missing(&self, name: &str, places: &Places<'_>, directive: &Directive, findings: &mut Vec<Finding>) {
        let lower = name.to_ascii_lowercase();
        if !self.is_all || self.has(&lower) {
            return;
        }
        let (why, fix) = match own(self.context).find(|own| own.is(&lower)).and_then(|own| own.since) {
            Some(since) => {
                (format!("it came with {since}"), "remove it, or install another version".to_owned())
            }
            None => ("nothing defines it".to_owned(), self.meant(&lower)),
        };
        let what = format!("nginx refuses the variable \"${name}\": {why}");
        findings.push(Finding::new(&rules::UNKNOWN_VARIABLE, &places.line(directive), what, fix));
    }

    /// What to write instead of a name.
    fn meant(&self, name: &str) -> String {
        let own: Vec<_> = own(self.context).filter(|own| !own.name.ends_with('_')).collect();
        let names = self.names.iter().map(String::as_str).chain(own.iter().map(|own| own.name));
        match near::nearest(name, names) {
            Some(meant) => format!("did you mean ${meant}?"),
            None => "correct its name, or define it with set or map".to_owned(),
        }
    }
}

/// The variables that directives of nginx itself assign.
fn assigned(block: &[Directive], names: &mut HashSet<String>) {
    for directive in block {
        names.extend(target(directive).map(str::to_ascii_lowercase));
        assigned(directive.children(), names);
    }
}

/// The variable that a directive of nginx itself assigns, as it is written, without `$`.
fn target(directive: &Directive) -> Option<&str> {
    let target = match directive.name.text.as_str() {
        "set" | "auth_request_set" => directive.arg(0),
        "map" | "split_clients" => directive.arg(1),
        "geo" => directive.args.last().map(|word| word.text.as_str()),
        _ => None,
    };
    target?.strip_prefix('$')
}

#[cfg(test)]
mod tests {
    use super::TABLE;

    #[test]
    fn each_line_of_the_table_is_read() {
        for line in TABLE.lines() {
            let columns: Vec<_> = line.split('\t').collect();
            let [context, _, since, kind] = columns[..] else { panic!("{line}") };
            assert!(["http", "stream"].contains(&context), "{line}");
            assert!(since == "-" || since.parse::<super::Version>().is_ok(), "{line}");
            assert!(["fixed", "free", "module"].contains(&kind), "{line}");
        }
    }
}
