//! Ways to write a configuration down. Whichever are chosen, it means the same.

use std::fmt::Write as _;

use super::forms::FORMS;
use super::model::{Does, Location, Model, Random, Server, Upstream};

/// Which of the ways that stand open for a whole configuration are taken. The others are taken anew at each place.
pub(super) struct Style {
    space: &'static str,
    splits_servers: bool,
    has_unused: bool,
    has_logs: bool,
    inherits: bool,
}

impl Style {
    pub(super) fn new(random: &mut Random) -> Self {
        Self {
            space: [" ", "\n\t", "  # a comment; with { this }\n"][random.below(3)],
            splits_servers: random.is(),
            has_unused: random.is(),
            has_logs: random.is(),
            inherits: random.is(),
        }
    }

    /// The configuration as a text.
    pub(super) fn written(&self, model: &Model, random: &mut Random) -> String {
        let mut parts: Vec<_> =
            model.upstreams.iter().map(|upstream| self.upstream(upstream, random)).collect();
        parts.extend(model.maps.iter().enumerate().map(|(number, map)| {
            let mut entries: Vec<_> =
                map.entries.iter().map(|(key, value)| format!("{} {value};", cased(key, random))).collect();
            entries.push(format!("default {};", map.default));
            random.shuffle(&mut entries);
            // Only the order of patterns means something.
            entries.extend(map.patterns.iter().map(|(key, value)| format!("~{key} {value};")));
            let name = variable(&format!("$map{number}"), random);
            let name = name.replace(['{', '}'], "");
            format!("map {} {name} {{ {} }}", map.source, entries.join(self.space))
        }));
        let mut servers: Vec<_> = model.servers.iter().enumerate().collect();
        random.shuffle(&mut servers);
        for (number, server) in servers {
            let is_default = number == model.default;
            let names = if self.splits_servers { server.names.chunks(1) } else { server.names.chunks(64) };
            for (part, names) in names.enumerate() {
                parts.push(self.server(server, names, is_default && part == 0, random));
            }
        }
        if self.has_unused {
            parts.push("upstream unused { server 10.250.0.1; }".to_owned());
            parts.push("map $arg_z $unused { default 1; }".to_owned());
        }
        if self.has_logs {
            parts.push("access_log off; log_format other $host; tcp_nopush on;".to_owned());
        }
        let mut streams = Vec::new();
        for (number, other) in &model.forms {
            let form = &FORMS[*number];
            let text = form.written(*number, *other, random);
            if form.is_of_stream() { streams.push(text) } else { parts.push(text) }
        }
        random.shuffle(&mut parts);
        let (http, streams) = (parts.join(self.space), streams.join(self.space));
        format!("http {{{}{http} }} stream {{ {streams} }}", self.space)
    }

    fn upstream(&self, upstream: &Upstream, random: &mut Random) -> String {
        let mut lines: Vec<_> = upstream
            .peers
            .iter()
            .map(|peer| {
                let mut parameters = Vec::new();
                if peer.weight != 1 || random.is() {
                    parameters.push(format!(" weight={}", peer.weight));
                }
                parameters.extend(random.is().then(|| " max_fails=1".to_owned()));
                parameters.extend(random.is().then(|| " fail_timeout=10s".to_owned()));
                parameters.extend(peer.is_backup.then(|| " backup".to_owned()));
                parameters.extend(peer.is_down.then(|| " down".to_owned()));
                random.shuffle(&mut parameters);
                let has_port = peer.port != 80 || random.is();
                let port = if has_port { format!(":{}", peer.port) } else { String::new() };
                format!("server {}{port}{};", peer.ip, parameters.concat())
            })
            .collect();
        random.shuffle(&mut lines);
        lines.extend(upstream.keepalive.map(|count| format!("keepalive {count};")));
        lines.extend(random.is().then(|| format!("zone {} 64k;", upstream.name)));
        format!("upstream {} {{ {} }}", cased(&upstream.name, random), lines.join(self.space))
    }

    fn server(&self, server: &Server, names: &[String], is_default: bool, random: &mut Random) -> String {
        let mut lines: Vec<_> = server
            .ports
            .iter()
            .map(|(port, is_tls)| {
                let address = [format!("{port}"), format!("*:{port}"), format!("0.0.0.0:{port}")];
                let tls = if *is_tls { " ssl" } else { "" };
                let default = if is_default { " default_server" } else { "" };
                format!("listen {}{tls}{default};", address[random.below(3)])
            })
            .collect();
        let mut names: Vec<_> = names.iter().map(|name| cased(name, random)).collect();
        random.shuffle(&mut names);
        if random.is() {
            lines.extend(names.iter().map(|name| format!("server_name {name};")));
        } else {
            lines.push(format!("server_name {};", names.join(" ")));
        }
        if self.inherits {
            lines.push(format!("proxy_read_timeout {};", time(server.read_timeout_s, random)));
            lines.push(headers(&server.headers, random));
        }
        let (patterns, mut others): (Vec<_>, Vec<_>) =
            server.locations.iter().partition(|location| location.modifier == "~");
        random.shuffle(&mut others);
        lines.extend(others.into_iter().map(|location| self.location(server, location, random)));
        random.shuffle(&mut lines);
        // Patterns keep their order, wherever they stand.
        let mut at = 0;
        for pattern in patterns {
            at += random.below(lines.len() - at + 1);
            lines.insert(at, self.location(server, pattern, random));
            at += 1;
        }
        format!("server {{ {} }}", lines.join(self.space))
    }

    fn location(&self, server: &Server, location: &Location, random: &mut Random) -> String {
        let mut lines = Vec::new();
        lines.extend(
            location.connect_timeout_s.map(|s| format!("proxy_connect_timeout {};", time(s, random))),
        );
        if location.has_sni {
            lines.push("proxy_ssl_server_name on;".to_owned());
        }
        if !location.headers.is_empty() {
            lines.push(headers(&location.headers, random));
        } else if !self.inherits {
            lines.push(headers(&server.headers, random));
        }
        if !self.inherits {
            lines.push(format!("proxy_read_timeout {};", time(server.read_timeout_s, random)));
        }
        let pass = |scheme: &str, host: &str, uri: &str, random: &mut Random| {
            let has_port = host.contains([':', '$']);
            let port = match scheme {
                "https" if !has_port && host.starts_with("10.") => ":443",
                _ => "",
            };
            let host = if host.starts_with('$') { variable(host, random) } else { cased(host, random) };
            format!("proxy_pass {}://{host}{port}{uri};", cased(scheme, random))
        };
        lines.push(match &location.does {
            Does::Pass { scheme, host, uri } => pass(scheme, host, uri, random),
            Does::Return(status, to) => format!("return {status} {};", quoted(to, random)),
            Does::Rewrite { to, host } => {
                let to = to.replace("$uri", &variable("$uri", random));
                format!("rewrite ^ {to} break; {}", pass("http", host, "", random))
            }
            Does::FastCgi(port) => format!("fastcgi_pass 127.0.0.1:{port};"),
        });
        random.shuffle(&mut lines);
        let gap = if location.modifier == "=" && random.is() { "" } else { " " };
        let path = quoted(&location.path, random);
        // A modifier that is glued to a path is read together with it.
        let path = if gap.is_empty() { location.path.clone() } else { path };
        format!("location {}{gap}{path} {{ {} }}", location.modifier, lines.join(self.space))
    }
}

fn headers(headers: &[(String, String)], random: &mut Random) -> String {
    let mut headers: Vec<_> = headers.iter().collect();
    random.shuffle(&mut headers);
    let mut text = String::new();
    for (name, value) in headers {
        let value = if value.starts_with('$') { variable(value, random) } else { quoted(value, random) };
        write!(text, "proxy_set_header {} {value}; ", cased(name, random)).unwrap();
    }
    text
}

/// Where case means nothing.
fn cased(text: &str, random: &mut Random) -> String {
    match random.below(3) {
        0 => text.to_ascii_uppercase(),
        1 => text.to_ascii_lowercase(),
        _ => text.to_owned(),
    }
}

fn variable(text: &str, random: &mut Random) -> String {
    let name = cased(text.trim_start_matches('$'), random);
    if random.is() { format!("${{{name}}}") } else { format!("${name}") }
}

fn quoted(text: &str, random: &mut Random) -> String {
    match random.below(3) {
        0 => format!("\"{text}\""),
        1 => format!("'{text}'"),
        _ => text.to_owned(),
    }
}

fn time(s: usize, random: &mut Random) -> String {
    [format!("{s}"), format!("{s}s"), format!("{}ms", s * 1000)][random.below(3)].clone()
}
