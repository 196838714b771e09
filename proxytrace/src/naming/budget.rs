//! How much is kept of what proxies are configured to do: so that none takes what others need.

use std::{collections::HashSet, sync::Arc};

use crate::{
    declared::{Endpoint, Resolver, Routes},
    reader::Owner,
};

/// Of one proxy, in bytes: its newest configuration, and those that its older workers still run.
pub(super) const MAX_OF_PROXY: usize = 32 << 20;
/// Of all proxies of one owner, in bytes.
pub(super) const MAX_OF_OWNER: usize = 48 << 20;
/// Of all proxies, in bytes.
pub(super) const MAX_OF_ALL: usize = 128 << 20;

/// Routes, each once, however many proxies have them.
#[derive(Debug, Default)]
pub(super) struct Shelf(HashSet<Arc<Routes>>);

impl Shelf {
    /// The routes that are the same as these: these themselves where nobody has them yet.
    pub(super) fn share(&mut self, routes: Arc<Routes>) -> Arc<Routes> {
        if let Some(same) = self.0.get(&routes) {
            return Arc::clone(same);
        }
        self.0.insert(Arc::clone(&routes));
        routes
    }

    /// Forgets what nobody has any more.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|routes| Arc::strong_count(routes) > 1);
    }
}

/// Something that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept<'a> {
    pub(super) proxy: u64,
    pub(super) owner: Owner,
    pub(super) routes: &'a Arc<Routes>,
    /// What they take: see [`bytes`].
    pub(super) bytes: usize,
}

/// What stands in the way of keeping `new` beside what `kept` has: nothing, or whose limit.
pub(super) fn exceeded<'a>(new: Kept<'_>, kept: impl Iterator<Item = Kept<'a>>) -> Option<Limit> {
    let mut counted = HashSet::from([Arc::as_ptr(new.routes)]);
    let [mut of_proxy, mut of_owner, mut of_all] = [new.bytes; 3];
    for other in kept.filter(|other| counted.insert(Arc::as_ptr(other.routes))) {
        of_all += other.bytes;
        of_owner += if other.owner == new.owner { other.bytes } else { 0 };
        of_proxy += if other.proxy == new.proxy { other.bytes } else { 0 };
    }
    let limits = [(Limit::Proxy, of_proxy), (Limit::Owner, of_owner), (Limit::All, of_all)];
    limits.into_iter().find(|(limit, bytes)| *bytes > limit.bytes()).map(|(limit, _)| limit)
}

/// A limit that would be exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Proxy,
    Owner,
    All,
}

impl Limit {
    const fn bytes(self) -> usize {
        match self {
            Self::Proxy => MAX_OF_PROXY,
            Self::Owner => MAX_OF_OWNER,
            Self::All => MAX_OF_ALL,
        }
    }

    /// Why a configuration is not kept.
    pub(super) fn problem(self) -> String {
        let whose = match self {
            Self::Proxy => "one proxy",
            Self::Owner => "all proxies of the same user",
            Self::All => "all proxies",
        };
        format!("its configuration is too large: of {whose} at most {} MiB are kept", self.bytes() >> 20)
    }
}

/// What routes take in memory with the index of their addresses, in bytes.
pub(super) fn bytes(routes: &Routes) -> usize {
    /// What the allocator adds to each text, and the index for each peer.
    const ALLOCATION: usize = 16;
    const INDEX: usize = 256;
    let text = |text: &str| text.len() + ALLOCATION;
    let texts = |texts: &[String]| -> usize { texts.iter().map(|one| text(one) + size_of::<String>()).sum() };
    let endpoint = |endpoint: &Endpoint| size_of::<Endpoint>() + endpoint.name().map_or(0, text);
    let resolver = |resolver: &Option<Resolver>| {
        let of = |resolver: &Resolver| resolver.servers.iter().map(endpoint).sum::<usize>();
        resolver.as_ref().map_or(0, of)
    };
    let upstreams = routes.upstreams.iter().map(|upstream| {
        let peers = upstream.peers.iter().map(|peer| {
            size_of_val(peer) + INDEX + text(&peer.place) + endpoint(&peer.endpoint) + text(&upstream.name)
        });
        size_of_val(upstream)
            + text(&upstream.name)
            + text(&upstream.place)
            + resolver(&upstream.resolver)
            + peers.sum::<usize>()
    });
    let servers = routes
        .servers
        .iter()
        .map(|server| size_of_val(server) + texts(&server.listen) + texts(&server.names));
    let targets = routes.routes.iter().map(|route| {
        size_of_val(route)
            + texts(&route.location)
            + text(&route.directive)
            + text(&route.place)
            + text(&route.target.text)
            + size_of_val(&*route.target.upstreams)
            + texts(&route.target.open)
            + texts(&route.target.variables)
            + resolver(&route.resolver)
    });
    let others = routes.others.iter().map(|other| {
        size_of_val(other) + INDEX + text(&other.name) + text(&other.place) + endpoint(&other.endpoint)
    });
    upstreams.chain(servers).chain(targets).chain(others).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Kept, Limit, MAX_OF_ALL, MAX_OF_OWNER, MAX_OF_PROXY, Shelf, bytes, exceeded};
    use crate::{declared::Routes, nginx::tests::routes_of, reader::Owner};

    fn routes(text: &str) -> Arc<Routes> {
        Arc::new(routes_of(text))
    }

    #[test]
    fn equal_routes_are_kept_once_and_as_long_as_somebody_has_them() {
        const TEXT: &str = "http { upstream api { server 10.0.0.5:80; } }";
        let mut shelf = Shelf::default();
        let first = shelf.share(routes(TEXT));
        assert!(Arc::ptr_eq(&first, &shelf.share(routes(TEXT))));
        let other = shelf.share(routes("http { upstream api { server 10.0.0.6:80; } }"));
        assert!(!Arc::ptr_eq(&first, &other));
        drop(first);
        shelf.tidy();
        assert_eq!(shelf.0.len(), 1);
    }

    #[test]
    fn limits_hold_for_a_proxy_its_owner_and_all_together() {
        let all: Vec<_> = (0..4).map(|_| routes("")).collect();
        let kept = |proxy, uid, of: usize, bytes| {
            let owner = Owner { uid, pid_namespace: 0 };
            Kept { proxy, owner, routes: &all[of], bytes }
        };
        let check = |new, others: &[Kept<'_>], expected| {
            assert_eq!(exceeded(new, others.iter().copied()), expected, "{new:?} beside {others:?}");
        };
        check(kept(1, 1, 0, MAX_OF_PROXY), &[], None);
        check(kept(1, 1, 0, MAX_OF_PROXY + 1), &[], Some(Limit::Proxy));
        check(kept(1, 1, 0, MAX_OF_PROXY), &[kept(1, 1, 1, 1)], Some(Limit::Proxy));
        // The same routes are no more than they were.
        check(kept(1, 1, 0, MAX_OF_PROXY), &[kept(1, 1, 0, MAX_OF_PROXY)], None);
        check(kept(1, 1, 0, MAX_OF_OWNER - MAX_OF_PROXY), &[kept(2, 1, 1, MAX_OF_PROXY)], None);
        check(kept(1, 1, 0, MAX_OF_PROXY), &[kept(2, 1, 1, MAX_OF_PROXY)], Some(Limit::Owner));
        check(kept(1, 1, 0, MAX_OF_PROXY), &[kept(2, 2, 1, MAX_OF_PROXY)], None);
        let others = [kept(2, 2, 1, MAX_OF_OWNER), kept(3, 3, 2, MAX_OF_ALL - MAX_OF_OWNER)];
        check(kept(1, 1, 0, 1), &others, Some(Limit::All));
    }

    #[test]
    fn what_routes_take_grows_with_each_of_their_parts() {
        let of = |text: &str| bytes(&routes(text));
        let mut last = 0;
        for text in [
            "",
            "http { server { } }",
            "http { server { location / { proxy_pass http://10.0.0.5; } } }",
            "http { upstream api { server 10.0.0.5; server b; } server { location / { proxy_pass http://api; } } }",
        ] {
            assert!(last < of(text) || text.is_empty(), "{text}");
            last = of(text);
        }
    }
}
