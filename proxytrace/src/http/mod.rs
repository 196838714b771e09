//! What the agent serves over HTTP:
//!
//! * `GET /metrics`: everything that is counted, for Prometheus.
//! * `GET /findings`: what is wrong now, as JSON.
//! * `GET /routes`: where the proxies' configurations send requests, as JSON.
//! * `GET /healthz`: 200 while the agent is alive.
//! * `GET /status`, `GET /records`, `GET /minutes`: how things are, and what the agent remembers, as JSON. On the agent's socket, and
//!   elsewhere only where that is asked for; docs/protocol.md says more. `GET /changes`: what changes, on the socket only.
//! * `GET /`: the paths; or a page for people, and `GET /events`, from which that has its news. On the agent's socket, and elsewhere
//!   only where that is asked for.
//! * `GET /readyz`: 200 once everything is attached and the first configurations are answered or timed out; 503 later only
//!   where the agent's loops stand still, or the kernel's counts cannot be read.
//!
//! To whom, a file in the format of Prometheus's exporters says ([`Serving`]); health and readiness are for everybody.
//!
//! It runs on a thread of its own and waits for nothing but its clients and a [`Renderer`], so that health and readiness are
//! answered whatever the rest does.

mod body;
mod connections;
mod events;
mod files;
mod hosts;
mod lines;
mod listen;
pub mod local;
mod page;
mod passwords;
mod probe;
mod render;
mod serving;
mod tls;
mod web_config;

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};

use crate::{feed::Channel, history::History, metrics::Format};
use body::Body;
use connections::{Connections, Place};
pub use files::Files;
pub use listen::Listen;
use passwords::Verdict;
pub use passwords::{Passwords, check_passwords};
pub use probe::probe;
pub use render::{Page, Renderer, Source, render};
pub use serving::{Served, Serving, Settings};
pub use web_config::Unusable;

/// A request's line and header fields take no more, in bytes.
const MAX_HEAD: usize = 16 << 10;

const METRICS: &str = "/metrics";
const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";

/// What is answered without a password.
const FOR_EVERYBODY: &[&str] = &[HEALTHZ, READYZ];

/// What is answered by whatever name it is asked for: Prometheus and probes have their own.
const BY_ANY_NAME: &[&str] = &[METRICS, HEALTHZ, READYZ];

/// How often connections whose time has run out are closed.
const SWEEP: Duration = Duration::from_secs(1);

/// Whether the agent is ready.
pub trait Readiness: Send + Sync + 'static {
    /// What to say to whoever asks.
    ///
    /// # Errors
    /// Why it is not ready, in words.
    fn readiness(&self) -> Result<String, String>;
}

/// What answers are made of.
#[derive(Debug)]
pub struct Answers<R> {
    /// Whether the agent is ready.
    pub readiness: Arc<R>,
    /// Where pages come from.
    pub renderer: Renderer,
    /// What is served.
    pub settings: Settings,
    /// Who checks passwords.
    pub passwords: Passwords,
    /// What is remembered.
    pub history: History,
    /// What changes.
    pub channel: Channel,
    /// Places for clients that read it.
    readers: Arc<Semaphore>,
}

impl<R> Answers<R> {
    /// From these.
    #[must_use]
    pub fn new(
        readiness: Arc<R>,
        renderer: Renderer,
        settings: Settings,
        passwords: Passwords,
        history: History,
        channel: Channel,
    ) -> Self {
        let readers = Arc::new(Semaphore::new(lines::MAX_READERS));
        Self { readiness, renderer, settings, passwords, history, channel, readers }
    }

    /// The same for a listener with its own settings and its own readers.
    #[must_use]
    pub fn with_settings(&self, settings: Settings) -> Self {
        let (readiness, renderer) = (Arc::clone(&self.readiness), self.renderer.clone());
        let (passwords, history) = (self.passwords.clone(), self.history.clone());
        Self::new(readiness, renderer, settings, passwords, history, self.channel.clone())
    }
}

type Answer = Response<Body>;

/// A client that is connected.
#[derive(Debug)]
struct Client {
    place: Arc<Place>,
    /// What was served when it connected.
    served: Arc<Served>,
    /// Whether it has shown a certificate that is accepted.
    has_certificate: bool,
    /// Whether it is root of this host, at the agent's socket.
    is_root: bool,
}

/// Serves until the task is dropped.
pub async fn serve(listener: Listener, answers: Answers<impl Readiness>) {
    let (answers, connections) = (Arc::new(answers), Arc::new(Connections::default()));
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = sweep.tick() => {
                connections.close_overdue();
                continue;
            }
            () = answers.settings.changed() => {
                // They connect again in the way that is asked for now.
                connections.close_asking();
                continue;
            }
        };
        match accepted {
            Ok((stream, peer)) => accept(stream, peer, &connections, &answers),
            Err(error) => {
                tracing::warn!("accept a connection: {error}");
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
                    connections.close_idlest();
                }
                // Asking again at once would only keep a CPU busy.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn accept(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    Peer { ip, is_local, is_root }: Peer,
    connections: &Arc<Connections>,
    answers: &Arc<Answers<impl Readiness>>,
) {
    let Some(place) = connections.admit(ip) else { return };
    let answers = Arc::clone(answers);
    tokio::spawn(async move {
        let place = Arc::new(place);
        let served = async {
            let served = answers.settings.now();
            let client = Client { place: Arc::clone(&place), served, has_certificate: false, is_root };
            match client.served.tls.clone() {
                None => serve_client(stream, client, &answers).await,
                Some(tls) => {
                    let stream = tls.accept(stream, is_local).await?;
                    let has_certificate = stream.get_ref().1.peer_certificates().is_some();
                    serve_client(stream, Client { has_certificate, ..client }, &answers).await
                }
            }
        };
        // The limits of a place hold for the handshake as well.
        tokio::select! {
            served = served => if let Err(error) = served {
                tracing::debug!("serve a connection: {error}");
            },
            () = place.closed() => tracing::debug!("closed a connection of {ip}"),
        }
    });
}

async fn serve_client(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: Client,
    answers: &Answers<impl Readiness>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let service = service_fn(async |request: Request<Incoming>| {
        // A client that pipelines a thousand requests has one answered before it is the next one's turn.
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(respond(&request, &client, answers).await)
    });
    let connection = http1::Builder::new()
        // `Place` has a time limit for that, and for what comes after it.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    Ok(connection.await?)
}

async fn respond<B>(request: &Request<B>, client: &Client, answers: &Answers<impl Readiness>) -> Answer {
    let served = answers.settings.now();
    let mut response = match refuse(request, client, &served, &answers.passwords).await {
        Some(refused) => refused,
        None => answer(request, client, &served, answers).await,
    };
    let headers = response.headers_mut();
    if served.has_records {
        headers.insert(local::PROTOCOL_FIELD, HeaderValue::from(local::PROTOCOL));
    }
    headers.extend(served.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    if !Arc::ptr_eq(&served, &client.served) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer to whoever may not have what it asks for.
async fn refuse<B>(
    request: &Request<B>,
    client: &Client,
    served: &Served,
    passwords: &Passwords,
) -> Option<Answer> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    client.place.note_request();
    if let Some(names) = &served.hosts
        && !BY_ANY_NAME.contains(&request.uri().path())
        && let Some(why) = hosts::refuse(request, names)
    {
        return Some(plain(StatusCode::MISDIRECTED_REQUEST, why));
    }
    if FOR_EVERYBODY.contains(&request.uri().path()) {
        return None;
    }
    let is_plain = client.served.tls.is_none();
    if let Some(tls) = &served.tls
        && (is_plain || tls.requires_certificate && !client.has_certificate)
    {
        let text = "connect by TLS, with a certificate if the agent's --web-config requires one\n";
        return Some(plain(StatusCode::FORBIDDEN, text));
    }
    let users = served.users.as_ref()?;
    let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match passwords.verdict(users, authorization).await {
        Verdict::Right => None,
        Verdict::Wrong => {
            let mut response = plain(StatusCode::UNAUTHORIZED, "a user of --web-config and the password\n");
            let challenge = HeaderValue::from_static("Basic realm=\"proxytrace\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            Some(response)
        }
        Verdict::Busy => {
            let text = "too many passwords are being checked: ask again in a moment\n";
            Some(plain(StatusCode::SERVICE_UNAVAILABLE, text))
        }
    }
}

async fn answer<B>(
    request: &Request<B>,
    client: &Client,
    served: &Served,
    Answers { readiness, renderer, history, channel, readers, .. }: &Answers<impl Readiness>,
) -> Answer {
    let place = &client.place;
    match request.uri().path() {
        HEALTHZ => plain(StatusCode::OK, "alive\n"),
        READYZ => match readiness.readiness() {
            Ok(text) => plain(StatusCode::OK, text),
            Err(text) => plain(StatusCode::SERVICE_UNAVAILABLE, text),
        },
        METRICS => {
            let accept =
                request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            page(Page::Metrics(Format::accepted_by(accept)), place, renderer).await
        }
        "/findings" if served.has_findings => page(Page::Findings, place, renderer).await,
        "/routes" if served.has_routes => page(Page::Routes, place, renderer).await,
        "/status" if served.has_records => page(Page::Status, place, renderer).await,
        "/records" if served.has_records => {
            lines::records(request.uri().query(), client.is_root, place, history, readers)
        }
        "/changes" if served.has_changes => lines::changes(client.is_root, place, channel, readers),
        "/minutes" if served.has_records => lines::minutes(request.uri().query(), place, history, readers),
        "/events" if served.has_page => events::events(place, renderer, readers),
        "/" if served.has_page => page::page(),
        "/" => plain(StatusCode::OK, format!("proxytrace: {}\n", served.paths().join(" "))),
        _ => plain(StatusCode::NOT_FOUND, format!("not here; there are {}\n", served.paths().join(", "))),
    }
}

/// A rendered page, which the connection keeps alive until the client has taken it.
async fn page(page: Page, place: &Arc<Place>, renderer: &Renderer) -> Answer {
    // A client that pipelines gets its next page when it has taken the one before, and others had their turn.
    let Some(turn) = place.begin_page().await else {
        // Whoever asked is disconnected before it could read this.
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the connection was closed\n");
    };
    match renderer.ask(page).await {
        Ok(rendered) => response(StatusCode::OK, page.content_type(), Body::whole(turn.take(rendered))),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    response(status, "text/plain; charset=utf-8", Body::whole(text))
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A client, as its connection tells.
#[derive(Clone, Copy, Debug)]
struct Peer {
    ip: IpAddr,
    /// Whether it is on this host.
    is_local: bool,
    /// Whether it is root, where the kernel says who it is.
    is_root: bool,
}

/// Where clients are accepted.
#[derive(Debug)]
pub enum Listener {
    /// At a port. A client that has the same address is on this host.
    Tcp(TcpListener, IpAddr),
    /// At the agent's socket.
    Local(UnixListener),
}

impl Listener {
    /// The listener as the runtime that calls this has it.
    ///
    /// # Errors
    /// It cannot be registered.
    pub fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.ip();
        Ok(Self::Tcp(TcpListener::from_std(listener)?, address))
    }

    /// The same of the agent's socket.
    ///
    /// # Errors
    /// It cannot be registered.
    pub fn local(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self::Local(UnixListener::from_std(listener)?))
    }

    async fn accept(&self) -> io::Result<(Box<dyn Stream>, Peer)> {
        match self {
            Self::Tcp(listener, address) => {
                let (stream, peer) = listener.accept().await?;
                let ip = peer.ip();
                let is_local = ip.to_canonical().is_loopback() || ip == *address;
                Ok((Box::new(stream), Peer { ip, is_local, is_root: false }))
            }
            Self::Local(listener) => {
                let (stream, _) = listener.accept().await?;
                let is_root = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
                Ok((Box::new(stream), Peer { ip: Ipv6Addr::LOCALHOST.into(), is_local: true, is_root }))
            }
        }
    }
}

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use hyper::{Request, header::CONTENT_TYPE};

    use super::{
        Answers, Channel, Client, Connections, History, Page, Passwords, Readiness, Served, Settings, Source,
        check_passwords, passwords::Users, render, respond,
    };

    struct Fixed(bool);

    impl Source for Fixed {
        fn render(&mut self, page: Page) -> anyhow::Result<String> {
            anyhow::ensure!(self.0, "kernel map LEDGER: gone");
            Ok(format!("{page:?}"))
        }
    }

    impl Readiness for Fixed {
        fn readiness(&self) -> Result<String, String> {
            if self.0 { Ok("ready\n".to_owned()) } else { Err("not ready\n".to_owned()) }
        }
    }

    fn check(is_well: bool, method: &str, path: &str, status: u16, content_type: &str) {
        check_with(Settings::new(Served::default()), is_well, method, path, status, content_type);
    }

    fn check_with(
        settings: Settings,
        is_well: bool,
        method: &str,
        path: &str,
        status: u16,
        content_type: &str,
    ) {
        let host = path.strip_prefix("http://").and_then(|rest| rest.split('/').next());
        let request = Request::builder().method(method).uri(path).header("accept", "text/plain");
        let request = request.header("host", host.unwrap_or("localhost")).body(()).unwrap();
        let (renderer, asks) = render::Renderer::new();
        let rendering = thread::spawn(move || render(asks, Fixed(is_well)));
        let (passwords, checks) = Passwords::new();
        let checking = thread::spawn(move || check_passwords(checks));
        let place = Arc::new(Arc::new(Connections::default()).admit([127, 0, 0, 1].into()).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let client = Client { place, served: settings.now(), has_certificate: false, is_root: false };
        let header = crate::recording::header(false).unwrap();
        let history = History::new(1 << 20, &header, "").unwrap();
        let answers = Answers::new(
            Arc::new(Fixed(is_well)),
            renderer,
            settings,
            passwords,
            history,
            Channel::default(),
        );
        let response = runtime.block_on(respond(&request, &client, &answers));
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        let found = response.headers()[CONTENT_TYPE].to_str().unwrap();
        assert!(found.starts_with(content_type), "{method} {path}: {found}");
        drop((answers, runtime));
        rendering.join().unwrap();
        checking.join().unwrap();
    }

    #[test]
    fn pages_answer_as_documented() {
        check(true, "GET", "/metrics", 200, "text/plain; version=0.0.4");
        check(true, "HEAD", "/metrics?x=1", 200, "text/plain; version=0.0.4");
        check(true, "GET", "/routes", 200, "application/json");
        check(true, "GET", "/findings", 200, "application/json");
        check(true, "GET", "/readyz", 200, "text/plain");
        check(true, "GET", "/healthz", 200, "text/plain");
        check(true, "GET", "/", 200, "text/plain");
        check(true, "GET", "/admin", 404, "text/plain");
        check(true, "POST", "/metrics", 405, "text/plain");
    }

    #[test]
    fn pages_that_are_switched_off_are_not_there() {
        let served = Served { has_routes: false, has_findings: false, ..Served::default() };
        let settings = Settings::new(served);
        for (path, status) in [("/routes", 404), ("/findings", 404), ("/", 200)] {
            check_with(settings.clone(), true, "GET", path, status, "text/plain");
        }
        settings.change(Served::default());
        check_with(settings, true, "GET", "/routes", 200, "application/json");
    }

    #[test]
    fn what_is_remembered_is_served_where_it_is_asked_for() {
        let settings = Settings::new(Served::default());
        let status = |settings: &Settings, path, status, content_type| {
            check_with(settings.clone(), true, "GET", path, status, content_type);
        };
        for path in ["/status", "/records", "/minutes", "/changes"] {
            status(&settings, path, 404, "text/plain");
        }
        settings.change(Served::local());
        status(&settings, "/status", 200, "application/json");
        status(&settings, "/records?since=now", 200, "application/x-ndjson");
        status(&settings, "/minutes", 200, "application/x-ndjson");
        status(&settings, "/changes", 403, "text/plain");
        status(&settings, "/records?since=soon", 400, "text/plain");
    }

    #[test]
    fn the_page_is_served_where_it_is_asked_for_and_by_names_of_the_host() {
        let served = || Served { has_page: true, has_records: true, ..Served::default() };
        let settings = Settings::new(served());
        check_with(settings.clone(), true, "GET", "/", 200, "text/html");
        check_with(settings.clone(), true, "HEAD", "/events", 200, "text/event-stream");
        settings.change(Served { hosts: Some(vec!["proxy1".to_owned()]), ..served() });
        for (uri, status) in [("http://proxy1/", 200), ("http://evil/", 421), ("http://evil/metrics", 200)] {
            let content_type = if uri == "http://proxy1/" { "text/html" } else { "text/plain" };
            check_with(settings.clone(), true, "GET", uri, status, content_type);
        }
    }

    #[test]
    fn health_is_for_everybody_and_the_rest_for_whoever_has_a_password() {
        let users = Arc::new(Users::new([].into()).unwrap());
        let settings = Settings::new(Served { users: Some(users), ..Served::default() });
        for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/x", 401)] {
            check_with(settings.clone(), true, "GET", path, status, "text/plain");
        }
        check_with(settings, true, "POST", "/metrics", 405, "text/plain");
    }

    #[test]
    fn an_agent_that_cannot_read_the_kernel_is_alive_but_not_ready() {
        check(false, "GET", "/healthz", 200, "text/plain");
        check(false, "GET", "/readyz", 503, "text/plain");
        check(false, "GET", "/routes", 503, "text/plain");
        check(false, "GET", "/metrics", 503, "text/plain");
    }
}
