//! Which records are alike: what happened to whom, and where.

use std::sync::Arc;

use proxytrace_ebpf::outcome::Outcome;

use crate::model::{Address, Body, Kind, ReloadResult, Route, State};

/// Records that are alike, whenever they were.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Class {
    what: What,
    pub proxy: Arc<str>,
    generation: u32,
    upstream: Option<Arc<str>>,
    address: Option<Address>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Established,
    /// By the name of the cause.
    Failure(&'static str),
    Accepted,
    Rejected,
    Started,
    /// By signal and code.
    Exited(u32, u32),
    Raised(Kind),
    Cleared(Kind),
    Lost,
    Header,
}

impl Class {
    /// That of a record; `None` for what is in recordings only.
    pub fn of(body: &Body) -> Option<Self> {
        Some(match body {
            Body::Connect(attempt) => {
                let what = match attempt.outcome {
                    Some(Outcome::Established) => What::Established,
                    outcome => What::Failure(outcome.unwrap_or(Outcome::Other).name()),
                };
                of_route(what, &attempt.route)
            }
            Body::Stalled(attempt) => of_route(What::Failure("stalled"), &attempt.route),
            Body::Unanswered(unanswered) => of_route(What::Failure("unanswered"), &unanswered.route),
            Body::Broken(connection) => of_route(What::Failure(connection.cause.name()), &connection.route),
            Body::Reload(reload) => {
                let what = match reload.result {
                    ReloadResult::Accepted => What::Accepted,
                    ReloadResult::Rejected => What::Rejected,
                };
                of_proxy(what, &reload.master.proxy)
            }
            Body::WorkerStarted(worker) => of_proxy(What::Started, &worker.proxy),
            Body::WorkerExited(exit) => {
                let what = What::Exited(exit.signal.unwrap_or(0), exit.code.unwrap_or(0));
                of_proxy(what, &exit.worker.proxy)
            }
            Body::Finding(change) => {
                let subject = &change.finding.subject;
                let what = match change.state {
                    State::Raised => What::Raised(subject.kind),
                    State::Cleared => What::Cleared(subject.kind),
                };
                let (upstream, address) = (subject.upstream.clone(), subject.address.clone());
                Self { upstream, address, ..of_proxy(what, &subject.proxy) }
            }
            Body::Lost(_) => of_proxy(What::Lost, &"".into()),
            Body::Header(_) => of_proxy(What::Header, &"".into()),
            Body::Counts(_)
            | Body::Declared(_)
            | Body::Generation(_)
            | Body::Rejection(_)
            | Body::Workers(_)
            | Body::Complaints(_)
            | Body::Tick => {
                return None;
            }
        })
    }

    /// So many are kept one by one before the others are folded.
    pub const fn alone(&self) -> u32 {
        const FAILURES: u32 = 5;
        const OTHERS: u32 = 64;
        match self.what {
            What::Established | What::Failure(_) | What::Lost => FAILURES,
            _ => OTHERS,
        }
    }

    /// Whether what is the `number`th of its kind, from 0, is among what is kept longest: the first failure, and what explains it.
    pub const fn is_first(&self, number: u32) -> bool {
        match self.what {
            What::Failure(_) => number == 0,
            What::Accepted | What::Rejected | What::Raised(_) | What::Cleared(_) | What::Header => true,
            What::Exited(signal, code) => number == 0 && (signal != 0 || code != 0),
            What::Established | What::Started | What::Lost => false,
        }
    }
}

fn of_route(what: What, route: &Route) -> Class {
    Class {
        what,
        proxy: Arc::clone(&route.proxy),
        generation: route.generation,
        upstream: Some(Arc::clone(&route.upstream)),
        address: Some(route.address.clone()),
    }
}

fn of_proxy(what: What, proxy: &Arc<str>) -> Class {
    Class { what, proxy: Arc::clone(proxy), generation: 0, upstream: None, address: None }
}
