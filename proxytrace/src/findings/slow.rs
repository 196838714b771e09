//! `slow_connect`: handshakes take much longer than this address's own past.

use super::proxy::Proxy;
use crate::model::{Evidence, Finding, Kind};

pub(super) fn find(proxy: &Proxy, found: &mut Vec<Finding>) {
    for (name, address, peer) in proxy.peers() {
        if peer.pace.is_slow() && proxy.is_current(name, address) {
            let slow = peer.pace.slow();
            let evidence = Evidence {
                failed: slow.run(),
                of: slow.run(),
                handshake_us: peer.pace.slow_us(),
                usual_us: peer.pace.usual_us(),
                generation: proxy.number(peer.epoch),
                ..Evidence::default()
            };
            let since = slow.since();
            found.extend(
                since.map(|since| proxy.finding(Kind::SlowConnect, name, Some(address), since, evidence)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenes::check;

    #[test]
    fn handshakes_slower_than_ever_are_found() {
        let scene = check(
            "until one is normal",
            "config 0 api 5:8080
             100 x 0 api 5:8080 established 2
             9 x 0 api 5:8080 slow 1
             =>
             0 api 5:8080 slow 1
             => slow_connect api 5:8080
             wait 3600
             10 x 0 api 5:8080 slow 1
             =>",
        );
        assert_eq!(
            scene.said(),
            "slow_connect: the last 20 handshakes with 10.0.0.5:8080 of upstream \"api\" took 1200 ms on average, 99 of 100 \
             before within 0.5 ms; since 14:30:25Z. Check the network on the way, and the load of the host."
        );
        check(
            "it is over",
            "100 x 0 unknown 5:8080 established 2
             10 x 0 unknown 5:8080 slow 1
             => slow_connect unknown 5:8080
             0 unknown 5:8080 established 1
             => not slow_connect unknown 5:8080
             50 x 0 unknown 5:8080 established 1 slow 1
             =>",
        );
        check("it was always so", "100 x 0 unknown 5:8080 slow 2\n=>");
    }
}
