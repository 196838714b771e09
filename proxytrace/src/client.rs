//! Asks the agent of this host, at its socket. docs/protocol.md says what is spoken there.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    time::timeout,
};

use crate::{
    feed::Change,
    history::Follows,
    http::local::{PROTOCOL, PROTOCOL_FIELD},
    model::{Minute, Remembered},
    status::Status,
};

/// An agent that says nothing for so long is not well.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The head of an answer has no more lines.
const MAX_HEAD: usize = 64;

/// A line is no longer, in bytes.
const MAX_LINE: u64 = 16 << 20;

/// Why there is no agent to ask.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there.
    #[error("no agent listens at {}", .0.display())]
    Absent(PathBuf),
    /// This user may not connect.
    #[error("this user may not ask the agent at {}; be root, or in the group of that file", .0.display())]
    Refused(PathBuf),
    /// It speaks another protocol.
    #[error(
        "the agent at {} speaks protocol {agent}, and this program {PROTOCOL}; restart the agent after an update",
        .path.display()
    )]
    Protocol {
        /// Its socket.
        path: PathBuf,
        /// What it says of its protocol.
        agent: String,
    },
    /// It has no such page, as it is older.
    #[error("the agent at {} has no {page}; restart it after an update", .path.display())]
    NoSuchPage {
        /// Its socket.
        path: PathBuf,
        /// What was asked for.
        page: String,
    },
    /// It answers with an error.
    #[error("the agent at {} answers {status}: {text}", .path.display())]
    Failed {
        /// Its socket.
        path: PathBuf,
        /// Such as 503.
        status: u16,
        /// What it says.
        text: String,
    },
    /// It does not answer as an agent does.
    #[error("ask the agent at {}: {why}", .path.display())]
    Broken {
        /// Its socket.
        path: PathBuf,
        /// What happened. It is in the message, and is not to be said again as its source.
        why: io::Error,
    },
}

impl Error {
    /// Whether there is simply no agent, which is nothing to report.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

/// An agent that answers.
#[derive(Clone, Debug)]
pub struct Agent {
    path: PathBuf,
}

impl Agent {
    /// The agent at that socket, which speaks this protocol.
    ///
    /// # Errors
    /// There is none, or it speaks another protocol.
    pub async fn find(path: &Path) -> Result<Self, Error> {
        let agent = Self { path: path.to_owned() };
        agent.ask("/healthz").await?;
        Ok(agent)
    }

    /// How things are.
    ///
    /// # Errors
    /// It does not say.
    pub async fn status(&self) -> Result<Status, Error> {
        self.json("/status").await
    }

    /// Whether it traces the processes of all these names.
    ///
    /// # Errors
    /// It does not, or does not say it.
    pub async fn traces(&self, processes: &BTreeSet<String>) -> anyhow::Result<()> {
        Ok(self.status().await?.traces(processes)?)
    }

    /// A page of JSON.
    ///
    /// # Errors
    /// It does not give it.
    pub async fn json<T: DeserializeOwned>(&self, page: &str) -> Result<T, Error> {
        let mut body = self.ask(page).await?;
        let mut text = Vec::new();
        let read = timeout(ANSWER_TIMEOUT, body.read_to_end(&mut text)).await;
        read.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(|source| self.broken(source))?;
        serde_json::from_slice(&text).map_err(|error| self.broken(error.into()))
    }

    /// What it remembers from `since` until `until`, and where `follows` what comes after that. The first is a header: when that agent
    /// began.
    ///
    /// # Errors
    /// It does not say.
    pub async fn records(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
        follows: Follows,
    ) -> Result<Lines, Error> {
        let page = "/records".to_owned() + &query(since, until, follows);
        Ok(Lines { body: self.ask(&page).await?, skipped: 0, line: Vec::new(), path: self.path.clone() })
    }

    /// What it sees, as it changes.
    ///
    /// # Errors
    /// It does not say.
    pub async fn changes(&self) -> Result<Lines, Error> {
        let body = self.ask("/changes").await?;
        Ok(Lines { body, skipped: 0, line: Vec::new(), path: self.path.clone() })
    }

    /// What was counted of each upstream in each minute from `since` until `until`.
    ///
    /// # Errors
    /// It does not say.
    pub async fn minutes(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Vec<Minute>, Error> {
        let page = "/minutes".to_owned() + &query(since, until, Follows::Nothing);
        let body = self.ask(&page).await?;
        let mut lines = Lines { body, skipped: 0, line: Vec::new(), path: self.path.clone() };
        let mut minutes = Vec::new();
        while let Some(minute) = lines.next_as().await? {
            minutes.push(minute);
        }
        Ok(minutes)
    }

    /// The body of the answer, of an agent that speaks this protocol and has that page. By HTTP/1.0: the body ends with the connection.
    async fn ask(&self, page: &str) -> Result<BufReader<UnixStream>, Error> {
        let stream = UnixStream::connect(&self.path).await.map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::Absent(self.path.clone()),
            ErrorKind::PermissionDenied => Error::Refused(self.path.clone()),
            _ => self.broken(source),
        })?;
        let answer = timeout(ANSWER_TIMEOUT, exchange(stream, page)).await;
        let answer = answer.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
        let (Head { status, protocol }, mut body) = answer.map_err(|source| self.broken(source))?;
        if protocol.as_deref() != Some(&*PROTOCOL.to_string()) {
            let agent = protocol.unwrap_or_else(|| "none".to_owned());
            return Err(Error::Protocol { path: self.path.clone(), agent });
        }
        match status {
            200 => Ok(body),
            404 => {
                let page = page.split('?').next().unwrap_or_default().to_owned();
                Err(Error::NoSuchPage { path: self.path.clone(), page })
            }
            status => {
                let mut text = String::new();
                // What it says is only for people.
                let _ = timeout(ANSWER_TIMEOUT, body.read_to_string(&mut text)).await;
                Err(Error::Failed { path: self.path.clone(), status, text: text.trim_end().to_owned() })
            }
        }
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Broken { path: self.path.clone(), why: source }
    }
}

/// Records, as they come.
#[derive(Debug)]
pub struct Lines {
    body: BufReader<UnixStream>,
    line: Vec<u8>,
    skipped: u64,
    path: PathBuf,
}

impl Lines {
    /// The next record that is understood; `None` at the end, which for whoever follows means that the agent has ended. Safe to
    /// cancel.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next_record(&mut self) -> Result<Option<Remembered>, Error> {
        self.next_as().await
    }

    /// The next of the [changes](Agent::changes); `None` where the agent has ended. Safe to cancel.
    ///
    /// # Errors
    /// The connection broke, or a line is not understood: what it says would be missing.
    pub async fn next_change(&mut self) -> Result<Option<Change>, Error> {
        let change = self.next_as().await?;
        match self.skipped {
            0 => Ok(change),
            _ => {
                let source = io::Error::other("what it says is not understood; restart it after an update");
                Err(Error::Broken { path: self.path.clone(), why: source })
            }
        }
    }

    /// How many lines were skipped, as they are of a newer agent.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    async fn next_as<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            // What was read of a line stays there when this is cancelled.
            let left = MAX_LINE.saturating_sub(self.line.len() as u64);
            let mut rest = (&mut self.body).take(left);
            let read = rest.read_until(b'\n', &mut self.line).await;
            read.map_err(|source| Error::Broken { path: self.path.clone(), why: source })?;
            if !self.line.ends_with(b"\n") {
                return Ok(None);
            }
            let parsed = serde_json::from_slice(&self.line);
            self.line.clear();
            match parsed {
                Ok(parsed) => return Ok(Some(parsed)),
                Err(_) => self.skipped += 1,
            }
        }
    }
}

/// What the head of an answer says.
struct Head {
    status: u16,
    protocol: Option<String>,
}

async fn exchange(mut stream: UnixStream, page: &str) -> io::Result<(Head, BufReader<UnixStream>)> {
    let request = format!("GET {page} HTTP/1.0\r\nhost: localhost\r\n{PROTOCOL_FIELD}: {PROTOCOL}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut body = BufReader::new(stream);
    let mut line = String::new();
    (&mut body).take(MAX_LINE).read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    let mut protocol = None;
    for _ in 0..MAX_HEAD {
        line.clear();
        (&mut body).take(MAX_LINE).read_line(&mut line).await?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case(PROTOCOL_FIELD) => {
                protocol = Some(value.trim().to_owned());
            }
            Some(_) => {}
            None => return Ok((Head { status, protocol }, body)),
        }
    }
    Err(io::Error::other("the answer's head has no end"))
}

fn query(since: Option<Timestamp>, until: Option<Timestamp>, follows: Follows) -> String {
    let times = [("since", since), ("until", until)].into_iter();
    let times = times.filter_map(|(name, time)| Some(format!("{name}={}", time?)));
    let follows = match follows {
        Follows::Nothing => None,
        Follows::Failures => Some("follow=1"),
        Follows::All => Some("all=1"),
    };
    let pairs: Vec<_> = times.chain(follows.map(str::to_owned)).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}
