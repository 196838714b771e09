//! Configurations as what they mean, made at random.

use super::forms::FORMS;

/// Numbers that follow from a seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Less than `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        // xorshift*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }

    pub(super) fn is(&mut self) -> bool {
        self.below(2) == 0
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// A configuration. Everything in it is used, and no two things in it mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) upstreams: Vec<Upstream>,
    pub(super) maps: Vec<Map>,
    /// The first is the default of each port.
    pub(super) servers: Vec<Server>,
    /// The number of the server that answers where no name fits.
    pub(super) default: usize,
    /// Numbers of forms, each with what else is written, if something.
    pub(super) forms: Vec<(usize, Option<usize>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) peers: Vec<Peer>,
    pub(super) keepalive: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) ip: String,
    pub(super) port: usize,
    pub(super) weight: usize,
    pub(super) is_backup: bool,
    pub(super) is_down: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    pub(super) source: String,
    /// Names of upstreams.
    pub(super) default: String,
    pub(super) entries: Vec<(String, String)>,
    pub(super) patterns: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// With whether it takes TLS there.
    pub(super) ports: Vec<(usize, bool)>,
    pub(super) names: Vec<String>,
    pub(super) read_timeout_s: usize,
    pub(super) headers: Vec<(String, String)>,
    pub(super) locations: Vec<Location>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) modifier: &'static str,
    pub(super) path: String,
    pub(super) does: Does,
    pub(super) connect_timeout_s: Option<usize>,
    pub(super) has_sni: bool,
    pub(super) headers: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Does {
    Pass { scheme: &'static str, host: String, uri: String },
    Return(usize, String),
    Rewrite { to: String, host: String },
    FastCgi(usize),
}

impl Model {
    pub(super) fn new(random: &mut Random) -> Self {
        let count = 2 + random.below(3);
        let upstreams: Vec<_> = (0..count).map(|number| Upstream::new(number, random)).collect();
        let maps = (0..=random.below(2)).map(|number| Map::new(number, count, random)).collect();
        let mut model = Self { upstreams, maps, servers: Vec::new(), default: 0, forms: Vec::new() };
        let servers = 2 + random.below(2);
        model.servers = (0..servers).map(|number| Server::new(number, &model, random)).collect();
        model.default = random.below(servers);
        let (first, step) = (random.below(FORMS.len()), 1 + random.below(4));
        let forms = (first..FORMS.len()).step_by(step);
        model.forms = forms.map(|form| (form, FORMS[form].other(random))).collect();
        model
    }
}

/// The name of an upstream.
pub(super) fn upstream(number: usize) -> String {
    format!("pool{number}")
}

impl Upstream {
    fn new(number: usize, random: &mut Random) -> Self {
        let count = 1 + random.below(3);
        let peers: Vec<_> = (0..count)
            .map(|peer| Peer {
                ip: format!("10.{number}.0.{}", peer + 1),
                port: if random.is() { 80 } else { 8000 + random.below(100) },
                weight: 1 + random.below(3),
                is_backup: peer > 0 && random.below(4) == 0,
                is_down: peer > 0 && random.below(4) == 0,
            })
            .collect();
        let keepalive = random.is().then(|| 8 + random.below(8));
        Self { name: upstream(number), peers, keepalive }
    }
}

impl Map {
    fn new(number: usize, upstreams: usize, random: &mut Random) -> Self {
        let mut led = |key: String| (key, upstream(random.below(upstreams)));
        let entries = (0..3).map(|key| led(format!("key{key}"))).collect();
        let patterns = ["^a", "^ab", "^abc"].map(|key| led(key.to_owned())).to_vec();
        let (source, default) = led(format!("$http_x_{number}"));
        Self { source, default, entries, patterns }
    }
}

impl Server {
    fn new(number: usize, model: &Model, random: &mut Random) -> Self {
        let names = (0..1 + random.below(3)).map(|name| format!("n{name}.s{number}.example")).collect();
        let mut paths = 0;
        let mut new = |modifier: &'static str, does: Does| {
            paths += 1;
            let path = match modifier {
                "~" => format!("^/p{paths}"),
                _ => format!("/p{paths}/"),
            };
            let plain = Location {
                modifier,
                path,
                does,
                connect_timeout_s: None,
                has_sni: false,
                headers: Vec::new(),
            };
            let connect_timeout_s = random.is().then(|| 1 + random.below(50));
            let headers = random.is().then(|| ("X-Place".to_owned(), format!("place{paths}")));
            Location { connect_timeout_s, headers: headers.into_iter().collect(), ..plain }
        };
        let pass = |host: String| Does::Pass { scheme: "http", host, uri: String::new() };
        let mut locations = Vec::new();
        for upstream in &model.upstreams {
            locations.push(new("", pass(upstream.name.clone())));
        }
        for map in 0..model.maps.len() {
            locations.push(new("", pass(format!("$map{map}"))));
        }
        locations.push(new("=", Does::Return(301, format!("/of{number}"))));
        locations.push(new("~", Does::FastCgi(9000 + number)));
        locations.push(new("~", pass(upstream(0))));
        locations.push(new("^~", Does::Rewrite { to: "/v1$uri".to_owned(), host: upstream(1) }));
        let secure = Does::Pass { scheme: "https", host: "10.9.9.9:8443".to_owned(), uri: "/in/".to_owned() };
        locations.push(Location { has_sni: true, ..new("", secure) });
        let headers =
            vec![("X-Of".to_owned(), format!("server{number}")), ("Host".to_owned(), "$host".to_owned())];
        let ports = vec![(8080, false), (8443, true)];
        Self { ports, names, read_timeout_s: 1 + random.below(50), headers, locations }
    }
}
