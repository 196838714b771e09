//! What configurations say, in short.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use nginx_conf::{Config, Files, Limits};
use nix::time::{ClockId, clock_gettime};
use proxytrace_ebpf::abi;

use super::read::routes;
use crate::declared::{AddressNames, Endpoint, Route, Routes, SettingsByPeer};

/// A configuration in one file, which stands at `n`.
struct One<'a>(&'a str);

impl Files for One<'_> {
    fn read(&self, path: &Path, _: u64) -> io::Result<Vec<u8>> {
        if path == Path::new("n") { Ok(self.0.into()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn glob(&self, _: &str, _: usize) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

/// The routes of a configuration that is written in a test.
pub(crate) fn routes_of(text: &str) -> Routes {
    routes(&config(text))
}

/// Reads a configuration that is written in a test.
pub(crate) fn config(text: &str) -> Config {
    read(text).unwrap()
}

/// The same of one that need not be right.
pub(crate) fn read(text: &str) -> Option<Config> {
    nginx_conf::load(&One(text), Path::new("n"), None, &Limits::default()).ok()
}

fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Address(address) => address.to_string(),
        Endpoint::Host { name, port } => format!("{name}:{port}?"),
        Endpoint::Service { name } => format!("{name} by SRV"),
    }
}

/// One line a route: where it is, and where it leads.
fn shown(routes: &Routes) -> Vec<String> {
    let upstream = |&index: &usize| {
        let upstream = &routes.upstreams[index];
        let peers: Vec<_> = upstream
            .peers
            .iter()
            .map(|peer| endpoint(&peer.endpoint) + if peer.resolve { " followed" } else { "" })
            .collect();
        format!("{}({})", upstream.name, peers.join(" "))
    };
    let line = |route: &Route| {
        let to: Vec<_> = route.target.upstreams.iter().map(upstream).collect();
        let open = route.target.open.iter().map(|text| format!(" or {text}")).collect::<String>();
        format!("{} -> {}{open}", route.location.join(" > "), to.join(", "))
    };
    routes.routes.iter().map(line).collect()
}

#[test]
fn routes_lead_where_nginx_goes() {
    let check = |http: &str, expected: &[&str]| {
        let routes = routes_of(&format!("http {{ {http} }}"));
        assert_eq!(shown(&routes), expected, "{http}");
        let json = serde_json::to_string(&routes).unwrap();
        assert_eq!(serde_json::from_str::<Routes>(&json).unwrap(), routes, "{http}");
    };
    let server = |locations: &str, expected: &[&str]| check(&format!("server {{ {locations} }}"), expected);
    // A block, also one that comes later and in another case; default ports.
    check(
        "server { location / { proxy_pass http://API/x; } } upstream api { server 10.0.0.5; server app:81; }",
        &["/ -> api(10.0.0.5:80 app:81?)"],
    );
    check(
        "upstream a { server unix:/run/a:b.sock; } server { location / { fastcgi_pass a; } }",
        &["/ -> a(unix:/run/a:b.sock)"],
    );
    // Hosts that directives name themselves.
    server("location / { proxy_pass http://10.0.0.5; }", &["/ -> 10.0.0.5(10.0.0.5:80)"]);
    server("location / { proxy_pass https://app/; }", &["/ -> app(app:443?)"]);
    server("location / { proxy_pass http://[::1]:81/; }", &["/ -> [::1]([::1]:81)"]);
    server("location / { proxy_pass http://unix:/a.sock:/u; }", &["/ -> unix:/a.sock(unix:/a.sock)"]);
    server("location / { grpc_pass grpcs://app:443; }", &["/ -> app(app:443?)"]);
    server("location / { grpc_pass app:80; }", &["/ -> app(app:80?)"]);
    server("location / { uwsgi_pass uwsgi://app:9; }", &["/ -> app(app:9?)"]);
    server("location / { scgi_pass 127.0.0.1:9; }", &["/ -> 127.0.0.1(127.0.0.1:9)"]);
    server("location / { memcached_pass m:11211; }", &["/ -> m(m:11211?)"]);
    // What nginx refuses leads nowhere.
    server("location / { fastcgi_pass app; }", &["/ -> "]);
    server("location / { proxy_pass app:80; }", &["/ -> "]);
    // Blocks in blocks.
    server(
        r"location /a { location ~ \.php$ { if ($x = y) { proxy_pass http://a; } limit_except GET { proxy_pass http://b; } } }",
        &[r"/a > ~ \.php$ > if ($x = y) -> a(a:80?)", r"/a > ~ \.php$ > limit_except GET -> b(b:80?)"],
    );
    // Variables that the configuration fills.
    check(
        "upstream blue { server 10.0.0.1; } upstream green { server 10.0.0.2; }
         map $cookie_c $to { default blue; ~^g green; }
         server { location / { proxy_pass http://$to$request_uri; } }",
        &["/ -> blue(10.0.0.1:80), green(10.0.0.2:80)"],
    );
    check(
        "split_clients $remote_addr $to { 50% a; * b:81; } geo $net { default 10.0.0.9; 10.0.0.0/8 $; }
         server { location / { proxy_pass http://$to; } location /g { proxy_pass http://$net:1/; } }",
        &["/ -> a(a:80? followed), b(b:81? followed)", "/g -> 10.0.0.9(10.0.0.9:1)"],
    );
    check(
        "map $a $b { default $c; } map $a $c { default app; } server { location / { proxy_pass http://$b; } }",
        &["/ -> app(app:80? followed)"],
    );
    // The nearest assignment counts, where it is made for each request.
    server(
        "set $to a; location / { set $to b; proxy_pass http://$to; } location /i { if ($x) { set $to c; } proxy_pass http://$to; }",
        &["/ -> b(b:80? followed)", "/i -> c(c:80? followed), a(a:80? followed)"],
    );
    server(
        "location /from { set $to a; rewrite ^ /to last; } location /to { proxy_pass http://$to; }",
        &["/to -> a(a:80? followed)"],
    );
    // A host that is named without variables as well is that upstream.
    server(
        "location /v { set $to app; proxy_pass http://$to:80; } location / { proxy_pass http://app; }",
        &["/v -> app(app:80?)", "/ -> app(app:80?)"],
    );
    // Variables that only a request fills.
    server("location / { proxy_pass http://$host/x; }", &["/ ->  or http://$host/x"]);
    server("location / { proxy_pass http://app$arg_x; }", &["/ ->  or http://app$arg_x"]);
    server("location / { proxy_pass http://app$is_args$args; }", &["/ -> app(app:80? followed)"]);
    server("location / { proxy_pass http://app/$arg_x; }", &["/ -> app(app:80? followed)"]);
    server("set $a $a; location / { proxy_pass $a; }", &["/ ->  or $a"]);
}

#[test]
fn whatever_assigns_a_variable_before_the_pass_counts() {
    let server = |text: &str, expected: &[&str]| {
        let routes = routes_of(&format!("http {{ server {{ {text} }} }}"));
        assert_eq!(shown(&routes), expected, "{text}");
    };
    // Names without regard to case.
    server("set $To a; location / { proxy_pass http://$tO; }", &["/ -> a(a:80? followed)"]);
    // What another location set, and passed on in a way that does not set again what the server sets.
    server(
        "set $to a; location /from { set $to b; rewrite ^ /to last; } location /to { proxy_pass http://$to; }",
        &["/to -> a(a:80? followed), b(b:80? followed)"],
    );
    server(
        "set $to a; location /from { set $to b; rewrite ^ /to redirect; } location /to { proxy_pass http://$to; }",
        &["/to -> a(a:80? followed)"],
    );
    server(
        "set $to a; location /from { set $to b; try_files $uri @to; } location @to { proxy_pass http://$to; }",
        &["@to -> a(a:80? followed), b(b:80? followed)"],
    );
    // What may not be reached.
    server(
        "set $to a; location / { if ($x) { break; } set $to b; proxy_pass http://$to; }",
        &["/ -> b(b:80? followed), a(a:80? followed)"],
    );
    // Code, captures, and what a subrequest sets in the variables of its request.
    let open = "http://$to";
    for text in [
        "set $to a; location / { access_by_lua_block { ngx.var.to = 'b' } proxy_pass http://$to; }",
        "set $to a; location / { access_by_lua_file pick.lua; proxy_pass http://$to; }",
        "set $to a; location / { auth_request_set $to $upstream_http_x; proxy_pass http://$to; }",
        "set $to a; location / { set_unescape_uri $to $arg_x; proxy_pass http://$to; }",
        r"set $to a; location ~ ^/(?<TO>a|b)/ { proxy_pass http://$to; }",
        r"set $to a; if ($http_x ~ (?P<to>b)) { } location / { proxy_pass http://$to; }",
    ] {
        let routes = routes_of(&format!("http {{ server {{ {text} }} }}"));
        assert_eq!(routes.routes[0].target.open, [open], "{text}");
        assert_eq!(routes.upstreams[0].name, "a", "{text}");
    }
    let asked = routes_of(
        "http { server { location / { set $to a; auth_request /auth; proxy_pass http://$to; } location = /auth { set $to b; } } }",
    );
    assert_eq!(asked.routes[0].target.open, [open]);
    // Code can assign what `set` made changeable, and nothing else.
    let mapped = routes_of(
        "http { map $host $to { default a; } server { location / { access_by_lua_block { x() } proxy_pass http://$to; } } }",
    );
    assert_eq!(mapped.routes[0].target.open, Vec::<String>::new());
}

#[test]
fn an_address_is_named_in_whatever_directive_it_stands() {
    let routes = routes_of(
        "http { upstream cache { server 10.0.0.5:6379; } upstream db { drizzle_server 10.0.0.6:3306 dbname=t; }
         upstream red { nchan_redis_server redis://10.0.0.7:8080; } upstream plus { zone plus 64k; }
         server { location /r { redis2_pass cache; } location /d { drizzle_pass db; } location /m { memc_pass 10.0.0.8:8080; }
           location /t { tunnel_pass 10.0.0.9:8080; } location /v { tunnel_pass; } location /s { proxy_pass $scheme://10.0.1.1:9; }
           location /n { proxy_pass http://10.0.1.2:$arg_p; } } }
         rtmp { server { application live { pull rtmp://10.0.1.3:8080/live static; } } }",
    );
    let expected = [
        "/r -> cache(10.0.0.5:6379)",
        "/d -> db(10.0.0.6:3306)",
        "/m -> 10.0.0.8(10.0.0.8:8080)",
        "/t -> 10.0.0.9(10.0.0.9:8080)",
        "/v ->  or $host:$request_port",
        "/s -> 10.0.1.1(10.0.1.1:9)",
        "/n ->  or http://10.0.1.2:$arg_p",
    ];
    assert_eq!(shown(&routes), expected);
    let names = AddressNames::new(&routes, &HashMap::new());
    let check = |address: &str, expected: Option<&str>| {
        let found = names.find(&address.parse().unwrap()).map(|named| named.upstream.as_str());
        assert_eq!(found, expected, "{address}");
    };
    check("10.0.0.7:8080", Some("red"));
    check("10.0.1.2:1", Some("10.0.1.2"));
    check("10.0.1.2:65535", Some("10.0.1.2"));
    check("10.0.1.3:8080", Some("pull"));
    check("10.0.1.4:8080", None);
    let more: Vec<_> =
        routes.upstreams.iter().filter(|one| one.has_more_peers).map(|one| &*one.name).collect();
    assert_eq!(more, ["plus"]);
}

#[test]
fn what_code_may_have_chosen_has_its_upstreams_name_too() {
    let names = |led: &str| {
        let routes = routes_of(&format!(
            "http {{ upstream dyn {{ server 0.0.0.1; balancer_by_lua_block {{ x() }} }} upstream web {{ server 10.0.0.9:80; }}
             server {{ location / {{ proxy_pass http://web; }} location /d {{ proxy_pass http://{led}; }} }} }}"
        ));
        let names = AddressNames::new(&routes, &HashMap::new());
        ["10.0.0.9:80", "0.0.0.1:80"]
            .map(|address| names.find(&address.parse().unwrap()).unwrap().upstream.clone())
    };
    assert_eq!(names("dyn"), ["web,dyn", "dyn"]);
    assert_eq!(names("web"), ["web", "dyn"]);
}

#[test]
fn a_stream_server_needs_ports_and_may_take_datagrams() {
    let routes = routes_of(
        "stream { upstream db { server 10.0.0.5:5432; server 10.0.0.6; }
         server { listen 1; proxy_pass db; } server { listen 2 udp; proxy_pass 10.0.0.7:53; } }",
    );
    assert_eq!(shown(&routes), [" -> db(10.0.0.5:5432)", " -> 10.0.0.7(10.0.0.7:53)"]);
    assert_eq!(routes.servers.iter().map(|server| server.is_udp).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_is_in_force_at_a_route_is_inherited() {
    let routes = routes_of(
        "http { proxy_connect_timeout 1m 30s; resolver 10.0.0.53 valid=5s;
         server { location / { proxy_pass http://a; } fastcgi_connect_timeout 2;
           location /b { proxy_connect_timeout 500ms; resolver off; proxy_pass http://b;
             if ($x) { proxy_pass http://c; } }
           location /d { fastcgi_pass d:9; } location /e { grpc_pass e:1; } } }",
    );
    let times: Vec<_> = routes.routes.iter().map(|route| route.connect_timeout_ms).collect();
    assert_eq!(times, [60_000, 500, 500, 2_000, 60_000], "two arguments are no time to nginx");
    let resolvers: Vec<_> =
        routes.routes.iter().map(|route| route.resolver.as_ref().and_then(|one| one.valid_ms)).collect();
    assert_eq!(resolvers, [Some(5_000), None, None, Some(5_000), Some(5_000)]);
    let others: Vec<_> =
        routes.others.iter().map(|other| (other.name.as_str(), endpoint(&other.endpoint))).collect();
    assert_eq!(others, [("resolver", "10.0.0.53:53".to_owned())]);
}

#[test]
fn what_can_be_told_of_answers_follows_from_the_routes() {
    let routes = routes_of(
        "http { proxy_read_timeout 30s; upstream kept { server 10.0.0.1:80; keepalive 8; } upstream plain { server 10.0.0.2:80; }
         upstream off { server 10.0.0.11:80; keepalive 0; }
         server { location / { proxy_pass http://kept; }
           location /b { proxy_read_timeout 5s; proxy_pass http://kept; }
           location /c { proxy_pass https://plain; }
           location /ws { proxy_set_header Upgrade $http_upgrade; proxy_pass http://10.0.0.3; location /ws/in { proxy_pass http://10.0.0.4; }
             location /ws/out { proxy_set_header Host x; proxy_pass http://10.0.0.5; } }
           location /f { fastcgi_read_timeout 1m; fastcgi_pass 10.0.0.6:9000; } location /g { grpc_pass grpcs://10.0.0.7:443; }
           location /u { proxy_request_buffering off; proxy_pass http://10.0.0.8; }
           location /uf { proxy_request_buffering off; fastcgi_pass 10.0.0.14:9000; }
           location /ut { proxy_request_buffering off; proxy_pass https://10.0.0.12; }
           location /u2 { proxy_request_buffering off; proxy_http_version 2; proxy_pass http://10.0.0.13; }
           location /off { proxy_pass http://off; } location /plain { proxy_pass http://plain; }
           location /h2 { proxy_http_version 2; proxy_pass http://10.0.0.9; } } }
         stream { server { listen 1; proxy_pass 10.0.0.10:25; } server { listen 2; proxy_pass 10.0.0.2:80; } }",
    );
    let check = |keeps_by_default: bool, expected: &[(&str, &[u32], &str)]| {
        let routes = Routes { keeps_by_default, ..routes.clone() };
        let peer_settings = SettingsByPeer::new(&routes, &HashMap::new());
        let (of_others, own) = peer_settings.for_kernel(Duration::from_secs(60));
        let own: HashMap<String, abi::PeerSettings> =
            own.map(|(address, peer_settings)| (address.to_string(), peer_settings)).collect();
        for (address, read_timeouts_s, flags) in expected {
            let peer_settings = own.get(*address).unwrap_or(&of_others);
            let known: Vec<u32> =
                peer_settings.read_timeouts_ms.iter().filter(|ms| **ms > 0).map(|ms| ms / 1000).collect();
            let letters = [
                (abi::PeerSettings::REQUESTS, 'r'),
                (abi::PeerSettings::TLS, 't'),
                (abi::PeerSettings::UNORDERED, 'u'),
                (abi::PeerSettings::ENDS, 'e'),
                (abi::PeerSettings::STREAMED, 's'),
            ];
            let said: String = letters
                .iter()
                .filter(|(flag, _)| peer_settings.flags & flag != 0)
                .map(|(_, letter)| *letter)
                .collect();
            assert_eq!((known.as_slice(), said.as_str()), (*read_timeouts_s, *flags), "{address}");
        }
    };
    check(
        false,
        &[
            ("10.0.0.1:80", &[5, 30], "r"),
            // One of its routes is a stream's.
            ("10.0.0.2:80", &[30], "te"),
            ("10.0.0.3:80", &[30], "rue"),
            ("10.0.0.4:80", &[30], "rue"),
            ("10.0.0.5:80", &[30], "re"),
            ("10.0.0.6:9000", &[60], "re"),
            ("10.0.0.7:443", &[60], "rtue"),
            ("10.0.0.8:80", &[30], "rues"),
            ("10.0.0.9:80", &[30], "rue"),
            // Something of TLS or HTTP/2 has to come first.
            ("10.0.0.12:443", &[30], "rtue"),
            ("10.0.0.13:80", &[30], "rue"),
            ("10.0.0.14:9000", &[60], "re"),
            ("10.0.0.10:25", &[], "e"),
            ("10.0.0.11:80", &[30], "re"),
        ],
    );
    check(
        true,
        &[
            ("10.0.0.2:80", &[30], "t"),
            // Hosts that routes name themselves.
            ("10.0.0.5:80", &[30], "re"),
            ("10.0.0.7:443", &[60], "rtue"),
            ("10.0.0.10:25", &[], "e"),
            ("10.0.0.11:80", &[30], "re"),
        ],
    );
}

#[test]
fn parameters_of_peers_are_kept() {
    let routes = routes_of(
        "http { upstream a { server 10.0.0.1 weight=3 max_fails=0 fail_timeout=1m backup; server b resolve down; } }",
    );
    let [one, other] = routes.upstreams[0].peers.as_slice() else { panic!("{routes:?}") };
    assert_eq!((one.weight, one.backup, one.down, one.resolve), (3, true, false, false));
    assert_eq!((other.weight, other.backup, other.down, other.resolve), (1, false, true, true));
    assert_eq!(
        (one.place.as_str(), routes.is_followed(), routes.is_open(&HashMap::new())),
        ("n:1", true, false)
    );
}

#[test]
fn what_srv_records_and_a_state_file_name_are_peers_too() {
    let check = |server: &str, expected: &str| {
        let routes = routes_of(&format!(
            "http {{ upstream a {{ server {server}; }} server {{ location / {{ proxy_pass http://a; }} }} }}"
        ));
        assert_eq!(shown(&routes), [format!("/ -> a({expected})")], "{server}");
    };
    check("App.test service=http resolve", "_http._tcp.app.test by SRV followed");
    check("app.test service=_http._tcp resolve", "_http._tcp.app.test by SRV followed");
    check("app.test service=one.web resolve", "one.web.app.test by SRV followed");
    // What nginx refuses.
    check("app.test:80 service=http resolve", "");
    check("10.0.0.5 service=http resolve", "");
    check("app.test service= resolve", "");

    let routes = routes_of("http { upstream a { server app.test service=http resolve; } }");
    let (srv, none) = ("_http._tcp.app.test".to_owned(), HashMap::new());
    assert_eq!((routes.hosts().count(), routes.is_followed(), routes.is_open(&none)), (0, true, true));
    let of_names =
        HashMap::from([(srv, vec!["10.0.0.5:8080".parse().unwrap(), "10.0.0.6:81".parse().unwrap()])]);
    assert!(!routes.is_open(&of_names), "all that nginx connects to is known");
    let names = AddressNames::new(&routes, &of_names);
    let declared: Vec<_> =
        names.declared().map(|(upstream, address)| format!("{upstream} {address}")).collect();
    assert_eq!(declared, ["a 10.0.0.5:8080", "a 10.0.0.6:81"]);

    let routes = routes_of("http { upstream a { zone z 1m; state /var/lib/nginx/a.state; } }");
    assert!(routes.is_open(&none), "peers can be set while nginx runs");
}

#[test]
fn mail_has_a_name_for_whom_it_asks_and_connects_where_the_answer_says() {
    let routes = routes_of(
        "mail { auth_http 10.0.0.5:9000/a; resolver 10.0.0.53;
         server { listen 143; protocol imap; auth_http http://Auth.test/b; } }",
    );
    let others: Vec<_> =
        routes.others.iter().map(|other| (other.name.as_str(), endpoint(&other.endpoint))).collect();
    let expected =
        [("auth_http", "10.0.0.5:9000"), ("resolver", "10.0.0.53:53"), ("auth_http", "auth.test:80?")];
    assert_eq!(others, expected.map(|(name, at)| (name, at.to_owned())));
    assert!(routes.is_open(&HashMap::new()));
    assert!(!routes_of("mail { }").is_open(&HashMap::new()));
}

#[test]
fn an_address_has_the_names_of_all_that_use_it() {
    let routes = routes_of(
        "http { upstream a { server app:80; } upstream b { server 10.0.0.5; } upstream c { server 10.0.0.5; }
         upstream d { server 10.0.0.5; } resolver 10.0.0.53;
         server { location / { proxy_pass http://a; } proxy_connect_timeout 5; location /b { proxy_connect_timeout 1; proxy_pass http://b; } } }",
    );
    assert_eq!(routes.hosts().collect::<Vec<_>>(), ["app"]);
    let ips: Vec<SocketAddr> = vec!["10.0.0.5:0".parse().unwrap(), "[2001:db8::5]:0".parse().unwrap()];
    let names = AddressNames::new(&routes, &HashMap::from([("app".to_owned(), ips)]));
    let check = |address: &str, expected: Option<(&str, Option<u64>)>| {
        let found = names.find(&address.parse().unwrap());
        let found = found.map(|named| (&*named.upstream, named.connect_timeout.map(|time| time.as_secs())));
        assert_eq!(found, expected, "{address}");
    };
    check("10.0.0.5:80", Some(("a,b,c,d", Some(1))));
    check("[2001:db8::5]:80", Some(("a", Some(5))));
    check("10.0.0.53:53", Some(("resolver", None)));
    check("10.0.0.5:81", None);
    // The resolver has a name, and is no upstream.
    assert_eq!(names.declared().count(), 5);
}

#[test]
fn variables_that_grow_without_bound_end_soon() {
    let grown: String = (0..15)
        .map(|n| {
            format!(
                "map $x $v{n} {{ default {0}; a $v{1}; c $v{1}_; d e; }}",
                format!("$v{}", n + 1).repeat(500),
                n + 1
            )
        })
        .collect();
    // The time of this thread, not of a machine on which others work too.
    let spent = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let time_for = |count: usize| {
        let locations: String =
            (0..count).map(|n| format!("location /{n} {{ proxy_pass http://$v0; }}")).collect();
        let start = spent();
        let routes = routes_of(&format!("http {{ {grown} server {{ {locations} }} }}"));
        assert!(routes.is_open(&HashMap::new()));
        assert_eq!(routes.routes.len(), count);
        spent() - start
    };
    // One by itself would never end, and all of them share what there is.
    let (few, many) = (time_for(5), time_for(500));
    assert!(many < few * 2, "{few:?} for 5, {many:?} for 500");
}
