//! Under which names the agent answers browsers. A site can give its own name the agent's address (DNS rebinding), and its visitors'
//! browsers would then let it read what the agent says.

use std::net::{IpAddr, Ipv6Addr};

use hyper::{Request, header::HOST};

/// Why whoever asked by that name gets nothing; `None` where it may ask. An address is a name that nobody else can have, and
/// whoever says none is no browser.
pub(super) fn refuse<B>(request: &Request<B>, names: &[String]) -> Option<String> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = String::from_utf8_lossy(hosts.next()?.as_bytes());
    if hosts.next().is_some() {
        return Some("the request has more than one Host header: send one\n".to_owned());
    }
    let name = without_port(&host);
    let is_known = is_address(name)
        || ["localhost"]
            .into_iter()
            .chain(names.iter().map(String::as_str))
            .any(|known| is_same(name, known));
    (!is_known).then(|| {
        format!(
            "not by the name {:?}: ask by an address or localhost, or give the agent --page-host with that name\n",
            name.chars().take(100).collect::<String>()
        )
    })
}

/// A name as hosts have them, without port.
///
/// # Errors
/// It is none.
pub(super) fn name(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || !text.chars().all(is_name) {
        return Err("not a host's name; write for example proxy1.example.com, without a port".to_owned());
    }
    Ok(text.to_owned())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

fn is_address(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(name) => name.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()),
    }
}

/// Whatever the case, and with the dot of the root or without.
fn is_same(one: &str, other: &str) -> bool {
    let plain = |name: &str| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    plain(one) == plain(other)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::{name, refuse};

    #[test]
    fn only_names_that_are_the_agents_are_answered() {
        let names = ["proxy1.example.com".to_owned()];
        let refused = |host: &str| refuse(&Request::builder().header("host", host).body(()).unwrap(), &names);
        for good in [
            "localhost",
            "LOCALHOST:9947",
            "localhost.",
            "127.0.0.1:9947",
            "10.0.0.7",
            "[::1]:9947",
            "[2001:db8::1]",
            "Proxy1.example.com:9947",
        ] {
            assert_eq!(refused(good), None, "{good}");
        }
        for bad in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:9947",
            "127.1",
            "0x7f000001",
            "2130706433",
            "::1",
            "[::1",
            "",
            "proxy1.example.com.evil",
            "proxy1",
        ] {
            assert!(refused(bad).is_some_and(|why| why.contains("--page-host")), "{bad}");
        }
        assert_eq!(refuse(&Request::builder().body(()).unwrap(), &names), None);
        let twice = Request::builder().header("host", "localhost").header("host", "evil").body(()).unwrap();
        assert!(refuse(&twice, &names).is_some());
        assert!(name("proxy1.example.com").is_ok());
        for wrong in ["", "a b", "proxy1:9947", "*"] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
    }
}
