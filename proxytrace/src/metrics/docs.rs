//! docs/metrics.md, made from the table; this test keeps it fresh.

use std::fmt::Write as _;

use proxytrace_ebpf::{
    abi::Loss,
    outcome::{Broken, Outcome},
};

use crate::{
    generated,
    identity::Source,
    kernel::tables::{TABLES, full_by},
    metrics::{metric::Kind, sizes, table::METRICS},
};

fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Made from `proxytrace/src/metrics/table.rs`; a test keeps it fresh (`PROXYTRACE_UPDATE_DOCS=1 cargo test -p \
         proxytrace docs` writes it anew).\n\n\
         `/metrics` serves the Prometheus text format 0.0.4, or OpenMetrics 1.0 to a client that prefers it.\n\n\
         | name | type | labels | what |\n|---|---|---|---|\n",
    );
    for metric in METRICS {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels = match (metric.kind, metric.labels) {
            // The last one, the address, only on request.
            (Kind::Histogram, [labels @ .., _]) | (_, labels) => labels.join(", "),
        };
        writeln!(page, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.help).unwrap();
    }
    let names =
        |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let causes = Outcome::ALL.into_iter().map(Outcome::name).skip(1).collect();
    let broken = Broken::ALL.into_iter().map(Broken::name).collect();
    let tables = TABLES.iter().map(|table| table.name).collect();
    let sources = names(Source::ALL.into_iter().map(Source::name).collect());
    write!(
        page,
        "\n## Labels\n\n\
         - `proxy`: in Kubernetes `namespace/pod/container`, else the systemd unit, else `container:` and 12 digits of the \
         container's id, else the process's name, with `@` and its user's id where that is not the host's root. Proxies that share a name \
         have `:` and the path of their configuration in it, at every start the same (`nginx:/etc/nginx/b.conf`).\n\
         - `name_source`, who says so: {sources}. Namespace and pod of `pod_claimed` are what files in the container say, so that \
         `@` and its id are in the name; `process` is what the process calls itself; with `option` it ended before it could be examined.\n\
         - `upstream`: the `upstream` block, or the host in `proxy_pass` and its kin; `undeclared` where the configuration names no \
         such address, `unknown` where it cannot be read or does not say (nginx.md).\n\
         - `address`: `10.0.0.5:8080`, `[2001:db8::5]:8080`, `unix:/run/app.sock`; `~other` sums the addresses above \
         `--max-addresses`; with the upstream `~other` too, those that a table in the kernel had no room for; \
         with the proxy `~other` as well, those of proxies that had no room for a sum of their own.\n\
         - `cause` of a failure: {}.\n\
         - `cause` of a broken connection: {}.\n\
         - `result` of a reload: `accepted`, `rejected`.\n\
         - `table`: {}.\n\
         - `why`: below.\n\n\
         For every series `attempts = established + failures of all causes + in flight`. Every cause is 0, not absent, \
         once an address is known; an address that is not declared and was not used for an hour goes away. What is \
         known of a proxy that has ended, its findings among it, goes away five to seven minutes later: after a last scrape, and \
         before churning pods use up `--max-addresses`. One of the same name that starts before that goes on with its series; later, \
         they begin at 0.\n",
        names(causes),
        names(broken),
        names(tables),
    )
    .unwrap();
    page.push_str(&sizes::section());
    page.push_str(
        "\n## What could not be followed\n\n\
         The values of `why` of `proxytrace_untracked_total`, whether the attempts are counted all the same, what each means, and the \
         option that helps. One proxy, or the proxies of one user, may hold only so much of a table, so that others have room: a \
         table need not be full.\n\n\
         | `why` | attempts counted | means | option |\n|---|---|---|---|\n",
    );
    for loss in Loss::ALL.into_iter().filter(|loss| *loss != Loss::RingFull) {
        let option =
            full_by(loss).map_or_else(String::new, |table| format!("`--table-size {}=N`", table.name));
        let (name, counted, effect) = (loss.name(), loss.counted().name(), loss.effect());
        writeln!(page, "| `{name}` | {counted} | {effect} | {option} |").unwrap();
    }
    page
}

#[test]
fn docs_are_fresh() {
    generated::check("metrics.md", |_| page());
    generated::check("install/sizing.md", |page| {
        let rows = page.split_once("<!-- rows -->\n").unwrap().1.split_once("<!-- end -->\n").unwrap().0;
        let page = generated::replaced(page, "rows", &sizes::with_series(rows));
        let page = generated::replaced(&page, "formula", &sizes::formula());
        generated::replaced(&page, "fleet", &sizes::fleet())
    });
    generated::check("install/README.md", |page| generated::replaced(page, "series", &sizes::short()));
}
