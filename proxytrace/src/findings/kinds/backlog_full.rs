//! `backlog_full`: a unix socket's listener does not accept fast enough.

use super::{
    definition::{Definition, Documentation, Weight},
    local,
};
use crate::model::Kind;

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::BacklogFull,
    severity: Weight::OfAddress,
    explains: &[],
    prove: None,
    detect: |facts| local::detect(facts, Kind::BacklogFull),
    sentence: |sentence| local::sentence(sentence, "the listener's backlog was full"),
    advice: |_| {
        "Give the service more workers, or its socket a longer backlog (and net.core.somaxconn).".into()
    },
    documentation: Documentation {
        raised_when: "connects fail because a unix socket's backlog is full",
        goes_when: local::GOES_WHEN,
    },
};
