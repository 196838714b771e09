//! Rewritings that mean the same change nothing; each mutation of what a request meets changes something, in the right group.

use super::{Changes, between};
use crate::{check::Subject, nginx::tests::config};

/// A configuration with one of everything that is compared.
const OLD: &str = r#"http {
    upstream api { server 10.0.0.5:8080; server 10.0.0.6:8080 weight=2; }
    upstream web { server 10.0.1.5; }
    map $http_x_color $color { default blue; g green; ~^r red; ~^re other; }
    map $http_upgrade $upgrade { default upgrade; "" close; }
    upstream blue { server 10.0.2.5:80; } upstream green { server 10.0.2.6:80; } upstream red { server 10.0.2.7:80; }
    upstream other { server 10.0.2.8:80; }
    proxy_read_timeout 60;
    server {
        listen 80; listen 443 ssl;
        server_name a.example b.example;
        proxy_set_header Host $host;
        location /api/ { proxy_pass http://api/; proxy_set_header Connection $upgrade; proxy_set_header Host $http_host; }
        location /c/ { proxy_pass http://$color; proxy_connect_timeout 5s; }
        location = /old { return 301 /new; }
        location ~ \.php$ { fastcgi_pass 127.0.0.1:9000; }
        location ~ ^/p { proxy_pass https://web; proxy_ssl_server_name on; proxy_ssl_name a.internal; }
        location /r/ { rewrite ^/r/(.*)$ /$1 break; proxy_pass http://web; allow 10.0.0.0/8; deny all; }
    }
    server { listen 80; server_name c.example; return 404; }
}
stream { upstream db { server 10.0.3.5:5432; } server { listen 5432; proxy_pass db; } }"#;

fn changes(old: &str, new: &str) -> Changes {
    let [old, new] = [old, new].map(|text| Subject::new(config(text)));
    between(&old, &new, None)
}

/// The text with something else in it.
fn with(from: &str, to: &str) -> String {
    assert!(OLD.contains(from), "{from}");
    OLD.replace(from, to)
}

#[test]
fn what_means_the_same_changes_nothing() {
    let second = "server { listen 80; server_name c.example; return 404; }";
    let first = &OLD[OLD.find("    server {\n").unwrap()..OLD.find(second).unwrap()];
    let split = format!(
        "{}{}",
        first.replace("a.example b.example", "a.example"),
        first.replace("a.example b.example", "b.example")
    );
    let rewritings = [
        OLD.replace(' ', "\n\t"),
        with("a.example b.example", "B.example a.example"),
        with("server_name a.example b.example;", "server_name a.example; server_name b.example;"),
        with("listen 80; listen 443 ssl;", "listen 443 ssl; listen *:80;"),
        with("listen 80; listen 443 ssl;", "listen 0.0.0.0:80 reuseport; listen *:443 ssl;"),
        with("proxy_read_timeout 60;", "proxy_read_timeout 1m;"),
        with("proxy_read_timeout 60;", ""),
        with("proxy_connect_timeout 5s;", "proxy_connect_timeout 5000ms;"),
        with(
            "server 10.0.0.5:8080; server 10.0.0.6:8080 weight=2;",
            "server 10.0.0.6:8080 weight=2; server 10.0.0.5:8080 weight=1;",
        ),
        with("server 10.0.1.5;", "server 10.0.1.5:80 max_fails=1 fail_timeout=10s;"),
        with("http://api/", "HTTP://API/"),
        with("http://$color", "http://${Color}"),
        with("= /old", "=/old"),
        with("default blue; g green;", "G green; default blue;"),
        with("https://web", "https://web:443"),
        with(
            "proxy_set_header Connection $upgrade; proxy_set_header Host $http_host;",
            "proxy_set_header host $http_host; proxy_set_header Connection $upgrade;",
        ),
        with(
            "upstream web { server 10.0.1.5; }",
            "upstream web { zone w 1m; server 10.0.1.5; } upstream unused { server 10.9.9.9; }",
        ),
        with("proxy_read_timeout 60;", "access_log off; log_format x $host; tcp_nopush on;"),
        OLD.replace(first, &split),
        // The default server is the first one that listens.
        OLD.replace(second, "")
            .replace(first, &format!("{}{second}", first.replace("listen 80;", "listen 80 default_server;"))),
        OLD.replace(first, "").replace(
            second,
            &format!("{second}{}", first.replace("listen 80;", "listen 80 default_server;")),
        ),
        // Where it is inherited, and where it stands in each place.
        with("proxy_read_timeout 60;", "proxy_set_header Host $host; proxy_read_timeout 60;"),
    ];
    for new in rewritings {
        assert_eq!(changes(OLD, &new), Changes::default(), "{new}");
        assert_eq!(changes(&new, OLD), Changes::default(), "{new}");
    }
}

#[test]
fn each_mutation_of_what_a_request_meets_is_said_in_its_group() {
    let check = |from: &str, to: &str, expected: [&[&str]; 4]| {
        let changes = changes(OLD, &with(from, to));
        let Changes { peers, routes, defaults, requests } = changes;
        assert_eq!([peers, routes, defaults, requests], expected.map(<[&str]>::to_vec), "{from} → {to}");
    };
    let peers = |from: &str, to: &str, line: &str| check(from, to, [&[line], &[], &[], &[]]);
    let routes = |from: &str, to: &str, line: &str| check(from, to, [&[], &[line], &[], &[]]);
    let requests = |from: &str, to: &str, line: &str| check(from, to, [&[], &[], &[], &[line]]);
    let a = "server a.example b.example (*:443, *:80)";

    peers(
        "10.0.0.5:8080",
        "10.0.0.5:8081",
        "api: 10.0.0.5:8080, 10.0.0.6:8080 weight=2 became 10.0.0.5:8081, 10.0.0.6:8080 weight=2 ← server a.example b.example (80, 443): /api/",
    );
    peers(
        "server 10.0.1.5;",
        "server 10.0.1.5 down;",
        "web: 10.0.1.5:80 became 10.0.1.5:80 down ← server a.example b.example (80, 443): ~ ^/p; server a.example b.example (80, 443): /r/",
    );
    peers(
        "server 10.0.3.5:5432;",
        "server 10.0.3.5:5433;",
        "db: 10.0.3.5:5432 became 10.0.3.5:5433 ← server _ (5432)",
    );

    routes(
        "http://api/;",
        "http://api;",
        &format!(
            "{a}: /api/ → passes to http://api (10.0.0.5:8080, 10.0.0.6:8080 weight=2) instead of http://api/ (10.0.0.5:8080, 10.0.0.6:8080 weight=2): /api/x becomes /api/x instead of /x"
        ),
    );
    routes(
        "https://web;",
        "http://web;",
        &format!("{a}: ~ ^/p → passes to http://web (10.0.1.5:80) instead of https://web (10.0.1.5:80)"),
    );
    routes(
        "http://web; allow",
        "http://blue; allow",
        &format!("{a}: /r/ → passes to http://blue (10.0.2.5:80) instead of http://web (10.0.1.5:80)"),
    );
    routes(
        "return 301 /new;",
        "return 302 /new;",
        &format!("{a}: = /old → rewrites by \"return 302 /new\" instead of \"return 301 /new\""),
    );
    routes(
        "/$1 break;",
        "/v2/$1 break;",
        &format!(
            "{a}: /r/ → rewrites by \"rewrite ^/r/(.*)$ /v2/$1 break\" instead of \"rewrite ^/r/(.*)$ /$1 break\""
        ),
    );
    routes("g green;", "g red;", "map $color: g gives red instead of green");
    routes("g green;", "", "map $color: g is gone");
    routes("g green;", "g green; x red;", "map $color: x is new and gives red");
    routes("map $http_x_color", "map $http_y_color", "map $color: by $http_y_color instead of $http_x_color");
    routes("~^r red; ~^re other;", "~^re other; ~^r red;", "map $color: patterns are tried in another order");
    routes(
        "allow 10.0.0.0/8; deny all;",
        "deny all; allow 10.0.0.0/8;",
        &format!("{a}: /r/ → allow deny: the order changes"),
    );
    check(
        "location /c/",
        "location /d/",
        [
            &[],
            &[
                &format!("{a}: /c/ → is gone (passes to http://$color)"),
                &format!("{a}: /d/ → is new (passes to http://$color)"),
            ],
            &[],
            &[],
        ],
    );
    check(
        "location = /old",
        "location /old",
        [
            &[],
            &[
                &format!("{a}: = /old → is gone (return 301 /new)"),
                &format!("{a}: /old → is new (return 301 /new)"),
            ],
            &[],
            &[],
        ],
    );
    check(
        "server_name c.example;",
        "server_name d.example;",
        [
            &[],
            &[
                "requests for d.example (*:80) met server a.example b.example (*:80, *:443), and meet server d.example (*:80) now",
                "requests for c.example (*:80) met server c.example (*:80), and meet server a.example b.example (*:80, *:443) now",
            ],
            &[],
            &[],
        ],
    );
    let php = r"location ~ \.php$ { fastcgi_pass 127.0.0.1:9000; }";
    let swapped = OLD
        .replace(php, "")
        .replace("proxy_ssl_name a.internal; }", &format!("proxy_ssl_name a.internal; }} {php}"));
    assert_eq!(
        changes(OLD, &swapped).routes,
        [format!(r"{a} → patterns are tried in another order: ~ ^/p, ~ \.php$ instead of ~ \.php$, ~ ^/p")]
    );

    check(
        "listen 80; server_name c",
        "listen 80 default_server; server_name c",
        [
            &[],
            &[],
            &[
                "requests for other names at *:80 met server a.example b.example (*:80, *:443), and meet server c.example (*:80) now",
            ],
            &[],
        ],
    );

    requests(
        "proxy_ssl_server_name on;",
        "",
        &format!("{a}: ~ ^/p → proxy_ssl_server_name is not set any more: on"),
    );
    requests(
        "proxy_ssl_name a.internal;",
        "proxy_ssl_name b.internal;",
        &format!("{a}: ~ ^/p → proxy_ssl_name: b.internal instead of a.internal"),
    );
    requests(
        "proxy_connect_timeout 5s;",
        "proxy_connect_timeout 6s;",
        &format!("{a}: /c/ → proxy_connect_timeout: 6s instead of 5s"),
    );
    requests(
        "Host $http_host;",
        "Host $host;",
        &format!("{a}: /api/ → proxy_set_header: host $host instead of host $http_host"),
    );
    requests("\"\" close;", "\"\" keep-alive;", "map $upgrade: '' gives keep-alive instead of close");
    requests("listen 443 ssl;", "listen 443;", "*:443 takes plain connections instead of ssl");
    requests(
        "proxy_read_timeout 60;",
        "proxy_read_timeout 5;",
        &format!("{a}: /api/, /c/, /r/, ~ ^/p → proxy_read_timeout is set now: 5s"),
    );
    check(
        "listen 5432;",
        "listen 5433;",
        [
            &[],
            &[
                "nothing listens on *:5432 for stream any more",
                "stream listens on *:5433 now: _",
                "server _ (*:5432) → does not pass to db (10.0.3.5:5432) any more",
                "server _ (*:5433) → passes to db (10.0.3.5:5432) now, by proxy_pass",
            ],
            &[],
            &[],
        ],
    );
}

#[test]
fn a_rename_with_the_same_peers_is_one_line() {
    let new = OLD.replace("upstream web", "upstream shop").replace("://web", "://shop");
    let changes = changes(OLD, &new);
    let expected = [
        "upstream \"web\" is called \"shop\" now, with the same peers, which see that name where no Host is set",
    ];
    assert_eq!(changes, Changes { routes: expected.map(str::to_owned).to_vec(), ..Changes::default() });
}

#[test]
fn what_changes_alike_in_many_places_is_said_once() {
    let text = |port: u16| {
        let map: String = (0..500).map(|n| format!("k{n} h{n}.example:{port};")).collect();
        let locations: String =
            (0..100).map(|n| format!("location /p{n} {{ proxy_pass http://$t; }}")).collect();
        format!(
            "http {{ map $uri $t {{ {map} }} server {{ listen 80; {locations} }} server {{ listen 81; {locations} }} }}"
        )
    };
    let changes = changes(&text(80), &text(81));
    let [line] = &changes.routes[..] else { panic!("{changes:?}") };
    assert!(line.starts_with("map $t: k0 gives h0.example:81 instead of h0.example:80; "), "{line}");
    assert!(line.ends_with("; and 480 more"), "{line}");
}

/// All that changes, in one list.
fn lines(old: &str, new: &str) -> Vec<String> {
    changes(old, new).groups().into_iter().flat_map(|(_, lines)| lines.to_vec()).collect()
}

#[test]
fn of_a_part_everything_is_said_as_what_uses_it_is_elsewhere() {
    let check =
        |old: &str, new: &str, expected: &[&str]| assert_eq!(lines(old, new), expected, "{old} → {new}");
    check(
        "upstream a { server 10.0.0.1; }",
        "upstream a { server 10.0.0.2; }",
        &["a: 10.0.0.1:80 became 10.0.0.2:80"],
    );
    check(
        "upstream a { server 10.0.0.1; }",
        "upstream b { server 10.0.0.2; }",
        &["a: is gone, with 10.0.0.1:80", "b: is new, with 10.0.0.2:80"],
    );
    check(
        "map $host $x { default 1; }",
        "map $host $x { default 2; }",
        &["map $x: default gives 2 instead of 1"],
    );
    check(
        "proxy_set_header A b;",
        "proxy_set_header A c;",
        &["http, for all that inherits it → proxy_set_header: a c instead of a b"],
    );
    check("proxy_set_header A b;", "proxy_set_header a b;", &[]);
}

#[test]
fn what_changes_is_shown_as_it_would_be_written_and_secrets_are_not() {
    let location = |text: &str| format!("http {{ server {{ listen 80; location / {{ {text} }} }} }}");
    let check = |old: &str, new: &str, expected: &str| {
        let lines = lines(&location(old), &location(new));
        assert_eq!(lines, [format!("server _ (*:80): / → {expected}")], "{old} → {new}");
    };
    check(
        "return 301 /x?a=1;",
        "return 301 /x?a=2;",
        "rewrites by \"return 301 /x?a=2\" instead of \"return 301 /x?a=1\"",
    );
    check(
        "return 200 'a\nb';",
        "return 200 '';",
        "rewrites by \"return 200 ''\" instead of \"return 200 'a\\nb'\"",
    );
    check(
        "if ($http_user_agent ~ (?i)bot) { return 403; }",
        "",
        "rewrites by nothing instead of \"if ($http_user_agent ~ (?i)bot) { return 403 }\"",
    );
    check("try_files $uri @app;", "try_files $uri @b;", "try_files: $uri @b instead of $uri @app");
    check(
        "proxy_pass http://a; proxy_set_header Authorization 'Basic one';",
        "proxy_pass http://a; proxy_set_header Authorization 'Basic two';",
        "proxy_set_header: authorization 'Basic (hidden)', where what is hidden changes",
    );
    check(
        "secure_link_secret one;",
        "secure_link_secret two;",
        "secure_link_secret: (hidden), where what is hidden changes",
    );
    check(
        "proxy_pass http://a:one@b;",
        "proxy_pass http://a:two@b;",
        "passes to http://(hidden)@b, where what is hidden changes",
    );
    // The socket's path is the whole of it.
    check(
        "proxy_pass http://unix:/x;",
        "proxy_pass http://unix:/x:/y;",
        "passes to http://unix:/x:/y instead of http://unix:/x: /x becomes /yx instead of /x",
    );
}

#[test]
fn a_zone_is_said_once_and_a_location_with_all_that_it_does() {
    let text = |rate: &str, location: &str| {
        format!(
            "http {{ limit_req_zone $host zone=z:1m rate={rate}; server {{ listen 80; limit_req zone=z; location /a {{ }} {location} }} }}"
        )
    };
    let old = text("1r/s", "location /b { set $x 1; return 200 $x; }");
    assert_eq!(
        lines(&old, &text("2r/s", "")),
        [
            "server _ (*:80): /b → is gone (set $x 1; return 200 $x)",
            "http → limit_req_zone: $host rate=2r/s zone=z:1m instead of $host rate=1r/s zone=z:1m",
        ]
    );
}
