//! A name server that answers as it is told, and counts what it is asked: for what dnsmasq does not do. UDP only, at 127.0.0.1.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::netns::Netns;

/// What is answered for a name.
#[derive(Clone, Debug)]
pub enum Says {
    /// These addresses.
    Addresses(Vec<Ipv4Addr>),
    /// So many of these, others each time, as a balancer's name server does.
    Rotating(Vec<Ipv4Addr>, usize),
    /// That it is another name, and not what that is.
    Alias(&'static str),
    /// SERVFAIL.
    Failure,
}

/// A name server; it ends when this is dropped.
#[derive(Debug)]
pub struct ScriptedServer {
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<HashMap<String, (Says, u32)>>,
    /// How often it was asked for the IPv4 addresses of a name.
    asked: Mutex<HashMap<String, usize>>,
    is_over: AtomicBool,
}

const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;

impl ScriptedServer {
    /// Listens at 127.0.0.1 in `netns`.
    #[must_use]
    #[track_caller]
    pub fn start(netns: &Netns, port: u16) -> Self {
        let socket = netns.enter(|| UdpSocket::bind(("127.0.0.1", port))).expect("listen for names");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("limit the wait for a question");
        let shared = Arc::new(Shared::default());
        let serving = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.serve(&socket)
        });
        Self { shared, serving: Some(serving) }
    }

    /// From now on it says that of a name, to be kept for so many seconds.
    pub fn say(&self, name: &str, says: Says, ttl: u32) {
        lock(&self.shared.names).insert(name.to_owned(), (says, ttl));
    }

    /// The same of a name with these addresses, for a second.
    pub fn is(&self, name: &str, addresses: &[[u8; 4]]) {
        let addresses = addresses.iter().map(|ip| Ipv4Addr::from(*ip)).collect();
        self.say(name, Says::Addresses(addresses), 1);
    }

    /// How often it was asked for the addresses of a name.
    #[must_use]
    pub fn asked(&self, name: &str) -> usize {
        lock(&self.shared.asked).get(name).copied().unwrap_or(0)
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn serve(&self, socket: &UdpSocket) {
        let mut buffer = [0; 512];
        while !self.is_over.load(Ordering::SeqCst) {
            match socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    if let Some(answer) = self.answer(&buffer[..length]) {
                        let _ = socket.send_to(&answer, from);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // Whoever asked before has gone.
                Err(_) => {}
            }
        }
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let (mut at, mut labels) = (12, Vec::new());
        loop {
            let length = usize::from(*question.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_ascii_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes(question.get(at..at + 2)?.try_into().ok()?);
        let name = labels.join(".");
        let nth = {
            let mut asked = lock(&self.asked);
            let count = asked.entry(name.clone()).or_default();
            *count += usize::from(kind == TYPE_A);
            *count
        };
        let said = lock(&self.names).get(&name).cloned();
        let (mut code, mut records) = (0_u16, Vec::new());
        let ttl = said.as_ref().map_or(0, |(_, ttl)| *ttl);
        match said.map(|(says, _)| says) {
            None => code = 3,
            Some(Says::Failure) => code = 2,
            Some(Says::Alias(target)) => records.push((TYPE_CNAME, encoded(target))),
            Some(_) if kind != TYPE_A => {}
            Some(Says::Addresses(all)) => records.extend(all.iter().map(|ip| (TYPE_A, ip.octets().to_vec()))),
            Some(Says::Rotating(all, some)) => {
                let from = nth * some;
                let chosen = (from..from + some).map(|n| all[n % all.len()]);
                records.extend(chosen.map(|ip| (TYPE_A, ip.octets().to_vec())));
            }
        }
        let mut answer = question[..2].to_vec();
        for word in [0x8180 | code, 1, records.len() as u16, 0, 0] {
            answer.extend(word.to_be_bytes());
        }
        answer.extend(question.get(12..at + 4)?);
        for (kind, data) in records {
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend(1_u16.to_be_bytes());
            answer.extend(ttl.to_be_bytes());
            answer.extend((data.len() as u16).to_be_bytes());
            answer.extend(data);
        }
        Some(answer)
    }
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
