//! Why connects fail, where their error has several causes: what the host and the proxy's own surroundings say of it.

use std::{fs, net::IpAddr, path::Path};

use super::root::Root;
use crate::model::{Address, Hint};

/// What is known of an address that process `pid`, below whose root `own` is, connects to in vain. `host` is the root of the host itself.
pub(super) fn hint(pid: u32, own: &Root, host: Option<&Root>, address: &Address) -> Option<Hint> {
    match address {
        Address::Unix(path) if path.starts_with('/') => {
            let is_elsewhere = |host: &Root| host.exists(Path::new(path)) && !own.exists(Path::new(path));
            host.is_some_and(is_elsewhere).then_some(Hint::SocketElsewhere)
        }
        Address::Unix(_) => None,
        Address::Internet(address) => match address.ip() {
            IpAddr::V6(ip) if !ip.is_loopback() && !ip.is_unicast_link_local() => {
                // Where IPv6 is switched off for good there is no such file.
                let addresses = fs::read_to_string(format!("/proc/{pid}/net/if_inet6"));
                (!has_global(&addresses.unwrap_or_default())).then_some(Hint::NoIpv6)
            }
            _ => None,
        },
    }
}

/// Whether one of the addresses in such a file reaches other hosts (`if6_seq_show()`: address, interface, prefix, scope, flags, name).
fn has_global(if_inet6: &str) -> bool {
    const OF_LINK: &str = "20";
    const OF_HOST: &str = "10";
    let scope = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    if_inet6.lines().filter_map(scope).any(|scope| ![OF_LINK, OF_HOST].contains(&scope.as_str()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Hint, Root, has_global, hint};

    #[test]
    fn addresses_of_the_link_and_of_the_host_reach_no_other() {
        const LOOPBACK: &str = "00000000000000000000000000000001 01 80 10 80       lo\n";
        const LINK: &str = "fe80000000000000020c29fffe000001 02 40 20 80     eth0\n";
        const GLOBAL: &str = "20010db8000000000000000000000001 02 40 00 80     eth0\n";
        for (text, expected) in [("", false), (LOOPBACK, false), (LINK, false), (GLOBAL, true)] {
            assert_eq!(has_global(&(LOOPBACK.to_owned() + text)), expected, "{text}");
        }
    }

    #[test]
    fn a_socket_that_only_the_host_has_is_elsewhere() {
        let (own, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let roots = [own.path(), host.path()].map(|path| Root::at(path).unwrap());
        let look = |path: &str| hint(1, &roots[0], Some(&roots[1]), &path.parse().unwrap());
        assert_eq!(look("unix:/app.sock"), None);
        fs::write(host.path().join("app.sock"), "").unwrap();
        assert_eq!(look("unix:/app.sock"), Some(Hint::SocketElsewhere));
        assert_eq!(look("unix:app.sock"), None);
        assert_eq!(look("unix:@/app.sock"), None);
        fs::write(own.path().join("app.sock"), "").unwrap();
        assert_eq!(look("unix:/app.sock"), None);
        assert_eq!(look("10.0.0.5:80"), None);
    }
}
