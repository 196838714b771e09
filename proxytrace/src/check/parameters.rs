//! Findings about the parameters of the directives that route: those that nginx refuses.

use nginx_conf::Directive;

use super::{
    blocks::{Block, modifier_and_path},
    finding::Finding,
    near, rules,
    subject::Subject,
};
use crate::nginx::{directives, listen::Listen, places::Places, time, version::Version};

/// What a parameter must be.
#[derive(Clone, Copy)]
enum Needs {
    /// The word itself.
    Word,
    /// A number behind the `=`, at least this.
    AtLeast(u64),
    Time,
    /// Anything behind the `=`.
    Text,
    OnOrOff,
}

type Parameters = &'static [(&'static str, Needs)];

/// Those of `server` in an `upstream`; the last of them are Plus's and Angie's.
const SERVER: Parameters = &[
    ("weight", Needs::AtLeast(1)),
    ("max_conns", Needs::AtLeast(0)),
    ("max_fails", Needs::AtLeast(0)),
    ("fail_timeout", Needs::Time),
    ("backup", Needs::Word),
    ("down", Needs::Word),
    ("resolve", Needs::Word),
    ("service", Needs::Text),
    ("route", Needs::Text),
    ("drain", Needs::Word),
    ("slow_start", Needs::Time),
    ("sid", Needs::Text),
    ("id", Needs::Text),
];

/// Those of `listen`, in any context and version.
const LISTEN: Parameters = &[
    ("default_server", Needs::Word),
    ("default", Needs::Word),
    ("bind", Needs::Word),
    ("deferred", Needs::Word),
    ("reuseport", Needs::Word),
    ("multipath", Needs::Word),
    ("ssl", Needs::Word),
    ("http2", Needs::Word),
    ("http3", Needs::Word),
    ("quic", Needs::Word),
    ("spdy", Needs::Word),
    ("udp", Needs::Word),
    ("proxy_protocol", Needs::Word),
    ("setfib", Needs::AtLeast(0)),
    ("fastopen", Needs::AtLeast(0)),
    ("backlog", Needs::Text),
    ("rcvbuf", Needs::Text),
    ("sndbuf", Needs::Text),
    ("accept_filter", Needs::Text),
    ("ipv6only", Needs::OnOrOff),
    ("so_keepalive", Needs::Text),
];

/// Methods of balancing that know no `backup`.
const WITHOUT_BACKUP: [&str; 3] = ["hash", "ip_hash", "random"];

/// Parameters of `listen` that came later than the table of directives begins.
const LISTEN_SINCE: [(&str, Version); 2] =
    [("quic", Version::new(1, 25, 0)), ("multipath", Version::new(1, 29, 7))];

pub(super) fn find(subject: &Subject, version: Option<Version>, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    for block in &subject.blocks() {
        for directive in block.children {
            if let Some((what, fix)) = refused(directive, block) {
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(directive), what, fix));
            }
        }
        for listen in block.named("listen") {
            too_new(listen, version, &places, findings);
        }
        backups(block, &places, findings);
    }
}

/// What nginx refuses about the arguments of a directive, and how to fix it.
fn refused(directive: &Directive, block: &Block<'_>) -> Option<(String, String)> {
    let first = directive.arg(0)?;
    match (block.context, directive.name.text.as_str()) {
        ("upstream" | "stream-upstream", "server") if !has_foreign(block) => parameter(directive, SERVER),
        ("server" | "stream-server" | "mail-server", "listen") => {
            let default = (block.context == "server").then_some(80);
            if Listen::read(directive, default).is_none() {
                let fix = "write a port from 1 to 65535, or an address and a port".to_owned();
                return Some((format!("nginx refuses to listen on \"{first}\""), fix));
            }
            parameter(directive, LISTEN)
        }
        ("server" | "location" | "server-if" | "location-if", "rewrite") => {
            let flag = directive.arg(2)?;
            let is_one = matches!(flag, "last" | "break" | "redirect" | "permanent");
            let what = format!("nginx refuses \"{flag}\" at the end of a rewrite");
            (!is_one).then(|| (what, "write last, break, redirect or permanent, or nothing".to_owned()))
        }
        ("server" | "location" | "server-if" | "location-if", "return") => {
            let is_url = ["http://", "https://", "$scheme"].iter().any(|start| first.starts_with(start));
            let is_code = first.parse::<u16>().is_ok_and(|code| code <= 999);
            let what = format!("nginx refuses \"{first}\" as the code of a return");
            (!(is_code || is_url && directive.args.len() == 1))
                .then(|| (what, "write a status such as 301 before it".to_owned()))
        }
        ("server" | "location" | "stream-server" | "server-if" | "location-if", "set") => (!first
            .starts_with('$'))
        .then(|| (format!("nginx refuses to set \"{first}\": it is no variable"), format!("write ${first}"))),
        ("server" | "location", "location") => {
            let (modifier, _) = modifier_and_path(directive);
            let is_one = matches!(modifier, "" | "=" | "^~" | "~" | "~*");
            let what = format!("nginx refuses the location modifier \"{modifier}\"");
            (!is_one).then(|| (what, "write =, ^~, ~ or ~*, or nothing".to_owned()))
        }
        ("server", "server_name") => directive.args.iter().find_map(|name| {
            let name = name.text.as_str();
            let is_bad = name == "." || name.starts_with('*') && (name.len() < 3 || !name.starts_with("*."));
            is_bad.then(|| {
                (
                    format!("nginx refuses the server name \"{name}\""),
                    "write *.example.org, or a name".to_owned(),
                )
            })
        }),
        ("http" | "server" | "location" | "location-if", "error_page") => {
            let codes = directive.args.iter().take(directive.args.len() - 1).map(|word| word.text.as_str());
            let bad = codes
                .filter(|code| !code.starts_with('='))
                .find(|code| !code.parse::<u16>().is_ok_and(|code| (300..600).contains(&code)))?;
            let what = format!("nginx refuses \"{bad}\" in error_page");
            Some((what, "write statuses from 300 to 599, and last where to go".to_owned()))
        }
        _ => None,
    }
}

fn too_new(listen: &Directive, version: Option<Version>, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let Some(version) = version else { return };
    for (parameter, since) in LISTEN_SINCE.iter().filter(|(_, since)| version < *since) {
        if listen.args.iter().skip(1).any(|word| word.text == parameter) {
            let what = format!(
                "nginx {version} does not know the parameter \"{parameter}\" of listen: it came with {since}"
            );
            let fix = "remove it, or install another version";
            findings.push(Finding::new(&rules::VERSION, &places.line(listen), what, fix));
        }
    }
}

/// Whether a block has directives of other modules, which may know more parameters.
fn has_foreign(block: &Block<'_>) -> bool {
    block.children.iter().any(|directive| directives::of(&directive.name.text).is_empty())
}

/// The first parameter behind the first argument that nginx does not take.
fn parameter(directive: &Directive, known: Parameters) -> Option<(String, String)> {
    directive.args.iter().skip(1).find_map(|word| {
        let (name, value) =
            word.text.split_once('=').map_or((&*word.text, None), |(name, value)| (name, Some(value)));
        let needs = known.iter().find(|(known, _)| *known == name).map(|(_, needs)| *needs);
        let is_well = match (needs, value) {
            (Some(Needs::Word), None) | (Some(Needs::Text), Some(_)) => true,
            (Some(Needs::AtLeast(least)), Some(value)) => {
                value.parse::<u64>().is_ok_and(|number| number >= least)
            }
            (Some(Needs::Time), Some(value)) => time::milliseconds(value).is_some_and(|ms| ms % 1_000 == 0),
            (Some(Needs::OnOrOff), Some(value)) => matches!(value, "on" | "off"),
            _ => false,
        };
        let fix = || {
            if !word.is_quoted && !directives::of(name).is_empty() {
                return format!("end the line before it with a semicolon: \"{name}\" is a directive");
            }
            match near::nearest(name, known.iter().map(|(known, _)| *known)) {
                Some(meant) => format!("did you mean {meant}?"),
                None => "correct or remove it".to_owned(),
            }
        };
        let name = &directive.name.text;
        (!is_well).then(|| (format!("nginx refuses the parameter \"{}\" of \"{name}\"", word.text), fix()))
    })
}

fn backups(block: &Block<'_>, places: &Places<'_>, findings: &mut Vec<Finding>) {
    if !matches!(block.context, "upstream" | "stream-upstream") {
        return;
    }
    let method = |directive: &&Directive| WITHOUT_BACKUP.contains(&&*directive.name.text);
    let mut behind = block.children.iter().skip_while(|directive| !method(directive));
    let Some(method) = behind.next() else { return };
    let is_backup = |line: &&Directive| {
        line.name.text == "server" && line.args.iter().skip(1).any(|word| word.text == "backup")
    };
    for line in behind.filter(is_backup) {
        let what = format!("nginx refuses backup in an upstream with {}", method.name.text);
        let fix = "take backup off, or choose least_conn";
        findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(line), what, fix));
    }
}
