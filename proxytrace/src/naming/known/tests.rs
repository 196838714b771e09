//! What addresses are called, by answers about their names.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Configuration, Found, FoundName, Hosts, KnownConfig, Lookup, MAX_ADDRESSES_OF_NAME, Owner, Resolved,
};
use crate::{nginx::tests::routes_of, reader::tests::time_of_thread};

fn known(text: &str, hosts: &[(&str, &[&str])]) -> KnownConfig {
    let configuration = Configuration {
        path: "/etc/nginx/nginx.conf".into(),
        exe: "/usr/sbin/nginx".into(),
        routes: Arc::new(routes_of(text)),
        changed: None,
        resolved: HashMap::new(),
    };
    let mut known = KnownConfig::new(configuration, Owner::UNKNOWN, 0);
    look_up(&mut known, hosts);
    known
}

/// All that is due is looked up; what is not among these hosts gets no answer.
fn look_up(known: &mut KnownConfig, hosts: &[(&str, &[&str])]) -> bool {
    let due = known.due();
    known.note_asked(&due);
    let found = hosts.iter().map(|(key, ips)| found(key, ips)).collect();
    known.update(Resolved { found, ..Resolved::default() })
}

fn found(key: &str, ips: &[&str]) -> FoundName {
    let addresses = ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect();
    FoundName { key: key.to_owned(), addresses, ttl_seconds: Some(1), is_of_file: false }
}

/// The proxy's names are known as they were so long ago.
fn wait(known: &mut KnownConfig, seconds: u64) {
    known.hosts.age(Duration::from_secs(seconds));
    let first = known.unmatched.values_mut();
    first.for_each(|first| *first -= Duration::from_secs(seconds));
}

#[track_caller]
fn check(known: &mut KnownConfig, address: &str, expected: &str) {
    known.note_unmatched(&address.parse().unwrap());
    check_now(known, address, expected);
}

#[track_caller]
fn check_now(known: &mut KnownConfig, address: &str, expected: &str) {
    let parsed = address.parse().unwrap();
    let found = match known.find(&parsed) {
        Found::Named(name) => name,
        Found::Pending => "(pending)",
        Found::Open => "(open)",
        Found::Undeclared => "(undeclared)",
    };
    assert_eq!(found, expected, "{address}");
}

#[test]
fn an_address_has_the_name_that_the_configuration_gives_it_or_none() {
    let mut plain =
        known("http { upstream api { server 10.0.0.5:8080; server app:81; } }", &[("app", &["10.0.0.6"])]);
    check(&mut plain, "10.0.0.5:8080", "api");
    check(&mut plain, "10.0.0.6:81", "api");
    check(&mut plain, "10.0.0.5:8081", "(undeclared)");
    let mut open = known("http { server { location / { proxy_pass http://$arg_to; } } }", &[]);
    check(&mut open, "10.0.0.5:80", "(open)");
}

#[test]
fn until_host_names_are_looked_up_only_what_is_written_as_an_address_has_a_name() {
    let text = "http { upstream api { server 10.0.0.5:8080; server app:81; } upstream web { server web:81; server web:82; } }";
    let mut known = known(text, &[]);
    known.hosts = Hosts::new(Instant::now(), &routes_of(text));
    check(&mut known, "10.0.0.5:8080", "api");
    check(&mut known, "10.0.0.6:81", "(pending)");
    check(&mut known, "10.0.0.6:82", "web");
    assert!(look_up(&mut known, &[("app", &["10.0.0.6"])]));
    check(&mut known, "10.0.0.6:81", "api");
    check(&mut known, "10.0.0.6:83", "(undeclared)");
}

#[test]
fn at_the_port_of_a_name_an_address_is_that_names_as_the_proxy_may_have_got_another_answer() {
    let mut one = known("http { upstream api { server app:81; } }", &[("app", &["10.0.0.6"])]);
    check(&mut one, "10.0.0.7:81", "api");
    check(&mut one, "10.0.0.7:82", "(undeclared)");
    let two = "http { upstream api { server app:81; server b.app:81; } upstream web { server web:81; } }";
    let mut two = known(two, &[("app", &["10.0.0.6"]), ("b.app", &["10.0.0.5"]), ("web", &["10.0.0.8"])]);
    check(&mut two, "10.0.0.7:81", "(pending)");
    wait(&mut two, 11);
    check(&mut two, "10.0.0.7:81", "(open)");
    let mut open = known(
        "http { upstream api { server app:81; } server { location / { proxy_pass http://$arg_to; } } }",
        &[("app", &["10.0.0.6"])],
    );
    check(&mut open, "10.0.0.6:81", "api");
    wait(&mut open, 11);
    check(&mut open, "10.0.0.7:81", "(pending)");
    wait(&mut open, 11);
    check(&mut open, "10.0.0.7:81", "(open)");
}

#[test]
fn of_several_names_at_a_port_it_is_the_one_that_had_the_address_in_a_look_up() {
    let text = "http { upstream api { server app:81; } upstream web { server web:81; } }";
    let mut known = known(text, &[("app", &["10.0.0.6"]), ("web", &["10.0.0.8"])]);
    check(&mut known, "10.0.0.7:81", "(pending)");
    wait(&mut known, 61);
    assert!(look_up(&mut known, &[("app", &["10.0.0.7"]), ("web", &["10.0.0.8"])]), "it is another now");
    check(&mut known, "10.0.0.7:81", "api");
    check(&mut known, "10.0.0.6:81", "api");
    assert_eq!(known.configuration.resolved["app"], ["10.0.0.6:0".parse().unwrap()], "as the proxy took it");
}

#[test]
fn a_host_that_nobody_answered_for_has_the_addresses_at_its_port() {
    let mut one = known("http { upstream api { server app:81; } }", &[]);
    check(&mut one, "10.0.0.6:81", "api");
    check(&mut one, "10.0.0.6:82", "(undeclared)");
    let text = "http { upstream api { server app:81; } upstream web { server web:81; } }";
    let mut two = known(text, &[("web", &["10.0.0.8"])]);
    check(&mut two, "10.0.0.6:81", "api");
    let mut none = known(text, &[]);
    wait(&mut none, 11);
    check(&mut none, "10.0.0.6:81", "(pending)");
    wait(&mut none, 11);
    check(&mut none, "10.0.0.6:81", "(open)");
}

#[test]
fn a_reload_goes_on_with_what_followed_names_were_and_looks_the_others_up_anew() {
    let text = "http { resolver 127.0.0.1; upstream api { server app:81; }
        upstream web { zone z 1m; server web:82 resolve; } upstream own { zone y 1m; resolver 127.0.0.2; server web:83 resolve; } }";
    let all: [(&str, &[&str]); 3] =
        [("app", &["10.0.0.6"]), ("web@127.0.0.1:53", &["10.0.0.8"]), ("web@127.0.0.2:53", &["10.0.0.9"])];
    let older = known(text, &all);
    let mut newer = known(text, &[]);
    newer.hosts = Hosts::new(Instant::now(), &routes_of(text));
    newer.configuration.resolved.clear();
    newer.inherit(&older);
    assert!(newer.is_complete() && newer.due().is_empty(), "its answers hold for a second");
    for (address, name) in [("10.0.0.6:81", "api"), ("10.0.0.8:82", "web"), ("10.0.0.9:83", "own")] {
        check(&mut newer, address, name);
    }
    wait(&mut newer, 1);
    assert_eq!(newer.due().iter().map(Lookup::key).collect::<Vec<_>>(), ["app"]);
    look_up(&mut newer, &[("app", &["10.0.0.7"])]);
    assert_eq!(newer.configuration.resolved["app"], ["10.0.0.7:0".parse().unwrap()]);
    wait(&mut newer, 100);
    look_up(&mut newer, &[]);
    check(&mut newer, "10.0.0.8:82", "web");
}

#[test]
fn where_a_configuration_leads_to_what_it_does_not_list_nothing_is_undeclared() {
    for upstream in
        ["server app.test service=http resolve;", "zone z 1m; state a.state;", "balancer_by_lua_file a;"]
    {
        let mut known = known(&format!("http {{ upstream api {{ {upstream} }} }}"), &[]);
        known.note_unmatched(&"10.0.0.5:80".parse().unwrap());
        wait(&mut known, 11);
        check_now(&mut known, "10.0.0.5:80", "(open)");
    }
    let mut mail = known("mail { auth_http 10.0.0.5:9000/a; server { listen 143; protocol imap; } }", &[]);
    check(&mut mail, "10.0.0.5:9000", "auth_http");
    check(&mut mail, "10.0.0.6:143", "(open)");
}

#[test]
fn an_address_of_a_followed_name_is_judged_by_a_lookup_that_is_begun_later() {
    let text =
        "http { resolver 127.0.0.1; server { set $app app.test; location / { proxy_pass http://$app:81; }
        location /b { set $web web.test; proxy_pass http://$web:81; } } }";
    let answer = |app: &'static str| -> Vec<(&str, Vec<&str>)> {
        vec![("app.test@127.0.0.1:53", vec![app]), ("web.test@127.0.0.1:53", vec!["10.0.0.9"])]
    };
    let turn = |known: &mut KnownConfig, app: &'static str| {
        let answer = answer(app);
        let hosts: Vec<(&str, &[&str])> = answer.iter().map(|(key, ips)| (*key, &**ips)).collect();
        look_up(known, &hosts)
    };
    let mut known = known(text, &[]);
    wait(&mut known, 100);
    assert!(turn(&mut known, "10.0.0.5"), "they are new");
    check(&mut known, "10.0.0.5:81", "app.test");
    check(&mut known, "10.0.0.6:81", "(pending)");
    wait(&mut known, 2);
    assert!(turn(&mut known, "10.0.0.6"), "an address is new");
    check(&mut known, "10.0.0.6:81", "app.test");
    // What it was before, it stays.
    check(&mut known, "10.0.0.5:81", "app.test");
    check(&mut known, "10.0.0.7:81", "(pending)");
    wait(&mut known, 2);
    assert!(!turn(&mut known, "10.0.0.6"), "nothing new");
    check(&mut known, "10.0.0.7:81", "(open)");
    check(&mut known, "10.0.0.7:82", "(undeclared)");
}

/// What 8 times as much takes may be so many times as much: 8, and some more on a machine that has other things to do.
const LINEAR: u32 = 8 * 5;

#[track_caller]
fn check_is_linear(what: &str, time: impl Fn(usize) -> Duration) {
    let (few, many) = (time(500), time(4_000));
    assert!(many < few * LINEAR, "{what}: {few:?}, with 8 times as much {many:?}");
}

/// Upstreams of one host name and of one address each, and all of them of one more address.
fn many(count: usize) -> KnownConfig {
    let mut text = "http { resolver 127.0.0.1; ".to_owned();
    for n in 0..count {
        let (high, low) = (n / 250, n % 250);
        write!(
            text,
            "upstream u{n} {{ zone u{n} 1m; server h{n}.test:81 resolve; server 10.0.{high}.{low}:80; server 10.9.9.9:80; }} "
        )
        .unwrap();
    }
    text.push('}');
    known(&text, &[])
}

#[test]
fn to_find_an_address_takes_no_longer_in_a_large_configuration() {
    check_is_linear("finding what is not there", |count| {
        let mut known = many(count);
        let start = time_of_thread();
        for n in 0..count {
            let address = format!("10.1.{}.{}:99", n / 250, n % 250);
            check(&mut known, &address, "(undeclared)");
        }
        time_of_thread() - start
    });
}

#[test]
fn what_names_resolve_to_is_taken_in_linear_time() {
    check_is_linear("indexing", |count| {
        let start = time_of_thread();
        let _ = many(count);
        time_of_thread() - start
    });
    check_is_linear("taking addresses", |count| {
        let mut known = many(count);
        wait(&mut known, 100);
        let due = known.due();
        known.note_asked(&due);
        let found = due.iter().map(|lookup| found(&lookup.key(), &["10.0.0.1"])).collect();
        let start = time_of_thread();
        assert!(known.update(Resolved { found, ..Resolved::default() }));
        time_of_thread() - start
    });
}

#[test]
fn of_a_name_that_always_has_other_addresses_the_newest_are_remembered() {
    let text = "http { resolver 127.0.0.1; upstream a { zone z 1m; server app.test:80 resolve; } }";
    let mut known = known(text, &[]);
    let key = "app.test@127.0.0.1:53";
    let addresses = |from: u32| -> Vec<SocketAddr> {
        let ip = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n);
        (from..from + 1000).map(|n| SocketAddr::new(ip(n).into(), 0)).collect()
    };
    for round in 0..10 {
        let found = FoundName { addresses: addresses(round * 1000), ..found(key, &[]) };
        known.update(Resolved { found: vec![found], ..Resolved::default() });
    }
    let all = &known.configuration.resolved[key];
    assert_eq!(all.len(), MAX_ADDRESSES_OF_NAME);
    assert!(all.ends_with(&addresses(9000)));
}
