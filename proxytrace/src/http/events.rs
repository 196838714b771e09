//! `/events`: how things are, every two seconds, as server-sent events (WHATWG HTML, 9.2). All who follow have it at the same moment,
//! so that many cost as much as one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{StatusCode, body::Bytes};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};

use super::{
    Answer,
    body::Body,
    connections::Place,
    lines, page,
    render::{Page, Renderer},
    response,
};

/// How often.
const EVERY: Duration = Duration::from_secs(2);

/// Whoever does not take one for so long is gone.
const TAKEN: Duration = Duration::from_secs(30);

/// What comes, until the client goes.
pub(super) fn events(place: &Arc<Place>, renderer: &Renderer, readers: &Arc<Semaphore>) -> Answer {
    let Ok(permit) = Arc::clone(readers).try_acquire_owned() else { return lines::busy() };
    let (sender, frames) = mpsc::channel(1);
    tokio::spawn(feed(renderer.clone(), sender));
    let body = Body::live(frames, (place.begin_reading(true), permit));
    let mut answer = response(StatusCode::OK, "text/event-stream", body);
    page::protect(answer.headers_mut());
    answer
}

async fn feed(renderer: Renderer, frames: mpsc::Sender<Bytes>) {
    // Where the agent is restarted, browsers ask again after so long, in milliseconds.
    let begin = Bytes::from_static(b"retry: 2000\n\n");
    if frames.send(begin).await.is_err() {
        return;
    }
    loop {
        let parts = match renderer.ask(Page::Overview).await {
            // It is one line. The text itself is shared by all who get it.
            Ok(rendered) => {
                [Bytes::from_static(b"event: status\ndata: "), rendered.bytes, Bytes::from_static(b"\n\n")]
            }
            Err(why) => [
                Bytes::from_static(b"event: trouble\ndata: "),
                why.replace(['\r', '\n'], " ").into(),
                Bytes::from_static(b"\n\n"),
            ],
        };
        for part in parts {
            if !matches!(timeout(TAKEN, frames.send(part)).await, Ok(Ok(()))) {
                return;
            }
        }
        tokio::select! {
            () = sleep(until_next()) => {}
            () = frames.closed() => return,
        }
    }
}

/// Until the moment at which all who follow ask again.
fn until_next() -> Duration {
    let every = EVERY.as_nanos();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let rest = u64::try_from(every - now % every).unwrap_or_default();
    // Just missed by a timer that was early.
    Duration::from_nanos(rest).max(Duration::from_millis(100))
}
