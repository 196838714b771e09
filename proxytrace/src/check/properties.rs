//! What holds of every configuration.

use super::{Host, Subject, difference, findings};
use crate::{
    declared::{AddressNames, Addresses},
    nginx::tests::read,
};

proptest::proptest! {
    /// Whatever words stand in the directives that are looked into.
    #[test]
    fn no_configuration_makes_it_panic(
        words in proptest::collection::vec("[a-z0-9:/.$\\[\\]_=~\u{e4}]{1,12}|unix:[/:a]{0,4}|\\$\\{[a-z]{0,3}\\}?", 1..12),
    ) {
        let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let all = quoted.join(" ");
        let text = format!(
            "http {{ upstream {all} {{ server {all}; }} map {all} {{ {all}; }} geo {all} {{ {all}; }}
             server {{ listen {all}; server_name {all}; set $a {all}; resolver {all}; proxy_connect_timeout {all};
             location {all} {{ mirror {all}; proxy_pass {all}; }} location / {{ proxy_pass http://$a{}; }} }} }}
             stream {{ upstream {all} {{ server {all} service={0} resolve; state {0}; }} server {{ proxy_pass {all}; }} }}
             mail {{ auth_http {all}; server {{ auth_http {all}; }} }}",
            words[0],
        );
        if let Some(config) = read(&text) {
            let subject = Subject::new(config);
            let _ = AddressNames::new(&subject.routes, &Addresses::new());
            let resolved = Addresses::new();
            let host = Host { resolved: &resolved, has_socket: &|_| true, has_file: &|_| false, is_here: true, version: None };
            let _ = findings(&subject, &host, Vec::new());
            proptest::prop_assert!(difference::between(&subject, &subject, None).is_empty());
        }
    }
}
