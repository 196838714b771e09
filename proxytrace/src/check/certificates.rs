//! Findings about TLS that nginx refuses to start with: servers without a certificate, certificates without a key or a file, and peers
//! that are to be verified against nothing.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use nginx_conf::Directive;

use super::{Host, blocks::Block, finding::Finding, rules, subject::Subject};
use crate::nginx::{
    listen::{Socket, of_server},
    places::Places,
    version::Version,
};

/// The first nginx whose servers of stream have names: it judges them as those of http.
const STREAM_AS_HTTP: Version = Version::new(1, 25, 5);
/// The first nginx that verifies clients with `ssl_trusted_certificate` alone.
const TRUSTED_IS_ENOUGH: Version = Version::new(1, 27, 2);

/// Directives of a server that name files which nginx reads when it starts.
const FILES: [&str; 6] = [
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_client_certificate",
    "ssl_trusted_certificate",
    "ssl_crl",
    "ssl_dhparam",
];

/// Where requests are passed on over TLS: the context, the word that settings begin with, and what speaks TLS.
const PASSES: [(&str, &str, Speaks); 7] = [
    ("location", "proxy", Speaks::Scheme("proxy_pass", "https://")),
    ("location-if", "proxy", Speaks::Scheme("proxy_pass", "https://")),
    ("location", "grpc", Speaks::Scheme("grpc_pass", "grpcs://")),
    ("location-if", "grpc", Speaks::Scheme("grpc_pass", "grpcs://")),
    ("location", "uwsgi", Speaks::Scheme("uwsgi_pass", "suwsgi://")),
    ("location-if", "uwsgi", Speaks::Scheme("uwsgi_pass", "suwsgi://")),
    ("stream-server", "proxy", Speaks::Flag("proxy_ssl")),
];

/// What makes nginx speak TLS to a peer.
#[derive(Clone, Copy)]
enum Speaks {
    /// A scheme in the target of a directive, which variables may hold too.
    Scheme(&'static str, &'static str),
    /// A directive that is on.
    Flag(&'static str),
}

pub(super) fn find(subject: &Subject, host: &Host<'_>, findings: &mut Vec<Finding>) {
    // What stands around a part may have certificates.
    if !subject.is_whole() {
        return;
    }
    let places = Places(&subject.config);
    let blocks = subject.blocks();
    for (kind, context) in [("http", "server"), ("stream", "stream-server"), ("mail", "mail-server")] {
        let of_kind = blocks.iter().filter(|block| block.context == context);
        let servers: Vec<_> = of_kind.filter_map(Tls::of).collect();
        let is_judged_by_address =
            kind == "http" || kind == "stream" && host.version.is_none_or(|own| own >= STREAM_AS_HTTP);
        if is_judged_by_address {
            by_address(kind, &servers, &places, findings);
        }
        for tls in &servers {
            if !is_judged_by_address || kind == "http" && tls.is_on("ssl") {
                tls.alone(&places, findings);
            }
            if is_judged_by_address || tls.wants_it() {
                tls.keys(&places, findings);
                tls.verified(host.version, &places, findings);
                tls.files(subject, host, &places, findings);
            }
        }
    }
    for block in &blocks {
        passes(block, &places, findings);
    }
}

/// What a server has of TLS.
struct Tls<'a> {
    block: &'a Block<'a>,
    server: &'a Directive,
    certificates: &'a [&'a Directive],
    keys: &'a [&'a Directive],
    rejects: bool,
}

/// Those that answer at an address.
#[derive(Default)]
struct At {
    is_tls: bool,
    default: usize,
    has_default: bool,
    servers: Vec<usize>,
}

impl<'a> Tls<'a> {
    /// `None` where another module may bring certificates.
    fn of(block: &'a Block<'a>) -> Option<Self> {
        use crate::nginx::directives;
        let is_foreign = |name: &str| name.starts_with("ssl_") && directives::of(name).is_empty();
        if block.names_around().any(is_foreign) {
            return None;
        }
        Some(Self {
            block,
            server: block.opened_by()?,
            certificates: block.in_force("ssl_certificate"),
            keys: block.in_force("ssl_certificate_key"),
            rejects: block.last_in_force("ssl_reject_handshake") == Some("on"),
        })
    }

    fn is_on(&self, name: &'a str) -> bool {
        self.block.last_in_force(name).is_some_and(|value| value.eq_ignore_ascii_case("on"))
    }

    /// Whether it takes TLS by itself, at whatever address.
    fn wants_it(&self) -> bool {
        let has_word = |listen: &Directive| listen.args.iter().skip(1).any(|word| word.text == "ssl");
        let starttls = self.block.last_in_force("starttls");
        self.block.named("listen").any(has_word)
            || self.is_on("ssl")
            || matches!(starttls, Some("on" | "only"))
    }

    const fn has_any(&self) -> bool {
        !self.certificates.is_empty() || self.rejects
    }

    fn lacks(&self, what: &str, places: &Places<'_>, findings: &mut Vec<Finding>) {
        let what = format!("nginx refuses {what} in a server without ssl_certificate");
        let fix = "add ssl_certificate and ssl_certificate_key";
        findings.push(Finding::new(&rules::CERTIFICATE_MISSING, &places.line(self.server), what, fix));
    }

    /// A server that is judged by itself.
    fn alone(&self, places: &Places<'_>, findings: &mut Vec<Finding>) {
        if self.wants_it() && !self.has_any() {
            self.lacks("TLS", places, findings);
        }
    }

    fn keys(&self, places: &Places<'_>, findings: &mut Vec<Finding>) {
        if let Some(certificate) = self.certificates.last()
            && self.keys.len() < self.certificates.len()
        {
            let named = certificate.arg(0).unwrap_or_default();
            let what = format!("nginx refuses the certificate \"{named}\" without a key");
            let fix = "add ssl_certificate_key beside it";
            findings.push(Finding::new(&rules::CERTIFICATE_MISSING, &places.line(certificate), what, fix));
        }
    }

    fn verified(&self, version: Option<Version>, places: &Places<'_>, findings: &mut Vec<Finding>) {
        let lines = self.block.in_force("ssl_verify_client");
        let Some(line) = lines.last().filter(|line| matches!(line.arg(0), Some("on" | "optional"))) else {
            return;
        };
        let has = |name: &'a str| self.block.last_in_force(name).is_some_and(|path| !path.is_empty());
        let is_enough = version.is_none_or(|own| own >= TRUSTED_IS_ENOUGH) && has("ssl_trusted_certificate");
        if self.has_any() && !has("ssl_client_certificate") && !is_enough {
            let what = "nginx refuses ssl_verify_client without ssl_client_certificate".to_owned();
            let fix = "add ssl_client_certificate, the authorities of clients";
            findings.push(Finding::new(&rules::CERTIFICATE_MISSING, &places.line(line), what, fix));
        }
    }

    /// Files that are read when nginx starts, and that are not there.
    fn files(&self, subject: &Subject, host: &Host<'_>, places: &Places<'_>, findings: &mut Vec<Finding>) {
        if !self.has_any() {
            return;
        }
        let verifies = self.block.last_in_force("ssl_verify_client").is_some_and(|word| word != "off");
        // The authorities of clients are read where clients are asked for certificates.
        let is_read = |name: &&&str| verifies || **name != "ssl_client_certificate";
        for line in FILES.iter().filter(is_read).flat_map(|name| self.block.in_force(name)) {
            let Some(path) = line.arg(0).and_then(|text| file(subject, text)) else { continue };
            if !(host.has_file)(&path) {
                let what = format!("nginx refuses {}: there is no {}", line.name.text, path.display());
                let fix = "put the file there, or correct its path";
                let found = Finding::new(&rules::CERTIFICATE_MISSING, &places.line(line), what, fix);
                findings.push(if host.is_here { found } else { found.into_note() });
            }
        }
    }
}

/// The file that an argument names, as nginx reads it when it starts.
fn file(subject: &Subject, text: &str) -> Option<PathBuf> {
    // A variable is filled by a connection; `data:`, `engine:` and `store:` name no file.
    if text.is_empty() || text.contains(['$', ':']) {
        return None;
    }
    let main = subject.config.files.first().and_then(|main| main.path.parent());
    Some(main.unwrap_or(Path::new("")).join(text))
}

/// At each address that takes TLS its default server must have a certificate, or refuse whoever comes; then all others must.
fn by_address(kind: &str, servers: &[Tls<'_>], places: &Places<'_>, findings: &mut Vec<Finding>) {
    let mut all: BTreeMap<Socket, At> = BTreeMap::new();
    for (number, tls) in servers.iter().enumerate() {
        for (listen, directive) in of_server(tls.server, kind == "http") {
            let words = || directive.iter().flat_map(|line| line.args.iter().skip(1));
            let is_tls = words().any(|word| matches!(&*word.text, "ssl" | "quic"));
            for socket in listen.sockets {
                let at = all.entry(socket).or_default();
                at.is_tls |= is_tls;
                if at.servers.is_empty() || listen.is_default && !at.has_default {
                    at.default = number;
                }
                at.has_default |= listen.is_default;
                at.servers.push(number);
            }
        }
    }
    // Of the ports of a range one is named for all.
    let mut told = HashSet::new();
    for (socket, at) in all.iter().filter(|(_, at)| at.is_tls) {
        let default = &servers[at.default];
        let lacking = if !default.certificates.is_empty() {
            None
        } else if default.rejects {
            at.servers.iter().copied().find(|&number| !servers[number].has_any())
        } else {
            Some(at.default)
        };
        if let Some(number) = lacking.filter(|number| told.insert(*number)) {
            servers[number].lacks(&format!("TLS at {socket}"), places, findings);
        }
    }
}

/// What is passed on over TLS.
fn passes<'a>(block: &Block<'a>, places: &Places<'_>, findings: &mut Vec<Finding>) {
    for (_, word, speaks) in PASSES.iter().filter(|(context, ..)| *context == block.context) {
        let is_tls = match speaks {
            Speaks::Scheme(pass, scheme) => block.named(pass).any(|line| {
                let text = line.arg(0).unwrap_or_default();
                let start = text.get(..scheme.len()).unwrap_or_default();
                start.eq_ignore_ascii_case(scheme) || text.contains('$')
            }),
            Speaks::Flag(name) => block.last_in_force(name) == Some("on"),
        };
        if !is_tls {
            continue;
        }
        let [verify, trusted, certificate, key] =
            ["verify", "trusted_certificate", "certificate", "certificate_key"]
                .map(|end| format!("{word}_ssl_{end}"));
        let is_set = |name: &str| block.last_in_force(name).is_some_and(|value| !value.is_empty());
        let mut say = |name: &str, without: &str| {
            let Some(line) = block.in_force(name).last().copied() else { return };
            let what = format!("nginx refuses {name} without {without}");
            let fix = format!("add {without}");
            findings.push(Finding::new(&rules::CERTIFICATE_MISSING, &places.line(line), what, fix));
        };
        if block.last_in_force(&verify) == Some("on") && !is_set(&trusted) {
            say(&verify, &trusted);
        }
        if is_set(&certificate) && !is_set(&key) {
            say(&certificate, &key);
        }
    }
}
