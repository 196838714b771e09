//! An example of each kind of finding that the configuration alone can have. The story `check` runs those that are about
//! nginx's own judgement past `nginx -t`.

use super::{Finding, Found, Host, Severity, Subject, Version, findings as findings_of, hosts, rules::ALL};
use crate::{declared::Addresses, nginx::tests::config};

/// By id. Each brings this finding, and no other that is graver than a note.
pub(super) const EXAMPLES: &[(&str, &str)] = &[
    ("part", "upstream api { server 10.0.0.5:8080; }"),
    ("events-missing", "user www-data;\nhttp {\n    server { listen 8080; }\n}"),
    ("nothing", "user www-data;"),
    (
        "unknown-directive",
        "http {\n    server {\n        location / { prxy_pass http://10.0.0.5; }\n    }\n}",
    ),
    ("wrong-place", "http {\n    server {\n        proxy_pass http://10.0.0.5;\n    }\n}"),
    (
        "argument-count",
        "http {\n    server {\n        location / {\n            proxy_set_header Host $host\n            proxy_pass http://10.0.0.5;\n        }\n    }\n}",
    ),
    (
        "bad-argument",
        "http {\n    upstream api { server 10.0.0.5:8080 weigth=3; }\n    server {\n        location / { proxy_pass http://api; }\n    }\n}",
    ),
    (
        "directive-twice",
        "http {\n    server {\n        proxy_read_timeout 5s;\n        proxy_read_timeout 10s;\n        location / { proxy_pass http://10.0.0.5; }\n    }\n}",
    ),
    ("version", "http {\n    server {\n        location / { tunnel_pass 10.0.0.5:8080; }\n    }\n}"),
    (
        "unknown-variable",
        "http {\n    server {\n        location / { return 301 https://example.org$reqest_uri; }\n    }\n}",
    ),
    ("listen-missing", "stream {\n    server { proxy_pass 10.0.0.5:8080; }\n}"),
    ("handler-missing", "stream {\n    server { listen 5432; }\n}"),
    ("listen-twice", "http {\n    server { listen 8080; listen *:8080; }\n}"),
    ("certificate-missing", "http {\n    server { listen 443 ssl; server_name example.org; }\n}"),
    (
        "port-shared",
        "http {\n    server { listen 8443; }\n}\nstream {\n    server { listen 8443; proxy_pass 10.0.0.5:8080; }\n}",
    ),
    ("bad-address", "http {\n    server {\n        location / { proxy_pass http://10.0.0.5:0; }\n    }\n}"),
    (
        "port-of-upstream",
        "http {\n    upstream api { server 10.0.0.5:8080; }\n    server {\n        location / { proxy_pass http://api; }\n        location /v2/ { proxy_pass http://api:8080; }\n    }\n}",
    ),
    (
        "upstream-twice",
        "http {\n    upstream api { server 10.0.0.5:8080; }\n    upstream api { server 10.0.0.6:8080; }\n    server {\n        location / { proxy_pass http://api; }\n    }\n}",
    ),
    (
        "upstream-empty",
        "http {\n    upstream api { server 10.0.0.5:8080 backup; }\n    server {\n        location / { proxy_pass http://api; }\n    }\n}",
    ),
    (
        "upstream-down",
        "http {\n    upstream api { server 10.0.0.5:8080 down; }\n    server {\n        location / { proxy_pass http://api; }\n    }\n}",
    ),
    ("upstream-undefined", "http {\n    server {\n        location / { proxy_pass http://api; }\n    }\n}"),
    ("upstream-unused", "http {\n    upstream api { server 10.0.0.5:8080; }\n}"),
    (
        "no-resolver",
        "http {\n    server {\n        set $backend app.internal;\n        location / { proxy_pass http://$backend; }\n    }\n}",
    ),
    (
        "name-unresolved",
        "http {\n    server {\n        location / { proxy_pass http://gone.internal; }\n    }\n}",
    ),
    (
        "socket-missing",
        "http {\n    server {\n        location / { fastcgi_pass unix:/gone/php.sock; }\n    }\n}",
    ),
    ("http-to-443", "http {\n    server {\n        location / { proxy_pass http://10.0.0.5:443; }\n    }\n}"),
    (
        "https-to-80",
        "http {\n    upstream api { server 10.0.0.5; }\n    server {\n        location / { proxy_pass https://api; }\n    }\n}",
    ),
    (
        "uri-refused",
        "http {\n    server {\n        location ~ ^/api/ { proxy_pass http://10.0.0.5/v1/; }\n    }\n}",
    ),
    ("server-name-odd", "http {\n    server { server_name https://example.org; }\n}"),
    (
        "server-name-twice",
        "http {\n    server { listen 80; server_name example.org; }\n    server { listen *:80; server_name example.org; }\n}",
    ),
    (
        "default-server-twice",
        "http {\n    server { listen 80 default_server; server_name a; }\n    server { listen 80 default_server; server_name b; }\n}",
    ),
    (
        "location-twice",
        "http {\n    server {\n        location /api { return 200; }\n        location ^~ /api { return 204; }\n    }\n}",
    ),
    (
        "location-shadowed",
        "http {\n    server {\n        location ~ \\.php$ { return 200; }\n        location ~ \\.php$ { return 204; }\n    }\n}",
    ),
    (
        "location-nested",
        "http {\n    server {\n        location /a/ {\n            location /b/ { return 200; }\n        }\n    }\n}",
    ),
    ("location-missing", "http {\n    server {\n        location / { try_files $uri @api; }\n    }\n}"),
    (
        "long-connect-timeout",
        "http {\n    proxy_connect_timeout 1m;\n    server {\n        location / { proxy_pass http://10.0.0.5; }\n    }\n}",
    ),
];

/// The nginx of examples: Debian 12's.
const VERSION: Version = Version::new(1, 22, 1);

/// What is found in an example, where `gone.internal` is the one name that was looked up, and sockets below /gone are missing.
pub(super) fn found(text: &str) -> Found {
    let resolved = Addresses::from([("gone.internal".to_owned(), Vec::new())]);
    let host = Host {
        resolved: &resolved,
        has_socket: &|path| !path.starts_with("/gone/"),
        has_file: &|path| !path.starts_with("/gone/"),
        is_here: true,
        version: Some(VERSION),
    };
    findings_of(&Subject::new(config(text)), &host, Vec::new())
}

pub(super) fn findings(text: &str) -> Vec<Finding> {
    found(text).findings
}

/// The ids of what is found, but for long timeouts.
pub(super) fn ids(text: &str) -> Vec<&'static str> {
    let ids = findings(text).into_iter().map(|finding| finding.rule.id);
    ids.filter(|id| *id != "long-connect-timeout").collect()
}

#[test]
fn each_example_brings_its_finding_and_no_other() {
    for (id, text) in EXAMPLES {
        let found: Vec<_> = findings(text).iter().map(|finding| finding.rule.id).collect();
        let others = |found: &&&str| **found != *id && **found != "long-connect-timeout";
        assert!(found.contains(id), "{id}: {found:?}");
        assert_eq!(found.iter().filter(others).count(), 0, "{id}: {found:?}");
    }
}

#[test]
fn each_kind_has_an_example() {
    // These are about reading and connecting: the story has them.
    let elsewhere = ["syntax", "outside", "probe-failed"];
    for rule in ALL.iter().filter(|rule| !elsewhere.contains(&rule.id)) {
        assert_eq!(EXAMPLES.iter().filter(|(id, _)| *id == rule.id).count(), 1, "{}", rule.id);
    }
}

#[test]
fn what_is_well_is_not_found() {
    let check = |text: &str| {
        // Whether it is the commercial version is not known.
        let found: Vec<_> = findings(text).into_iter().filter(|found| found.rule.id != "version").collect();
        assert_eq!(found, [], "{text}");
    };
    check(
        "http { proxy_connect_timeout 2s; upstream api { server 10.0.0.5:8080; server 10.0.0.6:8080 backup; }
         server { listen 80 default_server; server_name a; location / { proxy_pass http://api; } location = / { proxy_pass http://api; } }
         server { listen 80; server_name b; location / { return 200; } }
         server { listen 81; server_name a; location ~ a { return 200; } location ~* a { return 200; } } }",
    );
    check(
        "http { proxy_connect_timeout 2s; resolver 10.0.0.53; upstream api { server 10.0.0.5:443; }
         server { location / { proxy_pass https://$host; } location /a { proxy_pass https://api; } } }",
    );
    check(
        "http { proxy_connect_timeout 2s; resolver 10.0.0.53;
         upstream api { zone a 1m; server gone.internal service=http resolve; } upstream web { zone w 1m; state web.state; }
         server { location / { proxy_pass http://api; } location /w { proxy_pass http://web; } } }",
    );
}

#[test]
fn a_service_has_no_port() {
    let found = findings("http { upstream api { server app:80 service=http resolve; } }");
    let said: Vec<_> =
        found.iter().filter(|one| one.rule.id == "bad-address").map(|one| &*one.what).collect();
    assert_eq!(said, ["nginx refuses \"app:80\": a service takes a name and a host name without a port"]);
}

/// Realistic mistakes: a head with the name, what `nginx -t` of Debian 12 (1.22.1) and of nginx 1.31.5 say, what gixy-ng 0.2.59
/// says besides what it says of every configuration, and what is found here, but for notes; then the configuration.
pub(super) fn planted() -> impl Iterator<Item = ([&'static str; 5], &'static str)> {
    let sections = include_str!("planted.txt").split("### ").skip(1);
    sections.map(|section| {
        let (head, text) = section.split_once('\n').unwrap();
        let columns: Vec<_> = head.split(" | ").collect();
        (columns.try_into().unwrap(), text)
    })
}

#[test]
fn of_planted_mistakes_what_the_table_says_is_found() {
    for ([name, .., expected], text) in planted() {
        let subject = Subject::new(config(text));
        let resolved: Addresses = hosts(&subject).into_iter().map(|host| (host, Vec::new())).collect();
        let host = Host {
            resolved: &resolved,
            has_socket: &|_| false,
            has_file: &|_| true,
            is_here: true,
            version: Some(VERSION),
        };
        let findings = findings_of(&subject, &host, Vec::new()).findings;
        let graver = findings.iter().filter(|finding| finding.severity != Severity::Note);
        let mut ids: Vec<_> = graver.map(|finding| finding.rule.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let found = if ids.is_empty() { "-".to_owned() } else { ids.join(", ") };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_main_file_has_events_and_a_part_need_not() {
    let check = |text: &str, expected: &[&str]| assert_eq!(ids(text), expected, "{text}");
    let http = "http { server { listen 8080; } }";
    check(&format!("worker_processes 1; pid /run/nginx.pid; {http}"), &["events-missing"]);
    check(&format!("worker_processes 1; events {{ }} {http}"), &[]);
    // The main file may include it, and have the rest.
    check(http, &[]);
    check(&format!("error_log stderr; {http}"), &[]);
}

#[test]
fn what_other_modules_and_code_bring_is_not_judged() {
    let check = |text: &str, expected: &[&str]| assert_eq!(ids(text), expected, "{text}");
    let server =
        |inner: &str, expected: &[&str]| check(&format!("http {{ server {{ {inner} }} }}"), expected);
    // Both transports at one port, and options where a socket has them once.
    server(
        "listen 443 quic reuseport default_server; listen 443 ssl reuseport default_server; ssl_certificate a; ssl_certificate_key a;",
        &["version"],
    );
    check(
        "http { server { listen 8443; } } stream { server { listen 8443 udp; proxy_pass 10.0.0.5:53; } }",
        &[],
    );
    server("server_name a a;", &["server-name-twice"]);
    check("http { server { listen 80; server_name _; } server { listen 80; server_name _; } }", &[]);
    // Where the host can be no name.
    for target in
        ["127.0.0.1:$1/$2", "unix:/run/$app.sock", "127.0.0.1:9000$1", "$server_addr:9000", "10.1.2.$n:80"]
    {
        server(&format!(r"location ~ ^/(?<app>\d)(?<n>\d)$ {{ proxy_pass http://{target}; }}"), &[]);
    }
    server("location / { proxy_pass $scheme://127.0.0.1:9000; }", &[]);
    server("resolver local=on; set $h app.example; location / { proxy_pass http://$h:8080; }", &[]);
    server(
        "resolver_file /etc/resolv.conf; set $h app.example; location / { proxy_pass http://$h:8080; }",
        &[],
    );
    server("location / { proxy_pass http://$http_x; }", &["no-resolver"]);
    // Upstreams whose use or peers the configuration does not say.
    check("http { upstream a { server 10.0.0.5; } server { location / { redis2_pass a; } } }", &[]);
    check(
        "http { upstream a { drizzle_server 10.0.0.5:3306; } server { location / { drizzle_pass a; } } }",
        &[],
    );
    check("http { upstream a { zone a 64k; } server { location / { proxy_pass http://a; } } }", &[]);
    check(
        "http { upstream a { balancer_by_lua_block { x() } } server { location / { proxy_pass http://a; } } }",
        &[],
    );
    for writer in [
        "access_by_lua_block { ngx.var.t = 'a' }",
        "access_by_lua_file pick.lua;",
        "auth_request_set $t $upstream_http_x;",
        "js_content m.pick;",
    ] {
        check(
            &format!(
                "http {{ upstream a {{ server 10.0.0.5; }} server {{ location / {{ set $t ''; {writer} proxy_pass http://$t; }} }} }}"
            ),
            &[],
        );
    }
    // One that is written with a port is no upstream, and a slip is one finding.
    server("location / { proxy_pass http://web:3000; }", &[]);
    check(
        "http { upstream api { server 10.0.0.5; } server { location / { proxy_pass http://apii; } } }",
        &["upstream-undefined"],
    );
    // A part is not judged by what may stand elsewhere.
    check(
        "server { listen 80; location / { proxy_pass http://api; auth_request /x; try_files $uri $mine @x; } }",
        &["location-missing", "part"],
    );
    check("proxy_pass http://api:0;", &["bad-address", "part"]);
}

#[test]
fn long_timeouts_are_said_once_and_not_of_this_machine() {
    let said = |text: &str| findings(text).into_iter().map(|finding| finding.what).collect::<Vec<_>>();
    let expected = "a request waits up to 60 s for a peer whose packets vanish, and then fails with 504: \"10.0.0.5\", \"10.0.0.6\"";
    let text = "http { server { location / { proxy_pass http://10.0.0.5; } location /b { proxy_pass http://10.0.0.6; } } }";
    assert_eq!(said(text), [expected]);
    assert!(said("http { server { location / { proxy_pass http://unix:/a; } location /b { proxy_pass http://127.0.0.1; } } }").is_empty());
}
