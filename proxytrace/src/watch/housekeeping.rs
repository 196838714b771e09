//! Forgets what is not used any more, each second, whether anybody asks or not: nothing grows with reloads, addresses or proxies that
//! come and go. Of a row that the kernel forgets the series keeps the counts; of an old generation only what its rows are called.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use proxytrace_ebpf::abi::{RETIRES_AFTER_NS, Row};

use super::{Watch, configurations::with_processes};
use crate::{
    kernel::{Error, Idle, Snapshot, boot_ns},
    memory,
    naming::of_row,
    reader::GenerationId,
};

/// So often at the most; ticks come as often at the least.
const TURN: Duration = Duration::from_millis(900);

/// What takes longer, or is never urgent.
const THOROUGH: Duration = Duration::from_secs(60);

/// A row of a living generation that was not used for so long leaves the ledger; where more than a quarter of the ledger is
/// full, one that was not used for [`SOON_NS`]. Well before the half at which an owner who is alone gets no more rows.
const IDLE_NS: u64 = 3_600_000_000_000;

/// Twice as long as the kernel half wants it.
const SOON_NS: u64 = 2 * RETIRES_AFTER_NS;

/// When it was done last, and what is to go.
#[derive(Debug)]
pub(super) struct Housekeeping {
    turned: Instant,
    was_thorough: Instant,
    ended: Ended,
}

/// The names of proxies that have ended, of which something is kept still, since when. Another that is called the same goes on with
/// what is kept: a service that was restarted.
#[derive(Debug)]
struct Ended {
    kept: Duration,
    since: HashMap<Arc<str>, Instant>,
}

impl Housekeeping {
    /// What is kept of a proxy that has ended is `kept` for so long.
    pub(super) fn new(kept: Duration) -> Self {
        let ended = Ended { kept, since: HashMap::new() };
        Self { turned: Instant::now(), was_thorough: Instant::now(), ended }
    }
}

impl Ended {
    /// Of the proxies that something is `known` of those that are not `living`, and have not been for long.
    fn gone(
        &mut self,
        now: Instant,
        known: &HashSet<Arc<str>>,
        living: &HashSet<Arc<str>>,
    ) -> HashSet<Arc<str>> {
        let has_ended = |name: &Arc<str>| known.contains(name) && !living.contains(name);
        self.since.retain(|name, _| has_ended(name));
        for name in known.iter().filter(|name| has_ended(name)) {
            self.since.entry(Arc::clone(name)).or_insert(now);
        }
        let is_over = |since: &Instant| now.saturating_duration_since(*since) >= self.kept;
        self.since.iter().filter(|(_, since)| is_over(since)).map(|(name, _)| Arc::clone(name)).collect()
    }
}

impl Watch {
    /// Forgets what is not used any more, if it is time to. All that `snapshot` holds has been shown to findings.
    pub(super) fn keep_house(&mut self, snapshot: &Snapshot, living: &HashSet<u64>) -> Result<(), Error> {
        if self.housekeeping.turned.elapsed() < TURN {
            return Ok(());
        }
        self.housekeeping.turned = Instant::now();
        self.ask_for_all(snapshot);
        let is_thorough = self.housekeeping.was_thorough.elapsed() >= THOROUGH;
        let idle = self.idle_rows(snapshot, is_thorough)?;
        for (key, row) in self.tracer.retire(&idle)? {
            self.keep_side(&key, &row);
            if self.rows.carry(&key, &row) {
                self.detection.carry(&key, &row);
            }
        }
        if is_thorough {
            self.housekeeping.was_thorough = Instant::now();
            let declared = self.declared(snapshot, living);
            let gone = self.gone(living);
            self.rows.drop_idle(boot_ns(), &declared, &gone);
            self.detection.forget(&gone);
            let kept: HashSet<_> = self.rows.proxies().chain(self.detection.proxies()).cloned().collect();
            self.names.forget_ended(|name| kept.contains(name));
            // What comes and goes leaves holes in it, which would grow with the hours.
            memory::give_back();
        }
        self.forget_sides(snapshot);
        self.tracer.forget_paths(snapshot)?;
        let rows: HashSet<_> = snapshot.rows.iter().map(|(row, _)| *row).collect();
        self.forget_looks(|row| rows.contains(row));
        let pids: HashSet<u32> = snapshot.processes.iter().map(|(pid, _)| *pid).collect();
        self.lifecycle.retain(|pid| pids.contains(&pid));
        for (key, row) in
            self.tracer.forget_ended_proxies(snapshot, |proxy| self.names.given(proxy).is_some())?
        {
            if let (Some(proxy), Some(owner)) = (self.names.given(key.proxy), self.owner(key.proxy)) {
                self.rows.carry_other(proxy, owner, &row);
            }
        }
        self.hints.retain(|proxy| living.contains(&proxy));
        self.own_connect_timeouts.retain(|proxy, _| living.contains(proxy));
        self.tracer.count_rows(snapshot)?;
        self.forget_configurations(snapshot)?;
        let counted = snapshot.rows.iter().map(|(row, _)| row.proxy);
        let held = self.held.proxies();
        let named: HashSet<u64> = counted.chain(held).chain(self.detection.awaited()).collect();
        self.names.retain(|proxy| living.contains(&proxy) || named.contains(&proxy));
        Ok(())
    }

    /// The proxies that have ended so long ago that nothing is to be kept of them.
    fn gone(&mut self, living: &HashSet<u64>) -> HashSet<Arc<str>> {
        let known = self.rows.proxies().chain(self.detection.proxies()).cloned().collect();
        let living = living.iter().filter_map(|proxy| self.names.given(*proxy)).collect();
        self.housekeeping.ended.gone(Instant::now(), &known, &living)
    }

    /// The rows that nothing counts in at the moment, and that are not expected to be used: of a generation without processes at
    /// once, of another after a long time, or the least recently used ones where room is short.
    fn idle_rows(&self, snapshot: &Snapshot, is_thorough: bool) -> Result<Vec<Idle>, Error> {
        let generations: HashSet<GenerationId> = with_processes(&snapshot.processes).collect();
        let over_quarter = snapshot.rows.len().saturating_sub(self.tracer.ledger_capacity() / 4);
        let now_ns = boot_ns();
        let age_ns = |row: &Row| now_ns.saturating_sub(row.last_attempt_ns);
        let (mut reachable, mut idle) = (Vec::new(), Vec::new());
        for (key, row) in &snapshot.rows {
            // Without a name it cannot be carried over yet. A row `~other` stays as long as its proxy, which it is a part of.
            let is_ready = self.detection.has_seen(key);
            if row.attempts != row.ended() || !is_ready || Snapshot::is_other(key) {
                continue;
            }
            if !generations.contains(&of_row(key)) {
                idle.push(Idle { row: *key, is_reachable: false });
            } else if age_ns(row) >= if over_quarter > 0 { SOON_NS } else { IDLE_NS } {
                reachable.push((age_ns(row), *key));
            }
        }
        // All that are old, in their time; as many as are too many at once; and those that are leaving, or they would stay.
        reachable.sort_unstable_by_key(|(age_ns, _)| Reverse(*age_ns));
        let leaving = reachable.into_iter().enumerate().filter(|(n, (age_ns, key))| {
            *n < over_quarter || (is_thorough && *age_ns >= IDLE_NS) || self.tracer.is_retiring(key)
        });
        idle.extend(leaving.map(|(_, (_, row))| Idle { row, is_reachable: true }));
        if !idle.is_empty() {
            let connected = self.tracer.connected_rows()?;
            idle.retain(|idle| !connected.contains(&idle.row));
        }
        Ok(idle)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{HashMap, HashSet},
        sync::Arc,
        time::{Duration, Instant},
    };

    use super::Ended;

    #[test]
    fn a_proxy_is_gone_when_none_of_its_name_has_lived_for_long() {
        const KEPT: Duration = Duration::from_secs(300);
        let mut ended = Ended { kept: KEPT, since: HashMap::new() };
        let begin = Instant::now();
        let mut turn = |after: u64, known: &[&str], living: &[&str]| {
            let set =
                |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<HashSet<Arc<str>>>();
            let now = begin + Duration::from_secs(after);
            let mut gone: Vec<_> =
                ended.gone(now, &set(known), &set(living)).iter().map(ToString::to_string).collect();
            gone.sort();
            gone
        };
        let known = ["edge-0", "nginx.service"];
        assert!(turn(0, &known, &known).is_empty());
        assert!(turn(60, &known, &[]).is_empty(), "both have just ended");
        assert!(turn(120, &known, &["nginx.service"]).is_empty(), "one was restarted");
        assert!(turn(359, &known, &["nginx.service"]).is_empty());
        assert_eq!(turn(360, &known, &[]), ["edge-0"]);
        assert!(turn(361, &known[1..], &[]).is_empty(), "the other has ended a second ago");
        assert_eq!(
            turn(660, &known, &[]),
            ["nginx.service"],
            "nothing is remembered of what nothing is kept of"
        );
    }
}
