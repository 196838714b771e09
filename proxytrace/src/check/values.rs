//! Findings about arguments that are words of a list, and about names of what is declared elsewhere: zones and formats of logs.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv6Addr,
};

use nginx_conf::Directive;

use super::{blocks::Block, finding::Finding, near, rules, servers::matched, subject::Subject};
use crate::nginx::{
    directives,
    places::Places,
    size, time,
    url::{Url, ipv4},
    values,
    version::Version,
};

/// What an argument at a place must be, besides what the table of directives says.
const ARGUMENTS: &[(&str, usize, Must)] = &[
    ("keepalive_timeout", 0, Must::Time),
    ("keepalive_timeout", 1, Must::Seconds),
    ("limit_rate", 0, Must::Size),
    ("limit_rate_after", 0, Must::Size),
    ("proxy_limit_rate", 0, Must::Size),
    ("fastcgi_limit_rate", 0, Must::Size),
    ("uwsgi_limit_rate", 0, Must::Size),
    ("scgi_limit_rate", 0, Must::Size),
    ("proxy_download_rate", 0, Must::Size),
    ("proxy_upload_rate", 0, Must::Size),
    ("worker_connections", 0, Must::Number(0, u32::MAX)),
    ("limit_conn", 1, Must::Number(1, 65_535)),
    ("limit_conn_status", 0, Must::Number(400, 599)),
    ("limit_req_status", 0, Must::Number(400, 599)),
    ("gzip_comp_level", 0, Must::Number(1, 9)),
    ("uwsgi_modifier1", 0, Must::Number(0, 255)),
    ("uwsgi_modifier2", 0, Must::Number(0, 255)),
];

/// Directives that take a number of buffers and their size.
const BUFFERS: [&str; 8] = [
    "proxy_buffers",
    "fastcgi_buffers",
    "uwsgi_buffers",
    "scgi_buffers",
    "gzip_buffers",
    "gunzip_buffers",
    "output_buffers",
    "large_client_header_buffers",
];

/// Variables that are made of `root` and `alias`.
const OF_ITSELF: [&str; 4] = ["$document_root", "${document_root}", "$realpath_root", "${realpath_root}"];

/// Levels of `error_log`.
const LEVELS: &[&str] = &["debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"];

/// The first nginx whose resolver can do without IPv4.
const RESOLVER_WITHOUT_IPV4: Version = Version::new(1, 23, 1);

/// The smallest zone, in bytes: eight pages.
const MIN_ZONE: u64 = 8 * 4_096;

#[derive(Clone, Copy)]
enum Must {
    Time,
    Seconds,
    Size,
    Number(u32, u32),
}

impl Must {
    fn holds(self, text: &str) -> bool {
        match self {
            Self::Time => time::milliseconds(text).is_some(),
            Self::Seconds => time::seconds(text).is_some(),
            Self::Size => size::size(text).is_some(),
            Self::Number(least, most) => {
                size::number(text).is_some_and(|number| (least.into()..=most.into()).contains(&number))
            }
        }
    }

    fn in_words(self) -> String {
        match self {
            Self::Time => "a time such as 5s or 500ms".to_owned(),
            Self::Seconds => "a time in seconds".to_owned(),
            Self::Size => "a size such as 8k or 1m".to_owned(),
            Self::Number(least, u32::MAX) => format!("a number from {least}"),
            Self::Number(least, most) => format!("a number from {least} to {most}"),
        }
    }
}

/// What names something that another directive declares: by which parameter, in which directive, with which parameter of that.
const NAMED: &[(&str, &str, &str, &str)] = &[
    ("limit_req", "zone=", "limit_req_zone", "zone="),
    ("limit_conn", "", "limit_conn_zone", "zone="),
    ("proxy_cache", "", "proxy_cache_path", "keys_zone="),
    ("fastcgi_cache", "", "fastcgi_cache_path", "keys_zone="),
    ("uwsgi_cache", "", "uwsgi_cache_path", "keys_zone="),
    ("scgi_cache", "", "scgi_cache_path", "keys_zone="),
];

pub(super) fn find(subject: &Subject, version: Option<Version>, findings: &mut Vec<Finding>) {
    let places = Places(&subject.config);
    let blocks = subject.blocks();
    for block in &blocks {
        let kind = kind_of(block);
        for directive in block.children {
            let place = places.line(directive);
            words(kind, directive, version, &place, findings);
            if let Some((what, fix)) = refused(block, directive, version) {
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &place, what, fix));
            }
        }
    }
    // What stands around a part may declare them.
    if subject.is_whole() {
        declared(&blocks, &places, findings);
    }
}

fn kind_of(block: &Block<'_>) -> &'static str {
    match block.context {
        "stream" | "stream-server" | "stream-upstream" => "stream",
        "mail" | "mail-server" => "mail",
        _ => "http",
    }
}

fn words(
    kind: &str,
    directive: &Directive,
    version: Option<Version>,
    place: &str,
    findings: &mut Vec<Finding>,
) {
    let name = directive.name.text.as_str();
    let Some(words) = values::of(kind, name) else { return };
    let refused = directive.args.iter().find(|word| !words.has(&word.text, version));
    if let Some(word) = refused {
        let is_directive = !word.is_quoted && !directives::of(&word.text).is_empty();
        let what = format!("nginx refuses \"{}\" in \"{name}\"", word.text);
        let fix = match near::nearest(&word.text, words.all()) {
            _ if is_directive => format!("end it with a semicolon before \"{}\"", word.text),
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("write one of {}", words.all().collect::<Vec<_>>().join(", ")),
        };
        findings.push(Finding::new(&rules::BAD_ARGUMENT, place, what, fix));
    }
}

/// An argument that nginx refuses, and what to write.
fn refused(block: &Block<'_>, directive: &Directive, version: Option<Version>) -> Option<(String, String)> {
    let name = directive.name.text.as_str();
    let texts = || directive.args.iter().map(|word| word.text.as_str());
    let say = |word: &str, fix: &str| {
        Some((format!("nginx refuses \"{word}\" in \"{name}\""), format!("write {fix}")))
    };
    for (_, at, must) in ARGUMENTS.iter().filter(|(of, ..)| *of == name) {
        if let Some(word) = directive.arg(*at).filter(|word| !word.contains('$') && !must.holds(word)) {
            return say(word, &must.in_words());
        }
    }
    match name {
        _ if BUFFERS.contains(&name) => {
            let is_none = |number: Option<u64>| number.is_none_or(|number| number == 0);
            let bad_number = directive.arg(0).filter(|text| is_none(size::number(text)));
            match bad_number.or(directive.arg(1).filter(|text| is_none(size::size(text)))) {
                Some(bad) => say(bad, "how many buffers, and their size, such as 8 4k"),
                None => None,
            }
        }
        "directio" => {
            let bad = directive.arg(0).filter(|word| *word != "off" && size::offset(word).is_none())?;
            say(bad, "off, or a size such as 4m")
        }
        // Only mail can do without.
        "resolver" if kind_of(block) == "mail" && directive.arg(0) == Some("off") => None,
        "resolver" => {
            let is_old = version.is_some_and(|own| own < RESOLVER_WITHOUT_IPV4);
            let bad = texts().find(|word| match word.split_once('=') {
                Some(("valid", value)) => time::seconds(value).is_none(),
                Some(("ipv4", _)) if is_old => true,
                Some(("ipv4" | "ipv6", value)) => !matches!(value, "on" | "off"),
                // OpenResty has the latter.
                Some(("status_zone" | "local", _)) => false,
                Some(_) => true,
                None => *word == "off" || word.contains(',') || Url::parse(word, false).is_err(),
            });
            if let Some(bad) = bad {
                return say(bad, "addresses, and valid=TIME, ipv4=off or ipv6=off");
            }
            if ["ipv4=off", "ipv6=off"].iter().all(|off| texts().any(|word| word == *off)) {
                return say("ipv4=off and ipv6=off", "one of them");
            }
            let has_servers = texts().any(|word| !word.contains('=') || word == "local=on");
            (!has_servers && directive.args.iter().len() > 0).then(|| {
                ("nginx refuses a resolver without an address".to_owned(), "write its address".to_owned())
            })
        }
        "error_log" => {
            let level =
                directive.arg(1).filter(|level| !LEVELS.contains(level) && !level.starts_with("debug_"))?;
            say(level, &format!("one of {}", LEVELS.join(", ")))
        }
        "limit_req" if !texts().any(|word| word.starts_with("zone=")) => {
            Some(("nginx refuses limit_req without zone=".to_owned(), "add zone= and its name".to_owned()))
        }
        "limit_req" => {
            let is_known = |word: &&str| {
                *word == "nodelay"
                    || ["zone=", "burst=", "delay="].iter().any(|start| word.starts_with(start))
            };
            if let Some(bad) = texts().find(|word| !is_known(word)) {
                return say(bad, "zone=, burst=, delay= or nodelay");
            }
            let numbers = texts()
                .filter_map(|word| word.strip_prefix("burst=").or_else(|| word.strip_prefix("delay=")));
            let bad = { numbers }.find(|text| size::number(text).is_none_or(|number| number == 0))?;
            say(bad, "a number from 1")
        }
        "limit_req_zone" | "limit_conn_zone" => {
            let bad = texts().skip(1).find(|word| match word.split_once('=') {
                Some(("zone", zone)) => !is_zone(zone),
                Some(("rate", rate)) if name == "limit_req_zone" => !is_rate(rate),
                // Plus has that.
                None => *word != "sync",
                Some(_) => true,
            })?;
            say(bad, "a zone such as zone=api:1m, and a rate such as rate=10r/s or rate=30r/m")
        }
        "zone" if matches!(block.context, "upstream" | "stream-upstream") => {
            let text = directive.arg(1)?;
            let is_large = size::size(text).is_some_and(|size| size >= MIN_ZONE);
            if is_large { None } else { say(text, "a size from 32k") }
        }
        "proxy_redirect" if directive.args.len() == 1 => match directive.arg(0)? {
            "off" => None,
            "default" => defaulted(block, directive),
            word => say(word, "off, default, or what to replace and what by"),
        },
        "proxy_bind" | "fastcgi_bind" | "uwsgi_bind" | "scgi_bind" | "grpc_bind" | "memcached_bind" => {
            let first = directive.arg(0)?;
            if first != "off" && !first.contains('$') && !is_local_address(first) {
                return say(first, "an address of this host, with or without a port, or off");
            }
            let bad = directive.arg(1).filter(|word| *word != "transparent" || first == "off")?;
            say(bad, "transparent behind an address, or nothing")
        }
        "expires" => {
            let is_modified = directive.args.len() > 1;
            if let Some(word) = directive.arg(0).filter(|word| is_modified && *word != "modified") {
                return say(word, "modified and a time, or a time alone");
            }
            let bad = directive
                .args
                .last()
                .map(|word| word.text.as_str())
                .filter(|word| !is_expiry(word, is_modified))?;
            say(bad, "a time such as 30d or -1; behind no modified also @15h30m, epoch, max or off")
        }
        // Lines of a block are one list.
        "valid_referers"
            if { block.named(name).flat_map(|line| &line.args) }
                .all(|word| matches!(&*word.text, "none" | "blocked")) =>
        {
            let what = "nginx refuses valid_referers without a name".to_owned();
            Some((what, "add server_names, or names such as *.example.org".to_owned()))
        }
        "valid_referers" => {
            let twice = referer_twice(block)?;
            let what = format!("nginx refuses \"{twice}\" in valid_referers twice");
            Some((what, "write it once; server_names stands for the names of the server".to_owned()))
        }
        "proxy_cookie_domain" | "proxy_cookie_path" if directive.args.len() == 1 => {
            let bad = directive.arg(0).filter(|word| *word != "off")?;
            say(bad, "off, or what to replace and what by")
        }
        "worker_processes" => {
            let bad = directive.arg(0).filter(|word| *word != "auto" && size::number(word).is_none())?;
            say(bad, "a number, or auto")
        }
        "root" | "alias" => {
            let bad = OF_ITSELF.iter().find(|name| texts().any(|text| text.contains(**name)))?;
            let what = format!("nginx refuses {bad} in \"{name}\": it is made of that");
            Some((what, "write the path, or a variable that set or map fills".to_owned()))
        }
        "rewrite" if directive.arg(1) == Some("") => {
            let what = "nginx refuses a rewrite by nothing".to_owned();
            Some((what, "write / or another path".to_owned()))
        }
        "index" if texts().any(str::is_empty) => {
            let what = "nginx refuses an empty name in \"index\"".to_owned();
            Some((what, "remove it".to_owned()))
        }
        "set" => {
            let name = directive.arg(0)?;
            if name == "$" { say(name, "the name of a variable") } else { None }
        }
        "log_format" => {
            let escape = directive.arg(1)?.strip_prefix("escape=")?;
            if matches!(escape, "default" | "json" | "none") {
                None
            } else {
                say(escape, "default, json or none")
            }
        }
        _ => None,
    }
}

/// What `proxy_redirect default` stands for comes out of a `proxy_pass` before it in the same block.
fn defaulted(block: &Block<'_>, redirect: &Directive) -> Option<(String, String)> {
    let before = block.children.iter().take_while(|directive| !std::ptr::eq(*directive, redirect));
    let pass = before.filter(|directive| directive.name.text == "proxy_pass").last();
    let (why, fix) = match pass {
        Some(pass) if !pass.arg(0).unwrap_or_default().contains('$') => return None,
        Some(_) => ("with variables in proxy_pass", "write what to replace and what by"),
        None => ("without a proxy_pass before it in the same block", "move it behind proxy_pass"),
    };
    Some((format!("nginx refuses \"proxy_redirect default\" {why}"), fix.to_owned()))
}

/// What connections may begin at: no name.
fn is_local_address(text: &str) -> bool {
    let is_port = |text: &str| size::number(text).is_some_and(|port| (1..=65_535).contains(&port));
    if ipv4(text).is_some() || text.parse::<Ipv6Addr>().is_ok() {
        return true;
    }
    // In brackets without a port it is taken by newer ones only.
    if let Some((ip, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        return ip.parse::<Ipv6Addr>().is_ok()
            && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    text.split_once(':').is_some_and(|(ip, port)| ipv4(ip).is_some() && is_port(port))
}

/// A host that the `valid_referers` of a block name twice. Paths behind it do not tell two apart.
fn referer_twice<'a>(block: &Block<'a>) -> Option<&'a str> {
    let words = |name| block.named(name).flat_map(|line| line.args.iter().map(|word| word.text.as_str()));
    let written: Vec<_> = words("valid_referers").collect();
    let server = block.inside.iter().find(|around| around.name.text == "server");
    let names =
        server.iter().flat_map(|server| server.children()).filter(|line| line.name.text == "server_name");
    let of_server = names.flat_map(|line| &line.args).map(|word| word.text.as_str());
    let of_server = of_server.filter(|name| !name.is_empty() && !name.contains('$'));
    let of_server = of_server.filter(|_| written.contains(&"server_names"));
    let is_host =
        |word: &&str| !matches!(*word, "none" | "blocked" | "server_names") && !word.starts_with('~');
    let mut seen = HashSet::new();
    let hosts =
        { written.iter().copied() }.filter(is_host).map(|word| word.split('/').next().unwrap_or(word));
    hosts.chain(of_server.filter(|name| !name.starts_with('~'))).find(|host| {
        let keys = matched(host);
        let is_there = keys.iter().any(|key| seen.contains(key));
        seen.extend(keys);
        is_there
    })
}

/// What `expires` takes last.
fn is_expiry(text: &str, is_modified: bool) -> bool {
    let time = |text: &str| time::seconds(text);
    if text.contains('$') {
        return true;
    }
    match text.strip_prefix('@') {
        Some(of_day) => !is_modified && time(of_day).is_some_and(|seconds| seconds <= 86_400),
        None if matches!(text, "epoch" | "max" | "off") => !is_modified,
        None => time(text.strip_prefix(['+', '-']).unwrap_or(text)).is_some(),
    }
}

/// A name and a size.
fn is_zone(text: &str) -> bool {
    text.split_once(':').is_some_and(|(name, bytes)| {
        !name.is_empty() && size::size(bytes).is_some_and(|bytes| bytes >= MIN_ZONE)
    })
}

/// How many requests in a second, where nothing is behind it, or in a minute.
fn is_rate(text: &str) -> bool {
    let number = text.strip_suffix("r/s").or_else(|| text.strip_suffix("r/m")).unwrap_or(text);
    size::number(number).is_some_and(|number| number > 0)
}

/// Zones that nothing declares, or that are declared twice.
fn declared(blocks: &[Block<'_>], places: &Places<'_>, findings: &mut Vec<Finding>) {
    let mut known: HashSet<(&str, &str, &str)> = HashSet::new();
    let mut first: HashMap<(&str, &str), &Directive> = HashMap::new();
    for block in blocks.iter().filter(|block| matches!(block.context, "http" | "stream")) {
        for (naming, _, declaring, parameter) in NAMED {
            for line in block.named(declaring) {
                let zones = line.args.iter().filter_map(|word| word.text.strip_prefix(parameter));
                for name in zones.map(|zone| zone.split(':').next().unwrap_or(zone)) {
                    known.insert((kind_of(block), *naming, name));
                    let first = first.insert((kind_of(block), name), line);
                    if let Some(first) = first.filter(|first| !std::ptr::eq(*first, line)) {
                        let what = format!(
                            "nginx refuses a second zone \"{name}\"; the first is at {}",
                            places.line(first)
                        );
                        let fix = "rename one of them";
                        findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(line), what, fix));
                    }
                }
            }
        }
    }
    for kind in ["http", "stream"] {
        let of_kind = blocks.iter().filter(|block| block.context == kind);
        for block in of_kind {
            let mut formats = Formats::of(kind);
            formats.follow(block.children, places, findings);
        }
    }
    for block in blocks {
        for (naming, parameter, declaring, _) in NAMED {
            for line in block.named(naming) {
                let mut named = line.args.iter().filter_map(|word| word.text.strip_prefix(parameter));
                let Some(name) = named.next().filter(|name| *name != "off" && !name.contains('$')) else {
                    continue;
                };
                if !known.contains(&(kind_of(block), *naming, name)) {
                    let what =
                        format!("nginx refuses the zone \"{name}\" of {naming}: no {declaring} has it");
                    let fix = format!("add {declaring}, or correct the name");
                    findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(line), what, fix));
                }
            }
        }
    }
}

/// The formats of logs that are declared so far.
struct Formats<'a> {
    known: HashSet<&'a str>,
    /// What nginx takes where none is named.
    default: Option<&'static str>,
}

impl<'a> Formats<'a> {
    fn of(kind: &str) -> Self {
        let default = (kind == "http").then_some("combined");
        Self { known: default.into_iter().collect(), default }
    }

    /// What is wrong about them in a block and those within, in nginx's order.
    fn follow(&mut self, block: &'a [Directive], places: &Places<'_>, findings: &mut Vec<Finding>) {
        for directive in block {
            let found = match directive.name.text.as_str() {
                "log_format" => directive.arg(0).filter(|name| !self.known.insert(name)).map(|name| {
                    let what = format!("nginx refuses a second log_format \"{name}\"");
                    (what, "rename or remove one of them".to_owned())
                }),
                "access_log" => self.unknown(directive),
                "server" | "location" | "if" | "limit_except" => {
                    self.follow(directive.children(), places, findings);
                    None
                }
                _ => None,
            };
            if let Some((what, fix)) = found {
                findings.push(Finding::new(&rules::BAD_ARGUMENT, &places.line(directive), what, fix));
            }
        }
    }

    /// Why nginx refuses the format of a log.
    fn unknown(&self, log: &Directive) -> Option<(String, String)> {
        if log.arg(0) == Some("off") {
            return None;
        }
        let Some(name) = log.arg(1) else {
            let what = "nginx refuses access_log without a format: only http has one of its own".to_owned();
            return self.default.is_none().then(|| (what, "add log_format, and name it here".to_owned()));
        };
        // nginx finds them without regard to case.
        if self.known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return None;
        }
        let what =
            format!("nginx refuses the format \"{name}\" of access_log: no log_format before it has it");
        let fix = match self.default {
            Some(default) if name.contains('=') => format!("write {default} before it, or another format"),
            _ => "add log_format before, or correct the name".to_owned(),
        };
        Some((what, fix))
    }
}

#[cfg(test)]
mod tests {
    use crate::check::examples::ids;

    /// A story asks nginx about more of them.
    #[test]
    fn values_that_nginx_refuses_are_found_and_no_others() {
        let check = |line: &str, is_well: bool| {
            let text =
                format!("http {{ server {{ listen 80; server_name a.example; {line} return 200; }} }}");
            let expected: &[&str] = if is_well { &[] } else { &["bad-argument"] };
            assert_eq!(ids(&text), expected, "{line}");
        };
        check("proxy_bind 127.0.0.1; output_buffers 2 32k; directio off; limit_rate_after 1m;", true);
        check("proxy_bind [::1]:80; resolver 127.0.0.1 ipv6=off ipv6=off;", true);
        check("valid_referers none server_names b.example/x;", true);
        for bad in [
            "proxy_bind localhost;",
            "proxy_bind 127.0.0.1:0;",
            "output_buffers 2 32kk;",
            "large_client_header_buffers 4 0;",
            "directio 4kk;",
            "limit_rate_after 1x;",
            "dav_methods GET;",
            "proxy_cookie_domain a;",
            "valid_referers server_names .a.example;",
            "valid_referers b.example/x b.example/y;",
        ] {
            check(bad, false);
        }
    }
}
