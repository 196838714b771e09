//! What the kernel half has counted, at one moment.

use proxytrace_ebpf::abi::{Loss, Owner, Process, Proxy, Row, RowKey, Usage};

/// What the kernel half has counted.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The ledger, and the rows `~other` of the proxies that used theirs: see [`Snapshot::is_other`].
    pub rows: Vec<(RowKey, Row)>,
    /// The traced processes of these proxies. One that has neither forked nor connected is none's yet.
    pub processes: Vec<(u32, Process)>,
    /// Traced proxies; some may have no process left.
    pub proxies: Vec<(u64, Proxy)>,
    /// How many rows each owner's proxies ever made, and whatever else the programs count of owners.
    pub made: Vec<(Owner, Usage)>,
    /// What could not be followed, index [`Loss`].
    pub losses: [u64; Loss::ALL.len()],
}

impl Snapshot {
    /// Whether this is a row `~other`: of a proxy's attempts whose destinations had no capacity for rows of their own.
    #[must_use]
    pub const fn is_other(row: &RowKey) -> bool {
        row.address.family == 0
    }

    /// The rows of the ledger itself.
    pub(super) fn own_rows(&self) -> impl Iterator<Item = RowKey> + Clone {
        self.rows.iter().map(|(row, _)| *row).filter(|row| !Self::is_other(row))
    }
}

/// The row `~other` of a proxy, as a snapshot has it; `None` where it was not used.
pub(super) fn other_row(id: u64, proxy: &Proxy) -> Option<(RowKey, Row)> {
    let key = RowKey { proxy: id, generation: proxy.generation, ..RowKey::ZERO };
    (proxy.other != Row::ZERO).then(|| (key, proxy.other.balanced()))
}
