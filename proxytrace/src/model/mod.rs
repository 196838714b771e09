//! What proxytrace speaks of: addresses, records and what they carry, filters, and series of what was counted. No I/O here, so that the
//! same code serves a live host, a recording and a unit test.

mod address;
mod clock;
mod complaint;
mod counts;
mod declared;
mod filter;
mod finding;
mod hint;
mod record;
mod record_totals;
mod remembered;
mod series;
mod traced;

pub use address::Address;
pub use clock::Clock;
pub use complaint::{Complaint, Complaints, Lack};
pub use counts::{Counted, Counts, Waiting};
pub use declared::{Declared, Generation, HostName, NameNow, Upstream};
pub use filter::{AddressFilter, Cause, Filter};
pub use finding::{
    BY_FILES, Change, Evidence, Fared, Finding, Gone, Kind, LastExit, Severity, State, Subject, Workforce,
};
pub use hint::Hint;
pub use record::{
    Attempt, Body, Connection, Declaration, Exit, FORMAT, Header, Lost, Record, Rejection, Reload,
    ReloadResult, Route, Unanswered, Worker,
};
pub use record_totals::RecordTotals;
pub use remembered::{Minute, Remembered};
pub use series::{Entry, Key, SeriesStore, UpstreamKey};
pub use traced::Traced;

/// The upstream of an attempt that goes where the proxy's configuration names nothing.
pub const UNDECLARED_UPSTREAM: &str = "undeclared";

/// The upstream of an attempt whose proxy's configuration is not known.
pub const UNKNOWN_UPSTREAM: &str = "unknown";
