//! The columns of the table: as many as there is room for.

use super::rows::{List, Row, differ_by_proxy};
use crate::output::display_width;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Address,
    Proxy,
    State,
    Since,
    Rate,
    Failed,
    Waiting,
    Resent,
    P50,
    P99,
    Old,
    New,
    Trend,
    Causes,
}

use Column::{
    Address, Causes, Failed, Name, New, Old, P50, P99, Proxy, Rate, Resent, Since, State, Trend, Waiting,
};

/// In the order of the screen.
const ORDER: [Column; 15] =
    [Name, Address, Proxy, State, Since, Rate, Failed, Waiting, Resent, P50, P99, Old, New, Trend, Causes];

/// In the order in which they get room. A name has some always, and what is left over.
const OF_UPSTREAMS: [Column; 13] =
    [State, Failed, Rate, Trend, Waiting, P99, P50, Resent, Causes, Since, Old, New, Proxy];

/// So many come first in any case, and then the address.
const BASICS: usize = 3;

/// The others are not known of an address.
const OF_ADDRESSES: [Column; 7] = [State, Failed, Rate, Address, Causes, Resent, Proxy];

/// A name has so much room at the least, and at the most.
const NAME: (usize, usize) = (16, 44);

/// Beside an address it has less.
const NAME_BESIDE: usize = 14;

/// An IPv4 address with its port needs so much, and an IPv6 address.
const ADDRESS: (usize, usize) = (21, 47);

/// Two causes with a count need so much, and one that can be told.
const CAUSES: usize = 30;
const CAUSE: usize = 20;

impl Column {
    pub(super) const fn title(self) -> &'static str {
        match self {
            Name => "UPSTREAM",
            Address => "ADDRESS",
            Proxy => "PROXY",
            State => "STATE",
            Since => "SINCE",
            Rate => "CONN/S",
            Failed => "FAILED",
            Waiting => "WAITING",
            Resent => "RESENT",
            P50 => "P50",
            P99 => "P99",
            Old => "OLD WORKERS",
            New => "NEW WORKERS",
            Trend => "LAST 15 MIN",
            Causes => "CAUSES",
        }
    }

    /// Without the blank in front.
    const fn width(self) -> usize {
        match self {
            Name => NAME.0,
            Address => ADDRESS.0,
            Proxy => 16,
            Since => 8,
            Rate | Failed | Resent => 6,
            State | Waiting | P50 | P99 => 7,
            Old | New => 11,
            Trend => super::MINUTES,
            Causes => CAUSES,
        }
    }

    /// Whether it is aligned to the right.
    pub(super) const fn is_number(self) -> bool {
        matches!(self, Rate | Failed | Waiting | Resent | P50 | P99 | Old | New)
    }

    /// Whether the end tells more than the beginning: ports, files, and the names of pods.
    pub(super) const fn is_told_by_its_end(self) -> bool {
        matches!(self, Address | Proxy)
    }
}

/// What there is to be shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Content {
    pub(super) list: List,
    /// The width of the longest address.
    pub(super) longest: usize,
    /// Whether only their proxies tell some of the rows apart.
    pub(super) differs_by_proxy: bool,
}

impl Content {
    /// Of these rows.
    pub(super) fn of(rows: &[Row], list: List) -> Self {
        let addresses = rows.iter().filter_map(|row| row.key.address.as_deref());
        let longest = addresses.map(display_width).max().unwrap_or(0);
        Self { list, longest, differs_by_proxy: differ_by_proxy(rows) }
    }
}

/// The columns that fit, and how wide they are.
pub(super) fn columns(width: usize, content: Content) -> Vec<(Column, usize)> {
    let (least, first): (_, &[Column]) = match content.list {
        List::Upstreams => (NAME.0, &OF_UPSTREAMS),
        List::Addresses => (NAME_BESIDE, &OF_ADDRESSES),
    };
    // What tells rows apart comes before what else is known of them.
    let mut order = first.to_vec();
    if content.differs_by_proxy {
        order.retain(|column| *column != Proxy);
        let basics = BASICS + usize::from(content.list == List::Addresses);
        order.insert(basics, Proxy);
    }
    let kept = if content.differs_by_proxy { Proxy.width() + 1 } else { 0 };
    let mut left = width.saturating_sub(least + 1);
    let mut chosen = vec![(Name, least)];
    for column in order {
        let least = if column == Causes && content.list == List::Addresses { CAUSE } else { column.width() };
        if let Some(rest) = left.checked_sub(least + 1) {
            let more = match column {
                Address => {
                    content.longest.min(ADDRESS.1).saturating_sub(least).min(rest.saturating_sub(kept))
                }
                _ => 0,
            };
            left = rest - more;
            chosen.push((column, least + more));
        }
    }
    // What is left over goes to the name, then to the causes.
    let name = (least + left).min(NAME.1);
    left -= name - least;
    for (column, width) in &mut chosen {
        match column {
            Name => *width = name,
            Causes => *width += left,
            _ => {}
        }
    }
    chosen.sort_by_key(|(column, _)| ORDER.iter().position(|other| other == column));
    chosen
}

#[cfg(test)]
mod tests {
    use super::{Column, Content, List, columns};

    const UPSTREAMS: Content = Content { list: List::Upstreams, longest: 0, differs_by_proxy: false };

    #[test]
    fn columns_fit_and_the_more_room_there_is_the_more_there_are() {
        let mut before = 0;
        for width in [40, 60, 80, 120, 200] {
            let columns = columns(width, UPSTREAMS);
            let needed: usize = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(needed <= width + 1, "{width}: {columns:?}");
            assert!(columns.len() >= before, "{width}: {columns:?}");
            before = columns.len();
        }
        assert_eq!(before, 14);
    }

    #[test]
    fn addresses_have_the_room_that_they_need() {
        for (width, longest, expected) in
            [(60, 15, 21), (60, 60, 22), (80, 15, 21), (80, 30, 30), (120, 60, 47), (200, 60, 47)]
        {
            let columns = columns(width, Content { list: List::Addresses, longest, ..UPSTREAMS });
            let needed: usize = columns.iter().map(|(_, width)| width + 1).sum();
            assert!(needed <= width + 1, "{width}: {columns:?}");
            assert!(columns.contains(&(Column::Address, expected)), "{width}, {longest}: {columns:?}");
            assert!(columns.iter().any(|(column, _)| *column == Column::Failed), "{width}: {columns:?}");
        }
    }

    #[test]
    fn proxies_are_named_where_nothing_else_tells_rows_apart() {
        for list in [List::Upstreams, List::Addresses] {
            for width in [80, 120, 200] {
                let columns = columns(width, Content { list, longest: 15, differs_by_proxy: true });
                let needed: usize = columns.iter().map(|(_, width)| width + 1).sum();
                assert!(needed <= width + 1, "{width}: {columns:?}");
                let proxies = columns.iter().filter(|(column, _)| *column == Column::Proxy).count();
                assert_eq!(proxies, 1, "{width}: {columns:?}");
            }
        }
    }
}
