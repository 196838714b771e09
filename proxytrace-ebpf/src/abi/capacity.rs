//! How many entries each table can hold where nothing else is asked for; first those that a proxy host has many of.

/// Established connections that are watched for breaking.
pub const CONNECTIONS: u32 = 65_536;
/// Attempts in flight.
pub const ATTEMPTS: u32 = 16_384;
/// Rows of the ledger: an address for each generation that used it.
pub const LEDGER: u32 = 8_192;
/// Rows of the ledger that are being taken out while they can still be used.
pub const RETIRING: u32 = 1_024;
/// Terms: an address for each generation that waits another time for it than for others, or can tell less of its answers.
pub const TERMS: u32 = 16_384;
/// Traced processes.
pub const PROCESSES: u32 = 8_192;
/// connect() calls under way.
pub const CALLS: u32 = 2_048;
/// Traced proxies.
pub const PROXIES: u32 = 1_024;
/// Owners of traced processes.
pub const OWNERS: u32 = 1_024;
/// Connections that one run of a look takes.
pub const LOOKED_AT: u32 = 512;
/// Paths of unix sockets: one for a row at most, so that whoever gets no more rows takes no more of them either.
pub const UNIX_PATHS: u32 = LEDGER;
