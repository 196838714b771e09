//! Requests through the real nginx go where the configuration was read to send them.

use std::process::Stdio;

use proxytrace_tests::child::Captured;
use proxytrace_tests::netns::Netns;
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::{proxytrace, wait};
use serde_json::Value;

/// Locations, each with the path that is asked for, and all the ports that it can lead to.
const ROWS: &[(&str, &str, &[u16])] = &[
    ("= /block", "/block", &[9001]),
    ("/case", "/case", &[9001]),
    ("/host", "/host", &[9002]),
    ("/v6", "/v6", &[9003]),
    ("/map", "/map", &[9001, 9004]),
    ("/map", "/map?blue", &[9001, 9004]),
    ("/within", "/within", &[9001, 9004]),
    ("/split", "/split", &[9001, 9004]),
    ("/geo", "/geo", &[9005, 9006]),
    ("/set", "/set", &[9004]),
    ("/maybe", "/maybe", &[9001, 9004]),
    ("/maybe", "/maybe?blue", &[9001, 9004]),
    ("/outer > /outer/inner", "/outer/inner", &[9001]),
    ("/to", "/from", &[9002, 9004]),
    ("@fallback", "/fallback", &[9005]),
    ("/uri", "/uri?q", &[9004]),
    ("/port", "/port", &[9006]),
    ("/if", "/if", &[9001]),
    ("/if > if ($args = blue)", "/if?blue", &[9004]),
    (r"~ \.php$", "/a.php", &[9002]),
    ("/limited", "/limited", &[9004]),
    ("/mirrored", "/mirrored", &[9001]),
    ("/asked", "/asked", &[9004]),
    ("/cased", "/cased", &[9004]),
    ("@tried", "/tried", &[9001, 9004]),
    ("^~ /first", "/first.php", &[9001]),
    ("/nested/", "/nested/a", &[9001]),
    (r"/nested/ > ~ \.x$", "/nested/a.x", &[9004]),
    ("/either", "/either", &[9002, 9006]),
    ("/either", "/either?a", &[9002, 9006]),
    ("= /exact", "/exact", &[9004]),
    ("/exact", "/exact/a", &[9001]),
];

const FRONT: &str = r"
    set $far green;
    location = /block { proxy_pass http://green; }
    location /case { proxy_pass http://GREEN/x; }
    location /host { proxy_pass http://127.0.0.1:9002/; }
    location /v6 { proxy_pass http://[::1]:9003; }
    location /map { proxy_pass http://$mapped; }
    location /within { proxy_pass http://$within; }
    location /split { proxy_pass http://$split; }
    location /geo { proxy_pass http://127.0.0.1:$geo; }
    location /set { set $far blue; proxy_pass http://$far; }
    location /maybe { if ($args = blue) { set $far blue; } proxy_pass http://$far; }
    location /outer { set $far blue; location /outer/inner { proxy_pass http://$far; } }
    location /from { set $near blue; rewrite ^ /to last; }
    location /other { set $near 127.0.0.1:9002; rewrite ^ /to last; }
    location /to { proxy_pass http://$near; }
    location /fallback { error_page 418 = @fallback; return 418; }
    location @fallback { proxy_pass http://127.0.0.1:9005; }
    location /uri { proxy_pass http://blue$request_uri; }
    location /port { set $host_only 127.0.0.1; proxy_pass http://$host_only:9006; }
    location /if { if ($args = blue) { proxy_pass http://blue; } proxy_pass http://green; }
    location ~ \.php$ { proxy_pass http://127.0.0.1:9002; }
    location /limited { limit_except GET { proxy_pass http://green; } proxy_pass http://blue; }
    location /mirrored { mirror /copy; proxy_pass http://green; }
    location = /copy { internal; proxy_pass http://blue; }
    location /asked { auth_request /ask; proxy_pass http://blue; }
    location = /ask { internal; proxy_pass http://green; }
    location /cased { set $Cased blue; proxy_pass http://$cASED; }
    location /tried { try_files /none @tried; }
    location @tried { proxy_pass http://$far; }
    location ^~ /first { proxy_pass http://green; }
    location /nested/ { location ~ \.x$ { proxy_pass http://blue; } proxy_pass http://green; }
    location /either { set $in 9002; if ($args) { set $in 9006; } proxy_pass http://127.0.0.1:$in; }
    location = /exact { proxy_pass http://blue; }
    location /exact { proxy_pass http://green; }
";

const COMMON: &str = r#"
    upstream green { server 127.0.0.1:9001; }
    upstream blue { server 127.0.0.1:9004; }
    map $args $mapped { default green; ~blue blue; }
    map $args $within { default $mapped; }
    split_clients $request_id $split { 50% green; * blue; }
    geo $geo { default 9005; 192.0.2.0/24 9006; }
"#;

/// The ports that a location can lead to, by `/routes`.
fn ports_of(page: &Value, location: &str) -> Vec<u16> {
    let parts: Vec<_> = location.split(" > ").collect();
    let route = list(&page["routes"]).iter().find(|route| route["location"] == serde_json::json!(parts));
    let addresses = addresses_of(page, route.unwrap_or_else(|| panic!("no {location} in {page}")));
    let mut ports: Vec<u16> =
        addresses.iter().filter_map(|address| address.rsplit_once(':')?.1.parse().ok()).collect();
    ports.sort_unstable();
    ports
}

/// The addresses that a route can lead to, by `/routes` of its proxy.
pub(crate) fn addresses_of<'a>(page: &'a Value, route: &'a Value) -> Vec<&'a str> {
    let indexes = list(&route["upstreams"]).iter().filter_map(Value::as_u64);
    let peers = indexes.flat_map(|index| list(&page["upstreams"][index as usize]["peers"]));
    peers.flat_map(|peer| list(&peer["addresses"])).filter_map(Value::as_str).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// All that nginx's configuration routes, as `check` reports it next to an empty configuration: one line for each place.
pub(crate) fn changes_by_check(netns: &Netns, nginx: &Nginx) -> Vec<String> {
    let config = nginx.command().get_args().last().expect("the configuration").to_owned();
    let empty = tempfile::NamedTempFile::new().expect("an empty configuration");
    let mut command = proxytrace::command();
    command.args(["check", "--format", "json", "--against"]).arg(empty.path()).arg(config);
    let mut child = netns.spawn(command.stdout(Stdio::piped()));
    let mut stdout = Captured::from(child.inner().stdout.take().expect("a pipe"));
    child.wait(wait::SOON);
    let report: Value = serde_json::from_str(&stdout.whole()).expect("a report");
    list(&report["changes"]["routes"]).iter().filter_map(Value::as_str).flat_map(by_place).collect()
}

/// `check` reports places with the same change in one line: `server A: /x, /y; server B: /z → …`.
fn by_place(change: &str) -> Vec<String> {
    let Some((places, targets)) = change.split_once(" → ") else { return vec![change.to_owned()] };
    let locations = places.split("; ").flat_map(|place| {
        // Without a location it is the server.
        let (server, locations) = place.split_once("): ").unwrap_or((place.trim_end_matches(')'), "all"));
        locations.split(", ").map(move |location| format!("{server}): {location} → {targets}"))
    });
    locations.collect()
}

#[test]
fn each_request_goes_where_the_configuration_was_read_to_send_it() {
    let netns = Netns::new();
    let backend = |port: u16| {
        let host = if port == 9003 { "[::1]" } else { "127.0.0.1" };
        format!("server {{ listen {host}:{port}; location / {{ return 200 {port}; }} }}\n")
    };
    let backends: String = (9001..=9006).map(backend).collect();
    let nginx = Nginx::start(&netns, &format!("{COMMON}{backends}{}", server(FRONT)));
    let changes = changes_by_check(&netns, &nginx);

    let agent = Agent::start(&["--process", nginx.name()]);
    let page: Value = serde_json::from_str(&agent.get("/routes").body).expect("JSON");
    agent.stop();

    for (location, path, ports) in ROWS {
        assert_eq!(ports_of(&page[0], location), *ports, "/routes of {location}: {page}");
        // To `check` an `if` is a part of its location, and what a variable holds is said of the map that makes it.
        let place = location.split(" > if ").next().unwrap_or(location);
        let line = changes.iter().find(|line| line.contains(&format!("): {place} → ")));
        let line = line.unwrap_or_else(|| panic!("{location}: {changes:#?}"));
        if place == *location && !line.contains('$') {
            let ports_named: Vec<u16> =
                (9001..=9006).filter(|port| line.contains(&format!(":{port}"))).collect();
            assert_eq!(ports_named, *ports, "{line}");
        }
        let answer = nginx.fetch(path);
        let went: u16 =
            answer.body.trim().parse().unwrap_or_else(|_| panic!("{path}: {answer:?} {}", nginx.error_log()));
        assert!(ports.contains(&went), "{path} went to {went}: {line}");
    }
}
