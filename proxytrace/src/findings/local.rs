//! `ports_exhausted`, `backlog_full`, `denied`: connects that this host itself does not let through.

use super::{peer::LOCAL, proxy::Proxy};
use crate::model::{Evidence, Finding, Kind};

/// In the order of [`LOCAL`].
const KINDS: [Kind; LOCAL.len()] = [Kind::PortsExhausted, Kind::BacklogFull, Kind::Denied];

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, address, peer) in proxy.peers() {
        for ((trouble, kind), cause) in peer.local.iter().zip(KINDS).zip(LOCAL) {
            let since = trouble.since().filter(|_| trouble.is_proof() && proxy.is_current(name, address));
            found.extend(since.map(|since| {
                let evidence = Evidence {
                    failed: trouble.seen(),
                    of: trouble.of(),
                    causes: [(cause.name().into(), trouble.seen())].into(),
                    in_flight: peer.in_flight,
                    generation: proxy.number(peer.epoch),
                    ..Evidence::default()
                };
                proxy.finding(kind, name, Some(address), since, evidence)
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenes::check;

    #[test]
    fn what_this_host_refuses_is_found_and_over_when_it_is_over() {
        for (cause, kind) in [("no_local_port", "ports_exhausted"), ("permission_denied", "denied")] {
            check(
                kind,
                &format!(
                    "config 0 api 5:8080
                     20 x 0 api 5:8080 established 9
                     2 x 0 api 5:8080 established 9 {cause} 1
                     =>
                     0 api 5:8080 established 9 {cause} 1
                     => {kind} api 5:8080
                     wait 7200
                     200 x 0 api 5:8080 established 9 {cause} 1
                     10 x 0 api 5:8080 established 9
                     =>
                     10 x 0 api 5:8080 established 9
                     => not {kind} api 5:8080",
                ),
            );
        }
        check(
            "all fail, and then none: that upstream is not down, it was never tried",
            "60 x 0 unknown unix:/run/app.sock backlog_full 1
             => backlog_full unknown unix:/run/app.sock
             19 x 0 unknown unix:/run/app.sock established 1
             =>
             0 unknown unix:/run/app.sock established 1
             => not backlog_full unknown unix:/run/app.sock",
        );
    }

    #[test]
    fn what_a_reload_took_out_does_not_come_back_with_the_next() {
        check(
            "while its configuration is not read yet",
            "config 0 api 5:8080 | web 7:80
             5 x 0 api 5:8080 permission_denied 1; 0 web 7:80 established 1
             => denied api 5:8080
             config 1 api 6:8080 | web 7:80
             => not denied api 5:8080
             reload 2
             2 web 7:80 established 1
             config 2 api 6:8080 | web 7:80
             config 3 api 5:8080 | web 7:80
             =>",
        );
    }

    #[test]
    fn the_sentence_has_the_ratio() {
        let scene =
            check("", "0 unknown 5:8080 established 7 no_local_port 3\n=> ports_exhausted unknown 5:8080");
        assert_eq!(
            scene.said(),
            "ports_exhausted: no local port was left for 3 of 10 connects to 10.0.0.5:8080 since 14:30:00Z. Reuse connections \
             (\"keepalive\"), add source addresses (\"proxy_bind\"), or widen net.ipv4.ip_local_port_range."
        );
    }

    #[test]
    fn one_failure_in_a_while_is_none() {
        check(
            "hours apart",
            "0 unknown 5:8080 no_local_port 1
             500 x 0 unknown 5:8080 established 30
             0 unknown 5:8080 no_local_port 1
             500 x 0 unknown 5:8080 established 30
             0 unknown 5:8080 no_local_port 1
             =>",
        );
    }
}
