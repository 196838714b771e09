//! What of the records somebody wants to see.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;
use proxytrace_ebpf::outcome::{Broken, Outcome};

use super::{Address, Body, Finding, Key, Kind};

/// Which records pass. Conditions of one kind are alternatives; an empty list lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Where to.
    pub addresses: Vec<AddressFilter>,
    /// Names of upstreams; where several upstreams have an address, its name is all of theirs, any of which will do.
    pub upstreams: Vec<String>,
    /// Names of proxies.
    pub proxies: Vec<String>,
    /// How an attempt ended or a connection broke.
    pub causes: Vec<Cause>,
    /// Whether what goes well is wanted too: established attempts, processes that start and that end in an orderly way.
    pub all: bool,
}

impl Filter {
    /// Whether the record is wanted. Those about no address are, but for the routine, and where a cause is asked for.
    #[must_use]
    pub fn passes(&self, body: &Body) -> bool {
        let (route, cause) = match body {
            Body::Connect(attempt) => (&attempt.route, attempt.outcome.map(Outcome::name)),
            Body::Stalled(attempt) => (&attempt.route, Some(Cause::STALLED)),
            Body::Unanswered(unanswered) => (&unanswered.route, Some(Cause::UNANSWERED)),
            Body::Broken(connection) => (&connection.route, Some(connection.cause.name())),
            Body::WorkerStarted(worker) => return self.all && self.passes_process(&worker.proxy),
            Body::WorkerExited(exit) => {
                return (self.all || !exit.is_orderly()) && self.passes_process(&exit.worker.proxy);
            }
            Body::Reload(reload) => return self.passes_process(&reload.master.proxy),
            Body::Header(_) | Body::Lost(_) => return true,
            Body::Finding(change) => return self.passes_finding(&change.finding),
            Body::Counts(_)
            | Body::Declared(_)
            | Body::Generation(_)
            | Body::Rejection(_)
            | Body::Workers(_)
            | Body::Complaints(_)
            | Body::Tick => {
                return false;
            }
        };
        let is_established = cause == Some(Outcome::Established.name());
        self.passes_proxy(&route.proxy)
            && self.passes_destination(&route.upstream, &route.address)
            && (self.all || !is_established || !self.causes.is_empty())
            && (self.causes.is_empty() || cause.is_some_and(|cause| self.passes_cause(cause)))
    }

    /// Whether the series is wanted, whatever its causes.
    #[must_use]
    pub fn passes_key(&self, key: &Key) -> bool {
        // What many share is no address, and is asked for by none.
        let has_address = || match key.address.parse() {
            Ok(address) => self.passes_address(&address),
            Err(_) => self.addresses.is_empty(),
        };
        self.passes_proxy(&key.proxy) && self.passes_upstream(&key.upstream) && has_address()
    }

    /// Whether the finding is wanted. One about an upstream is about its addresses, one about a proxy about all that it connects to.
    #[must_use]
    pub fn passes_finding(&self, Finding { subject, evidence, .. }: &Finding) -> bool {
        let addresses = || subject.address.iter().chain(&evidence.to).chain(&evidence.from);
        let is_about_address = subject.upstream.is_none() || addresses().any(|at| self.passes_address(at));
        let has_cause = |cause: &Cause| {
            let is_silence = [Kind::BlackHole, Kind::Overloaded].contains(&subject.kind);
            evidence.causes.contains_key(cause.0) || (is_silence && cause.0 == Cause::STALLED)
        };
        self.passes_proxy(&subject.proxy)
            && subject.upstream.as_deref().is_none_or(|upstream| self.passes_upstream(upstream))
            && (self.addresses.is_empty() || is_about_address)
            && (self.causes.is_empty() || self.causes.iter().any(has_cause))
    }

    fn passes_process(&self, proxy: &str) -> bool {
        self.causes.is_empty() && self.passes_proxy(proxy)
    }

    fn passes_proxy(&self, proxy: &str) -> bool {
        self.proxies.is_empty() || self.proxies.iter().any(|wanted| wanted == proxy)
    }

    fn passes_cause(&self, cause: &str) -> bool {
        self.causes.iter().any(|wanted| wanted.0 == cause)
    }

    fn passes_destination(&self, upstream: &str, address: &Address) -> bool {
        self.passes_upstream(upstream) && self.passes_address(address)
    }

    fn passes_upstream(&self, upstream: &str) -> bool {
        // Where there are many, the last is followed by how many more.
        let last =
            upstream.rsplit_once('+').filter(|(_, more)| more.bytes().all(|byte| byte.is_ascii_digit()));
        let named = last.map_or(upstream, |(named, _)| named);
        let is_wanted = |wanted: &String| wanted == upstream || named.split(',').any(|part| part == wanted);
        self.upstreams.is_empty() || self.upstreams.iter().any(is_wanted)
    }

    fn passes_address(&self, address: &Address) -> bool {
        self.addresses.is_empty() || self.addresses.iter().any(|filter| filter.matches(address))
    }
}

impl Cause {
    /// Whether it asks for attempts that did not fail.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.0 == Outcome::Established.name()
    }
}

/// The name of an outcome, of a way to break, `stalled` or `unanswered`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause(&'static str);

impl Cause {
    const STALLED: &str = "stalled";
    const UNANSWERED: &str = "unanswered";

    /// Every name, once.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let broken = Broken::ALL.into_iter().map(Broken::name).filter(|&name| name != Outcome::Reset.name());
        Outcome::ALL.into_iter().map(Outcome::name).chain(broken).chain([Self::STALLED, Self::UNANSWERED])
    }
}

impl FromStr for Cause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::names().find(|&name| name == text).map(Self).ok_or_else(|| {
            format!("unknown cause; expected one of {}", Self::names().collect::<Vec<_>>().join(", "))
        })
    }
}

/// An address, a port or a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressFilter {
    /// A network; a single address is one of full length. Perhaps with a port.
    Network(IpNet, Option<u16>),
    /// A port of any address.
    Port(u16),
    /// A unix socket.
    Unix(String),
}

impl AddressFilter {
    fn matches(&self, address: &Address) -> bool {
        match (self, address) {
            (Self::Network(net, port), Address::Internet(address)) => {
                net.contains(&address.ip()) && port.is_none_or(|port| port == address.port())
            }
            (Self::Port(port), Address::Internet(address)) => *port == address.port(),
            (Self::Unix(path), Address::Unix(other)) => path == other,
            _ => false,
        }
    }
}

impl FromStr for AddressFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.to_owned()));
        }
        if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse() {
            return Ok(Self::Port(port));
        }
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Network(net, None));
        }
        let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(ip.into(), None));
        }
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Ok(Self::Network(address.ip().into(), Some(address.port())));
        }
        Err("not an address; write 10.0.0.5, 10.0.0.5:8080, [2001:db8::5]:8080, :8080, 10.0.0.0/8 or \
             unix:/run/app.sock"
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, AddressFilter, Cause, Filter, Finding, Key};

    #[test]
    fn addresses_match_by_address_port_network_and_path() {
        let check = |filter: &str, address: &str, expected: bool| {
            let address = match address.strip_prefix("unix:") {
                Some(path) => Address::Unix(path.to_owned()),
                None => Address::Internet(address.parse().unwrap()),
            };
            let filter: AddressFilter = filter.parse().unwrap();
            assert_eq!(filter.matches(&address), expected, "{filter:?} {address}");
        };
        check("10.0.0.5", "10.0.0.5:8080", true);
        check("10.0.0.5", "10.0.0.6:8080", false);
        check("10.0.0.5:8080", "10.0.0.5:8080", true);
        check("10.0.0.5:8080", "10.0.0.5:8081", false);
        check(":8080", "[2001:db8::5]:8080", true);
        check("8080", "10.0.0.5:8081", false);
        check("10.0.0.0/8", "10.200.0.5:1", true);
        check("10.0.0.0/8", "11.0.0.5:1", false);
        check("2001:db8::/32", "[2001:db8::5]:8080", true);
        check("[2001:db8::5]", "[2001:db8::5]:8080", true);
        check("[2001:db8::5]:80", "[2001:db8::5]:8080", false);
        check("unix:/run/a.sock", "unix:/run/a.sock", true);
        check("unix:/run/a.sock", "10.0.0.5:8080", false);
        assert!("10.0.0.5:http".parse::<AddressFilter>().unwrap_err().contains("write 10.0.0.5"));
    }

    #[test]
    fn findings_pass_as_what_they_are_about_does() {
        let finding = Finding::sample();
        let check = |filter: Filter, expected: bool| {
            assert_eq!(filter.passes_finding(&finding), expected, "{filter:?}");
        };
        let address = |text: &str| Filter { addresses: vec![text.parse().unwrap()], ..Filter::default() };
        check(Filter::default(), true);
        check(address("10.0.0.5:8081"), true);
        check(address("10.0.0.5:8080"), true);
        check(address("10.0.0.6"), false);
        let cause = |text: &str| Filter { causes: vec![text.parse().unwrap()], ..Filter::default() };
        check(cause("refused"), true);
        check(cause("timed_out"), false);
        let proxy = |name: &str| Filter { proxies: vec![name.to_owned()], ..Filter::default() };
        check(proxy("nginx.service"), true);
        check(proxy("haproxy"), false);
        let upstream = |name: &str| Filter { upstreams: vec![name.to_owned()], ..Filter::default() };
        check(upstream("api"), true);
        check(upstream("web"), false);
        assert!(upstream("web").passes_upstream("api,web+2"));
        assert!(!upstream("web").passes_upstream("api+2"));
    }

    #[test]
    fn what_addresses_share_passes_unless_one_is_asked_for() {
        let key =
            |address: &str| Key { proxy: "nginx".into(), upstream: "api".into(), address: address.into() };
        let one = Filter { addresses: vec!["10.0.0.5".parse().unwrap()], ..Filter::default() };
        let of = Filter { upstreams: vec!["web".to_owned()], ..Filter::default() };
        for (address, expected) in [("10.0.0.5:80", [true, true, false]), ("~other", [true, false, false])] {
            let passes = [&Filter::default(), &one, &of].map(|filter| filter.passes_key(&key(address)));
            assert_eq!(passes, expected, "{address}");
        }
    }

    #[test]
    fn a_cause_is_one_of_the_contract() {
        assert_eq!("refused".parse::<Cause>().unwrap(), Cause("refused"));
        assert_eq!("stalled".parse::<Cause>().unwrap(), Cause("stalled"));
        assert!("refusd".parse::<Cause>().unwrap_err().contains("refused, timed_out"));
    }
}
