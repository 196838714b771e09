//! What the agent serves over HTTP:
//!
//! * `GET /metrics`: everything that is counted, for Prometheus.
//! * `GET /findings`: what is wrong now, as JSON.
//! * `GET /routes`: where the proxies' configurations send requests, as JSON.
//! * `GET /healthz`: 200 while the agent is alive.
//! * `GET /readyz`: 200 while the hooks are attached and the kernel's counts can be read, from when the configurations of
//!   the proxies are known that ran at the start.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::metrics::Format;

/// How many connections are served at once; more wait. A scraper needs one.
const MOST_CONNECTIONS: usize = 64;

/// How long a client may take to send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the pages show.
pub trait Pages: Send + Sync + 'static {
    /// The metrics, or why they cannot be read.
    ///
    /// # Errors
    /// What went wrong.
    fn metrics(&self, format: Format) -> anyhow::Result<String>;

    /// What is wrong now, as JSON, or why that cannot be told.
    ///
    /// # Errors
    /// What went wrong.
    fn findings(&self) -> anyhow::Result<String>;

    /// The routes as JSON, or why they cannot be told.
    ///
    /// # Errors
    /// What went wrong.
    fn routes(&self) -> anyhow::Result<String>;

    /// Whether the kernel's counts can be read, and named.
    ///
    /// # Errors
    /// Why not.
    fn check(&self) -> anyhow::Result<()>;
}

/// Serves `pages` until the task is dropped.
pub async fn serve(listener: TcpListener, pages: Arc<impl Pages>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accept a connection: {error}");
                // Mostly that no descriptor is left; asking again at once would only turn a CPU.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request: Request<Incoming>| {
                let response = respond(&request, &*pages);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!("serve a connection: {error}");
            }
        });
    }
}

fn respond<B>(request: &Request<B>, pages: &impl Pages) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let accept =
                request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let format = Format::accepted_by(accept);
            match pages.metrics(format) {
                Ok(text) => response(StatusCode::OK, format.content_type(), text),
                Err(error) => unavailable(&error),
            }
        }
        "/findings" => json(pages.findings()),
        "/routes" => json(pages.routes()),
        "/healthz" => plain(StatusCode::OK, "alive\n"),
        "/readyz" => match pages.check() {
            Ok(()) => plain(StatusCode::OK, "ready\n"),
            // Whoever asks asks again; where the kernel cannot be read, a scrape logs it.
            Err(error) => {
                response(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("{error:#}\n"))
            }
        },
        "/" => plain(StatusCode::OK, "proxytrace: /metrics /findings /routes /healthz /readyz\n"),
        _ => plain(
            StatusCode::NOT_FOUND,
            "not here; there are /metrics, /findings, /routes, /healthz and /readyz\n",
        ),
    }
}

fn json(text: anyhow::Result<String>) -> Response<Full<Bytes>> {
    match text {
        Ok(text) => response(StatusCode::OK, "application/json", text),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &anyhow::Error) -> Response<Full<Bytes>> {
    tracing::error!("{error:#}");
    response(StatusCode::SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", format!("{error:#}\n"))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text)
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use hyper::{Request, header::CONTENT_TYPE};

    use super::{Format, Pages, respond};

    struct Fixed(bool);

    impl Pages for Fixed {
        fn metrics(&self, format: Format) -> anyhow::Result<String> {
            self.check().map(|()| format!("{format:?}"))
        }

        fn findings(&self) -> anyhow::Result<String> {
            self.routes()
        }

        fn routes(&self) -> anyhow::Result<String> {
            self.check().map(|()| "[]".to_owned())
        }

        fn check(&self) -> anyhow::Result<()> {
            if self.0 { Ok(()) } else { anyhow::bail!("kernel map LEDGER: gone") }
        }
    }

    fn check(is_well: bool, method: &str, path: &str, status: u16, content_type: &str) {
        let request =
            Request::builder().method(method).uri(path).header("accept", "text/plain").body(()).unwrap();
        let response = respond(&request, &Fixed(is_well));
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        let found = response.headers()[CONTENT_TYPE].to_str().unwrap();
        assert!(found.starts_with(content_type), "{method} {path}: {found}");
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
    fn an_agent_that_cannot_read_the_kernel_is_alive_but_not_ready() {
        check(false, "GET", "/healthz", 200, "text/plain");
        check(false, "GET", "/readyz", 503, "text/plain");
        check(false, "GET", "/routes", 503, "text/plain");
        check(false, "GET", "/metrics", 503, "text/plain");
    }
}
