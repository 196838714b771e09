//! `ports_exhausted`: no local port is left to connect from.

use super::{
    definition::{Definition, Documentation, Weight},
    local,
};
use crate::model::Kind;

pub(super) const DEFINITION: Definition = Definition {
    kind: Kind::PortsExhausted,
    severity: Weight::OfAddress,
    explains: &[],
    prove: None,
    detect: |facts| local::detect(facts, Kind::PortsExhausted),
    sentence: |sentence| local::sentence(sentence, "no local port was left"),
    advice: |_| {
        "Reuse connections (\"keepalive\"), add source addresses (\"proxy_bind\"), or widen net.ipv4.ip_local_port_range.".into()
    },
    documentation: Documentation {
        raised_when: "connects fail because no local port is left",
        goes_when: local::GOES_WHEN,
    },
};

#[cfg(test)]
mod tests {
    use crate::findings::scenes::check;

    #[test]
    fn the_sentence_has_the_ratio() {
        let scene =
            check("", "0 unknown 5:8080 established 7 no_local_port 3\n=> ports_exhausted unknown 5:8080");
        assert_eq!(
            scene.sentence(),
            "ports_exhausted: no local port was left for 3 of 10 connects to 10.0.0.5:8080 since 14:30:00Z. Reuse connections \
             (\"keepalive\"), add source addresses (\"proxy_bind\"), or widen net.ipv4.ip_local_port_range."
        );
    }
}
