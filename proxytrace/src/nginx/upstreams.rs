//! `upstream` blocks, and the hosts that stand for one.

use std::collections::HashMap;

use nginx_conf::Directive;

use super::{
    directives,
    passes::{self, Pass},
    places::Places,
    url::{self, Error, Url},
    writers,
};
use crate::declared::{Context, Peer, Resolver, Upstream};

/// The port of a `server` line in http where none is written, also behind `https://`.
const HTTP: u16 = 80;

/// How directives begin whose code chooses a peer.
const CHOOSES: &str = "balancer_by_lua";

/// All upstreams that are known so far.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    pub(crate) all: Vec<Upstream>,
    blocks: HashMap<(Context, String), usize>,
    implicit: HashMap<(Context, String, Option<u16>), usize>,
}

/// What nginx refuses about an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// `path:line`.
    pub(crate) place: String,
    /// What is there, as it is written.
    pub(crate) text: String,
    pub(crate) kind: FaultKind,
}

/// Kinds of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FaultKind {
    /// An address that is none.
    Address(Error),
    /// A name without a port, where one is needed, and no block has that name.
    NoBlock,
    /// A second block of a name; `path:line` of the first.
    Duplicate(String),
    /// A port behind the name of a block; `path:line` of the block.
    PortOfBlock(String),
}

impl Upstreams {
    /// Takes an `upstream` block in.
    pub(crate) fn add_block(
        &mut self,
        context: Context,
        block: &Directive,
        resolver: Option<&Resolver>,
        places: &Places<'_>,
        faults: &mut Vec<Fault>,
    ) {
        let Some(name) = block.arg(0) else { return };
        let place = places.line(block);
        let key = (context, name.to_ascii_lowercase());
        if let Some(&first) = self.blocks.get(&key) {
            let kind = FaultKind::Duplicate(self.all[first].place.clone());
            faults.push(Fault { place, text: name.to_owned(), kind });
            return;
        }
        let mut peers = Vec::new();
        for line in block.children() {
            if line.name.text != "server" {
                peers.extend(foreign_peers(line, places));
                continue;
            }
            match peer(context, line, places) {
                Ok(peer) => peers.push(peer),
                Err(error) => {
                    let text = line.arg(0).unwrap_or_default().to_owned();
                    faults.push(Fault { place: places.line(line), text, kind: FaultKind::Address(error) });
                }
            }
        }
        let lines = || block.children().iter();
        let own = lines().filter(|line| line.name.text == "resolver").find_map(passes::resolver);
        self.blocks.insert(key, self.all.len());
        self.all.push(Upstream {
            name: name.to_owned(),
            place,
            context,
            is_implicit: false,
            keeps: lines()
                .find(|line| line.name.text == "keepalive")
                .map(|line| line.arg(0).and_then(|connections| connections.parse().ok()) != Some(0)),
            has_more_peers: lines().any(|line| {
                let name = line.name.text.as_str();
                // Without a server line its peers are set while nginx runs, or nginx refuses it.
                let is_empty_zone = name == "zone" && peers.is_empty();
                is_empty_zone || name == "state" || name.starts_with(CHOOSES)
            }),
            is_chosen: lines().any(|line| line.name.text.starts_with(CHOOSES)),
            peers,
            resolver: own.or_else(|| resolver.cloned()),
        });
    }

    /// The upstream that the address of a pass leads to. `route` has the place, and the resolver where the address came out
    /// of variables and is looked up when a request comes.
    pub(crate) fn of_pass(
        &mut self,
        context: Context,
        pass: &Pass,
        text: &str,
        route: &Origin<'_>,
    ) -> Result<usize, FaultKind> {
        let (rest, default_port) = pass.without_scheme(text).map_err(FaultKind::Address)?;
        let url = Url::parse(rest, pass.has_uri()).map_err(FaultKind::Address)?;
        let host = url.name.to_ascii_lowercase();
        if let Some(&block) = self.blocks.get(&(context, host.clone())) {
            // With variables a name with a port is a host, even where a block has the same name.
            match url.port {
                None => return Ok(block),
                Some(_) if !route.is_dynamic => {
                    return Err(FaultKind::PortOfBlock(self.all[block].place.clone()));
                }
                Some(_) => {}
            }
        }
        let endpoint = url.endpoint(default_port).map_err(|error| match error {
            Error::NoPort if !url.is_ip() => FaultKind::NoBlock,
            error => FaultKind::Address(error),
        })?;
        // A variable may hold anything, and not every word is a host: no server is asked for it, and it names nothing.
        if route.is_dynamic && endpoint.host().is_some_and(|host| !url::is_host_name(host)) {
            return Err(FaultKind::Address(Error::InvalidHost));
        }
        let port = if url.is_unix() { None } else { url.port.or(default_port) };
        let index = *self.implicit.entry((context, host, port)).or_insert(self.all.len());
        if index == self.all.len() {
            let resolve = route.is_dynamic && endpoint.host().is_some();
            self.all.push(Upstream {
                name: url.name,
                place: route.place.to_owned(),
                context,
                is_implicit: true,
                // Only connections to peers of a block are kept, whatever the version.
                keeps: Some(false),
                has_more_peers: false,
                is_chosen: false,
                peers: vec![Peer { resolve, ..Peer::new(endpoint, route.place.to_owned()) }],
                resolver: route.resolver.filter(|_| resolve).cloned(),
            });
        }
        Ok(index)
    }
}

/// Where an address stands.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// `path:line`.
    pub(crate) place: &'a str,
    /// It came out of variables.
    pub(crate) is_dynamic: bool,
    pub(crate) resolver: Option<&'a Resolver>,
}

/// The peers that a line of another module has, such as `drizzle_server` or `nchan_redis_server`.
fn foreign_peers(line: &Directive, places: &Places<'_>) -> Vec<Peer> {
    let name = line.name.text.as_str();
    if !directives::of(name).is_empty() || writers::is_code(name) || name.starts_with(CHOOSES) {
        return Vec::new();
    }
    let endpoints = line.args.iter().filter_map(|word| url::anywhere(&word.text));
    endpoints.map(|endpoint| Peer::new(endpoint, places.line(line))).collect()
}

fn peer(context: Context, line: &Directive, places: &Places<'_>) -> Result<Peer, Error> {
    let parameters = || line.args.iter().skip(1).map(|word| word.text.as_str());
    let url = Url::parse(line.arg(0).unwrap_or_default(), false)?;
    let endpoint = match parameters().find_map(|parameter| parameter.strip_prefix("service=")) {
        Some(service) => url.endpoint_of_service(service)?,
        None => url.endpoint(match context {
            Context::Http => Some(HTTP),
            Context::Stream => None,
        })?,
    };
    let mut peer = Peer::new(endpoint, places.line(line));
    for parameter in parameters() {
        match parameter.split_once('=').unwrap_or((parameter, "")) {
            ("weight", value) => peer.weight = value.parse().unwrap_or(peer.weight),
            ("backup", _) => peer.backup = true,
            ("down", _) => peer.down = true,
            ("resolve", _) => peer.resolve = true,
            _ => {}
        }
    }
    Ok(peer)
}
