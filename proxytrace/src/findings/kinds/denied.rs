//! `denied`: this host does not allow the connect.

use super::{
    definition::{Definition, Documentation, Weight},
    local,
};
use crate::model::Kind;

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::Denied,
    severity: Weight::OfAddress,
    explains: &[],
    prove: None,
    detect: |facts| local::detect(facts, Kind::Denied),
    sentence: |sentence| local::sentence(sentence, "this host did not allow it"),
    advice: |_| {
        "Check the socket's file mode, SELinux (httpd_can_network_connect) or AppArmor, and firewall rules for the proxy's own traffic.".into()
    },
    documentation: Documentation {
        raised_when: "this host does not allow connects",
        goes_when: local::GOES_WHEN,
    },
};
