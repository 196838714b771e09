//! Records of what the kernel half tells. Events wait, in their order, until the upstream is known that they are about.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use proxytrace_ebpf::{
    abi::{Event, RowKey},
    outcome::{Broken, Outcome},
};

use super::{Watch, clock};
use crate::{
    kernel::{Error, boot_ns},
    model::{Address, Attempt, Body, Connection, Record, Route},
};

/// Longer than that no record is held back: then its upstream is told as unknown.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Events that were told and have become no records yet, the oldest first.
pub(super) type Held = VecDeque<Event>;

impl Watch {
    /// Takes an event, which becomes one of the [`Watch::records`].
    ///
    /// # Errors
    /// A map that was needed for it could not be read.
    pub fn take(&mut self, event: &Event) -> Result<(), Error> {
        self.note(event)?;
        if event.remote.family != 0 && !self.address(&event.remote).is_name_service() {
            self.held.push_back(*event);
        }
        Ok(())
    }

    /// The records of the events whose upstreams are known by now, or that have waited for `patience`, in the order of the
    /// events.
    ///
    /// # Errors
    /// A map that was needed for them could not be read.
    pub fn records(&mut self, patience: Duration) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        while let Some(event) = self.held.front().copied() {
            let address = self.address(&event.remote);
            let row = row(&event);
            let upstream = match self.upstream(&row, &address)? {
                Some(upstream) => upstream,
                None if boot_ns().saturating_sub(event.time_ns) < patience.as_nanos() as u64 => break,
                None => self.naming.unknown(),
            };
            self.held.pop_front();
            if let Some(body) = self.body(&event, address, upstream)? {
                records.push(Record { time: clock().at(event.time_ns), body });
            }
        }
        Ok(records)
    }

    /// Whether events wait for the names of their upstreams.
    #[must_use]
    pub fn holds_events(&self) -> bool {
        !self.held.is_empty()
    }

    fn body(&mut self, event: &Event, address: Address, upstream: Arc<str>) -> Result<Option<Body>, Error> {
        let route = Route {
            proxy: self.proxy(event)?,
            pid: event.pid,
            generation: event.generation,
            upstream,
            address,
            local: local(event),
        };
        Ok(match event.kind {
            Event::CONNECT => Some(Body::Connect(attempt(event, route, Outcome::from_index(event.what)))),
            Event::STALLED => Some(Body::Stalled(attempt(event, route, None))),
            Event::BROKEN => Broken::from_index(event.what).map(|cause| {
                let duration_us = event.duration_ns / 1000;
                Body::Broken(Connection { route, cause, errno: event.errno, duration_us })
            }),
            _ => None,
        })
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

/// The row that counts what the event is about.
const fn row(event: &Event) -> RowKey {
    RowKey { proxy: event.proxy, generation: event.generation, address: event.remote }
}

fn local(event: &Event) -> Option<Address> {
    let has_address = event.local.family != 0 && event.local.port != 0;
    has_address.then(|| Address::of_abi(&event.local, None))
}
