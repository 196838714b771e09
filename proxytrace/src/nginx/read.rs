//! From the tree of a configuration to its routes.

use std::{borrow::Cow, cell::Cell, collections::HashSet, rc::Rc};

use nginx_conf::{Config, Directive};

use super::{
    directives,
    passes::{self, Pass, Scope},
    places::Places,
    upstreams::{Fault, FaultKind, Origin, Upstreams},
    url::{self, Url},
    variables::{self, Scopes, Value, Variables},
    writers::{self, Writers},
};
use crate::{
    declared::{Context, Endpoint, Other, Route, Routes, Server, Target},
    escape,
    model::Address,
};

/// Where OCSP responders and the servers of `auth_http` listen when no port is written.
const HTTP: u16 = 80;
/// Where a server in http listens that does not say where (as root).
const DEFAULT_LISTEN: &str = "*:80";

/// Reads routes, and what nginx refuses about them.
pub(crate) fn read(config: &Config) -> (Routes, Vec<Fault>) {
    let mut walk = Walk {
        places: Places(config),
        routes: Routes::default(),
        upstreams: Upstreams::default(),
        faults: Vec::new(),
    };
    for (name, context) in [("http", Context::Http), ("stream", Context::Stream)] {
        for block in config.directives.iter().filter(|directive| directive.name.text == name) {
            walk.context(context, block.children());
        }
    }
    for block in config.directives.iter().filter(|directive| directive.name.text == "mail") {
        walk.mail(block.children());
    }
    walk.foreign(&config.directives);
    let Walk { mut routes, upstreams, faults, .. } = walk;
    routes.upstreams = upstreams.all;
    (routes, faults)
}

/// The first thing that nginx refuses about the upstreams of a configuration, in nginx's words.
pub(crate) fn first_fault(config: &Config) -> Option<String> {
    let (_, faults) = read(config);
    faults.first().map(|Fault { place, text, kind }| match kind {
        FaultKind::Address(error) => format!("{error} in upstream \"{text}\" in {place}"),
        FaultKind::NoBlock => format!("{} in upstream \"{text}\" in {place}", url::Error::NoPort),
        FaultKind::Duplicate(_) => format!("duplicate upstream \"{text}\" in {place}"),
        FaultKind::PortOfBlock(_) => format!("upstream \"{text}\" may not have a port in {place}"),
    })
}

/// The routes of a configuration, with names as they are shown. What nginx itself would refuse is left out.
pub(crate) fn routes(config: &Config) -> Routes {
    let mut routes = read(config).0;
    for upstream in &mut routes.upstreams {
        if let Cow::Owned(short) = escape::name(&upstream.name) {
            upstream.name = short;
        }
    }
    routes
}

/// How many servers, upstreams, peers and routes a configuration has, or a few more: what its routes take grows with that.
pub(crate) fn entries(config: &Config) -> usize {
    fn within(directives: &[Directive]) -> usize {
        let is_entry = |name: &str| matches!(name, "server" | "upstream") || name.ends_with("_pass");
        let entry = |directive: &Directive| {
            usize::from(is_entry(&directive.name.text)) + within(directive.children())
        };
        directives.iter().map(entry).sum()
    }
    within(&config.directives)
}

/// Goes through the tree.
struct Walk<'a> {
    places: Places<'a>,
    routes: Routes,
    upstreams: Upstreams,
    faults: Vec<Fault>,
}

/// A route whose target is not looked up yet: that needs all upstreams to be known.
struct Found<'a> {
    pass: &'static Pass,
    route: Route,
    /// As it is written.
    text: &'a str,
    /// What is set around it.
    set: Vec<Rc<Variables<'a>>>,
    of_server: Rc<OfServer<'a>>,
}

/// What assigns variables anywhere in a server.
struct OfServer<'a> {
    /// By `set` in all of it.
    set: Variables<'a>,
    /// By `set` in locations from which `rewrite` goes on to others.
    set_before_rewrite: Variables<'a>,
    writers: Writers,
}

/// Where one is while the tree of a server is walked.
struct Inside<'a> {
    context: Context,
    server: usize,
    scope: Scope,
    location: Vec<String>,
    set: Vec<Rc<Variables<'a>>>,
    of_server: Rc<OfServer<'a>>,
}

impl<'a> Walk<'a> {
    fn context(&mut self, context: Context, block: &'a [Directive]) {
        let scope = Scope::default().inner(context, block);
        for directive in block {
            self.other(directive);
            if directive.name.text == "upstream" {
                directive.children().iter().for_each(|line| self.other(line));
                let resolver = scope.resolver.as_ref();
                self.upstreams.add_block(context, directive, resolver, &self.places, &mut self.faults);
            }
        }
        let mut found = Vec::new();
        let writers = Writers::within(block, &|_| false);
        for server in block.iter().filter(|directive| directive.name.text == "server") {
            self.server(context, server, &scope, &writers, &mut found);
        }
        // A host that is named without variables is looked up once, when nginx starts, and a variable that holds the same
        // host leads there.
        for found in found.iter_mut().filter(|found| !found.is_dynamic()) {
            self.fixed(context, found);
        }
        let common = Variables::mapped_in(block);
        let budget = Cell::new(variables::BUDGET);
        for found in found.iter_mut().filter(|found| found.is_dynamic()) {
            self.dynamic(context, found, &common, &budget);
        }
        self.routes.routes.extend(found.into_iter().map(|found| found.route));
    }

    /// Its servers have no routes: where they connect to is what `auth_http` answers.
    fn mail(&mut self, block: &[Directive]) {
        for directive in block {
            self.other(directive);
            if directive.name.text == "server" {
                self.routes.connects_elsewhere = true;
                directive.children().iter().for_each(|directive| self.other(directive));
            }
        }
    }

    fn server(
        &mut self,
        context: Context,
        server: &'a Directive,
        scope: &Scope,
        writers: &Writers,
        found: &mut Vec<Found<'a>>,
    ) {
        let inside = Inside {
            context,
            server: self.routes.servers.len(),
            scope: scope.inner(context, server.children()),
            location: Vec::new(),
            set: vec![Rc::new(Variables::set_in(server.children()))],
            of_server: Rc::new(OfServer::new(server, writers)),
        };
        self.routes.servers.push(described(context, server));
        self.block(server.children(), &inside, found);
    }

    fn block(&mut self, block: &'a [Directive], inside: &Inside<'a>, found: &mut Vec<Found<'a>>) {
        for directive in block {
            self.other(directive);
            if let Some(pass) = Pass::of(inside.context, directive) {
                found.push(self.found(pass, directive, inside));
            }
            if let Some(place) = location(directive) {
                let own = Rc::new(Variables::set_in(directive.children()));
                // What an outer location sets does not reach an inner one.
                let outer = if directive.name.text == "location" {
                    &inside.set[inside.set.len() - 1..]
                } else {
                    &inside.set
                };
                let inner = Inside {
                    scope: inside.scope.inner(inside.context, directive.children()),
                    location: inside.location.iter().cloned().chain([place]).collect(),
                    set: [own].into_iter().chain(outer.iter().cloned()).collect(),
                    of_server: Rc::clone(&inside.of_server),
                    ..*inside
                };
                self.block(directive.children(), &inner, found);
            }
        }
    }

    fn found(&self, pass: &'static Pass, directive: &'a Directive, inside: &Inside<'a>) -> Found<'a> {
        let text = directive.arg(0).unwrap_or(pass.default);
        Found {
            pass,
            route: Route {
                server: inside.server,
                location: inside.location.clone(),
                directive: directive.name.text.to_string(),
                place: self.places.line(directive),
                target: Target { text: text.to_owned(), ..Target::default() },
                connect_timeout_ms: inside.scope.connect_timeout_ms(pass),
                read_timeout_ms: inside.scope.read_timeout_ms(pass),
                is_tls: pass.is_tls(text),
                is_unordered: inside.scope.is_unordered(pass, text),
                streams_body: inside.scope.streams_body(pass),
                resolver: inside.scope.resolver.clone(),
            },
            text,
            set: inside.set.clone(),
            of_server: Rc::clone(&inside.of_server),
        }
    }

    fn fixed(&mut self, context: Context, found: &mut Found<'_>) {
        let Route { target, place, .. } = &mut found.route;
        let origin = Origin { place, is_dynamic: false, resolver: None };
        match self.upstreams.of_pass(context, found.pass, found.text, &origin) {
            Ok(upstream) => target.upstreams.push(upstream),
            // Another module may take what nginx's own would refuse.
            Err(_) if found.pass.is_foreign() => {}
            Err(kind) => self.faults.push(Fault { place: place.clone(), text: found.text.to_owned(), kind }),
        }
    }

    fn dynamic(
        &mut self,
        context: Context,
        found: &mut Found<'a>,
        common: &Variables<'a>,
        budget: &Cell<usize>,
    ) {
        let OfServer { set, set_before_rewrite, writers } = &*found.of_server;
        let is_named = found.route.location.first().is_some_and(|location| location.starts_with('@'));
        // Whatever passes a request on to a named location leaves all variables as they are.
        let before = if is_named { set } else { set_before_rewrite };
        let scopes = Scopes { around: &found.set, elsewhere: set, before, writers, common, budget };
        let Route { target, place, resolver, .. } = &mut found.route;
        let origin = Origin { place, is_dynamic: true, resolver: resolver.as_ref() };
        let mut seen = HashSet::new();
        for value in scopes.values(found.text) {
            if value.leaves_host_open(found.pass) {
                self.routes.any_port.extend(any_port(found.pass, &value.text, place));
                target.open.push(value.text);
            } else if let Ok(upstream) = self.upstreams.of_pass(context, found.pass, &value.text, &origin)
                && seen.insert(upstream)
            {
                // What is no address makes nginx answer 500, and connects nowhere.
                target.upstreams.push(upstream);
            }
        }
        target.variables = variables::names_in(&target.open);
    }

    /// Addresses in directives of other modules, which may connect there; those in an `upstream` are its peers.
    fn foreign(&mut self, block: &[Directive]) {
        for directive in block {
            let name = directive.name.text.as_str();
            if matches!(name, "upstream" | "map" | "geo" | "split_clients" | "types" | "charset_map") {
                continue;
            }
            let is_foreign = directives::of(name).is_empty() && !writers::is_code(name);
            let words = directive.args.iter().filter(|_| is_foreign);
            for endpoint in words.filter_map(|word| url::anywhere(&word.text)) {
                let place = self.places.line(directive);
                self.routes.others.push(Other { name: name.to_owned(), endpoint, place });
            }
            self.foreign(directive.children());
        }
    }

    fn other(&mut self, directive: &Directive) {
        let url = directive.arg(0).unwrap_or_default();
        let over_http = |url: &str| Url::parse(url, true).ok()?.endpoint(Some(HTTP)).ok();
        let (name, endpoints) = match directive.name.text.as_str() {
            "resolver" => {
                let resolver = passes::resolver(directive);
                ("resolver", resolver.map(|resolver| resolver.servers).unwrap_or_default())
            }
            "ssl_stapling_responder" | "ssl_ocsp_responder" => {
                ("ocsp", url.strip_prefix("http://").and_then(over_http).into_iter().collect())
            }
            "auth_http" => {
                let url = url.strip_prefix("http://").unwrap_or(url);
                ("auth_http", over_http(url).into_iter().collect())
            }
            _ => return,
        };
        let place = self.places.line(directive);
        self.routes.others.extend(endpoints.into_iter().map(|endpoint| Other {
            name: name.to_owned(),
            endpoint,
            place: place.clone(),
        }));
    }
}

impl<'a> OfServer<'a> {
    fn new(server: &'a Directive, around: &Writers) -> Self {
        let block = server.children();
        let mut set_before_rewrite = Variables::default();
        before_rewrite(block, &mut set_before_rewrite);
        let mut writers = around.and(&Writers::within(block, &|_| true));
        // A subrequest has the variables of its request.
        let subrequests = asked_within(block);
        writers.extend(set_in_locations(block, &subrequests));
        Self { set: Variables::set_within(block, &|_| true), set_before_rewrite, writers }
    }
}

/// What is set in locations from which `rewrite` goes on to others.
fn before_rewrite<'a>(block: &'a [Directive], set: &mut Variables<'a>) {
    for location in block.iter().filter(|directive| directive.name.text == "location") {
        if goes_on(location.children()) {
            set.extend(Variables::set_within(location.children(), &|directive| directive.name.text == "if"));
        }
        before_rewrite(location.children(), set);
    }
}

/// Whether a `rewrite` in a block passes requests on to other locations.
fn goes_on(block: &[Directive]) -> bool {
    block.iter().any(|directive| match directive.name.text.as_str() {
        "rewrite" => {
            let is_redirect = ["http://", "https://", "$scheme"]
                .iter()
                .any(|start| directive.arg(1).unwrap_or_default().starts_with(start));
            !is_redirect && matches!(directive.arg(2), None | Some("last"))
        }
        "if" => goes_on(directive.children()),
        _ => false,
    })
}

/// The paths that subrequests go to.
fn asked_within(block: &[Directive]) -> Vec<&str> {
    let mut asked = Vec::new();
    for directive in block {
        if matches!(&*directive.name.text, "auth_request" | "mirror") {
            asked.extend(directive.arg(0).filter(|path| *path != "off"));
        }
        asked.extend(asked_within(directive.children()));
    }
    asked
}

/// The variables that are set in locations of these paths.
fn set_in_locations<'a>(block: &'a [Directive], paths: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    let locations = block.iter().filter(|directive| directive.name.text == "location");
    let meant =
        locations.filter(|location| location.args.last().is_some_and(|path| paths.contains(&&*path.text)));
    let set = meant.flat_map(Directive::children).filter(|directive| directive.name.text == "set");
    set.filter_map(|set| set.arg(0)?.strip_prefix('$')).map(str::to_ascii_lowercase)
}

/// The fixed address in a target whose port only a request says.
fn any_port(pass: &Pass, text: &str, place: &str) -> Option<Other> {
    let (rest, _) = pass.without_scheme(text).ok()?;
    let (host, port) = rest.rsplit_once(':').filter(|(host, _)| !host.contains('$'))?;
    let Ok(Endpoint::Address(Address::Internet(address))) = Url::parse(host, false).ok()?.endpoint(Some(0))
    else {
        return None;
    };
    let endpoint = Endpoint::Address(Address::Internet(address));
    port.contains('$').then(|| Other { name: host.to_owned(), endpoint, place: place.to_owned() })
}

impl Found<'_> {
    fn is_dynamic(&self) -> bool {
        self.text.contains('$')
    }
}

impl Value {
    /// Whether the variables that only a request fills reach into the host.
    fn leaves_host_open(&self, pass: &Pass) -> bool {
        let Some(unknown) = self.unknown_from else { return false };
        let Ok((rest, _)) = pass.without_scheme(&self.text) else { return true };
        let host = self.text.len() - rest.len();
        let end = rest.find(['/', '?']).map(|end| host + end).filter(|_| !rest.starts_with("unix:"));
        end.is_none_or(|end| unknown < end)
    }
}

/// What a block inside a server is called, if requests can be passed on from it.
fn location(directive: &Directive) -> Option<String> {
    let args = directive.args.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    match directive.name.text.as_str() {
        "location" => Some(args),
        name @ ("if" | "limit_except") => Some(format!("{name} {args}")),
        _ => None,
    }
}

fn described(context: Context, server: &Directive) -> Server {
    let all =
        |name: &'static str| server.children().iter().filter(move |directive| directive.name.text == name);
    let mut listen: Vec<_> = all("listen").filter_map(|listen| listen.arg(0)).map(str::to_owned).collect();
    if listen.is_empty() && context == Context::Http {
        listen.push(DEFAULT_LISTEN.to_owned());
    }
    let names = all("server_name").flat_map(|names| &names.args).map(|name| name.text.to_string()).collect();
    let is_udp = all("listen").any(|listen| listen.args.iter().any(|word| word.text == "udp"));
    Server { context, listen, names, is_udp }
}
