//! A configuration of many upstreams. Pure.

use std::fmt::Write;
use std::net::Ipv4Addr;

use proxytrace_tests::nginx::server;

/// How many addresses each upstream has.
pub(crate) const ADDRESSES: u32 = 5;

/// So many upstreams, each with a location that leads to it: what goes into `http {}`. All addresses differ, and all are
/// loopback: whoever connected to one would leave nothing but a refusal.
pub(crate) fn routes(upstreams: u32) -> String {
    let (mut blocks, mut locations) = (String::new(), String::new());
    for upstream in 0..upstreams {
        let addresses = (upstream * ADDRESSES..).take(ADDRESSES as usize).map(address);
        let servers: String = addresses.map(|address| format!("    server {address}:8080;\n")).collect();
        writeln!(blocks, "upstream service-{upstream} {{\n{servers}}}").expect("write into memory");
        writeln!(locations, "location /{upstream}/ {{ proxy_pass http://service-{upstream}; }}")
            .expect("write into memory");
    }
    blocks + &server(&locations)
}

/// The address of that number, from 127.1.0.0 on.
fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_upstream_has_addresses_of_its_own_and_a_location() {
        let text = routes(300);
        let words = |first: &str| {
            let lines = text.lines().filter_map(|line| line.trim().strip_prefix(first));
            lines.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        assert_eq!(words("upstream ").len(), 300);
        assert_eq!(words("server 127.1.").len(), 300 * ADDRESSES as usize);
        assert_eq!(text.matches("proxy_pass").count(), 300);
        assert!(address(300 * ADDRESSES).is_loopback());
    }
}
