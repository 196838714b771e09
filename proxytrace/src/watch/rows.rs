//! What rows of the ledger are called, and which series they count for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use proxytrace_ebpf::abi::{Owner, RowKey};

use super::Watch;
use crate::{
    kernel::{Error, Snapshot},
    model::{Address, Key},
};

/// What a row is called.
#[derive(Debug)]
pub(super) enum RowName {
    /// It is about no upstream: the C library asks for users and hosts there.
    Ignored,
    /// That is not known yet.
    Pending,
    /// Its proxy had no room for rows of all its destinations, which are counted there.
    Other,
    /// It is a destination of a proxy.
    Destination(Destination),
}

/// A destination of a proxy.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) proxy: Arc<str>,
    pub(super) upstream: Arc<str>,
    pub(super) address: Address,
}

/// The rows that have names: the series of each, and the owner of its proxy.
#[derive(Debug, Default)]
pub(super) struct Rows(HashMap<RowKey, (Key, Owner)>);

impl Rows {
    /// The series of a row, once that has a name.
    pub(super) fn series(&self, row: &RowKey) -> Option<&(Key, Owner)> {
        self.0.get(row)
    }

    /// Every series that a row counts for.
    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        self.0.values().map(|(key, _)| key)
    }

    /// Forgets all rows but these.
    pub(super) fn retain(&mut self, rows: &HashSet<RowKey>) {
        self.0.retain(|row, _| rows.contains(row));
    }
}

impl Watch {
    /// Gives a row its name, and its series room, as soon as that is possible.
    ///
    /// # Errors
    /// A map could not be read.
    pub(super) fn name_row(&mut self, row: &RowKey) -> Result<RowName, Error> {
        let address = self.address(&row.address);
        if address.is_name_service() {
            return Ok(RowName::Ignored);
        }
        if self.is_last {
            self.proxy_name(row.proxy)?;
        }
        let (Some(proxy), Some(owner)) = (self.names.given(row.proxy), self.owner(row.proxy)) else {
            return Ok(RowName::Pending);
        };
        if Snapshot::is_other(row) {
            self.count_row_in(row, Key::other(proxy), owner);
            return Ok(RowName::Other);
        }
        let upstream = match self.upstream(row, &address)? {
            Some(upstream) => upstream,
            None if self.is_last => self.naming.unknown(),
            None => return Ok(RowName::Pending),
        };
        let key = Key {
            proxy: Arc::clone(&proxy),
            upstream: Arc::clone(&upstream),
            address: address.to_string().into(),
        };
        self.count_row_in(row, key, owner);
        Ok(RowName::Destination(Destination { proxy, upstream, address }))
    }

    /// The series of a row and the owner of its proxy, as far as that is known now; nothing is remembered of it.
    pub(super) fn series_now(&self, row: &RowKey) -> Option<(Key, Owner)> {
        if let Some(named) = self.rows.series(row) {
            return Some(named.clone());
        }
        let address = Address::of_abi(&row.address, self.tracer.unix_path_now(&row.address).as_ref());
        if address.is_name_service() {
            return None;
        }
        let (proxy, owner) = (self.names.given(row.proxy)?, self.names.owner(row.proxy)?);
        if Snapshot::is_other(row) {
            return Some((Key::other(proxy), owner));
        }
        let upstream = self.naming.upstream_now(row, &address)?;
        Some((Key { proxy, upstream, address: address.to_string().into() }, owner))
    }

    fn count_row_in(&mut self, row: &RowKey, key: Key, owner: Owner) {
        self.series.admit(&key, owner);
        self.rows.0.insert(*row, (key, owner));
    }
}
