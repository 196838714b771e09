//! Grafana's dashboard: its types are Grafana's, and each of its queries has something to show of a real outage.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use proxytrace_tests::backend::{Backend, Manner};
use proxytrace_tests::child::{Captured, Guarded, as_pid};
use proxytrace_tests::nginx::{Nginx, server};
use proxytrace_tests::proxytrace::Agent;
use proxytrace_tests::stage::{Family, Stage};
use proxytrace_tests::{scratch, skip, wait};
use serde_json::Value;

use crate::prometheus::Prometheus;

#[test]
fn grafana_knows_every_option_of_the_dashboard() {
    // Where `cargo xtask setup` puts it.
    let types = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../setup/grafana-13.2.2");
    if !types.join("node_modules").exists() {
        return skip::skip("Grafana's types are not there: run `cargo xtask setup`");
    }
    // The text of the dashboard is a constant of its type, so that the compiler looks at each member.
    let source = |dashboard: &str| {
        format!("import type {{ Checked }} from './types';\nexport const dashboard: Checked = {dashboard};\n")
    };
    let said = compile(&types, &source(&text()));
    assert!(said.is_empty(), "{said}");
    let typo = text().replacen("\"fillOpacity\"", "\"fillOpacty\"", 1);
    let said = compile(&types, &source(&typo));
    assert!(said.contains("fillOpacty"), "a typo is found: {said}");
}

#[test]
fn a_data_source_is_chosen_and_nothing_else_has_to_be_given() {
    let (dashboard, text) = (dashboard(), text());
    assert!(!text.contains("${DS_") && dashboard.get("__inputs").is_none(), "an import asks for nothing");
    let first = &dashboard["templating"]["list"][0];
    assert_eq!((&first["name"], &first["type"]), (&"datasource".into(), &"datasource".into()));
    let mut ids: Vec<_> = panels(&dashboard).map(|panel| panel["id"].as_u64().expect("an id")).collect();
    let panels = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == panels && panels > 15, "{panels} panels, {} ids", ids.len());
}

#[test]
fn each_query_of_the_dashboard_has_something_to_show() {
    if !skip::unless_installed("prometheus") {
        return;
    }
    let stage = Stage::new(Family::V4);
    let address = |port| stage.upstream_address(port);
    let _good = Backend::start(&stage.upstream, &address(8080), Manner::AnswerAndClose);
    let _breaks = Backend::start(&stage.upstream, &address(8083), Manner::CloseUnanswered);
    stage.upstream.firewall("tcp dport 8082 drop;");
    let routes = |api: u16| {
        let upstream = |name, port| format!("upstream {name} {{ server {}; }}\n", address(port));
        let location = |path, name| {
            format!("location {path} {{ proxy_pass http://{name}; proxy_connect_timeout 2; }}\n")
        };
        [
            upstream("api", api),
            upstream("shop", 8082),
            upstream("search", 8083),
            server(
                &[location("/", "api"), location("/shop", "shop"), location("/search", "search")].concat(),
            ),
        ]
        .concat()
    };
    let nginx = Nginx::start(&stage.proxy, &routes(8080));
    let agent = Agent::start(&["--process", nginx.name()]);
    let prometheus = Prometheus::scraping(agent.port());
    prometheus.asks_until("proxytrace_workers", |series| !series.is_empty());

    // A reload that leads to nobody, one that is rejected, a worker that crashes.
    assert_eq!(nginx.get("/"), 200);
    nginx.reload(&routes(8081));
    nginx.configure("this is no configuration;");
    nginx.signal(Signal::SIGHUP);
    nginx.says("unknown directive");
    kill(as_pid(nginx.worker_pids()[0]), Signal::SIGKILL).expect("end a worker");

    // Clients of a host that does not answer wait.
    let mut waiting = Vec::new();
    for (place, query) in queries(&dashboard()) {
        let shown = wait::within(wait::SOON * 3, || {
            waiting.push(nginx.begin("/shop"));
            assert_eq!([nginx.get("/"), nginx.get("/search")], [502, 502]);
            prometheus.result(&query).filter(|result| !result.is_empty())
        });
        assert!(shown.is_some(), "{place} shows nothing, or this is no query: {query}");
    }
    agent.stop();
}

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/grafana/dashboard.json");
    fs::read_to_string(path).expect("read the dashboard")
}

fn dashboard() -> Value {
    serde_json::from_str(&text()).expect("a dashboard is JSON")
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().expect("panels").iter()
}

/// Where each query stands, and the query as Grafana asks it. Annotations come first: what they are of is over soon.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let named = |what: &str, of: &Value, name: &str| format!("{what} {}", of[name].as_str().expect("a name"));
    let list = |of: &'static str| dashboard[of]["list"].as_array().expect("a list").iter();
    let annotations = list("annotations").filter(|annotation| annotation.get("builtIn").is_none());
    let annotations =
        annotations.map(|annotation| (named("annotation", annotation, "name"), &annotation["expr"]));
    let panels = panels(dashboard).filter(|panel| panel["type"] != "row").flat_map(|panel| {
        let targets = panel["targets"].as_array().expect("queries of a panel").iter();
        targets.map(|target| (named("panel", panel, "title"), &target["expr"]))
    });
    let asked = annotations
        .chain(panels)
        .map(|(place, expr)| (place, chosen(expr.as_str().expect("a query"))))
        .collect::<Vec<_>>();
    let variables = list("templating").filter(|variable| variable["type"] == "query");
    let variables = variables.map(|variable| {
        let query = variable["query"]["query"].as_str().expect("a query of a variable");
        let parts = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = parts.and_then(|parts| parts.rsplit_once(", ")).expect("label_values");
        (named("variable", variable, "name"), format!("count by ({label}) ({})", chosen(metric)))
    });
    let all: Vec<_> = asked.into_iter().chain(variables).collect();
    assert!(all.len() > 25, "{all:?}");
    all
}

/// A query after everything was chosen for each variable.
fn chosen(query: &str) -> String {
    let mut query = query.replace("$__rate_interval", "5m");
    for variable in ["job", "instance", "proxy", "upstream"] {
        query = query.replace(&format!("${variable}"), ".*");
    }
    assert!(!query.contains('$'), "a variable that nobody knows: {query}");
    query
}

/// What the compiler says of a file beside the types; nothing where all is well.
fn compile(types: &Path, source: &str) -> String {
    let directory = scratch::directory();
    let file = |name: &str| directory.path().join(name);
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana");
    for name in ["types.ts", "tsconfig.json"] {
        fs::copy(ours.join(name), file(name)).expect("copy our types");
    }
    fs::write(file("dashboard.ts"), source).expect("write what is compiled");
    symlink(types.join("node_modules"), file("node_modules")).expect("link Grafana's types");
    let mut command = Command::new("node");
    command.arg(types.join("node_modules/typescript/bin/tsc")).arg("--project").arg(file("tsconfig.json"));
    let mut compiler = Guarded::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut stdout = Captured::from(compiler.inner().stdout.take().expect("a pipe"));
    let mut stderr = Captured::from(compiler.inner().stderr.take().expect("a pipe"));
    let status = compiler.wait(wait::SOON * 6);
    let said = stdout.whole() + &stderr.whole();
    assert_eq!(status.success(), said.is_empty(), "{status}: {said}");
    said
}
