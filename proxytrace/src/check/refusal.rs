//! Why nginx does not take a configuration, as far as its files tell: for whoever knows that it did not, and cannot read its log.

use std::path::Path;

use nginx_conf::Config;

use super::{Finding, Host, Subject, findings, rules};
use crate::{declared::Addresses, model::BY_FILES, nginx::version::Version};

/// What nginx most likely stumbles over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// In a sentence that begins with [`BY_FILES`], and with the place.
    pub(crate) words: String,
    /// Whether only names of directives and upstreams are quoted in it, which are no secret.
    pub(crate) quotes_names: bool,
}

/// Finds it. A directive that resembles one of nginx's is the last that is blamed: a module may bring it.
pub(crate) fn refusal(
    config: Config,
    version: Option<Version>,
    has_file: &dyn Fn(&Path) -> bool,
) -> Option<Refusal> {
    let resolved = Addresses::new();
    let host = Host { resolved: &resolved, has_socket: &|_| true, has_file, is_here: true, version };
    let found = findings(&Subject::new(config), &host, Vec::new()).findings;
    let is_misspelt = |finding: &&Finding| *finding.rule == rules::UNKNOWN_DIRECTIVE;
    let is_refused = |finding: &&Finding| finding.is_error() && finding.what.starts_with(BY_FILES);
    let first = found.iter().find(is_refused).or_else(|| found.iter().find(is_misspelt))?;
    let about_names =
        [&rules::UNKNOWN_DIRECTIVE, &rules::WRONG_PLACE, &rules::ARGUMENT_COUNT, &rules::UPSTREAM_EMPTY];
    Some(Refusal {
        words: format!("{} in {}:{}", first.what, first.file, first.line),
        quotes_names: about_names.contains(&first.rule),
    })
}

#[cfg(test)]
mod tests {
    use super::refusal;
    use crate::nginx::tests::config;

    fn check(text: &str, words: Option<&str>) {
        let found = refusal(config(text), None, &|path| !path.ends_with("gone.pem"));
        assert_eq!(found.as_ref().map(|refusal| &*refusal.words), words, "{text}");
    }

    #[test]
    fn the_first_that_nginx_surely_refuses_is_blamed_and_then_what_is_misspelt() {
        check("http { upstream api { server 10.0.0.1; } }", None);
        check(
            "http {\nupstream api { }\nserver { location / { proxy_pass http://api; } }\n}",
            Some("nginx refuses upstream \"api\": no server line in n:2"),
        );
        check(
            "http {\nserver {\nlisten 80 ssl; ssl_certificate gone.pem; ssl_certificate_key gone.pem;\n}\n}",
            Some("nginx refuses ssl_certificate: there is no gone.pem in n:3"),
        );
        check("http {\nsever { }\n}", Some("nginx refuses \"sever\", unless a module brings it in n:2"));
        check(
            "http {\nsever { }\nserver { listen 80 81; }\n}",
            Some("nginx refuses the parameter \"81\" of \"listen\" in n:3"),
        );
    }

    #[test]
    fn names_are_told_apart_from_what_may_be_secret() {
        let quotes_names = |text| refusal(config(text), None, &|_| true).expect("a refusal").quotes_names;
        assert!(quotes_names("http { sever { } }"));
        assert!(quotes_names("http { worker_processes 2; }"));
        assert!(!quotes_names("http { server { return hunter2 a; } }"));
    }
}
