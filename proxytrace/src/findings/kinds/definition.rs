//! What a kind of finding consists of, and how one is made of what was seen.

use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;

use super::{definition, sentence::Sentence};
use crate::{
    findings::history::{Epoch, Peer, Proxy, Upstream},
    model::{Address, Evidence, Finding, Kind, Severity, Subject},
};

/// A kind of finding.
pub(super) struct Definition {
    /// Which.
    pub(super) kind: Kind,
    /// How much such a finding matters.
    pub(super) severity: Weight,
    /// What such a finding explains, so that it is not raised as well: findings of these kinds about the same upstream, and about the
    /// same address where both are about one. One about no upstream explains those of all.
    pub(super) explains: &'static [Kind],
    /// Finds of which addresses it is newly proven at the end of a tick, where that is to stand longer than what proves it. Stored
    /// in the history, see [`Proxy::note_proven`].
    pub(super) prove: Option<fn(&Proxy) -> Vec<Destination>>,
    /// Finds what stands.
    pub(super) detect: fn(&Facts<'_>) -> Vec<Finding>,
    /// What such a finding says, without its name and without what to do.
    pub(super) sentence: fn(&Sentence<'_>) -> String,
    /// What to do about it: a sentence.
    pub(super) advice: fn(&Finding) -> Cow<'static, str>,
    /// Its line in the table of docs/findings.md.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test makes the table"))]
    pub(super) documentation: Documentation,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug)]
pub(super) enum Weight {
    /// The same always.
    Always(Severity),
    /// Users get errors where the upstream has no other address that serves; where it has, the proxy gets around this one, and where
    /// most connects go well few notice.
    OfAddress,
}

/// An upstream and one of its addresses.
pub(super) type Destination = (Arc<str>, Address);

/// A line of the table in docs/findings.md.
#[cfg_attr(not(test), expect(dead_code, reason = "a test makes the table"))]
pub(super) struct Documentation {
    /// When such a finding is raised.
    pub(super) raised_when: &'static str,
    /// When it goes.
    pub(super) goes_when: &'static str,
}

/// What findings are made of.
pub(super) struct Facts<'a> {
    /// What was seen of a proxy.
    pub(super) proxy: &'a Proxy,
    /// The time.
    pub(super) now: Timestamp,
}

impl Facts<'_> {
    /// The findings of a kind about addresses: about those that the newest generation connects to and of which `proof` has since when, and
    /// the evidence.
    pub(super) fn at_addresses<'p>(
        &self,
        kind: Kind,
        peers: impl Iterator<Item = (&'p Arc<str>, &'p Address, &'p Peer)>,
        proof: impl Fn(&Peer) -> Option<(Timestamp, Evidence)>,
    ) -> Vec<Finding> {
        let findings = peers.filter_map(|(upstream, address, peer)| {
            let (since, evidence) = proof(peer).filter(|_| self.proxy.is_current(upstream, address))?;
            let evidence = Evidence { start_unseen: self.is_start_unseen(kind, peer), ..evidence };
            Some(self.finding(kind, (upstream, Some(address)), peer.epoch, since, evidence))
        });
        findings.collect()
    }

    /// Whether an address was never seen otherwise than a finding says.
    pub(super) fn is_start_unseen(&self, kind: Kind, peer: &Peer) -> bool {
        let was_well = match kind {
            Kind::WrongService => peer.service.has_answered(),
            Kind::NoResponse => peer.response.has_answered(),
            _ => peer.worked.is_some(),
        };
        self.proxy.is_start_unseen(peer, was_well)
    }

    /// A finding about an upstream and a generation of it.
    pub(super) fn at_upstream(
        &self,
        kind: Kind,
        upstream: &Arc<str>,
        epoch: Epoch,
        since: Timestamp,
        evidence: Evidence,
    ) -> Finding {
        self.finding(kind, (upstream, None), epoch, since, evidence)
    }

    /// A finding about an upstream, or about an address of it, and a generation of it.
    pub(super) fn finding(
        &self,
        kind: Kind,
        (upstream, address): (&Arc<str>, Option<&Address>),
        epoch: Epoch,
        since: Timestamp,
        evidence: Evidence,
    ) -> Finding {
        let generations = &self.proxy.generations;
        let declared = generations.declared().and_then(|declared| declared.upstreams.get(upstream));
        let place = declared.and_then(|declared| match address {
            Some(address) => {
                let of_name = || declared.name_at(address).map(|name| &name.place);
                declared.addresses.get(address).or_else(of_name)
            }
            None => declared.addresses.values().next(),
        });
        let subject = Subject {
            proxy: Arc::clone(&self.proxy.name),
            kind,
            upstream: Some(Arc::clone(upstream)),
            address: address.cloned(),
        };
        let evidence = Evidence { generation: generations.number(epoch), ..evidence };
        Finding {
            severity: self.severity(kind, upstream, address, &evidence),
            subject,
            since,
            place: place.cloned(),
            several_proxies: false,
            directive: declared.and_then(|declared| declared.directive.clone()),
            evidence,
        }
    }

    fn severity(
        &self,
        kind: Kind,
        upstream: &str,
        address: Option<&Address>,
        Evidence { failed, of, .. }: &Evidence,
    ) -> Severity {
        let serves = |upstream: &Upstream| match address {
            Some(address) => upstream.serves_beside(address),
            None => upstream.serving > 0,
        };
        match definition(kind).severity {
            Weight::Always(severity) => severity,
            Weight::OfAddress => {
                let most_go_well = failed.saturating_mul(2) < *of;
                let serves = self.proxy.upstreams.get(upstream).is_some_and(serves);
                if most_go_well || serves { Severity::Warning } else { Severity::Critical }
            }
        }
    }

    /// A finding about the proxy itself.
    pub(super) fn at_proxy(&self, kind: Kind, since: Timestamp, evidence: Evidence) -> Finding {
        let proxy = Arc::clone(&self.proxy.name);
        Finding {
            subject: Subject { proxy, kind, upstream: None, address: None },
            severity: self.severity(kind, "", None, &evidence),
            since,
            place: None,
            several_proxies: false,
            directive: None,
            evidence,
        }
    }
}
