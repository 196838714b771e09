//! Who is connected, and who has to go so that others get in: newcomers find a place, at the expense of whoever has kept us
//! waiting longest.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::body::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::render::Rendered;

/// Connections at once: from everybody, and from one peer.
const MAX: Limits = Limits { total: 256, by_peer: 128 };

/// Of these, so many may wait for a page or take one; more queue for that. The rest is for health and readiness, which wait for
/// nothing.
const MAX_PAGES: Limits = Limits { total: 192, by_peer: 96 };

/// How long a client may take to ask, or to take what it has asked for; and how long a page may take.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A request comes within that where its client is about to send it.
const ARRIVING: Duration = Duration::from_secs(1);

/// Pages that clients are still taking need no more memory than this in bytes; a single page that is larger is served alone.
const MAX_BODIES: usize = 64 << 20;

struct Limits {
    total: usize,
    by_peer: usize,
}

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, Connection>,
    /// Wakes those that queue when one of them, or a page, may go on.
    moved: Arc<Notify>,
}

#[derive(Debug)]
struct Connection {
    peer: IpAddr,
    phase: Phase,
    since: Instant,
    close: Arc<Notify>,
}

/// What a connection is at. Of two that could go, the one in the earlier phase goes; one that waits for us never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// We wait for its next request, or for the rest of it.
    Asks,
    /// It has asked for a page, and as many as may be are at pages: it can go, or the queue would take the places of health.
    Queues,
    /// We wait until it has taken a body: the number of the rendering, and how large that is in bytes.
    Takes { number: u64, size: usize },
    /// It reads what is remembered, as fast as it likes.
    Reads,
    /// It waits for a page.
    Waits,
    /// It follows what comes, for as long as it likes.
    Follows,
}

impl Phase {
    const fn is_page(self) -> bool {
        matches!(self, Self::Takes { .. } | Self::Waits)
    }

    /// Its rank among those that could go; `None` where it is ours to go on.
    const fn rank(self) -> Option<u8> {
        match self {
            Self::Asks => Some(0),
            Self::Queues => Some(1),
            Self::Takes { .. } | Self::Reads => Some(2),
            Self::Waits | Self::Follows => None,
        }
    }
}

impl Connections {
    /// A place for a newcomer; `None` where everybody waits for us.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let (peer, close) = (peer(ip), Arc::new(Notify::new()));
        let mut table = self.lock();
        if !table.make_place(&MAX, peer, Phase::rank, |_| true) {
            return None;
        }
        let id = table.next;
        table.next += 1;
        let connection =
            Connection { peer, phase: Phase::Asks, since: Instant::now(), close: Arc::clone(&close) };
        table.open.insert(id, connection);
        Some(Place { connections: Arc::clone(self), id, close, turn: Arc::new(Semaphore::new(1)) })
    }

    /// Closes those whose time has run out.
    pub(super) fn close_overdue(&self) {
        self.close_those(|connection| {
            connection.phase != Phase::Follows && connection.since.elapsed() >= CLIENT_TIMEOUT
        });
    }

    /// Closes those that have waited for their client's next request. One that has just come is answered: its request may be on the
    /// way.
    pub(super) fn close_asking(&self) {
        self.close_those(|connection| {
            connection.phase == Phase::Asks && connection.since.elapsed() >= ARRIVING
        });
    }

    /// Closes the one that can best be spared.
    pub(super) fn close_idlest(&self) {
        let mut table = self.lock();
        if let Some(id) = table.idlest(Phase::rank, |_| true) {
            table.close(id);
        }
    }

    fn close_those(&self, is_meant: impl Fn(&Connection) -> bool) {
        let mut table = self.lock();
        let meant = table.open.iter().filter(|(_, connection)| is_meant(connection)).map(|(id, _)| *id);
        let meant: Vec<_> = meant.collect();
        meant.into_iter().for_each(|id| table.close(id));
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Sees to it that there is a place for one more among the connections that `counts`, from everybody and from `peer`:
    /// the one that can best be spared is closed. Gives false where that is none.
    fn make_place(
        &mut self,
        limits: &Limits,
        peer: IpAddr,
        rank: impl Fn(Phase) -> Option<u8>,
        counts: impl Fn(Phase) -> bool,
    ) -> bool {
        let is_of_peer = |connection: &Connection| connection.peer == peer;
        let count = |is_meant: &dyn Fn(&Connection) -> bool| {
            self.open.values().filter(|connection| counts(connection.phase) && is_meant(connection)).count()
        };
        let spared = if count(&is_of_peer) >= limits.by_peer {
            self.idlest(&rank, is_of_peer)
        } else if count(&|_| true) >= limits.total {
            self.idlest(&rank, |_| true)
        } else {
            return true;
        };
        spared.map(|id| self.close(id)).is_some()
    }

    fn idlest(
        &self,
        rank: impl Fn(Phase) -> Option<u8>,
        is_meant: impl Fn(&Connection) -> bool,
    ) -> Option<u64> {
        let candidates = self.open.iter().filter(|(_, connection)| is_meant(connection));
        let ranked = candidates
            .filter_map(|(id, connection)| Some(((rank(connection.phase)?, connection.since, *id), *id)));
        ranked.min().map(|(_, id)| id)
    }

    /// Its task ends soon; its place is free at once.
    fn close(&mut self, id: u64) {
        if let Some(connection) = self.remove(id) {
            connection.close.notify_one();
        }
    }

    fn remove(&mut self, id: u64) -> Option<Connection> {
        let connection = self.open.remove(&id)?;
        self.note_move(connection.phase);
        Some(connection)
    }

    fn enter(&mut self, id: u64, phase: Phase) {
        if let Some(connection) = self.open.get_mut(&id) {
            let left = std::mem::replace(&mut connection.phase, phase);
            connection.since = Instant::now();
            self.note_move(left);
        }
    }

    fn note_move(&self, left: Phase) {
        if left != Phase::Asks {
            self.moved.notify_waiters();
        }
    }

    /// Lets a connection that queues wait for its page, if it is the first of its peer and there is a place. A client that
    /// pipelines queues again for each page, and so comes after those that asked meanwhile. `None` where it was closed.
    fn leave_queue(&mut self, id: u64) -> Option<bool> {
        let &Connection { peer, since, .. } = self.open.get(&id)?;
        let is_before = |(other, connection): (&u64, &Connection)| {
            connection.peer == peer
                && connection.phase == Phase::Queues
                && (connection.since, *other) < (since, id)
        };
        let rank = |phase: Phase| phase.rank().filter(|_| phase.is_page());
        let leaves =
            !self.open.iter().any(is_before) && self.make_place(&MAX_PAGES, peer, rank, Phase::is_page);
        if leaves {
            self.enter(id, Phase::Waits);
        }
        Some(leaves)
    }

    /// Closes those that take the oldest renderings until the rest fits.
    fn bound_bodies(&mut self) {
        loop {
            let bodies: HashMap<u64, usize> = self
                .open
                .values()
                .filter_map(|connection| match connection.phase {
                    Phase::Takes { number, size } => Some((number, size)),
                    _ => None,
                })
                .collect();
            let Some(oldest) = bodies.keys().min().copied() else { return };
            if bodies.len() < 2 || bodies.values().sum::<usize>() <= MAX_BODIES {
                return;
            }
            let takes_it = |phase: Phase| matches!(phase, Phase::Takes { number, .. } if number == oldest);
            let slow: Vec<_> = self
                .open
                .iter()
                .filter(|(_, connection)| takes_it(connection.phase))
                .map(|(id, _)| *id)
                .collect();
            slow.into_iter().for_each(|id| self.close(id));
        }
    }
}

/// Who counts as one: an address, a network of IPv6, and everybody on this host, as each can have any loopback address.
fn peer(ip: IpAddr) -> IpAddr {
    const NETWORK: u128 = !(u64::MAX as u128);
    match ip.to_canonical() {
        ip if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK).into(),
    }
}

/// A connection's place, which is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
    close: Arc<Notify>,
    /// Only one body is on its way: a client that pipelines would keep one in memory for each of its requests.
    turn: Arc<Semaphore>,
}

impl Place {
    /// Waits until somebody else needs the place, or its time has run out.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// A whole request has come.
    pub(super) fn note_request(&self) {
        let mut table = self.connections.lock();
        // Bodies that are not taken are no reason to give it more time.
        if table.open.get(&self.id).is_some_and(|connection| connection.phase == Phase::Asks) {
            table.enter(self.id, Phase::Asks);
        }
    }

    /// What is remembered was asked for, and what comes where it `follows`.
    pub(super) fn begin_reading(self: &Arc<Self>, follows: bool) -> Reading {
        let phase = if follows { Phase::Follows } else { Phase::Reads };
        self.connections.lock().enter(self.id, phase);
        Reading { place: Arc::clone(self) }
    }

    /// A page was asked for. Waits until the one before is taken and there is a place; `None` where the connection was closed
    /// meanwhile.
    pub(super) async fn begin_page(self: &Arc<Self>) -> Option<Turn> {
        let permit = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        let moved = {
            let mut table = self.connections.lock();
            table.enter(self.id, Phase::Queues);
            Arc::clone(&table.moved)
        };
        loop {
            // Made before the check, so that it misses no move after it.
            let next = moved.notified();
            if self.connections.lock().leave_queue(self.id)? {
                return Some(Turn { place: Arc::clone(self), _permit: permit });
            }
            next.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(self.id);
    }
}

/// What is remembered, on its way to a client. When this is dropped, the client has it, or is gone.
#[derive(Debug)]
pub(super) struct Reading {
    place: Arc<Place>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.place.connections.lock().enter(self.place.id, Phase::Asks);
    }
}

/// A page on its way to a client. When this is dropped, the client has it, or is gone.
#[derive(Debug)]
pub(super) struct Turn {
    place: Arc<Place>,
    _permit: OwnedSemaphorePermit,
}

impl Turn {
    /// The body of the answer, which all who asked share.
    pub(super) fn take(self, Rendered { number, bytes }: Rendered) -> Bytes {
        {
            let mut table = self.place.connections.lock();
            table.enter(self.place.id, Phase::Takes { number, size: bytes.len() });
            table.bound_bodies();
        }
        Bytes::from_owner(Body { bytes, _turn: self })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.place.connections.lock().enter(self.place.id, Phase::Asks);
    }
}

struct Body {
    bytes: Bytes,
    _turn: Turn,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, sync::Arc};

    use hyper::body::Bytes;

    use super::{Connections, MAX, MAX_BODIES, MAX_PAGES, Phase, Place, Turn, peer};
    use crate::http::render::Rendered;

    const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    fn admit(connections: &Arc<Connections>, ip: IpAddr) -> Arc<Place> {
        Arc::new(connections.admit(ip).expect("a place"))
    }

    fn turn(place: &Arc<Place>) -> Option<Turn> {
        block_on(place.begin_page())
    }

    /// Whether a future is done when it is polled once.
    async fn is_done<T>(future: impl Future<Output = T>) -> bool {
        tokio::select! {
            biased;
            _ = future => true,
            () = tokio::task::yield_now() => false,
        }
    }

    fn is_open(place: &Place) -> bool {
        place.connections.lock().open.contains_key(&place.id)
    }

    fn rendered(number: u64, size: usize) -> Rendered {
        Rendered { number, bytes: vec![b'x'; size].into() }
    }

    #[test]
    fn a_newcomer_gets_in_at_the_expense_of_the_peer_that_kept_us_waiting_longest() {
        let connections = Arc::new(Connections::default());
        let other = admit(&connections, [10, 0, 0, 1].into());
        let places: Vec<_> = (0..MAX.by_peer).map(|_| admit(&connections, LOCAL)).collect();
        let newcomer = admit(&connections, [127, 0, 0, 2].into());
        assert!(is_open(&newcomer) && is_open(&other), "another peer's place is not touched");
        let gone: Vec<_> = places.iter().map(|place| !is_open(place)).collect();
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        assert!(gone[0], "the oldest");
        block_on(places[0].closed());
    }

    #[test]
    fn whoever_waits_for_us_keeps_its_place_and_health_has_places_left() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX_PAGES.by_peer).map(|_| admit(&connections, LOCAL)).collect();
        let turns: Vec<_> = places.iter().map(|place| turn(place).expect("a turn")).collect();
        let more: Vec<_> = (0..MAX.by_peer).map(|_| admit(&connections, LOCAL)).collect();
        assert!(places.iter().all(|place| is_open(place)));
        let last = more.last().unwrap();
        assert!(is_open(last), "health would be answered");
        assert!(!block_on(is_done(last.begin_page())), "a page would have to wait");
        drop(turns);
        assert!(turn(last).is_some());
    }

    #[test]
    fn a_page_that_finds_no_place_is_served_before_those_that_clients_pipeline() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX_PAGES.by_peer).map(|_| admit(&connections, LOCAL)).collect();
        let mut turns: Vec<_> = places.iter().map(|place| turn(place).expect("a turn")).collect();
        let (scraper, other) = (admit(&connections, LOCAL), admit(&connections, [10, 0, 0, 1].into()));
        block_on(async {
            let mut scrape = std::pin::pin!(scraper.begin_page());
            assert!(!is_done(&mut scrape).await);
            assert!(is_done(other.begin_page()).await, "another peer does not wait for it");
            turns.remove(0);
            let mut again = std::pin::pin!(places[0].begin_page());
            assert!(!is_done(&mut again).await, "it has had its turn");
            let scraped = tokio::time::timeout(std::time::Duration::from_secs(5), scrape).await;
            let _scraped = scraped.expect("it is woken").expect("a turn");
            assert!(!is_done(&mut again).await);
            turns.remove(0);
            assert!(is_done(&mut again).await);
        });
    }

    #[test]
    fn those_that_queue_go_after_the_silent_ones_and_before_those_that_take_a_page() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX.by_peer).map(|_| admit(&connections, LOCAL)).collect();
        let (at_pages, rest) = places.split_at(MAX_PAGES.by_peer);
        let _turns: Vec<_> = at_pages.iter().map(|place| turn(place).expect("a turn")).collect();
        let (silent, queueing) = rest.split_last().unwrap();
        for place in queueing {
            assert!(!block_on(is_done(place.begin_page())));
        }
        let first = admit(&connections, LOCAL);
        assert!(!is_open(silent) && queueing.iter().all(|place| is_open(place)));
        assert!(!block_on(is_done(first.begin_page())));
        let _second = admit(&connections, LOCAL);
        assert!(!is_open(&queueing[0]) && is_open(&first));
    }

    #[test]
    fn a_page_is_served_at_the_expense_of_whoever_takes_longest() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..MAX_PAGES.by_peer).map(|_| admit(&connections, LOCAL)).collect();
        let _bodies: Vec<_> = places.iter().map(|place| turn(place).unwrap().take(rendered(1, 10))).collect();
        let newcomer = admit(&connections, LOCAL);
        assert!(turn(&newcomer).is_some());
        assert!(!is_open(&places[0]) && is_open(&places[1]));
    }

    #[test]
    fn bodies_on_their_way_take_bounded_memory_and_the_oldest_go_first() {
        let connections = Arc::new(Connections::default());
        let places: Vec<_> = (0..4).map(|_| admit(&connections, LOCAL)).collect();
        let size = MAX_BODIES / 2;
        let take = |place: &Arc<Place>, number| turn(place).unwrap().take(rendered(number, size));
        // The first two share one.
        let _bodies = [take(&places[0], 1), take(&places[1], 1), take(&places[2], 2)];
        assert!(places.iter().all(|place| is_open(place)));
        let _body = take(&places[3], 3);
        let open: Vec<_> = places.iter().map(|place| is_open(place)).collect();
        assert_eq!(open, [false, false, true, true]);
        // A page that is larger than all of them may be is served all the same.
        let large = admit(&connections, LOCAL);
        let _large = turn(&large).unwrap().take(rendered(4, MAX_BODIES + 1));
        assert!(is_open(&large) && !is_open(&places[2]) && !is_open(&places[3]));
    }

    #[test]
    fn a_client_that_pipelines_has_one_body_on_its_way() {
        let connections = Arc::new(Connections::default());
        let place = admit(&connections, LOCAL);
        let body: Bytes = turn(&place).unwrap().take(rendered(1, 10));
        assert!(!block_on(is_done(place.begin_page())), "the next page waits");
        assert!(matches!(place.connections.lock().open[&place.id].phase, Phase::Takes { .. }));
        drop(body);
        assert!(turn(&place).is_some());
    }

    #[test]
    fn whoever_is_on_this_host_or_in_one_network_of_ipv6_is_one_peer() {
        let same = |one: &str, other: &str| peer(one.parse().unwrap()) == peer(other.parse().unwrap());
        assert!(same("127.0.0.1", "127.8.9.10"));
        assert!(same("127.0.0.1", "::1"));
        assert!(same("::ffff:10.0.0.1", "10.0.0.1"));
        assert!(same("2001:db8::1", "2001:db8::2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
    }
}
