//! What the kinds about addresses that do not answer have in common: their evidence.

use crate::{
    findings::{history::Peer, outcomes::causes},
    model::Evidence,
};

/// What shows that an address does not answer as it should, since it did last.
pub(super) fn evidence(peer: &Peer) -> Evidence {
    Evidence {
        causes: causes([&peer.causes]),
        syn_retransmits: peer.no_answer.resent,
        given_up: peer.no_answer.given_up,
        in_flight: peer.in_flight,
        ..Evidence::default()
    }
}
