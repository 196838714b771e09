//! What the agent serves over HTTP:
//!
//! * `GET /metrics`: everything that is counted, for Prometheus.
//! * `GET /findings`: what is wrong now, as JSON.
//! * `GET /routes`: where the proxies' configurations send requests, as JSON.
//! * `GET /healthz`: 200 while the agent is alive.
//! * `GET /readyz`: 200 once everything is attached and the first configurations are answered or timed out; 503 later only
//!   where the agent's loops stand still, or the kernel's counts cannot be read.
//!
//! To whom, a file in the format of Prometheus's exporters says ([`Serving`]); health and readiness are for everybody.
//!
//! It runs on a thread of its own and waits for nothing but its clients and a [`Renderer`], so that health and readiness are
//! answered whatever the rest does.

mod connections;
mod files;
mod listen;
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
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
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
    net::{TcpListener, TcpStream},
};

use crate::metrics::Format;
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

const HEALTHZ: &str = "/healthz";
const READYZ: &str = "/readyz";

/// What is answered without a password.
const FOR_EVERYBODY: &[&str] = &[HEALTHZ, READYZ];

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
}

/// A client that is connected.
#[derive(Debug)]
struct Client {
    place: Arc<Place>,
    /// What was served when it connected.
    served: Arc<Served>,
    /// Whether it has shown a certificate that is accepted.
    has_certificate: bool,
}

/// Serves until the task is dropped.
pub async fn serve(Listener { listener, address }: Listener, answers: Answers<impl Readiness>) {
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
            Ok((stream, peer)) => {
                let is_local = peer.ip().to_canonical().is_loopback() || peer.ip() == address;
                accept(stream, peer, is_local, &connections, &answers);
            }
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
    stream: TcpStream,
    peer: SocketAddr,
    is_local: bool,
    connections: &Arc<Connections>,
    answers: &Arc<Answers<impl Readiness>>,
) {
    let Some(place) = connections.admit(peer.ip()) else { return };
    let answers = Arc::clone(answers);
    tokio::spawn(async move {
        let place = Arc::new(place);
        let served = async {
            let served = answers.settings.now();
            let client = Client { place: Arc::clone(&place), served, has_certificate: false };
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
            () = place.closed() => tracing::debug!("closed the connection of {peer}"),
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

async fn respond<B>(
    request: &Request<B>,
    client: &Client,
    answers: &Answers<impl Readiness>,
) -> Response<Full<Bytes>> {
    let served = answers.settings.now();
    let mut response = match refuse(request, client, &served, &answers.passwords).await {
        Some(refused) => refused,
        None => answer(request, &client.place, &served, answers).await,
    };
    let headers = response.headers_mut();
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
) -> Option<Response<Full<Bytes>>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    client.place.note_request();
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
    place: &Arc<Place>,
    served: &Served,
    Answers { readiness, renderer, .. }: &Answers<impl Readiness>,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        HEALTHZ => plain(StatusCode::OK, "alive\n"),
        READYZ => match readiness.readiness() {
            Ok(text) => plain(StatusCode::OK, text),
            Err(text) => plain(StatusCode::SERVICE_UNAVAILABLE, text),
        },
        "/metrics" => {
            let accept =
                request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            page(Page::Metrics(Format::accepted_by(accept)), place, renderer).await
        }
        "/findings" if served.has_findings => page(Page::Findings, place, renderer).await,
        "/routes" if served.has_routes => page(Page::Routes, place, renderer).await,
        "/" => plain(StatusCode::OK, format!("proxytrace: {}\n", served.paths().join(" "))),
        _ => plain(StatusCode::NOT_FOUND, format!("not here; there are {}\n", served.paths().join(", "))),
    }
}

/// A rendered page, which the connection keeps alive until the client has taken it.
async fn page(page: Page, place: &Arc<Place>, renderer: &Renderer) -> Response<Full<Bytes>> {
    // A client that pipelines gets its next page when it has taken the one before, and others had their turn.
    let Some(turn) = place.begin_page().await else {
        // Whoever asked is disconnected before it could read this.
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the connection was closed\n");
    };
    match renderer.ask(page).await {
        Ok(rendered) => response(StatusCode::OK, page.content_type(), turn.take(rendered)),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Where clients are accepted.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    /// A client that has the same is on this host.
    address: IpAddr,
}

/// The listener as the runtime that calls this has it.
///
/// # Errors
/// It cannot be registered.
pub fn listener(listener: std::net::TcpListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?.ip();
    Ok(Listener { listener: TcpListener::from_std(listener)?, address })
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use hyper::{Request, header::CONTENT_TYPE};

    use super::{
        Answers, Client, Connections, Page, Passwords, Readiness, Served, Settings, Source, check_passwords,
        passwords::Users, render, respond,
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
        let request =
            Request::builder().method(method).uri(path).header("accept", "text/plain").body(()).unwrap();
        let (renderer, asks) = render::Renderer::new();
        let rendering = thread::spawn(move || render(asks, Fixed(is_well)));
        let (passwords, checks) = Passwords::new();
        let checking = thread::spawn(move || check_passwords(checks));
        let place = Arc::new(Arc::new(Connections::default()).admit([127, 0, 0, 1].into()).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let client = Client { place, served: settings.now(), has_certificate: false };
        let answers = Answers { readiness: Arc::new(Fixed(is_well)), renderer, settings, passwords };
        let response = runtime.block_on(respond(&request, &client, &answers));
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        let found = response.headers()[CONTENT_TYPE].to_str().unwrap();
        assert!(found.starts_with(content_type), "{method} {path}: {found}");
        drop(answers);
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
