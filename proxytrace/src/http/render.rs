//! One rendering at a time, shared by all who asked for the same page before it began: many scrapers cost as much as one.

use std::{
    collections::BTreeMap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{memory, metrics::Format};

/// More asks than connections may wait for a page at once (`connections.rs`): one that finds no place is answered with 503.
const MAX_ASKS: usize = 256;

/// A page that has to be rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Page {
    /// Everything that is counted.
    Metrics(Format),
    /// What is wrong now.
    Findings,
    /// Where the proxies' configurations send requests.
    Routes,
    /// How things are.
    Status,
    /// The same without addresses.
    Overview,
}

impl Page {
    /// Its `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Metrics(format) => format.content_type(),
            Self::Findings | Self::Routes | Self::Status | Self::Overview => "application/json",
        }
    }
}

/// Where pages come from.
pub trait Source {
    /// The text of a page.
    ///
    /// # Errors
    /// Why it cannot be rendered now.
    fn render(&mut self, page: Page) -> anyhow::Result<String>;
}

/// From so many bytes on memory is given back after a page: one of some hundred addresses. That takes about a millisecond.
const LARGE: usize = 1 << 20;

/// A page as it was rendered once.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    /// Of two renderings the later has the higher number.
    pub(super) number: u64,
    pub(super) bytes: Bytes,
}

type Answer = Result<Rendered, Arc<str>>;

/// Somebody who waits for a page.
#[derive(Debug)]
pub struct Ask {
    page: Page,
    answer: oneshot::Sender<Answer>,
}

/// Asks for pages.
#[derive(Clone, Debug)]
pub struct Renderer(mpsc::Sender<Ask>);

impl Renderer {
    /// A renderer, and what [`render`] needs to answer it.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Ask>) {
        let (sender, receiver) = mpsc::channel(MAX_ASKS);
        (Self(sender), receiver)
    }

    /// The page as of now, or why there is none.
    pub(super) async fn ask(&self, page: Page) -> Answer {
        let (answer, rendered) = oneshot::channel();
        if self.0.try_send(Ask { page, answer }).is_err() {
            return Err("too many clients ask at once: ask again in a moment".into());
        }
        rendered.await.unwrap_or_else(|_| Err("the agent ends".into()))
    }
}

/// Answers until nobody can ask any more. Runs on a thread of its own, as a large page takes a second.
pub fn render(mut asks: mpsc::Receiver<Ask>, mut source: impl Source) {
    let mut number = 0;
    let mut waiting: BTreeMap<Page, Vec<oneshot::Sender<Answer>>> = BTreeMap::new();
    loop {
        let Some(first) = asks.blocking_recv() else { return };
        // Whoever asks from here on gets the next rendering: none is older than the question.
        for Ask { page, answer } in std::iter::once(first).chain(std::iter::from_fn(|| asks.try_recv().ok()))
        {
            waiting.entry(page).or_default().push(answer);
        }
        while let Some((page, answers)) = waiting.pop_first() {
            if answers.iter().all(oneshot::Sender::is_closed) {
                continue;
            }
            let started = Instant::now();
            number += 1;
            let answer = match source.render(page) {
                Ok(text) => Ok(Rendered { number, bytes: text.into() }),
                Err(error) => {
                    tracing::error!("{error:#}");
                    Err(format!("{error:#}").into())
                }
            };
            for asker in answers {
                // One that has gone needs no answer.
                let _ = asker.send(answer.clone());
            }
            if answer.is_ok_and(|page| page.bytes.len() >= LARGE) {
                // It was put together from small pieces, which leave holes.
                memory::give_back();
            }
            rest(started.elapsed());
        }
    }
}

/// Renderings take no more than half of a processor, however many ask, and leave the trace time in between.
fn rest(took: Duration) {
    thread::sleep(took.min(Duration::from_secs(1)));
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, Sender, channel},
        thread,
    };

    use super::{Page, Renderer, Source, render};

    /// Says that it has begun, and goes on when it is released.
    struct Held {
        began: Sender<Page>,
        goes_on: Receiver<()>,
        count: u32,
    }

    impl Source for Held {
        fn render(&mut self, page: Page) -> anyhow::Result<String> {
            self.count += 1;
            self.began.send(page)?;
            self.goes_on.recv()?;
            Ok(self.count.to_string())
        }
    }

    #[test]
    fn all_who_ask_while_a_page_is_rendered_share_the_next_rendering() {
        let (renderer, asks) = Renderer::new();
        let ((began, begins), (go, goes_on)) = (channel(), channel());
        let thread = thread::spawn(move || render(asks, Held { began, goes_on, count: 0 }));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let texts = runtime.block_on(async {
            let ask = |page| {
                let renderer = renderer.clone();
                tokio::spawn(async move { renderer.ask(page).await.unwrap().bytes })
            };
            let first = ask(Page::Routes);
            tokio::task::yield_now().await;
            assert_eq!(begins.recv().unwrap(), Page::Routes);
            let later: Vec<_> = (0..20).map(|_| ask(Page::Routes)).chain([ask(Page::Findings)]).collect();
            tokio::task::yield_now().await;
            for _ in 0..3 {
                go.send(()).unwrap();
            }
            let mut texts = vec![first.await.unwrap()];
            for task in later {
                texts.push(task.await.unwrap());
            }
            texts
        });
        let expected: Vec<_> =
            ["1"].into_iter().chain(["3"; 20]).chain(["2"]).map(|text| text.as_bytes().to_vec()).collect();
        assert_eq!(texts, expected, "three renderings for 22 who asked");
        drop(renderer);
        thread.join().unwrap();
    }
}
