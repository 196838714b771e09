//! `proxytrace check --probe`: what nginx's workers would meet at the addresses of a configuration.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use proxytrace_tests::child::run;
use proxytrace_tests::{skip, wait};
use serde_json::Value;

use crate::check::Place;

/// An nginx of one process, which ends with whoever started it.
const ALONE: &str = "daemon off; master_process off;";

/// What came of each address, and the report.
fn outcomes(place: &Place, arguments: &[&str], config: &str) -> (Vec<(String, String)>, Value) {
    let all = [&["--format", "json"], arguments, &[config]].concat();
    let (_, stdout, stderr) = place.check(&all);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    let text = |probe: &Value, key: &str| probe[key].as_str().expect("a text").to_owned();
    let probes = report["probes"].as_array().expect("probes");
    let outcomes = probes.iter().map(|probe| (text(probe, "address"), text(probe, "outcome"))).collect();
    (outcomes, report)
}

fn passing(target: &str) -> String {
    format!("http {{ server {{ listen 127.0.0.1:8080; location / {{ proxy_pass {target}; }} }} }}")
}

#[test]
fn a_name_is_looked_up_as_nginx_looks_it_up_where_there_is_no_ipv6() {
    let place = Place::new();
    place.netns().ip("addr add 192.0.2.1/24 dev lo");
    let config = place.write("nginx.conf", &passing("http://localhost:8001"));
    let _listener = place.netns().enter(|| TcpListener::bind("127.0.0.1:8001").expect("listen"));
    let (outcomes, report) = outcomes(&place, &["--probe"], &config);
    assert_eq!(outcomes, [("127.0.0.1:8001".to_owned(), "established".to_owned())], "{report}");
    assert!(place.nginx_says(&config).0);
}

#[test]
fn what_stands_in_for_peers_that_lua_chooses_is_not_probed() {
    let place = Place::new();
    let upstream = |choice: &str| {
        let text = format!(
            "http {{ upstream api {{ server 0.0.0.1; {choice} }} server {{ location / {{ proxy_pass http://api; }} }} }}"
        );
        place.write("nginx.conf", &text)
    };
    let config = upstream("balancer_by_lua_block { choose() }");
    let (found, report) = outcomes(&place, &["--probe"], &config);
    assert!(found.is_empty() && report["findings"].as_array().is_some_and(Vec::is_empty), "{report}");
    let (found, _) = outcomes(&place, &["--probe"], &upstream(""));
    assert_eq!(found.len(), 1);
}

#[test]
fn a_probe_has_the_rights_and_the_files_of_the_workers() {
    let place = Place::new();
    let path = place.path("app");
    let _listener = UnixListener::bind(&path).expect("listen");
    let config =
        place.write("nginx.conf", &format!("user www-data; {}", passing(&format!("http://unix:{path}"))));
    let mode = |mode: u32| fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set a mode");
    let address = format!("unix:{path}");
    mode(0o660);
    let (found, report) = outcomes(&place, &["--probe"], &config);
    assert_eq!(found, [(address.clone(), "permission_denied".to_owned())], "{report}");
    assert_eq!(report["probed_from"], "here as www-data");
    mode(0o666);
    let (found, _) = outcomes(&place, &["--probe"], &config);
    assert_eq!(found, [(address.clone(), "established".to_owned())]);

    // A master with files of its own: there the socket is not.
    let hidden = place.path("hidden");
    fs::create_dir(&hidden).expect("make a directory");
    fs::set_permissions(&hidden, Permissions::from_mode(0o755)).expect("open it");
    let socket = format!("{hidden}/app");
    let _other = UnixListener::bind(&socket).expect("listen");
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("set a mode");
    let config =
        place.write("nginx.conf", &format!("user www-data; {}", passing(&format!("http://unix:{socket}"))));
    let address = format!("unix:{socket}");
    let (found, _) = outcomes(&place, &["--probe"], &config);
    assert_eq!(found, [(address.clone(), "established".to_owned())]);
    let script = format!("mount -t tmpfs none {hidden} && exec nginx -c {config} -g 'daemon off;'");
    let mut master = place.netns().spawn(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    wait::until_true("nginx runs", wait::SOON, || Path::new(&place.path("pid")).exists());
    let (found, report) = outcomes(&place, &["--probe"], &config);
    assert_eq!(found, [(address, "no_such_socket".to_owned())], "{report}");
    let from = format!("where nginx runs, process {} as www-data", master.pid());
    assert_eq!(report["probed_from"], from.as_str());
    // With its workers.
    master.signal(Signal::SIGTERM);
    master.wait(wait::SOON);
}

#[test]
fn what_a_scheme_begins_with_tells_a_wrong_service_from_the_right_one() {
    if !skip::unless_installed("openssl") {
        return;
    }
    let place = Place::new();
    let [key, certificate] = ["key.pem", "cert.pem"].map(|name| place.path(name));
    let request =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"];
    run(Command::new("openssl").args(request).args(["/CN=x", "-keyout", &key, "-out", &certificate]));
    let services = place.write(
        "services.conf",
        &format!(
            "http {{ access_log off; ssl_certificate {certificate}; ssl_certificate_key {key};
             server {{ listen 127.0.0.1:9001; return 200; }} server {{ listen 127.0.0.1:9002 ssl; return 200; }}
             server {{ listen 127.0.0.1:9003 http2; return 200; }} }}"
        ),
    );
    let _nginx = place.netns().spawn(Command::new("nginx").args(["-c", &services, "-g", ALONE]));
    let (fastcgi, _silent) = place.netns().enter(|| {
        let listen = |address: &str| TcpListener::bind(address).expect("listen");
        (listen("127.0.0.1:9004"), listen("127.0.0.1:9005"))
    });
    thread::spawn(move || {
        for mut stream in fastcgi.incoming().flatten() {
            // FCGI_GET_VALUES_RESULT, to whatever is asked.
            let _ = stream.read(&mut [0; 64]).and_then(|_| stream.write_all(b"\x01\x0a\0\0\0\0\0\0"));
        }
    });
    wait::until_true("nginx runs", wait::SOON, || Path::new(&place.path("pid")).exists());

    let check = |location: &str, address: &str, expected: &str| {
        let text = format!("http {{ server {{ listen 127.0.0.1:8080; location / {{ {location} }} }} }}");
        let config = place.write("nginx.conf", &text);
        let (found, report) = outcomes(&place, &["--probe", "--probe-timeout", "1"], &config);
        assert_eq!(found, [(address.to_owned(), expected.to_owned())], "{location}: {report}");
        let (found, _) = outcomes(&place, &["--probe=connect"], &config);
        assert_eq!(found, [(address.to_owned(), "established".to_owned())], "{location}");
    };
    let address = |port: u16| format!("127.0.0.1:{port}");
    let services = [(9001, "HTTP"), (9002, "TLS"), (9003, "HTTP/2"), (9004, "FastCGI"), (9005, "nothing")];
    for (port, spoken) in services {
        let address = address(port);
        let of = |right: &str, silent: &'static str| match spoken {
            _ if spoken == right => "established",
            "nothing" => silent,
            _ => "wrong_service",
        };
        if spoken != "HTTP/2" {
            check(&format!("proxy_pass https://{address};"), &address, of("TLS", "no_response"));
        }
        if matches!(spoken, "HTTP" | "HTTP/2" | "nothing") {
            check(&format!("grpc_pass grpc://{address};"), &address, of("HTTP/2", "no_response"));
        }
        if matches!(spoken, "HTTP" | "FastCGI" | "nothing") {
            check(&format!("fastcgi_pass {address};"), &address, of("FastCGI", "established"));
        }
        check(&format!("proxy_pass http://{address};"), &address, "established");
    }
}
