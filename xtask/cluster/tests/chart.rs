//! The manifests for Kubernetes: what Helm makes of the chart is what is written down, valid for each version, and as wise as it can be.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask_cluster::Tools;
use xtask_tools::cargo;

/// Whether files are to be written instead of compared.
const UPDATE: &str = "PROXYTRACE_UPDATE_DOCS";

/// How to have them written.
const HOW: &str = "PROXYTRACE_UPDATE_DOCS=1 cargo test -p xtask-cluster --test chart";

/// The kinds of the Prometheus Operator.
const OPERATOR: &[&str] = &["monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule"];

/// The versions that there are schemas of.
const VERSIONS: &[&str] =
    &["1.25", "1.26", "1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"];

/// The first version in which AppArmor is a field.
const WITH_FIELD: &str = "1.30";

/// A set of values, beside which there is what becomes of it.
struct Case {
    name: &'static str,
    /// The version that Helm takes the cluster for; what comes out has to be valid in each from here on, or before the field.
    version: &'static str,
    apis: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case { name: "before-1.30", version: "1.25", apis: &[] },
    Case { name: "prometheus-operator", version: "1.30", apis: OPERATOR },
    Case { name: "tls", version: "1.30", apis: OPERATOR },
    Case { name: "all-set", version: "1.30", apis: OPERATOR },
    Case { name: "all-off", version: "1.30", apis: OPERATOR },
];

fn tools() -> Tools {
    Tools::below(Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap())
}

fn kubernetes() -> PathBuf {
    cargo::root().join("deploy/kubernetes")
}

/// Runs a program for what it prints; it has to succeed.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}: cargo xtask setup"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What comes before each document that Helm makes.
const SOURCE: &str = "---\n# Source: proxytrace/templates/";

/// What Helm makes of the chart, by the names of the templates and the namespace first: its own order changes from call to call.
fn rendered(version: &str, apis: &[&str], more: &[&str]) -> String {
    let mut helm = tools().helm();
    helm.args(["template", "proxytrace"]).arg(kubernetes().join("chart"));
    helm.args(["--namespace", "proxytrace", "--kube-version", version]);
    helm.args(apis.iter().flat_map(|api| ["--api-versions", api])).args(more);
    let text = output(&mut helm);
    let mut documents: Vec<_> = text.split(SOURCE).skip(1).map(str::trim_end).collect();
    documents.sort_by_key(|document| (!document.starts_with("namespace.yaml"), *document));
    let lines = documents.iter().flat_map(|document| {
        format!("{SOURCE}{document}").lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    });
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

fn of_case(case: &Case) -> String {
    let values = kubernetes().join("tests").join(format!("{}.values.yaml", case.name));
    rendered(case.version, case.apis, &["--values", values.to_str().unwrap()])
}

/// The documents among those that Helm has made of these templates, as for somebody who has no Helm.
fn without_helm(rendered: &str, is_wanted: impl Fn(&str) -> bool) -> String {
    let documents = rendered.split(SOURCE).skip(1);
    let wanted = documents
        .filter_map(|document| document.split_once('\n').filter(|(template, _)| is_wanted(template)));
    let mut text = format!("# Made from the chart: {HOW}\n");
    for (_, document) in wanted {
        text += "---\n";
        for line in document.trim_end().lines() {
            if !line.contains("app.kubernetes.io/managed-by: Helm") && !line.contains("helm.sh/chart: ") {
                text += line;
                text += "\n";
            }
        }
    }
    text
}

/// Compares a file with what it has to be, or writes it.
#[track_caller]
fn check(path: &Path, fresh: &str) {
    if std::env::var_os(UPDATE).is_some() {
        fs::write(path, fresh).unwrap();
        return;
    }
    let written = fs::read_to_string(path).unwrap_or_default();
    if written != fresh {
        let line = written.lines().zip(fresh.lines()).position(|(written, fresh)| written != fresh);
        panic!("{} is stale from line {}: {HOW}", path.display(), line.unwrap_or_default() + 1);
    }
}

fn is_for_operator(template: &str) -> bool {
    ["podmonitor.yaml", "prometheusrule.yaml"].contains(&template)
}

#[test]
fn the_rules_and_the_dashboard_in_the_chart_are_those_of_deploy() {
    let deploy = cargo::root().join("deploy");
    let files = kubernetes().join("chart/files");
    let rules = deploy.join("prometheus/rules");
    let mut names: Vec<_> = fs::read_dir(&rules).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in &names {
        check(&files.join("rules").join(name), &fs::read_to_string(rules.join(name)).unwrap());
    }
    let mut copied: Vec<_> =
        fs::read_dir(files.join("rules")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    copied.sort();
    assert_eq!(copied, names, "the chart has rules that deploy/prometheus has not");
    check(&files.join("dashboard.json"), &fs::read_to_string(deploy.join("grafana/dashboard.json")).unwrap());
}

#[test]
fn the_base_for_kustomize_is_made_from_the_chart() {
    let all = rendered("1.37", OPERATOR, &["--set", "namespace.create=true"]);
    check(
        &kubernetes().join("base/proxytrace.yaml"),
        &without_helm(&all, |template| !is_for_operator(template)),
    );
    check(&kubernetes().join("prometheus-operator/proxytrace.yaml"), &without_helm(&all, is_for_operator));
}

#[test]
fn each_set_of_values_gives_what_is_written_down() {
    for case in CASES {
        check(&kubernetes().join("tests").join(format!("{}.golden.yaml", case.name)), &of_case(case));
    }
}

#[test]
fn helm_has_nothing_to_say_of_the_chart() {
    let printed =
        output(tools().helm().args(["lint", "--strict", "--quiet"]).arg(kubernetes().join("chart")));
    assert!(!printed.contains("[WARNING]") && !printed.contains("[ERROR]"), "{printed}");
}

#[test]
fn values_that_cannot_be_are_refused() {
    for (value, expected) in [
        ("nosuch=1", "additional properties 'nosuch' not allowed"),
        ("agent.port=80", "at '/agent/port': minimum"),
        ("agent.extraArgs={--listen=:80}", "at '/agent/extraArgs/0'"),
        ("agent.env[0].name=A,agent.env[0].value=1", "at '/agent/env/0/value': got number"),
        ("fullnameOverride=Edge_Tracer", "at '/fullnameOverride'"),
        (r"podLabels.app\.kubernetes\.io/name=x", "at '/podLabels/app.kubernetes.io~1name'"),
        (
            r"dashboard.labels.app\.kubernetes\.io/instance=x",
            "at '/dashboard/labels/app.kubernetes.io~1instance'",
        ),
        (r"podMonitor.labels.helm\.sh/chart=x", "at '/podMonitor/labels/helm.sh~1chart'"),
        (r"prometheusRule.labels.helm\.sh/chart=x", "at '/prometheusRule/labels/helm.sh~1chart'"),
        ("podAnnotations.checksum/config=x", "at '/podAnnotations/checksum~1config'"),
        ("web.tls=true", "at '/web/secretName'"),
        ("web.secretName=web,web.clientCertificates=true", "at '/web/tls'"),
        ("updateStrategy.maxUnavailable=0", "at '/updateStrategy/maxUnavailable'"),
        ("image.digest=sha256:12", "at '/image/digest'"),
    ] {
        let mut helm = tools().helm();
        let output =
            helm.args(["template", "x", "--set", value]).arg(kubernetes().join("chart")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(expected), "{value}: {said}");
    }
    // What a chart that this one is a part of hands down.
    rendered("1.37", &[], &["--set", "global.region=x,enabled=true"]);
}

/// What a pod reads is what was given, whatever it begins with, but for empty lines at its end.
#[test]
fn a_configuration_comes_through_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    for text in [
        "  max-addresses = 5\nquiet = true\n",
        "\n\tquiet = true\n",
        "quiet = true",
        "quiet = true\r\n",
        "# {{ a }}\n\n",
    ] {
        fs::write(&path, text).unwrap();
        let mut helm = tools().helm();
        helm.args(["template", "proxytrace", "--show-only", "templates/config.yaml"]);
        helm.arg("--set-file").arg(format!("agent.config={}", path.display()));
        let rendered = output(helm.arg(kubernetes().join("chart")));
        let mut python = tools().validate_python();
        python.arg("-c").arg(
            "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.argv[1])['data']['agent.toml']))",
        );
        let read: String = serde_json::from_str(&output(python.arg(&rendered))).unwrap();
        assert_eq!(read.trim_end_matches('\n'), text.trim_end_matches('\n'));
    }
}

/// What an agent is called by is what the rules and the dashboard count hosts by.
#[test]
fn relabelings_come_after_that_which_calls_an_agent_by_its_node() {
    let more = "podMonitor.endpoint.relabelings[0].targetLabel=cluster,podMonitor.endpoint.relabelings[0].replacement=eu";
    let all = rendered("1.37", OPERATOR, &["--set", more]);
    let at = |text: &str| all.find(text).unwrap_or_else(|| panic!("{text} is missing"));
    assert!(at("targetLabel: instance") < at("targetLabel: cluster"));
    // An operator takes no timeout that is longer than the interval.
    assert!(!rendered("1.37", OPERATOR, &["--set", "podMonitor.interval=5s"]).contains("scrapeTimeout:"));
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart = fs::read_to_string(kubernetes().join("chart/Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        chart.contains(&format!("\nversion: {version}\nappVersion: {version}\n")),
        "Chart.yaml is not of {version}"
    );
}

#[test]
fn manifests_are_valid_for_each_version_that_they_are_for() {
    let directory = tempfile::tempdir().unwrap();
    let kustomized = |name: &str| {
        let path = directory.path().join(format!("{name}.yaml"));
        let top = directory.path().join(name);
        fs::create_dir(&top).unwrap();
        let relative = format!(
            "{}{}",
            "../".repeat(top.components().count() - 1),
            kubernetes().strip_prefix("/").unwrap().display()
        );
        let components =
            if name == "base" { String::new() } else { format!("components: [{relative}/{name}]\n") };
        fs::write(top.join("kustomization.yaml"), format!("resources: [{relative}/base]\n{components}"))
            .unwrap();
        fs::write(&path, output(tools().kubectl().arg("kustomize").arg(&top))).unwrap();
        path
    };
    let [base, before, operator] = ["base", "before-1.30", "prometheus-operator"].map(kustomized);
    for version in VERSIONS {
        let is_before = *version < WITH_FIELD;
        let mut files = if is_before { vec![before.clone()] } else { vec![base.clone(), operator.clone()] };
        for case in CASES.iter().filter(|case| (case.version < WITH_FIELD) == is_before) {
            files.push(kubernetes().join("tests").join(format!("{}.golden.yaml", case.name)));
        }
        let mut validate = tools().validate();
        let printed = output(validate.args(["--strict", "-k", &format!("{version}.0")]).args(&files));
        let passed = printed.lines().filter(|line| line.contains("passed for resource daemonset/")).count();
        assert_eq!(passed, files.len(), "{version}: {printed}");
    }
    // It looks: the field is not there before.
    let mut validate = tools().validate();
    let output = validate.args(["--strict", "-k", "1.29.0"]).arg(&base).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("'appArmorProfile' was unexpected"));
}

#[test]
fn what_the_prometheus_operator_gets_is_what_it_defines() {
    let check = |manifests: &[PathBuf]| {
        let mut python = tools().validate_python();
        python
            .arg(cargo::root().join("xtask/cluster/tests/definitions.py"))
            .arg(kubernetes().join("tests/crds"))
            .args(manifests);
        python.output().unwrap()
    };
    let golden = |name: &str| kubernetes().join("tests").join(format!("{name}.golden.yaml"));
    let ours = [
        kubernetes().join("prometheus-operator/proxytrace.yaml"),
        golden("prometheus-operator"),
        golden("tls"),
    ];
    let checked = check(&ours);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    assert_eq!(
        (said.matches("PodMonitor").count(), said.matches("PrometheusRule").count()),
        (3, 2),
        "{said}"
    );

    // It looks: a field that there is not, and a wrong type.
    let directory = tempfile::tempdir().unwrap();
    for (right, wrong) in [("jobLabel:", "jobLable:"), ("interval: 15s", "interval: 15")] {
        let path = directory.path().join("wrong.yaml");
        fs::write(&path, fs::read_to_string(&ours[0]).unwrap().replacen(right, wrong, 1)).unwrap();
        assert!(!check(&[path]).status.success(), "{wrong} is not found");
    }
}

#[test]
fn what_checkov_finds_unwise_has_its_reason() {
    let exceptions = kubernetes().join("tests/checkov.yaml");
    let mut checkov = tools().checkov();
    checkov
        .args(["--framework", "kubernetes", "--quiet", "--compact", "--skip-download", "--config-file"])
        .arg(&exceptions);
    output(checkov.arg("--file").arg(kubernetes().join("base/proxytrace.yaml")));
}
