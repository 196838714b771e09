//! The lines of the feed, from the agent to its subscribers. The agent waits for nobody: a subscriber that misses a line gets a whole one, which
//! says everything.

use std::sync::Arc;

use tokio::sync::{
    Notify,
    broadcast::{self, error::RecvError},
};

/// So many lines wait for subscribers.
const MAX_WAITING: usize = 64;

/// Brings lines to all subscribers.
#[derive(Clone, Debug)]
pub struct Channel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lines: broadcast::Sender<Line>,
    /// A subscriber lacks a whole line.
    whole_wanted: Notify,
}

#[derive(Clone, Debug)]
struct Line {
    text: Arc<str>,
    is_whole: bool,
}

impl Default for Channel {
    fn default() -> Self {
        let (lines, whole_wanted) = (broadcast::Sender::new(MAX_WAITING), Notify::new());
        Self(Arc::new(Shared { lines, whole_wanted }))
    }
}

impl Channel {
    /// Whether anybody subscribes.
    #[must_use]
    pub fn has_subscribers(&self) -> bool {
        self.subscribers() > 0
    }

    /// How many subscribe.
    #[must_use]
    pub fn subscribers(&self) -> usize {
        self.0.lines.receiver_count()
    }

    /// Waits until a subscriber lacks a whole line. Safe to cancel.
    pub async fn whole_wanted(&self) {
        self.0.whole_wanted.notified().await;
    }

    /// Sends a line to all subscribers; `is_whole` for one that says everything.
    pub fn publish(&self, text: impl Into<Arc<str>>, is_whole: bool) {
        // Without subscribers nobody misses it.
        let _ = self.0.lines.send(Line { text: text.into(), is_whole });
    }

    /// A new subscriber.
    #[must_use]
    pub fn subscribe(&self) -> Subscriber {
        let lines = self.0.lines.subscribe();
        self.0.whole_wanted.notify_one();
        Subscriber { channel: self.clone(), lines, knows_all: false }
    }
}

/// Gets the lines.
#[derive(Debug)]
pub struct Subscriber {
    channel: Channel,
    lines: broadcast::Receiver<Line>,
    /// Whether it has had a whole line, and every one since.
    knows_all: bool,
}

impl Subscriber {
    /// The next line, the first of which says everything; `None` once the agent has ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            match self.lines.recv().await {
                Ok(line) => {
                    self.knows_all |= line.is_whole;
                    if self.knows_all {
                        return Some(line.text);
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    self.knows_all = false;
                    self.channel.0.whole_wanted.notify_one();
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, MAX_WAITING};

    #[tokio::test]
    async fn a_subscriber_gets_a_whole_line_first_and_again_where_it_missed_one() {
        let channel = Channel::default();
        assert!(!channel.has_subscribers());
        let mut subscriber = channel.subscribe();
        assert!(channel.has_subscribers());
        channel.whole_wanted().await;
        channel.publish("a change", false);
        channel.publish("all", true);
        channel.publish("another change", false);
        assert_eq!(subscriber.next().await.as_deref(), Some("all"));
        assert_eq!(subscriber.next().await.as_deref(), Some("another change"));

        (0..=MAX_WAITING).for_each(|_| channel.publish("a change", false));
        let next = async { subscriber.next().await };
        let again = async {
            channel.whole_wanted().await;
            channel.publish("all again", true);
        };
        let (next, ()) = tokio::join!(next, again);
        assert_eq!(next.as_deref(), Some("all again"));
        drop(subscriber);
        assert!(!channel.has_subscribers());
    }
}
