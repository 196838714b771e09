//! The ring buffer.

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
};
use proxytrace_ebpf::abi::Event;
use tokio::io::unix::AsyncFd;

use super::Error;

const NAME: &str = "EVENTS";

/// The events that the kernel half reports, in the order in which it does.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let error = |source| Error::Map { map: NAME, source };
        let map =
            ebpf.take_map(NAME).ok_or_else(|| error(MapError::InvalidName { name: NAME.to_owned() }))?;
        let ring = RingBuf::try_from(map).map_err(error)?;
        // The reactor registers the ring's descriptor; that fails only where epoll does.
        #[expect(unsafe_code, reason = "tokio cannot know that the descriptor stays the same")]
        // SAFETY: the ring buffer owns its map's descriptor, and keeps it until it is dropped.
        let ring =
            unsafe { AsyncFd::register(ring) }.map_err(|source| error(MapError::IoError(source.into())))?;
        Ok(Self { ring })
    }

    /// Waits until there are events, and hands each to `take`, at most `limit`: what is left stays in the ring buffer.
    /// Safe to cancel: an event is handed over or still there.
    pub async fn next_batch(&mut self, limit: usize, take: impl FnMut(Event)) {
        // An error means that the reactor is gone, and then so is this task.
        let Ok(mut ready) = self.ring.readable_mut().await else { return };
        if drain(ready.get_inner_mut(), limit, take) < limit {
            // epoll reports changes only, so this must come after the ring was seen empty.
            ready.clear_ready();
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
