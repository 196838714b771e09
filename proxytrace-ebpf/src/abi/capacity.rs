//! How many entries each table can hold where nothing else is asked for; first those that a proxy host has many of.

/// How many entries a table gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// On a host on which one small proxy runs, or none yet.
    pub least: u32,
    /// On one on which as much runs as is allowed for without being asked.
    pub most: u32,
}

const fn from(least: u32, most: u32) -> Capacity {
    Capacity { least, most }
}

/// Established connections that are watched for breaking.
pub const CONNECTIONS: Capacity = from(8_192, 65_536);
/// Attempts in flight.
pub const ATTEMPTS: Capacity = from(4_096, 16_384);
/// Rows of the ledger: an address for each generation that used it.
pub const LEDGER: Capacity = from(2_048, 8_192);
/// Rows of the ledger that are being taken out while they can still be used.
pub const RETIRING: u32 = 1_024;
/// PeerSettings: an address for each generation that waits another time for it than for others, or can tell less of its answers.
pub const PEER_SETTINGS: Capacity = from(2_048, 16_384);
/// Traced processes.
pub const PROCESSES: Capacity = from(1_024, 8_192);
/// connect() calls under way.
pub const CALLS: Capacity = from(640, 2_048);
/// Traced proxies.
pub const PROXIES: Capacity = from(256, 1_024);
/// Owners of traced processes.
pub const OWNERS: u32 = 1_024;
/// Connections that one run of a look takes.
pub const LOOKED_AT: u32 = 512;
/// Paths of unix sockets: one for a row at most, so that whoever gets no more rows takes no more of them either.
pub const UNIX_PATHS: Capacity = LEDGER;
