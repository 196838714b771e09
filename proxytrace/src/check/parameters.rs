//! Findings about the parameters of the directives that route: those that nginx refuses.

use nginx_conf::Directive;

use super::{
    blocks::{Block, modifier_and_path},
    finding::Finding,
    near, rules,
    subject::Subject,
    tables::is_network,
};
use crate::nginx::{directives, listen::Listen, places::Places, size, time, version::Version};

/// What a parameter must be.
#[derive(Clone, Copy)]
enum Needs {
    /// The word itself.
    Word,
    /// A number behind the `=`, at least this.
    AtLeast(u64),
    Seconds,
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
    ("fail_timeout", Needs::Seconds),
    ("backup", Needs::Word),
    ("down", Needs::Word),
    ("resolve", Needs::Word),
    ("service", Needs::Text),
    ("route", Needs::Text),
    ("drain", Needs::Word),
    ("slow_start", Needs::Seconds),
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

/// Parameters of `listen` that stand for datagrams, and those that nginx refuses beside them.
const BESIDE_NONE: [(&str, &[&str]); 2] = [
    ("udp", &["ssl", "proxy_protocol"]),
    ("quic", &["ssl", "http2", "proxy_protocol", "fastopen", "backlog", "deferred", "so_keepalive"]),
];

/// Methods of balancing that know no `backup`.
const WITHOUT_BACKUP: [&str; 3] = ["hash", "ip_hash", "random"];

/// The first open nginx that follows names.
const RESOLVES: Version = Version::new(1, 27, 3);

/// Parameters of `listen` that came later than the table of directives begins.
const LISTEN_SINCE: [(&str, Version); 2] =
    [("quic", Version::new(1, 25, 0)), ("multipath", Version::new(1, 29, 7))];

/// Those of stream.
const LISTEN_OF_STREAM_SINCE: [(&str, Version); 2] =
    [("default_server", Version::new(1, 25, 5)), ("multipath", Version::new(1, 29, 7))];

pub(super) fn find(subject: &Subject, version: Option<Version>, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    for block in &subject.blocks() {
        for directive in block.children {
            if let Some((what, fix)) = refused(directive, block) {
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(directive), what, fix));
            }
        }
        for listen in block.named("listen") {
            let since = if block.context == "stream-server" { LISTEN_OF_STREAM_SINCE } else { LISTEN_SINCE };
            too_new(listen, &since, version, &places, findings);
        }
        for keepalive in block.named("keepalive").filter(|_| block.context == "upstream") {
            kept(keepalive, version, &places, findings);
        }
        backups(block, &places, findings);
        followed(block, version, &places, findings);
    }
}

/// Whether that is followed at all: an address stays what it is.
fn is_name(server: &str) -> bool {
    let host = server.split(':').next().unwrap_or_default();
    !server.starts_with(['[', ':'])
        && !server.starts_with("unix:")
        && host.parse::<std::net::Ipv4Addr>().is_err()
}

/// Names that are followed while nginx runs.
fn followed(block: &Block<'_>, version: Option<Version>, places: &Places<'_>, findings: &mut Vec<Finding>) {
    if !matches!(block.context, "upstream" | "stream-upstream") || has_foreign(block) {
        return;
    }
    let has_zone = block.named("zone").next().is_some();
    for line in block.named("server") {
        let has = |start: &str| line.args.iter().skip(1).any(|word| word.text.starts_with(start));
        let place = places.line(line);
        if (has("resolve") || has("service=")) && version.is_some_and(|own| own < RESOLVES) {
            let what =
                "nginx itself follows names since 1.27.3, and only its commercial version before".to_owned();
            let found =
                Finding::new(&rules::VERSION, &place, what, "remove resolve, or install another version");
            findings.push(found.into_note());
        } else if has("service=") && !has("resolve") {
            let what = "nginx refuses service= without resolve".to_owned();
            findings.push(Finding::new(&rules::BAD_ARGUMENT, &place, what, "add resolve"));
        } else if has("resolve") && !has_zone && is_name(line.arg(0).unwrap_or_default()) {
            let what = "nginx refuses resolve in an upstream without zone".to_owned();
            findings.push(Finding::new(&rules::BAD_ARGUMENT, &place, what, "add zone, such as zone api 64k"));
        }
    }
}

/// What nginx refuses about the arguments of a directive, and how to fix it.
fn refused(directive: &Directive, block: &Block<'_>) -> Option<(String, String)> {
    let first = directive.arg(0)?;
    match (block.context, directive.name.text.as_str()) {
        ("upstream" | "stream-upstream", "server")
            if first.contains('$') && directive.args.iter().skip(1).all(|word| word.text != "resolve") =>
        {
            let is_socket = first.starts_with("unix:");
            let what = format!("nginx refuses \"{first}\" in a server line: it takes no variables there");
            (!is_socket).then(|| (what, "write an address or a host name".to_owned()))
        }
        ("upstream" | "stream-upstream", "server") if !has_foreign(block) => parameter(directive, SERVER),
        ("server" | "stream-server" | "mail-server", "listen") => {
            let is_socket = first.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("unix:"));
            if first.contains('$') && !is_socket {
                let what = format!("nginx refuses to listen on \"{first}\": it takes no variables there");
                return Some((what, "write the port, or the address and the port".to_owned()));
            }
            let default = (block.context == "server").then_some(80);
            let is_range = first.contains('-') && !first.bytes().any(|byte| byte.is_ascii_alphabetic());
            let has_port = block.context == "server"
                || is_range
                || first.contains([':', '/'])
                || size::number(first).is_some();
            if has_port && Listen::read(directive, default).is_none() {
                let fix = "write a port from 1 to 65535, or an address and a port".to_owned();
                return Some((format!("nginx refuses to listen on \"{first}\""), fix));
            }
            parameter(directive, LISTEN).or_else(|| listening(directive, block.context))
        }
        ("server" | "location" | "server-if" | "location-if", "rewrite") => {
            let flag = directive.arg(2)?;
            let is_one = matches!(flag, "last" | "break" | "redirect" | "permanent");
            let what = format!("nginx refuses \"{flag}\" at the end of a rewrite");
            (!is_one).then(|| (what, "write last, break, redirect or permanent, or nothing".to_owned()))
        }
        ("server" | "location" | "server-if" | "location-if", "return") => {
            let is_url = ["http://", "https://", "$scheme"].iter().any(|start| first.starts_with(start));
            let is_code = size::number(first).is_some_and(|code| code <= 999);
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
            let is_bad = matches!(name, "." | "~")
                || name.starts_with('*') && (name.len() < 3 || !name.starts_with("*."));
            is_bad.then(|| {
                (
                    format!("nginx refuses the server name \"{name}\""),
                    "write *.example.org, or a name".to_owned(),
                )
            })
        }),
        ("http" | "server" | "location" | "location-if", "error_page") => {
            let mut codes: Vec<_> = directive.args.iter().map(|word| word.text.as_str()).collect();
            codes.pop();
            // Before the last there may be what is answered instead.
            if codes.len() > 1
                && let Some(answer) = codes.last().and_then(|last| last.strip_prefix('='))
            {
                codes.pop();
                if !answer.is_empty() && size::number(answer).is_none() {
                    let what = format!("nginx refuses \"={answer}\" in error_page");
                    return Some((what, "write = and a status".to_owned()));
                }
            }
            let bad = codes.into_iter().find(|code| {
                !size::number(code).is_some_and(|code| (300..600).contains(&code) && code != 499)
            })?;
            let what = format!("nginx refuses \"{bad}\" in error_page");
            Some((what, "write statuses from 300 to 599, and last where to go".to_owned()))
        }
        ("server" | "location", "auth_request_set") => (!first.starts_with('$')).then(|| {
            (format!("nginx refuses to set \"{first}\": it is no variable"), format!("write ${first}"))
        }),
        ("server" | "location", "try_files") => {
            let code = directive.args.last()?.text.strip_prefix('=')?;
            let is_code = size::number(code).is_some_and(|code| code <= 999);
            (!is_code).then(|| {
                (format!("nginx refuses \"={code}\" in try_files"), "write = and a status".to_owned())
            })
        }
        (_, "fastcgi_param" | "uwsgi_param" | "scgi_param") => {
            let flag = directive.arg(2).filter(|flag| *flag != "if_not_empty")?;
            let what = format!("nginx refuses \"{flag}\" at the end of {}", directive.name.text);
            Some((what, "quote a value with spaces; is a semicolon missing?".to_owned()))
        }
        (_, "add_header" | "add_trailer") => {
            let flag = directive.arg(2).filter(|flag| *flag != "always")?;
            let what = format!("nginx refuses \"{flag}\" at the end of {}", directive.name.text);
            Some((what, "quote a value with spaces; is a semicolon missing?".to_owned()))
        }
        ("http" | "server" | "location" | "limit_except" | "stream" | "stream-server", "allow" | "deny") => {
            let is_one = first == "all" || first == "unix:" || is_network(first);
            let what = format!("nginx refuses \"{first}\" in {}", directive.name.text);
            (!is_one).then(|| (what, "write an address, a network such as 10.0.0.0/8, or all".to_owned()))
        }
        ("upstream" | "stream-upstream", "hash") => unknown(directive, 1, &["consistent"]),
        ("upstream" | "stream-upstream", "random") => unknown(directive, 0, &["two"])
            .or_else(|| unknown(directive, 1, &["least_conn", "least_time=header", "least_time=last_byte"])),
        ("location", "limit_except") => {
            let bad = directive
                .args
                .iter()
                .find(|word| !METHODS.iter().any(|known| known.eq_ignore_ascii_case(&word.text)))?;
            let what = format!("nginx refuses \"{}\" in limit_except", bad.text);
            Some((what, format!("write {}", METHODS.join(", "))))
        }
        _ => None,
    }
}

/// Methods that `limit_except` knows.
const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
];

/// The argument at a place, where it is none of these.
fn unknown(directive: &Directive, at: usize, words: &[&str]) -> Option<(String, String)> {
    let word = directive.arg(at).filter(|word| !words.contains(word))?;
    let what = format!("nginx refuses \"{word}\" in {}", directive.name.text);
    Some((what, format!("write {}", words.join(", "))))
}

/// What nginx refuses about values of parameters of `listen`, and about those of another kind of servers.
fn listening(listen: &Directive, context: &str) -> Option<(String, String)> {
    let refused = |word: &str| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match (name, context) {
            ("backlog", _) => size::number(value).is_none_or(|number| number == 0),
            ("rcvbuf" | "sndbuf", _) => size::size(value).is_none(),
            ("so_keepalive", _) => !is_keepalive(value),
            ("udp", "server")
            | ("http2" | "http3" | "quic", "stream-server")
            | ("default_server" | "default" | "http2" | "http3" | "quic" | "udp", "mail-server") => true,
            _ => false,
        }
    };
    let words = || listen.args.iter().skip(1).map(|word| word.text.as_str());
    if let Some(word) = words().find(|word| refused(word)) {
        let what = format!("nginx refuses the parameter \"{word}\" of \"listen\" here");
        return Some((what, "correct or remove it".to_owned()));
    }
    let (alone, others) = BESIDE_NONE.iter().find(|(alone, _)| words().any(|word| word == *alone))?;
    let is_refused = |word: &&str| others.contains(&word.split('=').next().unwrap_or(word));
    let other = words().find(is_refused)?;
    Some((format!("nginx refuses {other} beside {alone} in \"listen\""), "remove one of them".to_owned()))
}

/// `on`, `off`, or up to three parts, of which one is no 0: a time, another, and a number.
fn is_keepalive(value: &str) -> bool {
    if matches!(value, "on" | "off") {
        return true;
    }
    let mut parts = value.splitn(3, ':');
    let mut part = |read: fn(&str) -> Option<u64>| match parts.next() {
        None | Some("") => Some(0),
        Some(text) => read(text),
    };
    let all = [part(time::seconds), part(time::seconds), part(size::number)];
    all.iter().all(Option::is_some) && all.iter().flatten().any(|number| *number > 0)
}

fn too_new(
    listen: &Directive,
    all: &[(&str, Version)],
    version: Option<Version>,
    places: &Places<'_>,
    findings: &mut Vec<Finding>,
) {
    let Some(version) = version else { return };
    for (parameter, since) in all.iter().filter(|(_, since)| version < *since) {
        if listen.args.iter().skip(1).any(|word| word.text == parameter) {
            let what = format!(
                "nginx {version} does not know the parameter \"{parameter}\" of listen: it came with {since}"
            );
            let fix = "remove it, or install another version";
            findings.push(Finding::new(&rules::VERSION, &places.line(listen), what, fix));
        }
    }
}

/// Since connections are kept by default, 0 turns that off, and there are those of one location.
fn kept(keepalive: &Directive, version: Option<Version>, places: &Places<'_>, findings: &mut Vec<Finding>) {
    let is_old = version.is_some_and(|own| own < Version::KEEPS);
    let what = match (keepalive.arg(0), keepalive.arg(1)) {
        (Some("0"), None) if is_old => "\"0\" in keepalive: that came with 1.29.7".to_owned(),
        (_, Some("local")) if is_old => {
            "the parameter \"local\" of keepalive: it came with 1.29.7".to_owned()
        }
        (_, Some(parameter)) if parameter != "local" => format!("the parameter \"{parameter}\" of keepalive"),
        (Some(count), _) if size::number(count).is_none() => format!("\"{count}\" in keepalive"),
        _ => return,
    };
    let what = format!("nginx refuses {what}");
    let fix = "write how many connections are kept";
    findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(keepalive), what, fix));
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
                size::number(value).is_some_and(|number| number >= least)
            }
            (Some(Needs::Seconds), Some(value)) => time::seconds(value).is_some(),
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
