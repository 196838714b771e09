//! Ways to write one thing, and something else that is nearly written like it.

use super::{
    model::Random,
    mutation::{DEFAULTS, PEERS, REQUESTS, ROUTES},
};

/// Where a text stands: a port of its own leads there, so that nothing else changes with it.
#[derive(Clone, Copy, Debug)]
enum In {
    /// A whole text of `http`, in which `{port}` is the port.
    Http,
    Server,
    Location,
    Upstream,
    Stream,
}

/// What is written, and the group of changes that says what becomes of it.
pub(super) struct Form {
    place: In,
    /// All of them mean the same.
    same: &'static [&'static str],
    /// Each of them means something else.
    other: &'static [&'static str],
    group: &'static str,
}

const fn form(
    place: In,
    group: &'static str,
    same: &'static [&'static str],
    other: &'static [&'static str],
) -> Form {
    Form { place, same, other, group }
}

pub(super) const FORMS: &[Form] = &[
    // Orders that mean nothing.
    form(
        In::Location,
        ROUTES,
        &[
            "error_page 404 403 /x; error_page 500 =200 /y;",
            "error_page 500 =200 /y; error_page 403 404 /x;",
            "error_page 404 /x; error_page 500 =200 /y; error_page 403 /x;",
        ],
        &[
            "error_page 404 403 =200 /x; error_page 500 =200 /y;",
            "error_page 404 /x; error_page 500 =200 /y;",
        ],
    ),
    form(In::Location, ROUTES, &["error_page 404 @a;"], &["error_page 404 @b;"]),
    form(
        In::Server,
        REQUESTS,
        &["ssl_protocols TLSv1.2 TLSv1.3;", "ssl_protocols tlsv1.3 TLSv1.2;"],
        &["ssl_protocols TLSv1.3;"],
    ),
    form(
        In::Server,
        REQUESTS,
        &["gzip on; gzip_types a/b c/d;", "gzip_types c/d a/B; gzip on;"],
        &["gzip on; gzip_types a/b;", "gzip_types a/b c/d;"],
    ),
    form(
        In::Server,
        REQUESTS,
        &[
            "set_real_ip_from 10.0.0.1; set_real_ip_from 10.1.0.0/16;",
            "set_real_ip_from 10.1.2.3/16; set_real_ip_from 10.0.0.1/32;",
        ],
        &["set_real_ip_from 10.0.0.1; set_real_ip_from 10.1.0.0/17;"],
    ),
    form(
        In::Location,
        REQUESTS,
        &["types { text/html html htm; a/b c; }", "types { a/b C; text/html htm; text/html html; }"],
        &["types { text/html html; a/b c htm; }"],
    ),
    form(
        In::Location,
        REQUESTS,
        &["proxy_hide_header A; proxy_hide_header B;", "proxy_hide_header b; proxy_hide_header a;"],
        &["proxy_hide_header A;"],
    ),
    form(
        In::Location,
        REQUESTS,
        &["proxy_next_upstream error http_502;", "proxy_next_upstream HTTP_502 error;"],
        &["proxy_next_upstream error http_503;"],
    ),
    form(
        In::Location,
        REQUESTS,
        &["resolver 10.0.0.1 10.0.0.2 valid=60s;", "resolver valid=1m 10.0.0.2:53 10.0.0.1 ipv6=on;"],
        &["resolver 10.0.0.1 10.0.0.2 valid=61s;", "resolver 10.0.0.1 valid=60s;"],
    ),
    form(
        In::Location,
        ROUTES,
        &["if ($arg_a) { add_header A b; expires 1d; }", "if ( $arg_a ) { expires 24h; add_header a b; }"],
        &["if ($arg_a) { add_header A b; expires 2d; }", "if ($arg_b) { add_header A b; expires 1d; }"],
    ),
    form(In::Location, ROUTES, &["set $u 1; set $v 2;"], &["set $v 2; set $u 1;"]),
    // Zones, rates and sizes.
    form(
        In::Http,
        REQUESTS,
        &[
            "limit_req_zone $host zone=z:10m rate=10r/s; server { listen {port}; limit_req zone=z burst=5 nodelay; }",
            "limit_req_zone $host rate=600r/m zone=z:10240k; server { listen {port}; limit_req nodelay burst=5 zone=z; }",
        ],
        &[
            "limit_req_zone $host zone=z:10m rate=11r/s; server { listen {port}; limit_req zone=z burst=5 nodelay; }",
            "limit_req_zone $uri zone=z:10m rate=10r/s; server { listen {port}; limit_req zone=z burst=5 nodelay; }",
            "limit_req_zone $host zone=z:10m rate=10r/s; server { listen {port}; limit_req zone=z burst=6 nodelay; }",
            "limit_req_zone $host zone=z:10m rate=10r/s; server { listen {port}; limit_req zone=z burst=5; }",
        ],
    ),
    form(
        In::Location,
        ROUTES,
        &["if ($arg_a) { limit_rate 1k; }", "if ($arg_a) { limit_rate 1024; }"],
        &["if ($arg_a) { limit_rate 1025; }"],
    ),
    form(In::Location, REQUESTS, &["expires 24h;", "expires 1d;"], &["expires -1d;", "expires modified 1d;"]),
    form(
        In::Location,
        REQUESTS,
        &[
            "proxy_cache_valid 200 302 10m; proxy_cache_valid 404 1m;",
            "proxy_cache_valid 404 60s; proxy_cache_valid 302 600s; proxy_cache_valid 200 10m;",
        ],
        &["proxy_cache_valid 200 302 10m;", "proxy_cache_valid 200 302 404 10m;"],
    ),
    form(
        In::Location,
        REQUESTS,
        &["proxy_cache_valid 5m;", "proxy_cache_valid 200 301 302 300s;"],
        &["proxy_cache_valid any 5m;"],
    ),
    // Addresses.
    form(
        In::Server,
        ROUTES,
        &["allow 10.0.0.1; deny all;", "allow 10.0.0.1/32; deny all;"],
        &["allow 10.0.0.2; deny all;", "deny all; allow 10.0.0.1;", "allow 10.0.0.1;"],
    ),
    form(
        In::Http,
        ROUTES,
        &[
            "geo $g { default 0; 10.0.0.1 1; proxy 10.2.0.0/16; } server { listen {port}; return 200 $g; }",
            "geo $remote_addr $g { proxy 10.2.1.1/16; 10.0.0.1/32 1; default 0; } server { listen {port}; return 200 ${g}; }",
        ],
        &[
            "geo $g { default 0; 10.0.0.1/31 1; proxy 10.2.0.0/16; } server { listen {port}; return 200 $g; }",
            "geo $g { default 0; 10.0.0.1 1; proxy 10.3.0.0/16; } server { listen {port}; return 200 $g; }",
        ],
    ),
    form(
        In::Location,
        ROUTES,
        &["proxy_pass http://[::1]:80/;", "proxy_pass HTTP://[0:0:0:0:0:0:0:1]/;"],
        &["proxy_pass http://[::2]:80/;"],
    ),
    form(
        In::Location,
        ROUTES,
        &["proxy_pass http://unix:/run/a;", "proxy_pass HTTP://UNIX:/run/a:;"],
        &["proxy_pass http://unix:/run/a:/;", "proxy_pass http://unix:/run/A;"],
    ),
    form(
        In::Upstream,
        PEERS,
        &[
            "server [::1]:80 fail_timeout=60s; server 10.0.0.1;",
            "server 10.0.0.1:80 weight=1; server [0:0::1] fail_timeout=1m;",
        ],
        &["server [::1]:80 fail_timeout=61s; server 10.0.0.1;"],
    ),
    form(
        In::Upstream,
        PEERS,
        &[
            "hash $uri consistent; server 10.0.0.1; server 10.0.0.2;",
            "server 10.0.0.2; hash $uri consistent; server 10.0.0.1;",
        ],
        &[
            "hash $uri; server 10.0.0.1; server 10.0.0.2;",
            "hash $host consistent; server 10.0.0.1; server 10.0.0.2;",
        ],
    ),
    form(
        In::Upstream,
        PEERS,
        &["hash $uri; server 10.0.0.1; server 10.0.0.2;"],
        &["hash $uri; server 10.0.0.2; server 10.0.0.1;"],
    ),
    form(
        In::Upstream,
        PEERS,
        &["server 10.0.0.1; keepalive 8; keepalive_timeout 60s;", "keepalive 8; server 10.0.0.1;"],
        &["server 10.0.0.1; keepalive 8; keepalive_timeout 75s;"],
    ),
    // What nginx adds.
    form(
        In::Location,
        ROUTES,
        &["return http://a.example/;", "return 302 http://a.example/;"],
        &["return 301 http://a.example/;", "return 302 https://a.example/;"],
    ),
    form(
        In::Location,
        ROUTES,
        &["rewrite ^ http://a.example/;", "rewrite ^ http://a.example/ redirect;"],
        &["rewrite ^ http://a.example/ permanent;"],
    ),
    form(
        In::Location,
        ROUTES,
        &[
            "limit_except GET { deny all; }",
            "limit_except get HEAD { deny all; }",
            "limit_except HEAD GET { deny all; }",
        ],
        &["limit_except HEAD { deny all; }", "limit_except GET { allow 10.0.0.1; deny all; }"],
    ),
    form(
        In::Http,
        ROUTES,
        &[
            "split_clients $uri $s { 10% a; 0.5% b; * c; } server { listen {port}; return 200 $s; }",
            "split_clients $uri $s { 10.00% a; 0.50% b; * c; } server { listen {port}; return 200 $s; }",
        ],
        &[
            "split_clients $uri $s { 10.01% a; 0.5% b; * c; } server { listen {port}; return 200 $s; }",
            "split_clients $uri $s { 0.5% b; 10% a; * c; } server { listen {port}; return 200 $s; }",
        ],
    ),
    form(
        In::Http,
        ROUTES,
        &[
            r"map $host $m { hostnames; .a.b 1; \c 2; } server { listen {port}; return 200 $m; }",
            "map $host $m { A.b 1; c 2; *.a.b 1; hostnames; } server { listen {port}; return 200 $m; }",
        ],
        &[
            "map $host $m { .a.b 1; c 2; } server { listen {port}; return 200 $m; }",
            "map $host $m { hostnames; a.b 1; c 2; } server { listen {port}; return 200 $m; }",
            r"map $host $m { hostnames; .a.b 1; \~c 2; } server { listen {port}; return 200 $m; }",
        ],
    ),
    form(
        In::Server,
        ROUTES,
        &[
            "location ~ b { return 201; } location ~ c { return 202; }",
            "location ~ b { return 201; } location ~ c { return 202; } location ~ b { return 203; }",
        ],
        &["location ~ c { return 202; } location ~ b { return 201; }"],
    ),
    form(
        In::Http,
        REQUESTS,
        &[
            "server { listen 127.0.0.1:{port} ssl http2; }",
            "server { listen 127.0.0.1:{port} ssl; http2 on; }",
        ],
        &["server { listen 127.0.0.1:{port} ssl; }", "server { listen 127.0.0.1:{port} http2; }"],
    ),
    // Two texts that read alike when they are cut.
    form(In::Location, ROUTES, &["return 301 /x?a=1;"], &["return 301 /x?a=2;", "return 301 \"/x?a=1 \";"]),
    form(
        In::Location,
        ROUTES,
        &["try_files $uri @app;"],
        &["try_files $uri @b;", "try_files \"$uri @app\" =404;"],
    ),
    form(
        In::Location,
        ROUTES,
        &["if ($http_user_agent ~ (?i)bot) { return 403; }"],
        &[
            "if ($http_user_agent ~ (?i)bot) { return 404; }",
            "if ($http_user_agent ~* (?i)bot) { return 403; }",
        ],
    ),
    form(
        In::Location,
        REQUESTS,
        &["proxy_set_header Authorization \"Basic aHVudGVyMg==\";"],
        &["proxy_set_header Authorization \"Basic aHVudGVyMw==\";", "proxy_set_header Authorization \"\";"],
    ),
    form(In::Location, ROUTES, &["proxy_pass http://a:b@10.0.0.1;"], &["proxy_pass http://a:c@10.0.0.1;"]),
    form(In::Location, REQUESTS, &["add_header A b always;"], &["add_header A \"b always\";"]),
    // What holds where nothing is written.
    form(
        In::Location,
        REQUESTS,
        &[
            "",
            "proxy_pass_request_body on; etag on; send_timeout 60s; proxy_redirect default; auth_basic off;",
            "proxy_next_upstream_tries 0; proxy_cache off; gzip_comp_level 1; resolver_timeout 30s;",
        ],
        &[
            "proxy_pass_request_body off;",
            "etag off;",
            "send_timeout 61s;",
            "proxy_redirect off;",
            "proxy_next_upstream_tries 1;",
            "gzip_comp_level 2;",
            "auth_basic a;",
            "resolver_timeout 31s;",
        ],
    ),
    form(In::Location, ROUTES, &["", "satisfy all;"], &["satisfy any;"]),
    form(
        In::Stream,
        REQUESTS,
        &["", "proxy_next_upstream on; proxy_ssl off; proxy_timeout 600s;"],
        &["proxy_next_upstream off;", "proxy_ssl on;", "proxy_timeout 75s;"],
    ),
];

impl Form {
    /// One of the ways to write it, or something else, by its number.
    pub(super) fn written(&self, number: usize, other: Option<usize>, random: &mut Random) -> String {
        let text = other.map_or_else(|| self.same[random.below(self.same.len())], |other| self.other[other]);
        self.around(text, number)
    }

    /// The number of something else, now and then.
    pub(super) fn other(&self, random: &mut Random) -> Option<usize> {
        (random.below(4) == 0).then(|| random.below(self.other.len()))
    }

    fn around(&self, text: &str, number: usize) -> String {
        let port = 10_000 + number;
        let pass = if text.contains("_pass ") { "" } else { "proxy_pass http://10.4.0.1;" };
        let location = |text: &str| format!("location /in/ {{ {text} }}");
        match self.place {
            In::Http => text.replace("{port}", &port.to_string()),
            In::Server => format!("server {{ listen {port}; {} {text} }}", location(pass)),
            In::Location => format!("server {{ listen {port}; {} }}", location(&format!("{text} {pass}"))),
            In::Upstream => format!(
                "upstream of{port} {{ {text} }} server {{ listen {port}; {} }}",
                location(&format!("proxy_pass http://of{port};"))
            ),
            In::Stream => format!("server {{ listen {port}; proxy_pass 10.4.0.1:1; {text} }}"),
        }
    }

    /// Whether it stands in servers of streams.
    pub(super) fn is_of_stream(&self) -> bool {
        matches!(self.place, In::Stream)
    }
}

#[test]
fn each_way_to_write_the_same_changes_nothing_and_anything_else_is_said_such_that_it_differs() {
    assert!(FORMS.iter().all(|form| form.group != DEFAULTS));
    for (number, form) in FORMS.iter().enumerate() {
        let whole = |text: &&str| {
            let kind = if form.is_of_stream() { "stream" } else { "http" };
            format!("{kind} {{ {} }}", form.around(text, number))
        };
        let same: Vec<_> = form.same.iter().map(whole).collect();
        for (old, new) in same.iter().flat_map(|old| same.iter().map(move |new| (old, new))) {
            assert_eq!(super::changes(old, new, None), super::Changes::default(), "{old}\n→\n{new}");
        }
        for (one, other) in
            same.iter().flat_map(|one| form.other.iter().map(whole).map(move |other| (one, other)))
        {
            for (old, new) in [(one, &other), (&other, one)] {
                let changes = super::changes(old, new, None);
                let lines: Vec<_> = changes
                    .groups()
                    .into_iter()
                    .flat_map(|(group, lines)| lines.iter().map(move |line| (group, line)))
                    .collect();
                assert!(lines.iter().any(|(group, _)| *group == form.group), "{changes:?}\n{old}\n→\n{new}");
                for (_, line) in lines {
                    let reads_alike = line.split_once(" instead of ").is_some_and(|(now, before)| {
                        let starts = [": ", " by ", " to ", " takes ", " gives "];
                        starts.iter().any(|start| now.rsplit(start).next() == Some(before))
                    });
                    assert!(!reads_alike && !line.contains("aHVudGVy"), "{line}");
                }
            }
        }
    }
}
