//! Typed views of the kernel half's maps.

use std::{
    cell::Cell,
    collections::HashSet,
    hash::Hash,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::{
    Ebpf, Pod,
    maps::{self, Array, HashMap, MapData, MapError, PerCpuArray},
};
use proxytrace_ebpf::abi::{
    Abi, Address, Call, Connection, HELD_INSIDE, HELD_OUTSIDE, Owner, PeerSettings, Process, Proxy, Row,
    RowKey, UnixPath, Usage,
};

use super::{Error, batch};

/// A record of the ABI, for aya, which may not know it by name (neither the trait nor the records are of this crate).
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Plain<T: Abi>(pub(super) T);

#[expect(unsafe_code, reason = "the promise that Abi makes is the one that Pod asks for")]
// SAFETY: `Abi` promises that every pattern of bytes is a value and that there is no padding.
unsafe impl<T: Abi> Pod for Plain<T> {}

/// A hash map of the kernel half.
pub(super) struct Map<K: Abi, V: Abi> {
    name: &'static str,
    /// The most entries that it can hold.
    pub(super) capacity: usize,
    fd: OwnedFd,
    map: HashMap<MapData, Plain<K>, Plain<V>>,
    /// Whether it did when it was last read.
    holds_many: Cell<bool>,
}

pub(super) type LedgerMap = Map<RowKey, Row>;
pub(super) type RetiringMap = Map<RowKey, u32>;
pub(super) type ConnectionMap = Map<u64, Connection>;
pub(super) type PeerSettingsMap = Map<RowKey, PeerSettings>;
pub(super) type PathMap = Map<Address, UnixPath>;
pub(super) type ProcessMap = Map<u32, Process>;
pub(super) type ProxyMap = Map<u64, Proxy>;
pub(super) type OwnerMap = Map<Owner, Usage>;
pub(super) type CallMap = Map<u64, Call>;
pub(super) type RowCountMap = Map<u64, u64>;
pub(super) type NameMap = Map<[u8; 16], u32>;

/// An array with one entry: 0 or 1.
pub(super) struct Switch {
    name: &'static str,
    map: Array<MapData, u32>,
    is_on: bool,
}

impl Switch {
    /// It is off.
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let error = |source| Error::Map { map: name, source };
        let map =
            ebpf.take_map(name).ok_or_else(|| error(MapError::InvalidName { name: name.to_owned() }))?;
        Ok(Self { name, map: Array::try_from(map).map_err(error)?, is_on: false })
    }

    pub(super) fn set(&mut self, is_on: bool) -> Result<(), Error> {
        if self.is_on != is_on {
            let set = self.map.set(0, u32::from(is_on), 0);
            set.map_err(|source| Error::Map { map: self.name, source })?;
            self.is_on = is_on;
        }
        Ok(())
    }
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inserted {
    /// It is there now.
    New,
    /// It was before.
    There,
    /// There is no place for it.
    Full,
}

/// A map with more entries than this is read bucket by bucket.
const FEW: usize = 512;

/// So is one of which so many are removed while it is read that it takes more steps than this.
const MAX_STEPS: usize = 16 * FEW;

impl<K: Abi + Eq + Hash, V: Abi> Map<K, V> {
    pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let error = |source| Error::Map { map: name, source };
        let Some(maps::Map::HashMap(data)) = ebpf.take_map(name) else {
            return Err(error(MapError::InvalidName { name: name.to_owned() }));
        };
        let capacity = data.info().map_err(error)?.max_entries() as usize;
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|source| error(source.into()))?;
        let map = HashMap::try_from(maps::Map::HashMap(data)).map_err(error)?;
        Ok(Self { name, capacity, fd, map, holds_many: Cell::new(false) })
    }

    /// All entries, each once.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, Error> {
        let few = if self.holds_many.get() { None } else { self.few_entries()? };
        let all = match few {
            Some(few) => few,
            None => batch::entries(self.fd.as_fd()).map_err(|source| self.error(source.into()))?,
        };
        self.holds_many.set(all.len() > FEW);
        Ok(all)
    }

    /// All entries, key by key; `None` where that takes many steps. While [`batch`] searches empty buckets, the kernel runs no
    /// program that is attached by a kprobe on that CPU, not even where it has preempted the search (docs/kernel-notes.md).
    /// Searching for the next key keeps no program from running. After a key that was removed meanwhile the first comes again.
    fn few_entries(&self) -> Result<Option<Vec<(K, V)>>, Error> {
        let mut few = Vec::new();
        let mut seen = HashSet::new();
        for (step, key) in self.map.keys().enumerate() {
            let key = key.map_err(|source| self.error(source))?.0;
            let is_new = seen.insert(key);
            if step == MAX_STEPS || seen.len() > FEW {
                return Ok(None);
            }
            if is_new && let Some(value) = self.get(&key) {
                few.push((key, value));
            }
        }
        Ok(Some(few))
    }

    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.map.get(&Plain(*key), 0).ok().map(|value| value.0)
    }

    pub(super) fn insert(&mut self, key: &K, value: &V) -> Result<(), Error> {
        self.map.insert(Plain(*key), Plain(*value), 0).map_err(|source| self.error(source))
    }

    /// Makes an entry, unless there is one already.
    pub(super) fn insert_new(&mut self, key: &K, value: &V) -> Result<Inserted, Error> {
        const ONLY_NEW: u64 = 1; // BPF_NOEXIST
        match self.map.insert(Plain(*key), Plain(*value), ONLY_NEW) {
            Ok(()) => Ok(Inserted::New),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(Inserted::There)
            }
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
                Ok(Inserted::Full)
            }
            Err(source) => Err(self.error(source)),
        }
    }

    /// Removes an entry; false where it is gone already.
    pub(super) fn remove(&mut self, key: &K) -> Result<bool, Error> {
        match self.map.remove(&Plain(*key)) {
            Ok(()) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(false)
            }
            Err(source) => Err(self.error(source)),
        }
    }

    /// How many entries there are, which are read for that: for tables of which little is used at a time.
    pub(super) fn count(&self) -> Result<u64, Error> {
        Ok(self.entries()?.len() as u64)
    }

    fn error(&self, source: MapError) -> Error {
        Error::Map { map: self.name, source }
    }
}

/// What all owners hold together, see [`HELD_INSIDE`].
pub(super) struct HeldMap(Array<MapData, Plain<Usage>>);

impl HeldMap {
    const NAME: &str = "HELD";

    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = ebpf.take_map(Self::NAME).ok_or(MapError::InvalidName { name: Self::NAME.to_owned() });
        map.and_then(Array::try_from).map(Self).map_err(Self::error)
    }

    /// By what the programs have counted.
    pub(super) fn inside(&self) -> Result<Usage, Error> {
        self.0.get(&HELD_INSIDE, 0).map(|usage| usage.0).map_err(Self::error)
    }

    /// By what userspace has.
    pub(super) fn set_outside(&mut self, usage: &Usage) -> Result<(), Error> {
        self.0.set(HELD_OUTSIDE, Plain(*usage), 0).map_err(Self::error)
    }

    fn error(source: MapError) -> Error {
        Error::Map { map: Self::NAME, source }
    }
}

/// An array of counters, each summed over the CPUs.
pub(super) fn sums<const N: usize>(ebpf: &Ebpf, name: &'static str) -> Result<[u64; N], Error> {
    let error = |source| Error::Map { map: name, source };
    let map = ebpf.map(name).ok_or_else(|| error(MapError::InvalidName { name: name.to_owned() }))?;
    let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(error)?;
    let mut sums = [0; N];
    for (index, sum) in (0..).zip(&mut sums) {
        *sum = map.get(&index, 0).map_err(error)?.iter().sum();
    }
    Ok(sums)
}
