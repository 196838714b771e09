//! Mutations of what a request meets, each with the group that says so.

use super::model::{Does, Location, Model, Peer, Random, Server, Upstream};

type Mutation = (&'static str, &'static str, fn(&mut Model, &mut Random));

pub(super) const PEERS: &str = "peers";
pub(super) const ROUTES: &str = "routes";
pub(super) const DEFAULTS: &str = "servers that answer by default";
pub(super) const REQUESTS: &str = "what requests meet and look like";

pub(super) const MUTATIONS: &[Mutation] = &[
    ("an address", PEERS, |model, random| peer(model, random).ip = "10.200.0.1".to_owned()),
    ("a port", PEERS, |model, random| peer(model, random).port = 7000),
    ("a weight", PEERS, |model, random| peer(model, random).weight += 1),
    ("down", PEERS, |model, random| flip(&mut peer(model, random).is_down)),
    ("backup", PEERS, |model, random| flip(&mut peer(model, random).is_backup)),
    ("a peer more", PEERS, |model, random| {
        let more = Peer { ip: "10.200.0.2".to_owned(), ..peer(model, random).clone() };
        upstream(model, random).peers.push(more);
    }),
    ("kept connections", PEERS, |model, random| {
        let keepalive = &mut upstream(model, random).keepalive;
        *keepalive = Some(keepalive.map_or(100, |count| count + 1));
    }),
    ("another upstream", ROUTES, |model, random| {
        let host = model.upstreams[1].name.clone();
        *host_of(location(model, random, |does| is_pass_to(does, "pool0"))) = host;
    }),
    ("an address instead of an upstream", ROUTES, |model, random| {
        *host_of(location(model, random, |does| is_pass_to(does, "pool"))) = "10.201.0.1:80".to_owned();
    }),
    ("a scheme", ROUTES, |model, random| {
        if let Does::Pass { scheme, .. } = &mut location(model, random, |does| is_pass_to(does, "pool")).does
        {
            *scheme = "https";
        }
    }),
    ("a path of a target", ROUTES, |model, random| {
        let location = location(model, random, |does| matches!(does, Does::Pass { scheme: "https", .. }));
        if let Does::Pass { uri, .. } = &mut location.does {
            *uri = "/other/".to_owned();
        }
    }),
    ("a path of a location", ROUTES, |model, random| location(model, random, |_| true).path += "new"),
    ("another kind of location", ROUTES, |model, random| {
        location(model, random, |does| matches!(does, Does::Return(..))).modifier = "^~";
    }),
    ("a location less", ROUTES, |model, random| {
        let locations = &mut server(model, random).locations;
        // The peers of an upstream that nothing leads to are not said.
        let at = locations.iter().position(|one| matches!(one.does, Does::Return(..))).unwrap();
        locations.remove(at);
    }),
    ("a location more", ROUTES, |model, random| {
        let locations = &mut server(model, random).locations;
        locations.push(Location { path: "/more/".to_owned(), modifier: "", ..locations[0].clone() });
    }),
    ("the order of patterns", ROUTES, |model, random| {
        let locations = &mut server(model, random).locations;
        let patterns: Vec<_> = (0..locations.len()).filter(|&at| locations[at].modifier == "~").collect();
        locations.swap(patterns[0], patterns[1]);
    }),
    ("a status", ROUTES, |model, random| {
        if let Does::Return(status, _) =
            &mut location(model, random, |does| matches!(does, Does::Return(..))).does
        {
            *status = 302;
        }
    }),
    ("where a return leads", ROUTES, |model, random| {
        if let Does::Return(_, to) =
            &mut location(model, random, |does| matches!(does, Does::Return(..))).does
        {
            to.push_str("/new");
        }
    }),
    ("a rewrite", ROUTES, |model, random| {
        if let Does::Rewrite { to, .. } =
            &mut location(model, random, |does| matches!(does, Does::Rewrite { .. })).does
        {
            *to = "/v2$uri".to_owned();
        }
    }),
    ("a port of FastCGI", ROUTES, |model, random| {
        if let Does::FastCgi(port) =
            &mut location(model, random, |does| matches!(does, Does::FastCgi(_))).does
        {
            *port += 100;
        }
    }),
    ("a key of a map", ROUTES, |model, random| entry(model, random).0 += "new"),
    ("a value of a map", ROUTES, |model, random| entry(model, random).1 = "10.202.0.1:80".to_owned()),
    ("an entry less", ROUTES, |model, _| drop(model.maps[0].entries.pop())),
    ("the default of a map", ROUTES, |model, _| model.maps[0].default = "10.203.0.1:80".to_owned()),
    ("the source of a map", ROUTES, |model, _| model.maps[0].source = "$http_y".to_owned()),
    ("the order of a map's patterns", ROUTES, |model, random| {
        let at = random.below(2);
        model.maps[0].patterns.swap(at, at + 1);
    }),
    ("a name of a server", ROUTES, |model, random| other(model, random).names[0] = "new.example".to_owned()),
    ("a name more", ROUTES, |model, random| other(model, random).names.push("more.example".to_owned())),
    ("a port where servers listen", ROUTES, |model, _| {
        model.servers.iter_mut().for_each(|server| server.ports[0].0 = 8081);
    }),
    ("the default server", DEFAULTS, |model, _| model.default = (model.default + 1) % model.servers.len()),
    ("TLS", REQUESTS, |model, _| model.servers.iter_mut().for_each(|server| server.ports[1].1 = false)),
    ("a connect timeout", REQUESTS, |model, random| {
        location(model, random, |does| is_pass_to(does, "")).connect_timeout_s = Some(99);
    }),
    ("a read timeout", REQUESTS, |model, random| server(model, random).read_timeout_s += 100),
    ("SNI", REQUESTS, |model, random| {
        location(model, random, |does| matches!(does, Does::Pass { scheme: "https", .. })).has_sni = false;
    }),
    ("the Host of a server", REQUESTS, |model, random| {
        let server = server(model, random);
        server.headers[1].1 = "new.example".to_owned();
        // A location with headers of its own inherits none.
        server.locations[0].headers.clear();
    }),
    ("a header of a location", REQUESTS, |model, random| {
        location(model, random, |does| is_pass_to(does, "")).headers =
            vec![("X-New".to_owned(), "1".to_owned())];
    }),
];

fn flip(flag: &mut bool) {
    *flag = !*flag;
}

fn upstream<'a>(model: &'a mut Model, random: &mut Random) -> &'a mut Upstream {
    let at = random.below(model.upstreams.len());
    &mut model.upstreams[at]
}

fn peer<'a>(model: &'a mut Model, random: &mut Random) -> &'a mut Peer {
    let peers = &mut upstream(model, random).peers;
    let at = random.below(peers.len());
    &mut peers[at]
}

fn server<'a>(model: &'a mut Model, random: &mut Random) -> &'a mut Server {
    let at = random.below(model.servers.len());
    &mut model.servers[at]
}

/// One that is not the default, which every other name has anyway.
fn other<'a>(model: &'a mut Model, random: &mut Random) -> &'a mut Server {
    let at = (model.default + 1 + random.below(model.servers.len() - 1)) % model.servers.len();
    &mut model.servers[at]
}

fn location<'a>(model: &'a mut Model, random: &mut Random, is_meant: fn(&Does) -> bool) -> &'a mut Location {
    let mut locations: Vec<_> =
        server(model, random).locations.iter_mut().filter(|location| is_meant(&location.does)).collect();
    let at = random.below(locations.len());
    locations.swap_remove(at)
}

fn entry<'a>(model: &'a mut Model, random: &mut Random) -> &'a mut (String, String) {
    let entries = &mut model.maps[0].entries;
    let at = random.below(entries.len());
    &mut entries[at]
}

fn is_pass_to(does: &Does, start: &str) -> bool {
    matches!(does, Does::Pass { host, scheme: "http", .. } if host.starts_with(start))
}

fn host_of(location: &mut Location) -> &mut String {
    match &mut location.does {
        Does::Pass { host, .. } | Does::Rewrite { host, .. } => host,
        does => panic!("{does:?} passes nothing on"),
    }
}
