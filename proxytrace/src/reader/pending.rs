//! Questions that wait: of each proxy the newest of each kind, the one that has waited longest first.

use std::collections::{HashMap, VecDeque};

use super::protocol::{Kind, Request};

/// Whom a question is about, and what it asks: of these only one waits.
pub(super) type Subject = (u64, Kind);

/// Questions that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    requests: HashMap<Subject, Request>,
    /// The same, in the order in which they are to be taken.
    order: VecDeque<Subject>,
}

impl Pending {
    /// Lets a question wait. It takes the place of an older one: a configuration is read as it is when its turn comes, so
    /// the answer holds for the generations before as well.
    pub(super) fn push(&mut self, request: Request) {
        let subject = request.subject();
        match self.requests.get_mut(&subject) {
            Some(older) if older.id.generation > request.id.generation => {}
            Some(older) => *older = request,
            None => {
                self.order.push_back(subject);
                self.requests.insert(subject, request);
            }
        }
    }

    /// Takes the first for which `can_start` is true.
    pub(super) fn take(&mut self, can_start: impl Fn(Subject) -> bool) -> Option<Request> {
        let at = self.order.iter().position(|subject| can_start(*subject))?;
        self.requests.remove(&self.order.remove(at)?)
    }

    /// Whether one is about such a subject.
    pub(super) fn has(&self, is_such: impl Fn(Subject) -> bool) -> bool {
        self.order.iter().any(|subject| is_such(*subject))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl Request {
    pub(super) const fn subject(&self) -> Subject {
        (self.id.proxy, self.question.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::Pending;
    use crate::reader::{protocol::Question, tests::request};

    #[test]
    fn of_each_proxy_the_newest_question_of_a_kind_waits_at_the_place_of_the_first() {
        let mut pending = Pending::default();
        for (proxy, generation) in [(1, 0), (2, 0), (1, 2), (1, 1)] {
            pending.push(request(proxy, generation, Question::Configuration));
        }
        pending.push(request(1, 0, Question::Pod));
        let mut taken = Vec::new();
        while let Some(request) = pending.take(|_| true) {
            taken.push((request.id.proxy, request.id.generation, request.question));
        }
        assert_eq!(
            taken,
            [(1, 2, Question::Configuration), (2, 0, Question::Configuration), (1, 0, Question::Pod)]
        );
        assert!(pending.is_empty());
    }

    #[test]
    fn who_cannot_start_keeps_the_place() {
        let mut pending = Pending::default();
        for proxy in 1..=3 {
            pending.push(request(proxy, 0, Question::Configuration));
        }
        assert_eq!(pending.take(|(proxy, _)| proxy == 2).map(|request| request.id.proxy), Some(2));
        assert_eq!(pending.take(|_| false), None);
        assert_eq!(pending.take(|_| true).map(|request| request.id.proxy), Some(1));
    }
}
