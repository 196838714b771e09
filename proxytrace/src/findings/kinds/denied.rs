//! `denied`: this host does not allow the connect.

use super::{
    definition::{Definition, Documentation, Weight},
    local,
};
use crate::model::{Address, Kind};

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::Denied,
    severity: Weight::OfAddress,
    explains: &[],
    prove: None,
    detect: |facts| local::detect(facts, Kind::Denied),
    sentence: |sentence| local::sentence(sentence, "this host did not allow it"),
    advice: |finding| {
        match finding.subject.address {
        Some(Address::Unix(_)) => {
            "Check the socket's mode and owner, and the directories above it, for the user of the workers; then SELinux or AppArmor.".into()
        }
        Some(Address::Internet(address)) if address.is_ipv6() => {
            "Check SELinux (httpd_can_network_connect) or AppArmor, IPAddressDeny= of its unit, and firewall rules for the proxy's own traffic; \
             then a firewall on the way that answers \"administratively prohibited\", which looks the same over IPv6.".into()
        }
        _ => {
            "Check SELinux (httpd_can_network_connect) or AppArmor, IPAddressDeny= of its unit, and firewall rules for the proxy's own traffic.".into()
        }
    }
    },
    documentation: Documentation {
        raised_when: "this host does not allow connects",
        goes_when: local::GOES_WHEN,
    },
};
