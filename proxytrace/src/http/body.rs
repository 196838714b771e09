//! Bodies of answers: a whole text, or lines that are taken from the history as the client takes them.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::Full;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use jiff::Timestamp;
use tokio::sync::{
    OwnedSemaphorePermit,
    broadcast::error::{RecvError, TryRecvError},
    mpsc,
};

use super::connections::Reading;
use crate::{
    feed::Subscriber,
    history::{self, Following, Line, Lines as HistoryLines, Past},
};

/// About so many bytes are handed on at once: each reader has some times as many on their way.
const FRAME: usize = 16 << 10;

/// The body of an answer.
#[derive(Debug)]
pub(super) enum Body {
    /// A text.
    Whole(Full<Bytes>),
    /// Lines.
    Lines(Box<Lines>),
}

/// Lines, for one client.
#[derive(Debug)]
pub(super) struct Lines {
    first: VecDeque<Line>,
    past: Option<Past>,
    live: Option<mpsc::Receiver<Bytes>>,
    /// The client's place, and one among those that read.
    _reading: (Reading, OwnedSemaphorePermit),
}

impl Body {
    /// A text.
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(text.into()))
    }

    /// What is remembered, and what comes.
    pub(super) fn history(
        HistoryLines { header, past, live }: HistoryLines,
        reading: (Reading, OwnedSemaphorePermit),
    ) -> Self {
        let live = live.map(|live| {
            let (sender, frames) = mpsc::channel(1);
            tokio::spawn(feed(live, sender));
            frames
        });
        Self::Lines(Box::new(Lines { first: [header].into(), past: Some(past), live, _reading: reading }))
    }

    /// What changes.
    pub(super) fn changes(mut subscriber: Subscriber, reading: (Reading, OwnedSemaphorePermit)) -> Self {
        let (sender, frames) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let line = tokio::select! {
                    line = subscriber.next() => line,
                    () = sender.closed() => return,
                };
                let Some(line) = line else { return };
                if sender.send(line.to_string().into()).await.is_err() {
                    return;
                }
            }
        });
        Self::live(frames, reading)
    }

    /// What comes, as it is.
    pub(super) fn live(frames: mpsc::Receiver<Bytes>, reading: (Reading, OwnedSemaphorePermit)) -> Self {
        let (first, past, live) = (VecDeque::new(), None, Some(frames));
        Self::Lines(Box::new(Lines { first, past, live, _reading: reading }))
    }

    /// These lines.
    pub(super) fn lines(lines: Vec<Line>, reading: (Reading, OwnedSemaphorePermit)) -> Self {
        Self::Lines(Box::new(Lines { first: lines.into(), past: None, live: None, _reading: reading }))
    }
}

impl Lines {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut frame = String::new();
        while frame.len() < FRAME
            && let Some(line) = self.first.pop_front()
        {
            frame += &line;
        }
        if frame.is_empty()
            && let Some(past) = &mut self.past
        {
            past.page(FRAME).iter().for_each(|line| frame += line);
        }
        if !frame.is_empty() {
            return Poll::Ready(Some(frame.into()));
        }
        self.past = None;
        match &mut self.live {
            Some(live) => live.poll_recv(context),
            None => Poll::Ready(None),
        }
    }
}

/// Hands on what comes, as fast as it is taken. What is not taken in time is counted.
async fn feed(mut live: Following, frames: mpsc::Sender<Bytes>) {
    loop {
        let first = tokio::select! {
            first = live.next() => first,
            () = frames.closed() => return,
        };
        let mut frame = match first {
            Ok(line) => line.to_string(),
            Err(RecvError::Lagged(count)) => history::lost(Timestamp::now(), count),
            Err(RecvError::Closed) => return,
        };
        while frame.len() < FRAME {
            match live.try_next() {
                Ok(line) => frame += &line,
                Err(TryRecvError::Lagged(count)) => frame += &history::lost(Timestamp::now(), count),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if frames.send(frame.into()).await.is_err() {
            return;
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(whole) => Pin::new(whole).poll_frame(context),
            Self::Lines(lines) => lines.poll(context).map(|frame| frame.map(|frame| Ok(Frame::data(frame)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}
