//! Records of what the kernel half reports. Events wait until it is known what the proxy and the upstream are called that they
//! are about: those of one proxy in their order, and none for another proxy.

use std::time::Duration;

use proxytrace_ebpf::{
    abi::{self, Event, RowKey},
    outcome::{Broken, Outcome},
};

use super::{Watch, clock, held::Waiting, rejections::Rejection};
use crate::{
    kernel::{Error, boot_ns},
    model::{Address, Attempt, Body, Connection, Record, Route},
    naming::of_row,
};

/// No record is held back longer than that while host names are looked up: then its upstream is reported as unknown.
pub const NAME_TIMEOUT: Duration = Duration::from_secs(2);

impl Watch {
    /// Takes an event; where records are wanted, it becomes one of the [`Watch::records`].
    ///
    /// # Errors
    /// A map that was needed for it could not be read.
    pub fn take(&mut self, event: &Event, wants_records: bool) -> Result<(), Error> {
        let time = clock().at(event.time_ns);
        self.note(event)?;
        self.workforces.note(event);
        let is_news = self.note_reload(time, event);
        let is_reported = match event.kind {
            Event::RELOADED | Event::RELOAD_REJECTED => is_news,
            Event::WORKER_STARTED | Event::WORKER_EXITED => true,
            _ => wants_records && event.remote.family != 0 && !self.address(&event.remote).is_name_service(),
        };
        if wants_records && is_reported {
            self.held.push(time, event);
        }
        Ok(())
    }

    /// The records of the events whose upstreams are known by now, or that have waited long enough, in the order of the
    /// events.
    ///
    /// # Errors
    /// A map that was needed for them could not be read.
    pub fn records(&mut self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        let crowding = self.held.crowding();
        for proxy in self.held.proxies() {
            let at_once = self.is_last || crowding == Some(proxy);
            while let Some(Waiting { number, time, event }) = self.held.first(proxy) {
                let Some(body) = self.body(&event, at_once)? else { break };
                self.held.remove_first(proxy);
                records.extend(body.map(|body| (number, Record { time, body })));
            }
        }
        records.sort_unstable_by_key(|(number, _)| *number);
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    /// What an event reports, if that is anything; `None` while it is worth waiting for a name.
    fn body(&mut self, event: &Event, at_once: bool) -> Result<Option<Option<Body>>, Error> {
        let lacks_reason =
            event.kind == Event::RELOAD_REJECTED && self.lifecycle.lacks_reason(Rejection::of(event));
        if !at_once && (lacks_reason || !self.names.is_settled(event.proxy)) {
            return Ok(None);
        }
        if event.remote.family == 0 {
            return self.lifecycle(event).map(Some);
        }
        Ok(self.route(event, at_once)?.map(|route| about_a_route(event, route)))
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
        self.held.events().filter(|event| event.remote.family != 0).map(row_of)
    }

    /// Who connected where; `None` while it is worth waiting for the upstream's name.
    fn route(&mut self, event: &Event, at_once: bool) -> Result<Option<Route>, Error> {
        let address = self.address(&event.remote);
        let row = row_of(event);
        let age_ns = boot_ns().saturating_sub(event.time_ns);
        let upstream = match self.upstream(&row, &address)? {
            Some(upstream) => upstream,
            // A configuration that is not read in its time makes the upstream unknown.
            None if !at_once
                && (self.naming.is_reading(of_row(&row)) || age_ns < NAME_TIMEOUT.as_nanos() as u64) =>
            {
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
            Body::Broken(Connection { route, cause, errno: event.errno, duration_us, kept: event.kept != 0 })
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
