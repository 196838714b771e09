//! The ring buffer.
//!
//! The kernel half wakes its reader once and leaves it to the reader to look for what comes after: a wake-up costs ten times as
//! much as everything else that a failed attempt costs. So who was woken looks again and again, until nothing has come for longer
//! than the kernel half goes without waking it.

use std::{io, sync::atomic::AtomicU64, sync::atomic::Ordering, time::Duration};

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
};
use memmap2::{Mmap, MmapOptions};
use proxytrace_ebpf::abi::{Event, WAKE_INTERVAL_NS};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, sleep_until},
};

use super::Error;

const NAME: &str = "EVENTS";

/// While awake, the ring buffer is looked at once in so long.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The reader sleeps when nothing has come for so long. A record that comes later finds that the last wake-up, which was not after
/// the last record that was taken, is long enough ago, and wakes it.
const AWAKE_FOR: Duration = Duration::from_nanos(2 * WAKE_INTERVAL_NS);

/// The events that the kernel half reports, in the order in which it does.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    positions: Positions,
    awake: Option<Awake>,
}

/// Of a reader that was woken.
#[derive(Clone, Copy)]
struct Awake {
    next_look: Instant,
    /// It sleeps at the first look from then on that finds the ring empty.
    until: Instant,
}

impl Events {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let error = |source| Error::Map { map: NAME, source };
        let map =
            ebpf.take_map(NAME).ok_or_else(|| error(MapError::InvalidName { name: NAME.to_owned() }))?;
        let ring = RingBuf::try_from(map).map_err(error)?;
        let positions = Positions::of(&ring).map_err(|source| error(MapError::IoError(source)))?;
        // The reactor registers the ring's descriptor; that fails only where epoll does.
        #[expect(unsafe_code, reason = "tokio cannot know that the descriptor stays the same")]
        // SAFETY: the ring buffer owns its map's descriptor, and keeps it until it is dropped.
        let ring =
            unsafe { AsyncFd::register(ring) }.map_err(|source| error(MapError::IoError(source.into())))?;
        Ok(Self { ring, positions, awake: None })
    }

    /// Waits until there are events, and hands each to `take`, at most `limit`: what is left stays in the ring buffer.
    /// Safe to cancel: an event is handed over or still there.
    pub async fn next_batch(&mut self, limit: usize, mut take: impl FnMut(Event)) {
        loop {
            match self.awake {
                Some(Awake { next_look, .. }) => sleep_until(next_look).await,
                // An error means that the reactor is gone, and then so is this task.
                None => match self.ring.readable_mut().await {
                    // epoll reports changes only, so this must come before the ring is seen empty.
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => return,
                },
            }
            let count = drain(self.ring.get_mut(), limit, &mut take);
            let now = Instant::now();
            let until = match self.awake {
                Some(Awake { until, .. }) if count == 0 => until,
                _ => now + AWAKE_FOR,
            };
            let next_look = if count < limit { now + LOOK_INTERVAL } else { now };
            // Who is interrupted while it writes a record may have decided long ago to wake nobody for it.
            let is_awake = now < until || !self.positions.is_empty();
            self.awake = is_awake.then_some(Awake { next_look, until });
            if count > 0 {
                return;
            }
        }
    }

    /// Hands over what is there, without waiting.
    pub fn drain(&mut self, take: impl FnMut(Event)) {
        drain(self.ring.get_mut(), usize::MAX, take);
    }
}

/// Gives how many there were, `limit` at most.
fn drain(ring: &mut RingBuf<MapData>, limit: usize, mut take: impl FnMut(Event)) -> usize {
    let mut count = 0;
    while count < limit
        && let Some(item) = ring.next()
    {
        count += 1;
        if item.len() >= size_of::<Event>() {
            #[expect(unsafe_code, reason = "a record arrives as bytes")]
            // SAFETY: long enough, and of an `Event` every pattern of bytes is a value.
            take(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
        }
    }
    count
}

/// How far a ring buffer was written and read, in bytes: each at the beginning of a page of its own (5.8,
/// kernel/bpf/ringbuf.c, struct bpf_ringbuf).
struct Positions {
    pages: Mmap,
    page_size: usize,
}

impl Positions {
    fn of(ring: &RingBuf<MapData>) -> io::Result<Self> {
        let page_size = rustix::param::page_size();
        #[expect(unsafe_code, reason = "the kernel changes what is mapped")]
        // SAFETY: it is looked at as atomic numbers alone.
        let pages = unsafe { MmapOptions::new().len(2 * page_size).map(ring) }?;
        Ok(Self { pages, page_size })
    }

    /// Whether there is nothing that was not read, records that are being written included.
    fn is_empty(&self) -> bool {
        self.position(0) == self.position(self.page_size)
    }

    fn position(&self, offset: usize) -> u64 {
        let position = &self.pages[offset..][..size_of::<u64>()];
        #[expect(unsafe_code, reason = "the kernel changes it at the same time")]
        // SAFETY: at the beginning of a page, so aligned; as long as a long, which is 64 bits where this runs; and whoever else has
        // it mapped or writes it does so atomically.
        unsafe { &*position.as_ptr().cast::<AtomicU64>() }.load(Ordering::Acquire)
    }
}
