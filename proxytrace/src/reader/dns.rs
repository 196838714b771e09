//! One question to one name server: RFC 1035 over UDP, and over TCP where the answer did not fit.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{
    CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE,
    rdata::{A, AAAA, CNAME, RData, SRV},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long one question may take. nginx waits for 5 s before it asks another server; who asks here may ask again.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// So many aliases are followed that a server gives without what they stand for.
const MAX_ALIASES: usize = 8;

/// No answer over UDP is larger (RFC 6891 lets larger ones through only where they are asked for).
const DATAGRAM: usize = 4096;

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found<T> {
    /// Empty where the name has none or does not exist.
    pub(super) all: Vec<T>,
    /// How long that holds, in seconds.
    pub(super) ttl: Option<u32>,
}

impl<T> Found<T> {
    pub(super) const NOTHING: Self = Self { all: Vec::new(), ttl: None };

    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.all.extend(other.all);
        self.ttl = self.ttl.into_iter().chain(other.ttl).min();
        self
    }
}

/// Where an SRV record leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Asks `server` for the addresses of `name` in both families.
///
/// # Errors
/// It cannot be reached, does not answer in time, or answers that it does not know.
pub(super) async fn addresses(server: SocketAddr, name: &str) -> io::Result<Found<IpAddr>> {
    let (four, six) =
        tokio::join!(ask(server, name, TYPE::A, address), ask(server, name, TYPE::AAAA, address));
    // Some servers answer for one family only.
    match (four, six) {
        (Ok(four), Ok(six)) => Ok(four.and(six)),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
        (Err(error), Err(_)) => Err(error),
    }
}

/// Asks `server` where the service `name` is to be found.
///
/// # Errors
/// As those of [`addresses`].
pub(super) async fn targets(server: SocketAddr, name: &str) -> io::Result<Found<Target>> {
    ask(server, name, TYPE::SRV, target).await
}

fn address(data: &RData<'_>) -> Option<IpAddr> {
    match data {
        RData::A(A { address }) => Some(Ipv4Addr::from(*address).into()),
        RData::AAAA(AAAA { address }) => Some(Ipv6Addr::from(*address).into()),
        _ => None,
    }
}

/// A root as the host says that the service is not to be had (RFC 2782).
fn target(data: &RData<'_>) -> Option<Target> {
    let RData::SRV(SRV { target, port, .. }) = data else { return None };
    let host = target.to_string();
    (!host.is_empty() && host != ".").then_some(Target { host, port: *port })
}

async fn ask<T>(
    server: SocketAddr,
    name: &str,
    kind: TYPE,
    read: fn(&RData<'_>) -> Option<T>,
) -> io::Result<Found<T>> {
    let asked = ask_through_aliases(server, name, kind, read);
    timeout(QUESTION_TIMEOUT, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// As nginx does: it asks for what a name is an alias of where the answer has only that.
async fn ask_through_aliases<T>(
    server: SocketAddr,
    name: &str,
    kind: TYPE,
    read: fn(&RData<'_>) -> Option<T>,
) -> io::Result<Found<T>> {
    let mut name = name.to_owned();
    let mut ttl = None;
    for _ in 0..MAX_ALIASES {
        let (found, alias) = ask_in_any_time(server, &name, kind, read).await?;
        ttl = ttl.into_iter().chain(found.ttl).min();
        match alias {
            Some(Alias { target, ttl: of_alias }) if found.all.is_empty() => {
                ttl = ttl.into_iter().chain([of_alias]).min();
                name = target;
            }
            _ => return Ok(Found { ttl, ..found }),
        }
    }
    Ok(Found { ttl, ..Found::NOTHING })
}

async fn ask_in_any_time<T>(
    server: SocketAddr,
    name: &str,
    kind: TYPE,
    read: fn(&RData<'_>) -> Option<T>,
) -> io::Result<(Found<T>, Option<Alias>)> {
    let id = RandomState::new().hash_one(name) as u16;
    let query = query(id, name, kind)?;
    let own: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut datagram = [0; DATAGRAM];
    loop {
        let length = socket.recv(&mut datagram).await?;
        match answer(&datagram[..length], id, name, read) {
            Answer::NotOurs => {}
            Answer::Truncated => break,
            Answer::Found(found, alias) => return Ok((found, alias)),
            Answer::Refused(error) => return Err(error),
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(query.len() as u16).await?;
    stream.write_all(&query).await?;
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    match answer(&message, id, name, read) {
        Answer::Found(found, alias) => Ok((found, alias)),
        Answer::Refused(error) => Err(error),
        Answer::NotOurs | Answer::Truncated => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn query(id: u16, name: &str, kind: TYPE) -> io::Result<Vec<u8>> {
    let wrong = |error: simple_dns::SimpleDnsError| io::Error::new(io::ErrorKind::InvalidInput, error);
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(wrong)?;
    packet.questions.push(Question::new(name, kind.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(wrong)
}

enum Answer<T> {
    /// A late answer to somebody else, or a forged one.
    NotOurs,
    Truncated,
    /// The server does not know.
    Refused(io::Error),
    /// What it says, and what the name is an alias of at last.
    Found(Found<T>, Option<Alias>),
}

/// What a name is an alias of (CNAME).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Alias {
    target: String,
    ttl: u32,
}

fn answer<T>(message: &[u8], id: u16, name: &str, read: fn(&RData<'_>) -> Option<T>) -> Answer<T> {
    let Ok(packet) = Packet::parse(message) else { return Answer::NotOurs };
    let is_ours = packet.id() == id
        && packet.has_flags(PacketFlag::RESPONSE)
        && packet.questions.iter().all(|question| {
            question.qname.to_string().trim_end_matches('.').eq_ignore_ascii_case(name.trim_end_matches('.'))
        });
    if !is_ours {
        return Answer::NotOurs;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Answer::Truncated;
    }
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        code => {
            return Answer::Refused(io::Error::other(format!("the name server says {code:?}")));
        }
    }
    let mut found = Found::NOTHING;
    for record in &packet.answers {
        // Others are on the way there: aliases.
        if let Some(one) = read(&record.rdata) {
            found = found.and(Found { all: vec![one], ttl: Some(record.ttl) });
        }
    }
    Answer::Found(found, alias(&packet, name))
}

/// Where the aliases of an answer lead from this name.
fn alias(packet: &Packet<'_>, name: &str) -> Option<Alias> {
    let is =
        |one: &str, other: &str| one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'));
    let mut found: Option<Alias> = None;
    // Each leads on once, so that a ring of them ends.
    for _ in &packet.answers {
        let from = found.as_ref().map_or(name, |alias| &alias.target).to_owned();
        let next = packet.answers.iter().find_map(|record| match &record.rdata {
            RData::CNAME(CNAME(target)) if is(&record.name.to_string(), &from) => {
                Some(Alias { target: target.to_string(), ttl: record.ttl })
            }
            _ => None,
        });
        let Some(next) = next else { break };
        let ttl = found.map_or(next.ttl, |found| found.ttl.min(next.ttl));
        found = Some(Alias { ttl, ..next });
    }
    found
}

/// Reads a message as an answer about its own question, in each way.
#[cfg(any(fuzzing, test))]
pub(super) fn read_any(message: &[u8]) {
    let Ok(packet) = Packet::parse(message) else { return };
    let name = packet.questions.first().map(|question| question.qname.to_string()).unwrap_or_default();
    let _ = answer(message, packet.id(), &name, address);
    let _ = answer(message, packet.id(), &name, target);
}

#[cfg(test)]
mod tests {
    use simple_dns::{
        CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE,
        rdata::{RData, SRV},
    };

    use super::{Answer, Target, address, answer, query, target};

    fn reply(id: u16, question: &str, code: RCODE, records: &[RData<'static>]) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = code;
        let question = Name::new(question).unwrap();
        packet.questions.push(Question::new(question.clone(), TYPE::A.into(), CLASS::IN.into(), false));
        for data in records {
            packet.answers.push(ResourceRecord::new(question.clone(), CLASS::IN, 30, data.clone()));
        }
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn a_query_asks_for_the_name_with_recursion() {
        let bytes = query(7, "app.example", TYPE::A).unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.id(), 7);
        assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED));
        assert_eq!(packet.questions[0].qname.to_string(), "app.example");
    }

    #[test]
    fn only_answers_to_our_question_count() {
        let check = |message: &[u8], expected: &str| {
            let found = match answer(message, 7, "App.example.", address) {
                Answer::NotOurs => "not ours".to_owned(),
                Answer::Truncated => "truncated".to_owned(),
                Answer::Found(found, _) => format!("{:?} {:?}", found.all, found.ttl),
                Answer::Refused(error) => error.to_string(),
            };
            assert_eq!(found, expected);
        };
        let five = RData::A(std::net::Ipv4Addr::new(10, 0, 0, 5).into());
        check(&reply(7, "app.example", RCODE::NoError, &[five]), "[10.0.0.5] Some(30)");
        check(&reply(7, "app.example", RCODE::NameError, &[]), "[] None");
        check(&reply(7, "app.example", RCODE::ServerFailure, &[]), "the name server says ServerFailure");
        check(&reply(8, "app.example", RCODE::NoError, &[]), "not ours");
        check(&reply(7, "other.example", RCODE::NoError, &[]), "not ours");
        check(&query(7, "app.example", TYPE::A).unwrap(), "not ours");
        check(b"\0", "not ours");
        let mut cut = reply(7, "app.example", RCODE::NoError, &[]);
        cut[2] |= 2;
        check(&cut, "truncated");
    }

    #[test]
    fn srv_records_lead_to_hosts_and_ports() {
        let srv = |host: &'static str, port| {
            RData::SRV(SRV { priority: 1, weight: 2, port, target: Name::new(host).unwrap() })
        };
        let message = reply(
            7,
            "_http._tcp.app",
            RCODE::NoError,
            &[srv("one.test", 80), srv("two.test", 81), srv("", 0)],
        );
        let Answer::Found(found, _) = answer(&message, 7, "_http._tcp.app", target) else {
            panic!("no answer")
        };
        let expected = [("one.test", 80), ("two.test", 81)];
        assert_eq!(found.all, expected.map(|(host, port)| Target { host: host.to_owned(), port }));
        assert_eq!(found.ttl, Some(30));
    }

    #[test]
    fn a_bare_alias_leads_on() {
        let alias_of = |records: &[(&'static str, &'static str)]| {
            let mut packet = Packet::new_reply(7);
            for (from, to) in records {
                let data = RData::CNAME(Name::new(to).unwrap().into());
                packet.answers.push(ResourceRecord::new(Name::new(from).unwrap(), CLASS::IN, 30, data));
            }
            let message = packet.build_bytes_vec().unwrap();
            match answer(&message, 7, "app.example", address) {
                Answer::Found(found, alias) if found.all.is_empty() => alias.map(|alias| alias.target),
                _ => panic!("it has an address"),
            }
        };
        assert_eq!(alias_of(&[]), None);
        assert_eq!(alias_of(&[("other.example", "b.example")]), None);
        assert_eq!(alias_of(&[("App.example", "b.example")]).as_deref(), Some("b.example"));
        let chain = [("b.example", "c.example"), ("app.example", "b.example")];
        assert_eq!(alias_of(&chain).as_deref(), Some("c.example"));
        assert!(
            alias_of(&[("app.example", "b.example"), ("b.example", "app.example")]).is_some(),
            "a ring ends"
        );
    }
}
