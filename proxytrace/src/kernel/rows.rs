//! How many rows of the ledger each proxy and owner holds. The programs count the rows that they make, and userspace takes rows
//! out, which it cannot subtract from a counter that programs add to: so it counts what is there, and writes the difference.

use std::collections::HashMap;

use aya::Ebpf;
use proxytrace_ebpf::abi::{Owner, Proxy, RowKey, Share};

use super::{Error, maps::RowCountMap};

/// What is held, as far as it is known here.
pub(super) struct Held {
    /// What is to be added to what the programs have counted of a proxy, wrapping.
    outside: RowCountMap,
    /// What is in `outside`.
    written: HashMap<u64, u64>,
    /// Whose rows there are: a proxy's may outlast it.
    owners: HashMap<u64, Owner>,
}

impl Held {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let outside = RowCountMap::take(ebpf, "PROXY_ROWS_OUTSIDE")?;
        Ok(Self { outside, written: HashMap::new(), owners: HashMap::new() })
    }

    /// Counts `rows`, which are all that there are, and writes what each proxy holds. Gives what each owner holds, [`Owner::ALL`]
    /// among them. `proxies` were read before the rows, so that one made in between counts as held rather than as taken out.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn count(
        &mut self,
        proxies: &[(u64, Proxy)],
        rows: impl Iterator<Item = RowKey>,
    ) -> Result<HashMap<Owner, u64>, Error> {
        self.owners.extend(proxies.iter().map(|(id, proxy)| (*id, proxy.owner)));
        let mut by_proxy: HashMap<u64, u64> = HashMap::new();
        rows.for_each(|row| *by_proxy.entry(row.proxy).or_default() += 1);
        let mut by_owner: HashMap<Owner, u64> = HashMap::new();
        for (proxy, rows) in &by_proxy {
            for owner in self.owners.get(proxy).into_iter().chain([&Owner::ALL]) {
                *by_owner.entry(*owner).or_default() += rows;
            }
        }
        self.owners.retain(|proxy, _| by_proxy.contains_key(proxy));
        let mut written = HashMap::new();
        for (id, proxy) in proxies {
            let outside = difference(proxy.held.held[Share::Rows as usize], by_proxy.get(id).copied());
            if outside != self.written.remove(id).unwrap_or(0) {
                self.outside.insert(id, &outside)?;
            }
            written.insert(*id, outside);
        }
        // Of proxies that are not there any more.
        for (id, outside) in self.written.drain() {
            if outside != 0 {
                self.outside.remove(&id)?;
            }
        }
        self.written = written;
        Ok(by_owner)
    }
}

/// What is to be added to the rows that were made to give those that are there.
fn difference(made: u64, there: Option<u64>) -> u64 {
    let there = there.unwrap_or(0);
    if there > made { 0 } else { there.wrapping_sub(made) }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn what_was_made_and_is_not_there_was_taken_out() {
        let held = |made: u64, there| made.wrapping_add(difference(made, there));
        assert_eq!([held(7, Some(3)), held(7, None), held(7, Some(7))], [3, 0, 7]);
        assert_eq!(held(7, Some(8)), 7, "the eighth was made after the others had been counted");
    }
}
