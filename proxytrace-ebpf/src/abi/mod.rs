//! The records that cross between kernel and userspace, in maps and in the ring buffer.

#![expect(
    unsafe_code,
    reason = "what crosses between kernel and userspace is bytes, and the macro proves that any are fine"
)]

mod address;
mod attempt;
pub mod capacity;
mod event;
mod ledger;
mod loss;
mod owner;
mod peer_settings;
mod process;
pub(crate) mod record;
mod settings;

pub use address::{Address, FAMILY_INET, FAMILY_UNIX, UNIX_PATH_MAX, UnixPath, is_name_service};
pub use attempt::{Asked, Attempt, Call, Connection, Transition};
pub use event::{Event, WAKE_INTERVAL_NS};
pub use ledger::{DURATION_BOUNDS_NS, DURATION_BUCKETS, OUTCOME_SLOTS, RETIRES_AFTER_NS, Row, RowKey};
pub use loss::{Counted, Loss};
pub use owner::{HELD_INSIDE, HELD_OUTSIDE, Owner, Share, Usage};
pub use peer_settings::{PeerSettings, Seen};
pub use process::{NAME_ENTERS, Process, Proxy, dumped_core, exit_code, exit_signal, proxy_id, root_pid};
pub use record::Abi;
pub use settings::Settings;
