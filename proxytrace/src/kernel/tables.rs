//! The tables that the kernel half keeps, and how many entries each can hold. Pure: the loader sets what is decided here.

use std::{collections::BTreeMap, str::FromStr};

use proxytrace_ebpf::abi::{
    Loss, Share,
    capacity::{self, Capacity},
};

/// A table of the kernel half. All are allocated when they are made: what they take does not grow.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// What `--table-size` takes.
    pub name: &'static str,
    /// The map in the object, which may have places for the entries of several.
    pub map: &'static str,
    /// How many entries it has where nothing else is asked for.
    pub usual: Capacity,
    /// The table that it has as many entries as, where another size is asked for that one only.
    pub follows: Option<&'static str>,
    /// What an entry is, in the plural.
    pub holds: &'static str,
    /// What is counted when it is full, in `proxytrace_untracked_total`; `None` where that is only logged.
    pub full: Option<Loss>,
}

/// Every table with a size of its own.
pub const TABLES: &[Table] = &[
    Table {
        name: "connections",
        map: "CONNECTIONS",
        usual: capacity::CONNECTIONS,
        follows: None,
        holds: "established upstream connections",
        full: Some(Loss::ConnectionTableFull),
    },
    Table {
        name: "attempts",
        map: "CONNECTIONS",
        usual: capacity::ATTEMPTS,
        follows: None,
        holds: "attempts in flight",
        full: Some(Loss::AttemptTableFull),
    },
    Table {
        name: "ledger",
        map: "LEDGER",
        usual: capacity::LEDGER,
        follows: None,
        holds: "addresses, once for each generation that used them",
        full: Some(Loss::LedgerFull),
    },
    Table {
        name: "timeouts",
        map: "PEER_SETTINGS",
        usual: capacity::PEER_SETTINGS,
        follows: None,
        holds: "addresses with timeouts of their own",
        full: None,
    },
    Table {
        name: "processes",
        map: "PROCESSES",
        usual: capacity::PROCESSES,
        follows: None,
        holds: "traced processes",
        full: Some(Loss::ProcessTableFull),
    },
    Table {
        name: "calls",
        map: "CALLS",
        usual: capacity::CALLS,
        follows: None,
        holds: "threads in connect()",
        full: Some(Loss::CallTableFull),
    },
    Table {
        name: "proxies",
        map: "PROXIES",
        usual: capacity::PROXIES,
        follows: None,
        holds: "traced proxies",
        full: Some(Loss::ProxyTableFull),
    },
    Table {
        name: "paths",
        map: "UNIX_PATHS",
        usual: capacity::UNIX_PATHS,
        // A row may need a path.
        follows: Some("ledger"),
        holds: "paths of unix sockets",
        full: Some(Loss::PathTableFull),
    },
];

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// What `--table-size` takes.
    pub name: &'static str,
    /// The entries in it.
    pub entries: u64,
    /// The most entries that it can hold.
    pub capacity: u64,
}

impl Table {
    /// How many entries it has.
    #[must_use]
    pub fn capacity(&self, sizes: &Sizes) -> u32 {
        // The last of several options holds, as everywhere.
        let asked = |table| {
            sizes.resized.iter().rev().find(|resized| resized.table == table).map(|resized| resized.entries)
        };
        asked(self.name)
            .or_else(|| asked(self.follows?))
            .unwrap_or_else(|| self.usual.least.saturating_mul(sizes.times).min(self.usual.most))
    }
}

/// What decides how many entries the tables have.
#[derive(Clone, Debug)]
pub struct Sizes {
    resized: Vec<Resized>,
    /// How many times as large as the smallest the others are.
    times: u32,
}

impl Sizes {
    /// For a host whose proxies are expected to have so many upstream connections at a time, where some tables are to have
    /// another size.
    #[must_use]
    pub fn new(resized: &[Resized], connections: u64) -> Self {
        let times = connections.div_ceil(capacity::CONNECTIONS.least.into()).max(1);
        Self { resized: resized.to_vec(), times: u32::try_from(times).unwrap_or(u32::MAX) }
    }

    /// How many entries a table has that owners share.
    #[must_use]
    pub fn shared(&self, share: Share) -> u32 {
        TABLES.iter().find(|table| table.name == share.table()).map_or(0, |table| table.capacity(self))
    }

    /// How many entries each map has.
    #[must_use]
    pub fn maps(&self) -> BTreeMap<&'static str, u32> {
        let mut maps = BTreeMap::new();
        for table in TABLES {
            let entries: &mut u32 = maps.entry(table.map).or_default();
            *entries = entries.saturating_add(table.capacity(self));
        }
        // The first thread of each process keeps its entry.
        if let Some(entries) = maps.get_mut("CALLS") {
            *entries = entries.saturating_add(self.shared(Share::Processes));
        }
        maps
    }
}

/// The table that is full when this is counted.
#[must_use]
pub fn full_by(loss: Loss) -> Option<&'static Table> {
    TABLES.iter().find(|table| table.full == Some(loss))
}

/// The most entries that a table can be given: at the size of a ledger row this is 7 GB.
const MAX_ENTRIES: u32 = 1 << 24;

/// A table with another size than usual: `--table-size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resized {
    /// Its name.
    pub table: &'static str,
    /// How many entries it gets.
    pub entries: u32,
}

impl FromStr for Resized {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, entries) = text
            .split_once('=')
            .ok_or_else(|| "write TABLE=ENTRIES, such as connections=200000".to_owned())?;
        let table = TABLES.iter().find(|table| table.name == name).ok_or_else(|| {
            let names: Vec<_> = TABLES.iter().map(|table| table.name).collect();
            format!("unknown table; expected one of {}", names.join(", "))
        })?;
        match entries.parse() {
            Ok(entries @ 1..=MAX_ENTRIES) => Ok(Self { table: table.name, entries }),
            _ => Err(format!("the number of entries must be from 1 to {MAX_ENTRIES}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proxytrace_ebpf::abi::Share;

    use super::{Resized, Sizes, TABLES};

    #[test]
    fn a_loss_for_lack_of_capacity_names_the_one_full_table() {
        let mut losses: Vec<_> = TABLES.iter().filter_map(|table| Some(table.full?.name())).collect();
        let tables = losses.len();
        losses.sort_unstable();
        losses.dedup();
        assert_eq!((losses.len(), tables), (7, 7), "all but the timeouts: {losses:?}");
    }

    #[test]
    fn tables_are_as_large_as_what_runs_needs() {
        let check = |connections: u64, expected: [u32; 3]| {
            let sizes = Sizes::new(&["attempts=7".parse().unwrap()], connections);
            let shared = [Share::Connections, Share::Rows, Share::Attempts].map(|share| sizes.shared(share));
            assert_eq!(shared, expected, "{connections} connections");
        };
        check(0, [8_192, 2_048, 7]);
        check(8_192, [8_192, 2_048, 7]);
        check(8_193, [16_384, 4_096, 7]);
        check(60_000, [65_536, 8_192, 7]);
        check(u64::MAX, [65_536, 8_192, 7]);
        let maps = Sizes::new(&["attempts=7".parse().unwrap()], 0).maps();
        assert_eq!(maps["CONNECTIONS"], 8_192 + 7, "attempts become connections in their place");
        assert_eq!(maps["CALLS"], 640 + 1_024, "a process has a place besides");
    }

    #[test]
    fn sizes_are_read() {
        let resized = |text: &str| text.parse::<Resized>();
        let ledger = resized("ledger=100").unwrap();
        assert_eq!(ledger, Resized { table: "ledger", entries: 100 });
        let paths = TABLES.iter().find(|table| table.name == "paths").unwrap();
        let capacity = |resized: &[Resized]| paths.capacity(&Sizes::new(resized, 0));
        assert_eq!(capacity(&[]), capacity(&[resized("attempts=7").unwrap()]));
        assert_eq!(capacity(&[ledger]), 100, "each row may need one");
        assert_eq!(capacity(&[resized("paths=9").unwrap(), ledger]), 9);
        let check = |text: &str, words: &str| {
            let error = resized(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        };
        check("ledger", "TABLE=ENTRIES");
        check("ring=100", "connections, attempts, ledger");
        check("ledger=0", "from 1 to");
        check("ledger=many", "from 1 to");
    }
}
