//! One question to one name server: RFC 1035 over UDP, and over TCP where the answer did not fit.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{
    CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE,
    rdata::{A, AAAA, RData},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long one question may take. nginx waits for 5 s before it asks another server; who asks here may ask again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that an answer over UDP can hold (RFC 6891 lets larger ones through only where they are asked for).
const DATAGRAM: usize = 4096;

/// What a server said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Of both families; empty where the name has none or does not exist.
    pub(super) ips: Vec<IpAddr>,
    /// How long that holds, in seconds.
    pub(super) ttl: Option<u32>,
}

/// Asks `server` for the addresses of `name` in both families.
///
/// # Errors
/// It cannot be reached, does not answer in time, or answers that it cannot tell.
pub(super) async fn ask(server: SocketAddr, name: &str) -> io::Result<Found> {
    let both = async {
        let (four, six) = tokio::join!(ask_for(server, name, TYPE::A), ask_for(server, name, TYPE::AAAA));
        // Servers are about that cannot tell one family.
        let (mut four, six) = match (four, six) {
            (Ok(four), Ok(six)) => (four, six),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => (one, Found::default()),
            (Err(error), Err(_)) => return Err(error),
        };
        four.ips.extend(six.ips);
        four.ttl = four.ttl.into_iter().chain(six.ttl).min();
        Ok(four)
    };
    timeout(PATIENCE, both).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask_for(server: SocketAddr, name: &str, kind: TYPE) -> io::Result<Found> {
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
        match answer(&datagram[..length], id, name) {
            Answer::NotOurs => {}
            Answer::Truncated => break,
            Answer::Found(found) => return found,
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(query.len() as u16).await?;
    stream.write_all(&query).await?;
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    match answer(&message, id, name) {
        Answer::Found(found) => found,
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

enum Answer {
    /// A late answer to somebody else, or a forged one.
    NotOurs,
    Truncated,
    Found(io::Result<Found>),
}

fn answer(message: &[u8], id: u16, name: &str) -> Answer {
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
            return Answer::Found(Err(io::Error::other(format!("the name server says {code:?}"))));
        }
    }
    let mut found = Found::default();
    for record in &packet.answers {
        let ip: IpAddr = match &record.rdata {
            RData::A(A { address }) => Ipv4Addr::from(*address).into(),
            RData::AAAA(AAAA { address }) => Ipv6Addr::from(*address).into(),
            // On the way there: an alias.
            _ => continue,
        };
        found.ips.push(ip);
        found.ttl = found.ttl.into_iter().chain([record.ttl]).min();
    }
    Answer::Found(Ok(found))
}

#[cfg(test)]
mod tests {
    use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE, rdata::RData};

    use super::{Answer, answer, query};

    fn reply(id: u16, question: &str, code: RCODE, addresses: &[u32]) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = code;
        let question = Name::new(question).unwrap();
        packet.questions.push(Question::new(question.clone(), TYPE::A.into(), CLASS::IN.into(), false));
        for &address in addresses {
            let rdata = RData::A(std::net::Ipv4Addr::from(address).into());
            packet.answers.push(ResourceRecord::new(question.clone(), CLASS::IN, 30, rdata));
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
            let found = match answer(message, 7, "App.example.") {
                Answer::NotOurs => "not ours".to_owned(),
                Answer::Truncated => "truncated".to_owned(),
                Answer::Found(Ok(found)) => format!("{:?} {:?}", found.ips, found.ttl),
                Answer::Found(Err(error)) => error.to_string(),
            };
            assert_eq!(found, expected);
        };
        check(&reply(7, "app.example", RCODE::NoError, &[0x0a00_0005]), "[10.0.0.5] Some(30)");
        check(&reply(7, "app.example", RCODE::NameError, &[]), "[] None");
        check(&reply(7, "app.example", RCODE::ServerFailure, &[]), "the name server says ServerFailure");
        check(&reply(8, "app.example", RCODE::NoError, &[1]), "not ours");
        check(&reply(7, "other.example", RCODE::NoError, &[1]), "not ours");
        check(&query(7, "app.example", TYPE::A).unwrap(), "not ours");
        check(b"\0", "not ours");
        let mut cut = reply(7, "app.example", RCODE::NoError, &[]);
        cut[2] |= 2;
        check(&cut, "truncated");
    }
}
