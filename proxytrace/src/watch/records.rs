//! Records of what the kernel half tells. Events wait, in their order, until it is known what the proxy and the upstream are
//! called that they are about.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;
use proxytrace_ebpf::{
    abi::{self, Event, RowKey},
    outcome::{Broken, Outcome},
};

use super::{Watch, clock, rejections::Rejection};
use crate::{
    kernel::{Error, boot_ns},
    model::{Address, Attempt, Body, Connection, Exit, Record, Reload, ReloadResult, Route},
    naming::of_row,
};

/// No record is held back longer than that while host names are looked up: then its upstream is told as unknown.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The same while the configuration is read: in milliseconds, but on a host that is in trouble everything takes longer. The
/// reader gives up after that time.
const READING: Duration = Duration::from_secs(10);

/// Events that were told and have become no records yet, the oldest first, and when they happened.
pub(super) type Held = VecDeque<(Timestamp, Event)>;

impl Watch {
    /// Takes an event, which becomes one of the [`Watch::records`].
    ///
    /// # Errors
    /// A map that was needed for it could not be read.
    pub fn take(&mut self, event: &Event) -> Result<(), Error> {
        let time = clock().at(event.time_ns);
        let is_news = self.note_at(time, event)?;
        let is_told = match event.kind {
            Event::RELOADED | Event::RELOAD_REJECTED => is_news,
            Event::WORKER_STARTED | Event::WORKER_EXITED => true,
            _ => event.remote.family != 0 && !self.address(&event.remote).is_name_service(),
        };
        if is_told {
            self.held.push_back((time, *event));
        }
        Ok(())
    }

    /// Takes the reloads that turn out to be rejected now.
    pub fn take_rejected_reloads(&mut self) {
        let events = self.note_rejected_reloads();
        self.held.extend(events);
    }

    /// The records of the events whose upstreams are known by now, or that have waited long enough, in the order of the
    /// events; or, if `all`, of all of them.
    ///
    /// # Errors
    /// A map that was needed for them could not be read.
    pub fn records(&mut self, all: bool) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        while let Some((time, event)) = self.held.front().copied() {
            let lacks_reason =
                event.kind == Event::RELOAD_REJECTED && self.rejections.is_pending(Rejection::of(&event));
            if !all && (lacks_reason || !self.names.is_settled(event.proxy)) {
                break;
            }
            let body = if event.remote.family == 0 {
                self.lifecycle(&event)?
            } else {
                let Some(route) = self.route(&event, all)? else { break };
                about_a_route(&event, route)
            };
            self.held.pop_front();
            records.extend(body.map(|body| Record { time, body }));
        }
        Ok(records)
    }

    /// Whether something that was seen waits for the name of its proxy or upstream.
    #[must_use]
    pub fn is_naming(&self) -> bool {
        self.holds_events() || self.naming.is_asking() || self.names.is_asking()
    }

    /// Whether events wait for the names of their proxies or upstreams.
    #[must_use]
    pub fn holds_events(&self) -> bool {
        !self.held.is_empty()
    }

    /// The rows that the events count in which wait.
    pub(super) fn held_rows(&self) -> impl Iterator<Item = RowKey> {
        let with_address = self.held.iter().filter(|(_, event)| event.remote.family != 0);
        with_address.map(|(_, event)| row_of(event))
    }

    /// What became of a process or a reload.
    fn lifecycle(&mut self, event: &Event) -> Result<Option<Body>, Error> {
        Ok(match event.kind {
            Event::RELOADED | Event::RELOAD_REJECTED => {
                let is_accepted = event.kind == Event::RELOADED;
                let result = if is_accepted { ReloadResult::Accepted } else { ReloadResult::Rejected };
                let reason = self.rejections.reason(Rejection::of(event));
                Some(Body::Reload(Reload { master: self.worker(event)?, result, reason }))
            }
            Event::WORKER_STARTED => Some(Body::WorkerStarted(self.worker(event)?)),
            Event::WORKER_EXITED => {
                Some(Body::WorkerExited(Exit::of_status(self.worker(event)?, event.what)))
            }
            _ => None,
        })
    }

    /// Who connected where; `None` while it is worth waiting for the upstream's name.
    fn route(&mut self, event: &Event, all: bool) -> Result<Option<Route>, Error> {
        let address = self.address(&event.remote);
        let row = row_of(event);
        let patience = if self.naming.is_reading(of_row(&row)) { READING } else { PATIENCE };
        let upstream = match self.upstream(&row, &address)? {
            Some(upstream) => upstream,
            None if !all && boot_ns().saturating_sub(event.time_ns) < patience.as_nanos() as u64 => {
                return Ok(None);
            }
            None => self.naming.unknown(),
        };
        Ok(Some(Route {
            proxy: self.proxy_name(event.proxy)?,
            pid: event.pid,
            generation: event.generation,
            upstream,
            address,
            local: end(&event.local),
            backend: end(&event.backend).filter(|_| event.backend != event.remote),
        }))
    }
}

const fn row_of(event: &Event) -> RowKey {
    RowKey { proxy: event.proxy, generation: event.generation, address: event.remote }
}

fn about_a_route(event: &Event, route: Route) -> Option<Body> {
    match event.kind {
        Event::CONNECT => Some(Body::Connect(attempt(event, route, Outcome::from_index(event.what)))),
        Event::STALLED => Some(Body::Stalled(attempt(event, route, None))),
        Event::BROKEN => Broken::from_index(event.what).map(|cause| {
            let duration_us = event.duration_ns / 1000;
            Body::Broken(Connection { route, cause, errno: event.errno, duration_us })
        }),
        _ => None,
    }
}

fn attempt(event: &Event, route: Route, outcome: Option<Outcome>) -> Attempt {
    Attempt {
        route,
        outcome,
        errno: event.errno,
        duration_us: event.duration_ns / 1000,
        syn_retransmits: event.syn_retransmits,
    }
}

/// One end of a socket, if it has one.
fn end(address: &abi::Address) -> Option<Address> {
    let has_address = address.family != 0 && address.port != 0;
    has_address.then(|| Address::of_abi(address, None))
}
